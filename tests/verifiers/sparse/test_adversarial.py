"""Attempts to make the sparse engine prove what is false: extreme numbers, awkward layers, old proofs, exceptions."""

from __future__ import annotations

import itertools
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, checker, helper, numpy_helper, save

from prunecert.verifiers.sparse.bab.prover import adopt_crown
from prunecert.verifiers.sparse.bab.tree_transplant import plant
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import METHODS, CrownBounds, Engine, Question
from prunecert.verifiers.sparse.network import Network, Node, Term
from prunecert.verifiers.sparse.onnx import layers
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.proofs.file import Proof, ProofSummary
from tests.verifiers.sparse.ways import WAYS, Way

Rng = np.random.Generator


def node(
    terms: tuple[Term, ...], shape: tuple[int, ...], bias: npt.ArrayLike = 0.0, error: npt.ArrayLike = 0.0
) -> Node:
    size = int(np.prod(shape))
    vectors = [np.broadcast_to(np.asarray(value, dtype=np.float32), size).copy() for value in (bias, error)]
    return Node("node", size, shape, terms, *vectors)


def chain(weights: list[float]) -> Network:
    """One neuron a layer, without biases."""
    nodes = [node((), (1,))]
    for index, weight in enumerate(weights):
        nodes.append(node((Term(index, index > 0, layers.dense(np.array([[weight]], dtype=np.float32))),), (1,)))
    return Network("chain", (1,), tuple(nodes))


def ask(low: npt.ArrayLike, high: npt.ArrayLike, matrix: npt.ArrayLike, offsets: npt.ArrayLike) -> Question:
    lower, upper = (np.asarray(corner, dtype=np.float32).reshape(-1) for corner in (low, high))
    return Question(
        lower, upper, np.atleast_2d(np.asarray(matrix, dtype=np.float64)), np.asarray(offsets, dtype=np.float64)
    )


def certified(network: Network, query: Question) -> npt.NDArray[np.float64]:
    """The rows' bounds by the float64 certificate, with CROWN's slopes."""
    prepared = Checker(network)
    low, high = (corner.reshape(-1).astype(np.float64) for corner in (query.lower, query.upper))
    bounds = adopt_crown(prepared, low, high, Engine(network, 1).bound(query))
    return prepared.lower(prepared.last, query.matrix, bounds, constant=-query.offsets)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_what_underflows_in_float64_is_not_gone(method: str, way: Way) -> None:
    """y = x, by way of 2**-1134."""
    network = chain([2.0**-126] * 9 + [2.0**126] * 9)
    query = ask([0.5], [1.0], [[-1.0], [1.0]], [-0.25, 0.75])
    result = Engine(network, 1, **way._asdict()).bound(query, method)  # type: ignore[arg-type]
    assert np.all(result.rows <= [-0.75, -0.25])
    assert result.lower[9] <= 0 < result.upper[9]
    assert np.all(certified(network, query) <= [-0.75, -0.25])


def test_huge_neurons_that_are_scaled_away_prove_nothing() -> None:
    """The walk's coefficient of a neuron of 2**630 underflows, y = 2**-504 x does not."""
    network = chain([2.0**126] * 5 + [2.0**-126] * 9)
    query = ask([1.0], [1.0], [[-1.0]], [-1e-160])
    assert Fraction(2) ** -504 > Fraction(1e-160)
    assert certified(network, query)[0] <= 0


@pytest.mark.parametrize("way", WAYS)
def test_tiny_and_huge_rows_of_a_specification_prove_nothing_false(way: Way) -> None:
    network = chain([1.0])
    rows = [[-5e-324], [-1e-300], [-1e300], [np.inf], [np.nan]]
    for method in METHODS:
        result = Engine(network, 1, **way._asdict()).bound(ask([0.3], [0.4], rows, np.zeros(5)), method)
        assert not np.isnan(result.rows).any()
        assert np.all(result.rows <= 0)


# Files whose numbers are not what they seem.


