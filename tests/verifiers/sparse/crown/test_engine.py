"""The sparse engine's bounds hold in real arithmetic, at every neuron, and are CROWN's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.crown import passes
from prunecert.verifiers.sparse.crown.engine import METHODS, CrownBounds, Engine, Method, Question
from prunecert.verifiers.sparse.crown.rows.layout import lay_flat
from prunecert.verifiers.sparse.network import Network, Node, Term
from prunecert.verifiers.sparse.onnx.layers import convolution, dense
from prunecert.verifiers.sparse.onnx.reader import read_network
from tests.soundness import networks as small
from tests.verifiers import onnxnets
from tests.verifiers.sparse.ways import WAYS, Way

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


def points(query: Question, count: int, seed: int) -> Array:
    """Returns points of the box: corners, and any."""
    rng = np.random.default_rng(seed)
    low, high = query.lower.astype(np.float64), query.upper.astype(np.float64)
    share = rng.random((count, *low.shape))
    share[::2] = np.round(share[::2])
    return np.clip(low + share * (high - low), low, high)


def assert_contained(network: Network, query: Question, result: CrownBounds, x: Array) -> None:
    values = network.forward(x)
    for index, low in result.lower.items():
        # The values are computed in float64: some 1e-16 of the sums behind them.
        slack = 1e-12 * (1 + np.abs(values[index]).max())
        assert np.all(values[index] >= low - slack)
        assert np.all(values[index] <= result.upper[index] + slack)
    rows = values[-1] @ query.matrix.T - query.offsets
    assert np.all(rows >= result.rows - 1e-12 * (1 + np.abs(rows).max()))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(MAKERS)),
    seed=st.integers(0, 2**20),
    eps=st.one_of(st.just(0.0), st.floats(1e-4, 0.5)),
    sparsity=st.sampled_from((0.0, 0.5, 0.9, 0.98)),
    way=st.sampled_from(WAYS),
)
def test_bounds_contain_what_the_network_computes(
    name: str, seed: int, eps: float, sparsity: float, way: Way, tmp_path: Path
) -> None:
    network = read_network(MAKERS[name](tmp_path / "net.onnx", seed, sparsity))
    engine = Engine(network, threads=1, **way._asdict())
    query = question(network, eps, seed)
    x = points(query, 200, seed)
    result = {method: engine.bound(query, method) for method in METHODS}
    for bounds in result.values():
        assert_contained(network, query, bounds, x)
    # Each is at least as tight as the one before, but for the last bits where they sum in another order.
    rows = result["ibp"].rows
    assert np.all(result["crown-ibp"].rows >= rows - 1e-12 * (1 + np.abs(rows)))
    assert result["crown"].unstable <= result["ibp"].unstable
    for index, low in result["ibp"].lower.items():
        # Intervals of smaller intervals are smaller but for the last bits.
        slack = 1e-12 * (1 + np.abs(low).max() + np.abs(result["ibp"].upper[index]).max())
        assert np.all(result["crown"].lower[index] >= low - slack)
        assert np.all(result["crown"].upper[index] <= result["ibp"].upper[index] + slack)


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


def convolutions(seed: int) -> Network:
    """Two convolutions with padding, one with stride 2, and a linear layer."""
    rng = np.random.default_rng(seed)
    zeros = np.zeros(2 * 5 * 19, dtype=np.float32)
    nodes = [Node("input", 190, (2, 5, 19), (), zeros, zeros)]
    for index, (channels, stride) in enumerate(((2, 1), (3, 2))):
        before = nodes[-1].shape
        weight = rng.standard_normal((channels, before[0], 3, 3)) * np.exp(rng.standard_normal((channels, 1, 1, 1)))
        weight *= rng.random(weight.shape) < 0.4
        matrix, shape = convolution(
            weight.astype(np.float32), (before[0], before[1], before[2]), (stride, stride), (1, 1, 1, 1), (1, 1), 1
        )
        size = matrix.shape[0]
        bias = np.repeat(rng.standard_normal(channels), size // channels).astype(np.float32) * 0.3
        term = Term(index, index > 0, matrix)
        nodes.append(Node(f"layer {index}", size, shape, (term,), bias, np.zeros(size, dtype=np.float32)))
    weight = rng.standard_normal((3, nodes[-1].size)) * (rng.random((3, nodes[-1].size)) < 0.3)
    none = np.zeros(3, dtype=np.float32)
    nodes.append(Node("output", 3, (3,), (Term(2, True, dense(weight.astype(np.float32))),), none, none))
    return Network("convolutions", (2, 5, 19), tuple(nodes))


def rational(
    network: Network,
    query: Question,
    bounds: CrownBounds,
    row: dict[int, Fraction],
    node: int,
    slopes: dict[int, dict[int, int]] | None = None,
) -> Fraction:
    """Bounds a linear function of a node's values from below by CROWN, in rational arithmetic.

    Args:
        network: A chain.
        asked: Whose box.
        bounds: Whose hidden bounds make the planes.
        row: Coefficients by neuron.
        node: Of which node.
        slopes: By node and neuron, of the lower planes; None: as the hidden bounds say.
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
                own = None if slopes is None else slopes[index - 1].get(j)
                slope = Fraction(int(high > -low) if own is None else own)
            constant += value * shift
            row[j] = value * slope
    low_corner, high_corner = query.lower.reshape(-1), query.upper.reshape(-1)
    return constant + sum(
        (value * Fraction(float((low_corner if value > 0 else high_corner)[j])) for j, value in row.items()),
        Fraction(0),
    )


