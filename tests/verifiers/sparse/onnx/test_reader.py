"""The reader's networks compute what onnxruntime computes, and what isn't taken is named before any work."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from prunecert.errors import UserError
from prunecert.onnx import emit, linear, moves
from prunecert.onnx.normalise import normalise
from prunecert.onnx.rounding import noted
from prunecert.verifiers.base import OutputSpec, Status, UnsupportedError
from prunecert.verifiers.formats import counterexample, support
from prunecert.verifiers.sparse.bab.box_bounds import bound_boxes
from prunecert.verifiers.sparse.bab.box_program import lay_out, scratch
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.onnx import layers
from prunecert.verifiers.sparse.onnx.reader import read_model, read_network
from tests.prunecert.onnx.graphs import build
from tests.soundness import networks as small
from tests.soundness.oracle import exact_margin
from tests.verifiers import onnxnets
from tests.verifiers.onnxnets import write
from tests.verifiers.sparse.onnx.charging import charged
from tests.verifiers.sparse.searching import Prepared, search


def compare(path: Path) -> Network:
    network = read_network(path)
    x = np.random.default_rng(3).random((5, *network.input_shape), dtype=np.float32)
    expected = counterexample.outputs(path, x)
    np.testing.assert_allclose(network.evaluate(x), expected, atol=1e-5 * max(1.0, float(np.abs(expected).max())))
    for node in network.nodes:
        for term in node.terms:
            assert term.matrix.dtype == np.float32
            assert term.matrix.indices.dtype == np.int32
            assert term.matrix.has_sorted_indices
            assert np.all(term.matrix.data != 0)
            assert term.matrix.shape == (node.size, network.nodes[term.source].size)
    return network


MAKERS: dict[str, Callable[[Path], Path]] = {
    "linear": onnxnets.linear,
    "connected": onnxnets.connected,
    "convolutional": lambda path: onnxnets.convolutional(path, sparsity=0.7),
    "dead": lambda path: small.dead_units("dead", np.random.default_rng(0)).save(path),
    "residual": lambda path: small.residual("residual", np.random.default_rng(1)).save(path),
    "residual-conv": lambda path: small.residual_conv("residual-conv", np.random.default_rng(2), 0.5).save(path),
}


@pytest.mark.parametrize("name", MAKERS)
def test_it_evaluates_as_onnxruntime(name: str, tmp_path: Path) -> None:
    network = compare(MAKERS[name](tmp_path / "net.onnx"))
    # There, the 1 x 1 convolution round a block is added to one of its weights.
    assert all(term.exact for node in network.nodes for term in node.terms) == (name != "residual-conv")
    assert not any(node.bias_error.any() for node in network.nodes)


def test_what_was_rounded_is_multiplied_and_summed_no_more(tmp_path: Path) -> None:
    network = compare(onnxnets.residual(tmp_path / "net.onnx", seed=4, sparsity=0.5))
    # Input, normalisation, convolution, the identity, convolution with batch norm, their sum, pooling, linear.
    assert [len(node.terms) for node in network.nodes] == [0, 1, 1, 1, 1, 2, 1, 1]
    assert [node.terms[0].activated for node in network.nodes[1:]] == [False, False, True, True, False, True, False]
    # Rounded are the quotients by deviations and the products with batch norm's scales, the file's own weights are not.
    assert [node.terms[0].exact for node in network.nodes[1:]] == [False, True, True, False, True, True, True]
    assert network.nodes[1].bias_error.any()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from((1, 2, 4)),
    sparsity=st.sampled_from((0.0, 0.5, 0.9, 1.0)),
)
def test_every_convolution(
    seed: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
    sparsity: float,
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((4, 4 // groups, *kernel)).astype(np.float32)
    weight *= rng.random(weight.shape) >= sparsity
    shape = (4, 8, 7)
    _, new = layers.convolution(weight, shape, stride, pads, dilation, groups)
    constants = {"w": weight, "b": rng.standard_normal(4).astype(np.float32)}
    nodes = [
        helper.make_node(
            "Conv", ["input", "w", "b"], ["c"], kernel_shape=kernel, strides=stride, pads=pads, dilations=dilation,
            group=groups,
        ),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["output"]),
    ]  # fmt: skip
    network = compare(write(tmp_path / "conv.onnx", nodes, constants, shape, int(np.prod(new))))
    # A ReLU at the end becomes a node that copies it, so that the output is always an affine node.
    assert network.nodes[-1].terms[0].activated


@pytest.mark.parametrize("count_pads", [0, 1])
def test_padded_overlapping_averages(count_pads: int, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["input"], ["r"]),
        helper.make_node(
            "AveragePool", ["r"], ["p"], kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1],
            count_include_pad=count_pads,
        ),
        helper.make_node("Flatten", ["p"], ["output"]),
    ]  # fmt: skip
    compare(write(tmp_path / "pool.onnx", nodes, {}, (2, 6, 5), 2 * 3 * 5))


def test_global_average_and_gemm_with_factors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    constants: dict[str, NDArray[Any]] = {
        "w": rng.standard_normal((3, 10)).astype(np.float32),
        "b": rng.standard_normal(10).astype(np.float32),
        "shape": np.array([0, -1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["output"], alpha=0.3, beta=1.7),
    ]
    network = compare(write(tmp_path / "net.onnx", nodes, constants, (3, 5, 5)))
    assert not network.nodes[-1].terms[0].exact


def test_a_value_added_to_itself_is_one_term(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    constants = {"w": rng.standard_normal((10, 10)).astype(np.float32)}
    nodes = [
        helper.make_node("Gemm", ["input", "w"], ["g"]),
        helper.make_node("Relu", ["g"], ["r"]),
        helper.make_node("Add", ["r", "r"], ["two"]),
        helper.make_node("Sub", ["two", "g"], ["output"]),
    ]
    network = compare(write(tmp_path / "net.onnx", nodes, constants, (10,)))
    assert sorted(term.activated for term in network.nodes[-1].terms) == [False, True]


def test_folded_numbers_are_within_their_stated_errors(tmp_path: Path) -> None:
    """Batch norm after a convolution, against rational arithmetic."""
    rng = np.random.default_rng(5)
    constants = {
        "w": rng.standard_normal((3, 2, 1, 1)).astype(np.float32),
        "scale": rng.uniform(0.5, 2, 3).astype(np.float32),
        "shift": rng.standard_normal(3).astype(np.float32),
        "mean": rng.standard_normal(3).astype(np.float32),
        # Its root with epsilon is a rational number.
        "var": np.array([0.25, 4.0, 2.25], dtype=np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"], epsilon=0.0),
        helper.make_node("Flatten", ["n"], ["output"]),
    ]
    node = read_network(write(tmp_path / "net.onnx", nodes, constants, (2, 1, 1), 3)).nodes[-1]
    (term,) = node.terms
    roots = [Fraction(1, 2), Fraction(2), Fraction(3, 2)]
    for row in range(3):
        factor = Fraction(float(constants["scale"][row])) / roots[row]
        shift = Fraction(float(constants["shift"][row])) - Fraction(float(constants["mean"][row])) * factor
        assert abs(Fraction(float(node.bias[row])) - shift) <= Fraction(float(node.bias_error[row]))
        for column in range(2):
            exact = Fraction(float(constants["w"][row, column, 0, 0])) * factor
            stored = Fraction(float(term.matrix[row, column]))
            assert abs(stored - exact) <= Fraction(1, 2**24) * (1 + Fraction(1, 2**20)) * abs(stored)


def _graph(path: Path, *nodes: Any, shape: tuple[int, ...] = (3, 4, 4), outputs: int = 48, **constants: Any) -> Path:
    return write(
        path, nodes, {name: np.asarray(value, np.float32) for name, value in constants.items()}, shape, outputs
    )


@pytest.mark.parametrize(
    ("nodes", "constants", "words"),
    [
        ([helper.make_node("Sigmoid", ["input"], ["output"], name="squash")], {}, ("no Sigmoid at its end", "worker")),
        ([helper.make_node("Mul", ["input", "input"], ["output"], name="square")], {}, ("square", "both its factors")),
        (
            [helper.make_node("Gemm", ["input", "w"], ["output"], name="fc", transB=1)],
            {"w": np.ones((5, 48))},
            ("fc", "doesn't fit an input"),
        ),
        (
            [helper.make_node("Conv", ["input", "w"], ["output"], name="wide", kernel_shape=[9, 9])],
            {"w": np.ones((1, 3, 9, 9))},
            ("wide", "larger than its padded input"),
        ),
        (
            [helper.make_node("Conv", ["input", "w"], ["output"], name="channels", kernel_shape=[1, 1])],
            {"w": np.ones((1, 4, 1, 1))},
            ("channels", "doesn't fit 3 channels"),
        ),
        (
            [helper.make_node("Add", ["input", "b"], ["output"], name="plus")],
            {"b": np.ones(5)},
            ("plus", "(5,)"),
        ),
        (
            [helper.make_node("Div", ["input", "b"], ["output"], name="over")],
            {"b": np.zeros(1)},
            ("over", "zero"),
        ),
        (
            [
                helper.make_node("Transpose", ["input"], ["t"], perm=[0, 2, 3, 1]),
                helper.make_node("Conv", ["t", "w"], ["output"], kernel_shape=[1, 1]),
            ],
            {"w": np.ones((1, 4, 1, 1))},
            ("inputs in another order",),
        ),
    ],
)
def test_what_is_not_taken_is_named(
    nodes: list[Any], constants: dict[str, Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    path = _graph(tmp_path / "net.onnx", *nodes, **constants)
    with pytest.raises(UnsupportedError) as refusal:
        read_network(path)
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    weight = np.ones((2, 3, 1, 1))
    weight[1, 2] = value
    node = helper.make_node("Conv", ["input", "w"], ["output"], name="first", kernel_shape=[1, 1])
    with pytest.raises(UnsupportedError, match=r"'first' \(Conv\) isn't taken: its weight holds 1 value"):
        read_network(_graph(tmp_path / "net.onnx", node, w=weight))


def test_no_onnx_at_all(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_text("nothing of the kind")
    with pytest.raises(UserError, match="no ONNX network"):
        read_network(tmp_path / "net.onnx")


def test_a_weight_that_underflows_as_it_is_folded_proves_nothing() -> None:
    """1e-20 (1e-30 x) reaches 3e-12 over [0, 3e38], in float32 too, and its one weight 1e-50 is no float32."""
    nodes = [helper.make_node("Gemm", ["x", "w"], ["h"], transB=1), helper.make_node("Mul", ["h", "f"], ["y"])]
    constants = {"w": np.array([[1e-30]], np.float32), "f": np.array([1e-20], np.float32)}
    form = normalise(build(nodes, constants, (1, 1)))
    assert form.changed
    support.mark_rewritten(form.model)
    network = read_model(form.model, "underflows")
    low, high = np.zeros(1, np.float32), np.full(1, 3e38, np.float32)
    below = OutputSpec(((np.array([[-1.0]]), np.array([-1e-12])),))
    above = OutputSpec(((np.array([[-1.0]]), np.array([-1e-5])),))
    for spec, provable in ((below, False), (above, True)):
        question = Prepared(network, low, high, spec)
        assert bool(question.root.rows[0] > 0) is provable
        program = lay_out(network, question.bounds)
        corners = low.astype(float)[None], high.astype(float)[None]
        lines, bounds, scores = np.zeros((1, 1, 3)), np.zeros(1), np.zeros((1, 2, 1))
        spans = np.array([[0, 1]])
        bound_boxes(
            program, scratch(program), question.rows, question.offsets, spans, *corners, 0, 1, lines, bounds, scores
        )
        assert bool(bounds[0] > 0) is provable


def transposed_matrix(weight: NDArray[np.float32], size: int, stride: int, pad: int) -> NDArray[np.float64]:
    """Writes a transposed convolution of a square image as a matrix, straight from its definition."""
    inputs, outputs, kernel, _ = weight.shape
    new = stride * (size - 1) + kernel - 2 * pad
    matrix = np.zeros((outputs, new, new, inputs, size, size))
    for i, j, down, across in np.ndindex(size, size, kernel, kernel):
        y, x = stride * i + down - pad, stride * j + across - pad
        if 0 <= y < new and 0 <= x < new:
            matrix[:, y, x, :, i, j] += weight[:, :, down, across].T
    return matrix.reshape(outputs * new * new, -1)


def repeating(seed: int) -> tuple[small.Network, Any]:
    """A linear layer, a transposed convolution, repeated places and a convolution: for the oracle, and as ONNX."""
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> NDArray[np.float32]:
        scaled = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:], initial=1))
        rounded: NDArray[np.float32] = scaled.astype(np.float32)
        return rounded

    first, across, down, last = numbers(8, 3), numbers(2, 2, 3, 3), numbers(1, 2, 3, 3), numbers(3, 9)
    biases = [np.float32(0.2) * numbers(count) for count in (8, 2, 1, 3)]
    net = small.Network("repeating", (3,))
    value = net.relu(net.gemm(0, first.astype(float), biases[0].astype(float)))
    value = net.relu(net.gemm(value, transposed_matrix(across, 2, 2, 1), np.repeat(biases[1].astype(float), 9)))
    repeat = np.kron(np.eye(3), np.ones((2, 1)))
    repeated: NDArray[np.float64] = np.kron(np.eye(2), np.kron(repeat, repeat)).astype(np.float64)
    value = net.gemm(value, repeated, np.zeros(72))
    matrix, _ = small.conv_matrix(down.astype(float), (2, 6, 6), 2, 1)
    value = net.relu(net.gemm(value, matrix, np.repeat(biases[2], 9).astype(float)))
    net.gemm(value, last.astype(float), biases[3].astype(float))
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["a"], transB=1),
        helper.make_node("Reshape", ["a", "s"], ["i"]),
        helper.make_node("Relu", ["i"], ["r"]),
        helper.make_node("ConvTranspose", ["r", "w1", "b1"], ["t"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Relu", ["t"], ["q"]),
        helper.make_node("Resize", ["q", "", "f"], ["u"], mode="nearest"),
        helper.make_node("Conv", ["u", "w2", "b2"], ["c"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "w3", "b3"], ["y"], transB=1),
    ]
    constants: dict[str, Any] = {"s": np.array([1, 2, 2, 2]), "f": np.array([1, 1, 2, 2], np.float32)}
    for number, (weight, bias) in enumerate(zip((first, across, down, last), biases, strict=True)):
        constants |= {f"w{number}": weight, f"b{number}": bias.astype(np.float32)}
    return net, build(nodes, constants, (1, 3))


@pytest.mark.parametrize("spread", [0, 2**20])
def test_transposed_convolutions_and_repeated_places_are_answered_exactly(
    spread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (emit, linear, moves):
        monkeypatch.setattr(module, "SPREAD", spread)
    for seed in range(3):
        drawn, model = repeating(seed)
        form = normalise(model)
        assert noted(form.model) == {}
        support.mark_rewritten(form.model)
        network = read_model(form.model, "repeating")
        rng = np.random.default_rng(seed)
        center = rng.uniform(-1, 1, 3)
        low, high = (np.float32(center + side * 0.4).astype(float) for side in (-1, 1))
        x = rng.uniform(low, high, (50, 3))
        np.testing.assert_allclose(network.evaluate(x), drawn.evaluate(x), rtol=0, atol=1e-5)
        spec = OutputSpec(((np.array([[1.0, -1.0, 0.5]]), np.zeros(1)),))
        margin = exact_margin(drawn, low, high, spec)
        for distance, truth in ((-1e-3, Status.UNSAT), (1e-3, Status.SAT)):
            question = OutputSpec(((spec.disjuncts[0][0], np.array([margin.low + distance])),))
            for split in ("input", "relu"):
                assert search(network, low, high, question, split=split)[1].status is truth


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(2, 8))
def test_what_a_file_computes_is_within_what_its_network_is_charged(seed: int, steps: int) -> None:
    charged(seed, steps)


def test_most_random_graphs_are_compared() -> None:
    """Else the test above would say little."""
    assert sum(charged(seed, 5) for seed in range(12)) >= 9