def write(path: Path, nodes: list[tuple[str, list[str], dict[str, Any]]], constants: dict[str, object]) -> Path:
    """Writes nodes y1, y2, …; constants keep their type, which is the input's, too; its shape is that of "shape"."""
    shape = constants.pop("shape")
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    kind = TensorProto.DOUBLE if any(a.dtype == np.float64 for a in arrays.values()) else TensorProto.FLOAT
    prepared = [helper.make_node(kind_, names, [f"y{i + 1}"], **more) for i, (kind_, names, more) in enumerate(nodes)]
    graph = helper.make_graph(
        prepared,
        "net",
        [helper.make_tensor_value_info("x", kind, [1, *shape])],  # type: ignore[misc]
        [helper.make_tensor_value_info(f"y{len(nodes)}", kind, [1, "outputs"])],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    checker.check_model(model)
    save(model, str(path))
    return path


@pytest.mark.parametrize("size", [3, 5, 6, 7])
def test_averages_are_rounded_once(size: int, tmp_path: Path) -> None:
    """1 / n is no float32: neither a shift before the average nor a factor after it may hide that."""
    rng = np.random.default_rng(size)
    area = size * size
    pool = {"kernel_shape": [size, size]}
    for number in range(8):
        shift = rng.random((1, 1, size, size)).astype(np.float32)
        # At 0 only the shift is rounded, and nothing else is charged.
        x = rng.random(shift.shape).astype(np.float32) * (number % 2)
        factor = np.float32(rng.random() + 0.5)
        shifted = [("Sub", ["x", "c"], {}), ("AveragePool", ["y1"], pool), ("Flatten", ["y2"], {})]
        scaled = [("AveragePool", ["x"], pool), ("Mul", ["y1", "c"], {}), ("Flatten", ["y2"], {})]
        total = [sum(Fraction(float(value)) for value in array.reshape(-1)) / area for array in (x, shift)]
        for nodes, constant, exact in (
            (shifted, shift, total[0] - total[1]),
            (scaled, factor.reshape(1, 1, 1, 1), total[0] * Fraction(float(factor))),
        ):
            network = read_network(write(tmp_path / "n.onnx", nodes, {"c": constant, "shape": (1, size, size)}))
            query = ask(x, x, [[1.0], [-1.0]], np.zeros(2))
            for rows in (certified(network, query), Engine(network, 1).bound(query).rows):
                assert Fraction(float(rows[0])) <= exact <= -Fraction(float(rows[1]))
                assert rows[0] == pytest.approx(float(exact), abs=1e-5)


def test_weights_that_cancel_are_not_lost(tmp_path: Path) -> None:
    """(x + 2**-60 x - x) 2**60 is x, and x / 3 - fl(1/3) x is not 0."""
    shape = (1, 1, 1)
    small, big, third = (np.full(shape, value, dtype=np.float32) for value in (2.0**-60, 2.0**60, 1 / 3))
    path = write(
        tmp_path / "one.onnx",
        [("Mul", ["x", "s"], {}), ("Add", ["x", "y1"], {}), ("Sub", ["y2", "x"], {}), ("Mul", ["y3", "b"], {}),
         ("Flatten", ["y4"], {})],
        {"s": small, "b": big, "shape": shape},
    )  # fmt: skip
    other = write(
        tmp_path / "other.onnx",
        [("Div", ["x", "t"], {}), ("Mul", ["x", "f"], {}), ("Sub", ["y1", "y2"], {}), ("Mul", ["y3", "b"], {}),
         ("Flatten", ["y4"], {})],
        {"t": np.full(shape, 3, dtype=np.float32), "f": third, "b": big, "shape": shape},
    )  # fmt: skip
    difference = (Fraction(1, 3) - Fraction(float(np.float32(1 / 3)))) * 2**60
    for file, exact in ((path, Fraction(1)), (other, difference)):
        network = read_network(file)
        query = ask([1.0], [1.0], [[1.0], [-1.0]], np.zeros(2))
        for rows in (certified(network, query), Engine(network, 1).bound(query).rows):
            assert Fraction(float(rows[0])) <= exact <= -Fraction(float(rows[1]))


def test_float64_weights_are_charged_their_rounding(tmp_path: Path) -> None:
    nodes: list[tuple[str, list[str], dict[str, Any]]] = [("Gemm", ["x", "w"], {})]
    network = read_network(write(tmp_path / "n.onnx", nodes, {"w": np.full((2, 2), 0.1), "shape": (2,)}))
    query = ask([1.0, 0.0], [1.0, 0.0], [[1.0, 0.0], [-1.0, 0.0]], np.zeros(2))
    for rows in (certified(network, query), Engine(network, 1).bound(query).rows):
        assert rows[0] <= 0.1 <= -rows[1]


def test_a_part_of_a_shape_is_that_part(tmp_path: Path) -> None:
    """A transposed kernel over an image whose sides come from its shape without the batch."""
    kernel = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    nodes: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Shape", ["x"], {"start": 1, "end": 4}),
        ("Concat", ["one", "y1"], {"axis": 0}),
        ("Reshape", ["x", "y2"], {}),
        ("Conv", ["y3", "w"], {}),
        ("Flatten", ["y4"], {}),
    ]
    constants = {"one": np.array([1]), "w": kernel, "shape": (1, 4, 3)}
    network = read_network(write(tmp_path / "n.onnx", nodes, constants))
    x = np.random.default_rng(0).random((1, 1, 4, 3))
    expected = [(x[0, 0, y : y + 2] * kernel[0, 0]).sum() for y in range(3)]
    np.testing.assert_allclose(network.evaluate(x)[0], expected)


