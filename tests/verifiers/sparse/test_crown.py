"""The sparse engine's bounds hold in real arithmetic, at every neuron, and are CROWN's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.soundness import networks as small
from tests.verifiers import onnxnets
from verifiers.sparse.affine import dense
from verifiers.sparse.crown import METHODS, Bounds, Engine, Method, Question
from verifiers.sparse.network import Network, Node, Term, read_network

Array = npt.NDArray[np.float64]

MAKERS: dict[str, Callable[[Path, int, float], Path]] = {
    "connected": lambda path, seed, _: onnxnets.connected(path, seed=seed),
    "residual": lambda path, seed, sparsity: onnxnets.residual(path, seed=seed, sparsity=sparsity),
    "convolutional": lambda path, seed, sparsity: onnxnets.convolutional(path, seed=seed, sparsity=sparsity),
    "block": lambda path, seed, sparsity: small.residual_conv("net", np.random.default_rng(seed), sparsity).save(path),
    "dead": lambda path, seed, _: small.dead_units("net", np.random.default_rng(seed)).save(path),
    "tied": lambda path, seed, _: small.tied("net", np.random.default_rng(seed)).save(path),
}


def question(network: Network, eps: float, seed: int, rows: int = 4) -> Question:
    rng = np.random.default_rng(seed)
    image = rng.random(network.input_shape)
    outputs = network.nodes[-1].size
    return Question(
        np.clip(image - eps, 0, 1).astype(np.float32),
        np.clip(image + eps, 0, 1).astype(np.float32),
        rng.standard_normal((rows, outputs)),
        rng.standard_normal(rows),
    )


def points(asked: Question, count: int, seed: int) -> Array:
    """Returns points of the box: corners, and any."""
    rng = np.random.default_rng(seed)
    low, high = asked.lower.astype(np.float64), asked.upper.astype(np.float64)
    share = rng.random((count, *low.shape))
    share[::2] = np.round(share[::2])
    return np.clip(low + share * (high - low), low, high)


def assert_contained(network: Network, asked: Question, found: Bounds, x: Array) -> None:
    values = network.forward(x)
    for index, low in found.lower.items():
        # The values are computed in float64: some 1e-16 of the sums behind them.
        slack = 1e-12 * (1 + np.abs(values[index]).max())
        assert np.all(values[index] >= low - slack)
        assert np.all(values[index] <= found.upper[index] + slack)
    rows = values[-1] @ asked.matrix.T - asked.offsets
    assert np.all(rows >= found.rows - 1e-12 * (1 + np.abs(rows).max()))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(MAKERS)),
    seed=st.integers(0, 2**20),
    eps=st.one_of(st.just(0.0), st.floats(1e-4, 0.5)),
    sparsity=st.sampled_from((0.0, 0.5, 0.9, 0.98)),
)
def test_bounds_contain_what_the_network_computes(
    name: str, seed: int, eps: float, sparsity: float, tmp_path: Path
) -> None:
    network = read_network(MAKERS[name](tmp_path / "net.onnx", seed, sparsity))
    engine = Engine(network, threads=1)
    asked = question(network, eps, seed)
    x = points(asked, 200, seed)
    found = {method: engine.bound(asked, method) for method in METHODS}
    for bounds in found.values():
        assert_contained(network, asked, bounds, x)
    # Each is at least as tight as the one before.
    assert np.all(found["crown-ibp"].rows >= found["ibp"].rows)
    assert found["crown"].unstable <= found["ibp"].unstable
    for index, low in found["ibp"].lower.items():
        # Intervals of smaller intervals are smaller but for the last bits.
        slack = 1e-12 * (1 + np.abs(low).max() + np.abs(found["ibp"].upper[index]).max())
        assert np.all(found["crown"].lower[index] >= low - slack)
        assert np.all(found["crown"].upper[index] <= found["ibp"].upper[index] + slack)


def chain(sizes: tuple[int, ...], seed: int, sparsity: float = 0.0) -> Network:
    """A fully connected network whose weights spread over many magnitudes."""
    rng = np.random.default_rng(seed)
    zeros = np.zeros(sizes[0], dtype=np.float32)
    nodes = [Node("input", sizes[0], (sizes[0],), (), zeros, zeros)]
    for index, (n, m) in enumerate(itertools.pairwise(sizes)):
        weight = rng.standard_normal((m, n)) * np.exp(rng.standard_normal((m, n))) / np.sqrt(n)
        weight[rng.random((m, n)) < sparsity] = 0
        term = Term(index, index > 0, dense(weight.astype(np.float32)))
        bias = rng.standard_normal(m).astype(np.float32)
        nodes.append(Node(f"layer {index}", m, (m,), (term,), bias, np.zeros(m, dtype=np.float32)))
    return Network("chain", (sizes[0],), tuple(nodes))


def rational(network: Network, asked: Question, bounds: Bounds, row: dict[int, Fraction], node: int) -> Fraction:
    """Bounds a linear function of a node's values from below by CROWN, in rational arithmetic.

    Args:
        network: A chain.
        asked: Whose box.
        bounds: Whose hidden bounds make the planes.
        row: Coefficients by neuron.
        node: Of which node.
    """
    constant = Fraction(0)
    for index in range(node, 0, -1):
        layer = network.nodes[index]
        (term,) = layer.terms
        before: dict[int, Fraction] = {}
        for i, value in row.items():
            constant += value * Fraction(float(layer.bias[i]))
            for k in range(term.matrix.indptr[i], term.matrix.indptr[i + 1]):
                j = int(term.matrix.indices[k])
                before[j] = before.get(j, Fraction(0)) + value * Fraction(float(term.matrix.data[k]))
        row = before if not term.activated else {}
        for j, value in before.items() if term.activated else ():
            low, high = Fraction(float(bounds.lower[index - 1][j])), Fraction(float(bounds.upper[index - 1][j]))
            if high <= 0:
                continue
            slope, shift = Fraction(1), Fraction(0)
            if low < 0 and value < 0:
                slope = Fraction(float(np.float32(float(high) / (float(high) - float(low)))))
                below, above = -slope * low, high - slope * high
                shift = below if below > above else above
            elif low < 0:
                slope = Fraction(int(high > -low))
            constant += value * shift
            row[j] = value * slope
    low_corner, high_corner = asked.lower.reshape(-1), asked.upper.reshape(-1)
    return constant + sum(
        (value * Fraction(float((low_corner if value > 0 else high_corner)[j])) for j, value in row.items()),
        Fraction(0),
    )


def room(size: Fraction) -> Fraction:
    """Returns how far below the exact bound one may be."""
    return Fraction(3, 10**5) * (size if size > 1 else 1)


@pytest.mark.parametrize(("sizes", "seed", "sparsity"), [((6, 9, 8, 7, 4), 2, 0.0), ((5, 20, 20, 12, 4), 1, 0.6)])
@pytest.mark.parametrize("eps", [0.0, 0.001, 0.3])
def test_no_bound_is_above_the_exact_one(sizes: tuple[int, ...], seed: int, sparsity: float, eps: float) -> None:
    """Against CROWN over the same planes in rational arithmetic: never above it, and never far below."""
    network = chain(sizes, seed, sparsity)
    asked = question(network, eps, seed)
    bounds = Engine(network, threads=1, intersect=False).bound(asked)
    compared = 0
    for node in range(2, len(network.nodes) - 1):
        for i in range(network.nodes[node].size):
            if not bounds.lower[node][i] < 0 < bounds.upper[node][i]:
                continue
            low = rational(network, asked, bounds, {i: Fraction(1)}, node)
            high = -rational(network, asked, bounds, {i: Fraction(-1)}, node)
            assert low - room(high - low) <= Fraction(float(bounds.lower[node][i])) <= low
            assert high <= Fraction(float(bounds.upper[node][i])) <= high + room(high - low)
            compared += 2
    assert compared or eps < 0.3
    last = len(network.nodes) - 1
    for k, coefficients in enumerate(asked.matrix):
        row = {i: Fraction(float(value)) for i, value in enumerate(coefficients)}
        exact = rational(network, asked, bounds, row, last) - Fraction(float(asked.offsets[k]))
        assert exact - room(abs(exact)) <= Fraction(float(bounds.rows[k])) <= exact


def halves() -> tuple[Network, Question, Fraction]:
    """A network whose output float32 arithmetic gets wrong: y = h1 + 2**-24 h2, x in [-1, 1].

    h1 = relu(x + 2) and h2 = relu(x + 4). Both ReLUs are active, and the coefficient of x, 1 + 2**-24, is 1 in float32.
    """
    first = Term(0, False, dense(np.array([[1.0], [1.0]], dtype=np.float32)))
    second = Term(1, True, dense(np.array([[1.0, 2.0**-24]], dtype=np.float32)))
    none = np.zeros(2, dtype=np.float32)
    nodes = (
        Node("x", 1, (1,), (), none[:1], none[:1]),
        Node("h", 2, (2,), (first,), np.array([2.0, 4.0], dtype=np.float32), none),
        Node("y", 1, (1,), (second,), none[:1], none[:1]),
    )
    asked = Question(-np.ones(1, dtype=np.float32), np.ones(1, dtype=np.float32), np.ones((1, 1)), np.zeros(1))
    return Network("halves", (1,), nodes), asked, 1 + Fraction(3, 2**24)


def test_rounding_to_nearest_would_prove_what_is_false() -> None:
    network, asked, exact = halves()
    one, small_number = np.float32(1), np.float32(2.0**-24)
    slope, shift = one + small_number, np.float32(2) + small_number * np.float32(4)
    naive = float(shift - slope)
    assert Fraction(naive) > exact
    for method in METHODS:
        (bound,) = Engine(network, threads=1).bound(asked, method).rows
        assert Fraction(float(bound)) <= exact
        assert bound == pytest.approx(1, abs=1e-5)
    # The property "y is above the naive bound" is false, by a hair.
    false = Question(asked.lower, asked.upper, asked.matrix, np.array([naive]))
    assert all(Engine(network, threads=1).bound(false, method).rows[0] <= 0 for method in METHODS)


@pytest.mark.parametrize("sparsity", [0.5, 0.97])
@pytest.mark.parametrize("method", METHODS)
def test_threads_and_batches_change_nothing(method: Method, sparsity: float, tmp_path: Path) -> None:
    network = read_network(onnxnets.residual(tmp_path / "net.onnx", seed=1, sparsity=sparsity, shape=(3, 12, 12)))
    asked = [question(network, 0.01 * (1 + seed), seed) for seed in range(5)]
    alone = [Engine(network, threads=1).bound(item, method) for item in asked]
    engine = Engine(network, threads=2)
    for results in (engine.bound_many(asked, method), [engine.bound(item, method) for item in asked]):
        for first, second in zip(alone, results, strict=True):
            np.testing.assert_array_equal(first.rows, second.rows)
            assert first.unstable == second.unstable


def test_more_rows_than_a_block_holds(tmp_path: Path) -> None:
    network = read_network(onnxnets.convolutional(tmp_path / "net.onnx", seed=2))
    asked = question(network, 0.02, 0, rows=75)
    engine = Engine(network, threads=1)
    together = engine.bound(asked, "crown").rows
    for k in range(75):
        one = Question(asked.lower, asked.upper, asked.matrix[k : k + 1], asked.offsets[k : k + 1])
        (alone,) = engine.bound(one, "crown").rows
        # Rows that intervals prove keep the interval's bound in a large specification.
        assert together[k] == pytest.approx(alone, abs=1e-12) or 0 < together[k] <= alone


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_overflow_and_underflow_prove_nothing_false(scale: float) -> None:
    network = chain((4, 30, 30, 30, 3), 3)
    nodes = [
        Node(
            node.name,
            node.size,
            node.shape,
            tuple(Term(t.source, t.activated, (t.matrix * np.float32(scale)).astype(np.float32)) for t in node.terms),
            node.bias,
            node.bias_error,
        )
        for node in network.nodes
    ]
    scaled = Network("scaled", (4,), tuple(nodes))
    asked = question(scaled, 0.3, 0)
    x = points(asked, 500, 0)
    for method in METHODS:
        found = Engine(scaled, threads=1).bound(asked, method)
        assert_contained(scaled, asked, found, x)
        assert not np.isnan(found.rows).any()


def test_a_box_of_another_size_is_refused(tmp_path: Path) -> None:
    engine = Engine(read_network(onnxnets.connected(tmp_path / "net.onnx")), threads=1)
    with pytest.raises(ValueError, match="12"):
        engine.bound(Question(np.zeros(5), np.ones(5), np.eye(10), np.zeros(10)))