@pytest.mark.parametrize(("sizes", "seed", "sparsity"), [((6, 9, 8, 7, 4), 2, 0.0), ((5, 20, 20, 12, 4), 1, 0.6)])
@pytest.mark.parametrize("eps", [0.0, 0.001, 0.3])
@pytest.mark.parametrize("way", WAYS)
def test_no_bound_is_above_the_exact_one(
    sizes: tuple[int, ...], seed: int, sparsity: float, eps: float, way: Way
) -> None:
    """Against CROWN over the same planes in rational arithmetic: never above it, and never far below."""
    network = chain(sizes, seed, sparsity)
    assert_exact(network, question(network, eps, seed), way, Fraction(3, 10**5), needed=eps == 0.3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(4))
def test_no_bound_of_a_convolution_is_above_the_exact_one(seed: int, way: Way) -> None:
    network = convolutions(seed)
    assert lay_flat(network)[1].tapped.sum() == 2
    assert_exact(network, question(network, 0.1, seed), way, Fraction(3, 10**4), needed=True)


def assert_exact(network: Network, query: Question, way: Way, near: Fraction, needed: bool) -> None:
    def room(size: Fraction) -> Fraction:
        """Returns how far below the exact bound one may be."""
        return near * (size if size > 1 else 1)

    bounds = Engine(network, threads=1, intersect=False, **way._asdict()).bound(query)
    compared = 0
    for node in range(2, len(network.nodes) - 1):
        for i in range(network.nodes[node].size):
            if not bounds.lower[node][i] < 0 < bounds.upper[node][i]:
                continue
            low = rational(network, query, bounds, {i: Fraction(1)}, node)
            high = -rational(network, query, bounds, {i: Fraction(-1)}, node)
            assert low - room(high - low) <= Fraction(float(bounds.lower[node][i])) <= low
            assert high <= Fraction(float(bounds.upper[node][i])) <= high + room(high - low)
            compared += 2
    assert compared or not needed
    last = len(network.nodes) - 1
    for k, coefficients in enumerate(query.matrix):
        row = {i: Fraction(float(value)) for i, value in enumerate(coefficients)}
        exact = rational(network, query, bounds, row, last) - Fraction(float(query.offsets[k]))
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
    query = Question(-np.ones(1, dtype=np.float32), np.ones(1, dtype=np.float32), np.ones((1, 1)), np.zeros(1))
    return Network("halves", (1,), nodes), query, 1 + Fraction(3, 2**24)