# Random networks of awkward layers and numbers.


def awkward(seed: int, scale: float) -> Network:
    """Strides, dilation, groups, averages, residuals, empty rows, zero and subnormal weights, all magnitudes."""
    rng = np.random.default_rng(seed)
    channels, height, width = 2, int(rng.integers(3, 6)), int(rng.integers(3, 8))
    nodes = [node((), (channels, height, width))]

    def numbers(*shape: int) -> npt.NDArray[np.float32]:
        values = rng.standard_normal(shape) * np.exp(scale * rng.standard_normal(shape))
        values[rng.random(shape) < rng.choice([0.1, 0.7])] = 0
        values[rng.random(shape) < 0.02] = 1e-42
        return values.astype(np.float32)

    def convolve(source: int, activated: bool, outputs: int) -> None:
        shape = nodes[source].shape
        while True:
            groups = int(rng.choice([1, 2]))
            kernel, stride, dilation = (rng.integers(1, most, 2).tolist() for most in (4, 3, 3))
            weight = numbers(outputs, shape[0] // groups, *kernel)
            pads = rng.integers(0, 3, 4).tolist()
            matrix, new = layers.convolution(weight, (shape[0], shape[1], shape[2]), stride, pads, dilation, groups)
            if 0 not in new:
                break
        size = int(np.prod(new))
        bias = np.repeat(numbers(outputs), size // outputs) * (rng.random() < 0.7)
        error = np.abs(bias) * np.float32(2.0**-24) * (rng.random(size) < 0.5)
        nodes.append(node((Term(source, activated, matrix),), new, bias, error))

    convolve(0, False, 2)
    convolve(1, True, 4)
    shape = nodes[2].shape
    skip = layers.dense(numbers(nodes[2].size, nodes[1].size) * (rng.random((nodes[2].size, nodes[1].size)) < 0.1))
    kept = layers.diagonal(np.ones(nodes[2].size, dtype=np.float32))
    nodes.append(node((Term(2, True, kept), Term(2, False, kept), Term(1, True, skip)), shape, numbers(nodes[2].size)))
    matrix, new = layers.average((shape[0], shape[1], shape[2]), (1, shape[2]), (1, 1), (0, 0, 0, 0), False)
    nodes.append(node((Term(3, True, matrix.astype(np.float32), exact=False),), new))
    last = nodes[-1].size
    nodes.append(
        node(
            (Term(4, True, layers.dense(numbers(5, last))), Term(0, False, layers.dense(numbers(5, nodes[0].size)))),
            (5,),
        )
    )
    nodes.append(node((Term(5, True, layers.dense(numbers(3, 5))),), (3,), numbers(3)))
    return Network("awkward", (channels, height, width), tuple(nodes))


def exactly(network: Network, x: npt.NDArray[np.float32]) -> list[list[Fraction]]:
    """All values of the stored network before their ReLUs, in rational arithmetic."""
    values = [[Fraction(float(value)) for value in x]]
    for item in network.nodes[1:]:
        total = [Fraction(float(value)) for value in item.bias]
        for term in item.terms:
            source = values[term.source]
            pairs = zip(term.matrix.tocoo().row, term.matrix.tocoo().col, term.matrix.data, strict=True)
            for row, column, weight in pairs:
                if not term.activated or source[column] > 0:
                    total[row] += Fraction(float(weight)) * source[column]
        values.append(total)
    return values


def holds(result: CrownBounds, query: Question, values: list[list[Fraction]]) -> None:
    for index, low in result.lower.items():
        for i, value in enumerate(values[index]):
            # An infinity is no Fraction, and holds; what is not a number holds nothing.
            assert not low[i] > 0 or Fraction(float(low[i])) <= value
            for bound, side in ((low[i], 1), (result.upper[index][i], -1)):
                assert not np.isfinite(bound) or side * Fraction(float(bound)) <= side * value
    assert_rows(result.rows, query, values)


def assert_rows(rows: npt.NDArray[np.float64], query: Question, values: list[list[Fraction]]) -> None:
    for k, row in enumerate(query.matrix):
        exact = sum((Fraction(float(a)) * y for a, y in zip(row, values[-1], strict=True)), Fraction(0))
        exact -= Fraction(float(query.offsets[k]))
        assert rows[k] == -np.inf or Fraction(float(rows[k])) <= exact


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**20),
    scale=st.sampled_from((0.5, 4.0, 12.0)),
    center=st.sampled_from((0.5, 0.0, -3e6, 1e-40)),
    radius=st.sampled_from((0.0, 1e-44, 1e-3, 0.5, 1e5)),
)
def test_awkward_networks_in_rational_arithmetic(seed: int, scale: float, center: float, radius: float) -> None:
    network = awkward(seed, scale)
    rng = np.random.default_rng(seed)
    size = network.nodes[0].size
    middle = center * rng.random(size)
    wide = radius * (rng.random(size) < 0.6)
    low, high = (middle - wide).astype(np.float32), (middle + wide).astype(np.float32)
    query = ask(low, high, rng.standard_normal((4, 3)), rng.standard_normal(4))
    corners = np.where(rng.random((3, size)) < 0.5, low, high)
    true = [exactly(network, x) for x in corners]
    result = [Engine(network, 1, **way._asdict()).bound(query, method) for way in WAYS for method in METHODS]
    proved = certified(network, query)
    for values in true:
        for bounds in result:
            holds(bounds, query, values)
        assert_rows(proved, query, values)


