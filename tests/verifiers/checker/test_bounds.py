from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.checker.bounds import Bounds
from prunecert.verifiers.checker.files import RefusedError
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.checker.nodes import Network, Node, dense
from prunecert.verifiers.checker.witness import _exactly
from tests.verifiers.checker import kit


def bounded(network: Network, low: np.ndarray, high: np.ndarray) -> Bounds:
    bounds = Bounds(network.nodes, low, high)
    for _ in network.nodes[1:]:
        bounds.add()
    return bounds


def fractions(node: Node, matrix: np.ndarray, x: list[Fraction]) -> list[Fraction]:
    return [
        sum((Fraction(float(w)) * v for w, v in zip(row, x, strict=True)), Fraction(float(b)))
        for row, b in zip(matrix, node.bias, strict=True)
    ]


def rational_values(network: Network, point: np.ndarray) -> list[list[Fraction]]:
    """Returns the values of all nodes of a network of matrices."""
    values = [[Fraction(float(v)) for v in point]]
    for node in network.nodes[1:]:
        source = values[node.sources[0]]
        values.append([max(v, Fraction()) for v in source] if node.relu else fractions(node, node.weights[0], source))
    return values


def evaluated(network: Network, points: np.ndarray) -> list[np.ndarray]:
    """Returns about those of a chain of nodes, [points, size] each."""
    values = [points]
    for node in network.nodes[1:]:
        values.append(np.maximum(values[-1], 0) if node.relu else node.forward([values[-1]], np.asarray) + node.bias)
    return values


def random_network(rng: np.random.Generator, spread: float) -> Network:
    """Draws layers whose weights differ by many orders of magnitude, so that rounding is felt."""
    sizes = [3, 6, 5, 2]
    nodes: list[Node] = [Node([], [3], [])]
    for inputs, outputs in pairwise(sizes):
        scale = 10.0 ** rng.uniform(-spread, spread, (outputs, inputs))
        weights = (rng.standard_normal((outputs, inputs)) * scale).astype(np.float32)
        nodes.append(dense(len(nodes) - 1, weights, rng.standard_normal(outputs).astype(np.float32)))
        if outputs != 2:
            nodes.append(Node([len(nodes) - 1], [outputs], [], relu=True))
    return Network(nodes, [1, 3], 5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 3.0, 8.0]))