def test_rounding_to_nearest_would_prove_what_is_false() -> None:
    network, query, exact = halves()
    one, small_number = np.float32(1), np.float32(2.0**-24)
    slope, shift = one + small_number, np.float32(2) + small_number * np.float32(4)
    naive = float(shift - slope)
    assert Fraction(naive) > exact
    for method, way in itertools.product(METHODS, WAYS):
        (bound,) = Engine(network, threads=1, **way._asdict()).bound(query, method).rows
        assert Fraction(float(bound)) <= exact
        assert bound == pytest.approx(1, abs=1e-5)
    # The property "y is above the naive bound" is false, by a hair.
    false = Question(query.lower, query.upper, query.matrix, np.array([naive]))
    for method, way in itertools.product(METHODS, WAYS):
        assert Engine(network, threads=1, **way._asdict()).bound(false, method).rows[0] <= 0


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sparsity", [0.5, 0.97])
@pytest.mark.parametrize("method", METHODS)
def test_threads_and_batches_change_nothing(
    method: Method, sparsity: float, way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little work is left to one thread."""
    network = read_network(onnxnets.residual(tmp_path / "net.onnx", seed=1, sparsity=sparsity, shape=(3, 12, 12)))
    query = [question(network, 0.01 * (1 + seed), seed) for seed in range(5)]
    alone = [Engine(network, threads=1, **way._asdict()).bound(item, method) for item in query]
    shared = []
    share = passes.Pass._share

    def spy(self: passes.Pass, work: Callable[[int, int, int], None], begin: int, count: int, half: int) -> None:
        shared.append(count - begin)
        share(self, work, begin, count, half)

    monkeypatch.setattr(passes.Pass, "_share", spy)
    for most in (10**9, 0):
        monkeypatch.setattr(passes, "_MOST_COLUMNS", most)
        monkeypatch.setattr(passes, "_MOST_PRODUCTS", most)
        engine = Engine(network, threads=2, **way._asdict())
        for results in (engine.bound_many(query, method), [engine.bound(item, method) for item in query]):
            for first, second in zip(alone, results, strict=True):
                np.testing.assert_array_equal(first.rows, second.rows)
                assert first.unstable == second.unstable
                for index, low in first.lower.items():
                    np.testing.assert_array_equal(low, second.lower[index])
                    np.testing.assert_array_equal(first.upper[index], second.upper[index])
        assert not shared or most == 0
    # At 97 % there are too few unstable neurons.
    assert bool(shared) == (method == "crown" and sparsity == 0.5)


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
@pytest.mark.parametrize("name", ["residual", "convolutional", "block"])
def test_all_ways_of_walking_agree(name: str, sparsity: float, tmp_path: Path) -> None:
    network = read_network(MAKERS[name](tmp_path / "net.onnx", 3, sparsity))
    first, *others = (Engine(network, 1, **way._asdict()) for way in WAYS)
    # One after the other in the same engines: nothing is left over of the image before.
    for seed in range(6):
        query = question(network, 0.005 * 4 ** (seed % 3), seed, rows=(4, 20, 40)[seed % 3])
        for method, second in itertools.product(METHODS, others):
            one, other = first.bound(query, method), second.bound(query, method)
            np.testing.assert_allclose(one.rows, other.rows, rtol=1e-4, atol=3e-4)
            assert one.unstable == other.unstable
            for index, low in one.lower.items():
                np.testing.assert_allclose(low, other.lower[index], rtol=1e-4, atol=3e-4)
                np.testing.assert_allclose(one.upper[index], other.upper[index], rtol=1e-4, atol=3e-4)


def test_what_is_zero_for_certain_is_stable() -> None:
    """Rounding is charged to what is rounded: neurons that read only zeros stay exactly 0."""
    network = convolutions(0)
    nodes = [replace(node, bias=np.zeros_like(node.bias)) for node in network.nodes]
    dead = nodes[1].terms[0].matrix.copy()
    dead.data[: dead.indptr[nodes[1].size // 2]] = 0
    dead.eliminate_zeros()
    nodes[1] = replace(nodes[1], terms=(replace(nodes[1].terms[0], matrix=dead),))
    half = nodes[2].terms[0].matrix.tolil()
    half[: nodes[2].size // 3, nodes[1].size // 2 :] = 0
    nodes[2] = replace(nodes[2], terms=(replace(nodes[2].terms[0], matrix=half.tocsr()),))
    network = replace(network, nodes=tuple(nodes))
    query = question(network, 0.1, 0)
    result = [Engine(network, 1, **way._asdict()).bound(query, "crown-ibp") for way in WAYS]
    assert len({bounds.unstable for bounds in result}) == 1
    zeros = (result[1].lower[1] == 0) & (result[1].upper[1] == 0)
    assert zeros[: nodes[1].size // 2].all()
    (term,) = nodes[2].terms
    reads = np.abs(term.matrix) @ np.where(zeros, 0.0, 1.0)
    assert (reads == 0).any()
    for bounds in result:
        assert not bounds.lower[2][reads == 0].any()
        assert not bounds.upper[2][reads == 0].any()


@pytest.mark.parametrize("way", WAYS)
def test_more_rows_than_a_block_holds(way: Way, tmp_path: Path) -> None:
    network = read_network(onnxnets.convolutional(tmp_path / "net.onnx", seed=2))
    query = question(network, 0.02, 0, rows=75)
    engine = Engine(network, threads=1, **way._asdict())
    together = engine.bound(query, "crown").rows
    for k in range(75):
        one = Question(query.lower, query.upper, query.matrix[k : k + 1], query.offsets[k : k + 1])
        (alone,) = engine.bound(one, "crown").rows
        # Rows that intervals prove keep the interval's bound in a large specification.
        assert together[k] == pytest.approx(alone, abs=1e-12) or 0 < together[k] <= alone


@pytest.mark.parametrize("network", [chain((4, 30, 30, 30, 3), 3), convolutions(3)], ids=["chain", "convolutions"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scale", [1e-30, 1e10, 1e30])
def test_overflow_and_underflow_prove_nothing_false(scale: float, way: Way, network: Network) -> None:
    nodes = [
        replace(
            node,
            terms=tuple(replace(t, matrix=(t.matrix * np.float32(scale)).astype(np.float32)) for t in node.terms),
        )
        for node in network.nodes
    ]
    scaled = replace(network, nodes=tuple(nodes))
    query = question(scaled, 0.3, 0)
    x = points(query, 500, 0)
    for method in METHODS:
        result = Engine(scaled, threads=1, **way._asdict()).bound(query, method)
        assert_contained(scaled, query, result, x)
        assert not np.isnan(result.rows).any()


def test_a_box_of_another_size_is_refused(tmp_path: Path) -> None:
    engine = Engine(read_network(onnxnets.connected(tmp_path / "net.onnx")), threads=1)
    with pytest.raises(ValueError, match="12"):
        engine.bound(Question(np.zeros(5), np.ones(5), np.eye(10), np.zeros(10)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["residual", "convolutional", "block"])
def test_values_at_points_are_the_networks(name: str, way: Way, tmp_path: Path) -> None:
    network = read_network(MAKERS[name](tmp_path / "net.onnx", 5, 0.5))
    x = np.random.default_rng(0).random((3, *network.input_shape)).astype(np.float32)
    engine = Engine(network, 1, **way._asdict())
    for values, expected in zip(engine.forward(x), network.forward(x), strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(engine.evaluate(x), network.evaluate(x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_values_of_a_deep_network_are_not_those_of_intervals(way: Way, exact: bool) -> None:
    """What a point's intervals are wide by grows from layer to layer, to more than the values."""
    network = chain((40,) * 16, 1, 0.0)
    nodes = [replace(node, terms=tuple(replace(term, exact=exact) for term in node.terms)) for node in network.nodes]
    network = replace(network, nodes=tuple(nodes))
    x = np.random.default_rng(0).standard_normal((2, 40))
    engine = Engine(network, 1, **way._asdict())
    engine.bound(question(network, 0.1, 0))
    for values, expected in zip(engine.forward(x), network.forward(x), strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("way", WAYS)
def test_values_that_overflow_are_said_to(way: Way) -> None:
    network = chain((4, 12, 12, 3), 0, 0.0)
    nodes = list(network.nodes)
    for node in (1, 2, 3):
        (term,) = nodes[node].terms
        huge = term.matrix.copy()
        huge.data[:] = np.abs(huge.data) * np.float32(1e30)
        nodes[node] = replace(nodes[node], terms=(replace(term, matrix=huge),))
    engine = Engine(replace(network, nodes=tuple(nodes)), 1, **way._asdict())
    with np.errstate(all="ignore"):
        values = engine.forward(np.full((1, 4), 1e300))
    assert not np.isfinite(values[-1]).any()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("weight", "x"), [(-1e-30, 1e-300), (-1e-40, 1e-300), (-(2.0**-126), 2.0**-897), (-0.25, 5e-324)]
)
def test_products_that_are_zero_in_float64_are_below_it(weight: float, x: float, exact: bool, way: Way) -> None:
    """Boxes may be float64's, though those of instances are float32's."""
    zeros = np.zeros(1, dtype=np.float32)
    first = Term(0, False, dense(np.array([[weight]], dtype=np.float32)), exact)
    network = Network(
        "tiny",
        (1,),
        (
            Node("input", 1, (1,), (), zeros, zeros),
            Node("hidden", 1, (1,), (first,), zeros, zeros),
            Node("output", 1, (1,), (Term(1, True, dense(np.ones((1, 1), dtype=np.float32))),), zeros, zeros),
        ),
    )
    point = np.array([x])
    bounds = Engine(network, 1, **way._asdict()).bound(Question(point, point, np.ones((1, 1)), np.zeros(1)))
    value = Fraction(float(np.float32(weight))) * Fraction(x)
    assert Fraction(float(bounds.lower[1][0])) <= value <= Fraction(float(bounds.upper[1][0]))
    assert bounds.rows[0] <= 0