# What is left over from one question to the next.


def same(first: CrownBounds, second: CrownBounds) -> None:
    np.testing.assert_array_equal(first.rows, second.rows)
    assert first.unstable == second.unstable
    for index, low in first.lower.items():
        np.testing.assert_array_equal(low, second.lower[index])
        np.testing.assert_array_equal(first.upper[index], second.upper[index])


@pytest.mark.parametrize("way", WAYS)
def test_questions_leave_nothing_behind(way: Way) -> None:
    """Boxes that overflow or aren't numbers, points, wide boxes: in any order, and with threads, the same bounds."""
    network = awkward(5, 1.0)
    size = network.nodes[0].size
    rng = np.random.default_rng(0)
    low = rng.random(size).astype(np.float32)
    boxes = [(low, low), (low, low + 1), (low - 1, low + 3e38), (0 * low - np.inf, 0 * low + np.inf), (low, low + 0.1)]
    boxes.append((low, np.where(np.arange(size) == 3, np.nan, low).astype(np.float32)))
    matrix, offsets = rng.standard_normal((40, 3)), rng.standard_normal(40)
    query = [ask(*box, matrix, offsets) for box in boxes]
    fresh = [Engine(network, 1, **way._asdict()).bound(item) for item in query]
    assert np.all(fresh[3].rows == -np.inf)
    for threads in (1, 2):
        engine = Engine(network, threads, **way._asdict())
        for order in (range(6), reversed(range(6)), [1, 3, 1, 5, 4, 2, 4]):
            for index in order:
                same(engine.bound(query[index]), fresh[index])
        for bounds, expected in zip(engine.bound_many([query[i] for i in (3, 1, 5, 4)]), (3, 1, 5, 4), strict=True):
            same(bounds, fresh[expected])