def test_bounds_hold_in_rational_arithmetic(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(rng, spread)
    middle, radius = rng.standard_normal(3), 10.0 ** rng.uniform(-9, 0)
    low, high = middle - radius, middle + radius
    bounds = bounded(network, low, high)
    rows = rng.standard_normal((4, 2))
    stops = {stop: bounds.below(5, rows, stop) for stop in (0, 1, 2, 4, 9)}
    for point in kit.points(rng, low, high, 8):
        values = rational_values(network, np.clip(point, low, high))
        for at, value in enumerate(values):
            for number, v in enumerate(value):
                assert Fraction(float(bounds.lower[at][number])) <= v <= Fraction(float(bounds.upper[at][number]))
        for stop, least in stops.items():
            for row, bound in zip(rows, least, strict=True):
                exact = sum((Fraction(float(w)) * v for w, v in zip(row, values[-1], strict=True)), Fraction())
                assert not np.isfinite(bound) or Fraction(float(bound)) <= exact, stop


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_slopes_and_multipliers_of_any_kind_keep_bounds_true(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(rng, 0.0)
    low, high = -np.ones(3), np.ones(3)
    bounds = bounded(network, low, high)
    bounds.slots = {1: (0, np.array([0, 3, 5])), 3: (3, np.array([1, 4]))}
    rows, slopes = rng.standard_normal((40, 2)), rng.random((40, 5))
    # Each row's part is where some neurons have the signs that one point gives them.
    points = kit.points(rng, low, high, 40)
    values = evaluated(network, points)
    splits = {}
    for site in network.sites:
        row, neuron = rng.integers(40, size=30), rng.integers(network.nodes[site].size, size=30)
        sign = np.where(values[site][row, neuron] >= 0, 1, -1)
        splits[site] = np.zeros((2, network.nodes[site].size, 40))
        splits[site][:, neuron, row] = sign, 10.0 ** rng.uniform(-3, 2, 30)
    least = bounds.below(5, rows, 0, slopes, splits)
    assert np.all(least <= (rows * values[-1]).sum(axis=1) + 1e-12)
    boxed = bounds.below(5, rows, 0, slopes, splits, (np.minimum(points, 0.9), points))
    assert np.all(boxed <= (rows * values[-1]).sum(axis=1) + 1e-12)


def test_a_walk_finds_the_same_alone_and_with_others() -> None:
    """What is gone through depends on all rows of a batch; what comes out of it does not."""
    files = kit.questions("conv-skip")[3]
    network = read_network(files.onnx.read_bytes())
    low, high = (ends.astype(np.float64) for ends in (files.question.lower, files.question.upper))
    bounds = bounded(network, low, high)
    for at in (*network.sites, network.output):
        rows = np.eye(network.nodes[at].size)
        alone = np.concatenate([bounds.below(at, row[None], 0) for row in rows])
        np.testing.assert_allclose(bounds.below(at, rows, 0), alone, rtol=1e-9, atol=1e-12)


def test_a_multiplier_counts_where_no_row_reaches_its_neuron() -> None:
    """With rows of 0 the splits alone are walked from, be their neuron 0 all over the box (Farkas)."""
    nodes: list[Node] = [Node([], [1], []), dense(0, np.array([[1.0], [-1.0]]), np.array([-2.0, 3.0]))]
    nodes += [Node([1], [2], [], relu=True), dense(2, np.eye(2), np.zeros(2))]
    bounds = bounded(Network(nodes, [1], 3), np.zeros(1), np.ones(1))
    # z = x - 2 <= -1 and z' = 3 - x >= 2: their sides z >= 0 and z' <= 0 are empty.
    for neuron, sign, least in ((0, 1, 1.0), (1, -1, 2.0), (0, -1, -2.0), (1, 1, -3.0)):
        splits = {1: np.zeros((2, 2, 1))}
        splits[1][:, neuron, 0] = sign, 1.0
        assert bounds.below(3, np.zeros((1, 2)), 0, None, splits)[0] == pytest.approx(least, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["conv-skip", "conv", "fc-dead-units"])
def test_at_a_point_bounds_are_close_to_the_exact_value_and_below_it(family: str) -> None:
    files = kit.questions(family)[0]
    network = read_network(files.onnx.read_bytes())
    x = files.question.lower
    ends = _exactly(network, x)
    assert ends is not None
    exact, _ = ends
    bounds = bounded(network, x.astype(np.float64), x.astype(np.float64))
    size = network.nodes[network.output].size
    least = bounds.below(network.output, np.eye(size), 0)
    np.testing.assert_allclose(least, [float(v) for v in exact], atol=1e-12)
    assert all(Fraction(float(bound)) < v for bound, v in zip(least, exact, strict=True))
    np.testing.assert_allclose(
        [float(v) for v in exact], files.question.net.evaluate(x.astype(np.float64)[None])[0], atol=1e-12
    )


def test_what_overflows_is_refused_or_proves_nothing() -> None:
    nodes: list[Node] = [Node([], [1], []), dense(0, np.full((1, 1), 3e38, dtype=np.float32), np.zeros(1))]
    nodes.append(Node([1], [1], [], relu=True))
    nodes.append(dense(2, np.full((1, 1), 3e38, dtype=np.float32), np.zeros(1)))
    with np.errstate(all="ignore"), pytest.raises(RefusedError, match="not bounded"):
        bounded(Network(nodes, [1], 3), np.array([-1.0]), np.array([1.0]))
    one = bounded(Network(nodes[:2], [], 1), np.array([-1.0]), np.array([1.0]))
    with np.errstate(all="ignore"):
        for row in (1e70, np.inf, np.nan):
            assert one.below(1, np.array([[row]]), 0).tolist() == [-np.inf]


def test_nan_in_a_box_is_refused() -> None:
    nodes: list[Node] = [Node([], [1], []), dense(0, np.ones((1, 1), dtype=np.float32), np.zeros(1))]
    with pytest.raises(RefusedError, match="not bounded"):
        bounded(Network(nodes, [], 1), np.array([np.nan]), np.array([1.0]))