def test_no_thread_goes_on_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(awkward(5, 1.0), 2)
    running = threading.Semaphore(0)
    ended = []
    bound = Engine._bound

    def slow(self: Engine, slot: int, *more: object) -> CrownBounds:
        if len(more[0].lower) == 1:  # type: ignore[attr-defined]
            # Not before the other thread is at work.
            running.acquire()
        else:
            running.release()
            time.sleep(0.2)
            ended.append(slot)
        return bound(self, slot, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "_bound", slow)
    size = engine.network.nodes[0].size
    good, bad = (ask(np.zeros(n), np.ones(n), np.eye(3), np.zeros(3)) for n in (size, 1))
    with pytest.raises(ValueError, match="box has 1"):
        engine.bound_many([bad, good])
    assert len(ended) == 1


# Trees of earlier proofs.


def tree(rng: Rng, width: int, splits: int) -> Proof:
    """A proof whose tree splits random neurons, the same one repeatedly, too."""
    parent, neuron, sign, leaves = [-1], [-1], [0], [0]
    for _ in range(splits):
        at = leaves.pop(int(rng.integers(len(leaves))))
        by = int(rng.integers(width))
        for phase in (1, -1):
            leaves.append(len(parent))
            parent.append(at)
            neuron.append(by)
            sign.append(phase)
    count = len(leaves)
    return Proof(
        summary=ProofSummary("", (1,), "unsat", (), (), 0, len(parent), count),
        node=np.zeros(width, np.int32), index=np.zeros(width, np.int32),
        parent=np.array(parent, np.int32), neuron=np.array(neuron, np.int32), sign=np.array(sign, np.int8),
        disjunct=np.zeros(len(parent), np.int32), leaf=np.array(leaves, np.int32),
        alpha=np.zeros((count, width), np.uint16), beta_leaf=np.zeros(0, np.int32),
        beta_neuron=np.zeros(0, np.int32), beta=np.zeros(0, np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(30))
def test_leaves_cover_the_box_wherever_a_tree_is_planted(seed: int) -> None:
    """Whatever neurons are called now, and whatever phases the stable ones are said to have."""
    rng = np.random.default_rng(seed)
    proof = tree(rng, 6, int(rng.integers(0, 12)))
    proof.check()
    place, phase = rng.integers(-1, 4, 6), rng.choice(np.array([-1, 1], dtype=np.int8), 6)
    planted = plant(proof, {0: 0}, place, phase, np.zeros(4, dtype=np.float32))
    assert planted is not None
    leaves = planted.signs[~planted.inner]
    for signs in itertools.product((-1, 1), repeat=4):
        assert any(np.all((leaf == 0) | (leaf == signs)) for leaf in leaves)
    # What counts as inner has both children there.
    for entry in np.flatnonzero(planted.inner):
        below = np.flatnonzero(planted.parent == entry)
        assert len(below) == 2
        assert planted.neuron[below[0]] == planted.neuron[below[1]]
        assert planted.sign[below].sum() == 0
