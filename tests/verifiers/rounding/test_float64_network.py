"""The float64 network is the file's: onnxruntime's outputs differ from its by float32 rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.rounding import float64_network
from tests.verifiers import onnxnets

NETWORKS: dict[str, Callable[[Path], Path]] = {
    "linear": onnxnets.linear,
    "connected": onnxnets.connected,
    "residual": onnxnets.residual,
    "convolutional": onnxnets.convolutional,
}
SHAPE = (2, 6, 5)


def _one(path: Path, operator: str, constants: dict[str, NDArray[Any]], **attributes: Any) -> Path:
    """One operator on an image, flattened."""
    nodes = [
        helper.make_node(operator, ["input", *constants], ["y"], **attributes),
        helper.make_node("Flatten", ["y"], ["output"]),
    ]
    weights = {name: value.astype(np.float32) for name, value in constants.items()}
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, *SHAPE])],
        [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [1, None])],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), str(path))
    return path


def _kernel(*shape: int) -> NDArray[Any]:
    return np.random.default_rng(5).normal(size=shape)


OPERATORS: dict[str, Callable[[Path], Path]] = {
    "conv": lambda path: _one(path, "Conv", {"w": _kernel(3, 2, 3, 3), "b": _kernel(3)}),
    "conv-strides-pads": lambda path: _one(
        path, "Conv", {"w": _kernel(3, 2, 3, 2)}, strides=[2, 1], pads=[1, 0, 2, 1], dilations=[1, 2]
    ),
    "conv-groups": lambda path: _one(path, "Conv", {"w": _kernel(4, 1, 2, 2), "b": _kernel(4)}, group=2),
    "conv-same-upper": lambda path: _one(
        path, "Conv", {"w": _kernel(3, 2, 2, 3)}, strides=[2, 2], auto_pad="SAME_UPPER"
    ),
    "conv-same-lower": lambda path: _one(
        path, "Conv", {"w": _kernel(3, 2, 2, 3)}, strides=[2, 2], auto_pad="SAME_LOWER"
    ),
    "average": lambda path: _one(path, "AveragePool", {}, kernel_shape=[2, 2], strides=[2, 1]),
    "average-pads": lambda path: _one(path, "AveragePool", {}, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average-counted-pads": lambda path: _one(
        path, "AveragePool", {}, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "average-valid": lambda path: _one(path, "AveragePool", {}, kernel_shape=[3, 3], auto_pad="VALID"),
    "global-average": lambda path: _one(path, "GlobalAveragePool", {}),
    "max": lambda path: _one(path, "MaxPool", {}, kernel_shape=[2, 2]),
    "leaky": lambda path: _one(path, "LeakyRelu", {}, alpha=0.1),
    "mean": lambda path: _one(path, "ReduceMean", {}, axes=[2, 3]),
    "sum": lambda path: _one(path, "Mul", {"c": _kernel(2, 1, 1)}),
}


@pytest.mark.parametrize("name", [*NETWORKS, *OPERATORS])
def test_equal_to_onnxruntime_up_to_rounding(name: str, tmp_path: Path) -> None:
    path = (NETWORKS | OPERATORS)[name](tmp_path / "n.onnx")
    shape = [dim.dim_value for dim in onnx.load(str(path)).graph.input[0].type.tensor_type.shape.dim][1:]
    points = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    single = counterexample.outputs(path, points)
    network = float64_network.Network(path)
    exact = np.stack([network.run(point) for point in points])
    assert exact.dtype == np.float64
    scale = float(np.abs(exact).max())
    assert np.abs(exact - single).max() < 1e-5 * scale
    disturbed = np.stack([network.run(point, np.random.default_rng(1)) for point in points])
    # Operators that round nothing are left as they are.
    assert (np.abs(disturbed - exact).max() > 1e-9 * scale) == (name != "max")
    assert np.abs(disturbed - exact).max() < 1e-4 * scale


def test_random_errors_are_of_the_size_of_rounding(tmp_path: Path) -> None:
    """Sums of 512 products: float32's differences, in any order, are below three deviations of the random ones."""
    path = onnxnets.linear(tmp_path / "n.onnx", shape=(2, 16, 16))
    network = float64_network.Network(path)
    points = np.random.default_rng(0).normal(size=(40, 2, 16, 16)).astype(np.float32)
    exact = np.stack([network.run(point) for point in points])
    rng = np.random.default_rng(1)
    random = np.sqrt(np.mean((np.stack([network.run(point, rng) for point in points]) - exact) ** 2))
    measured = np.sqrt(np.mean((counterexample.outputs(path, points) - exact) ** 2))
    assert measured < random < 100 * measured


def test_what_can_not_be_run_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(float64_network.UnreadableError):
        float64_network.Network(broken)
    text = """<ir_version: 10, opset_import: ["": 21]> net (float[1, 2] x) => (float[1, 2] y)
    <float s = {0.5}, uint8 z = {0}> { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "q.onnx")
    # Also of opsets that `onnx.reference` has no word for.
    onnx.save(onnx.parser.parse_model(text.replace("21]", "13]")), tmp_path / "old.onnx")
    for name in ("q.onnx", "old.onnx"):
        with pytest.raises(float64_network.WholeNumbersError, match="rounds activations"):
            float64_network.read(tmp_path / name, "2")
    path = onnxnets.linear(tmp_path / "n.onnx")
    with pytest.raises(float64_network.UnreadableError, match="ValueError"):
        float64_network.Network(path).run(np.zeros(5))


def _text(path: Path, body: str, kind: str = "float", constants: str = "") -> Path:
    text = f"""<ir_version: 8, opset_import: ["" : 13]> net ({kind}[1, 2] x) => (float[1, 2] y)
    <float[1] one = {{1}}{constants}> {{ {body} }}"""
    onnx.save(onnx.parser.parse_model(text), path)
    return path


@pytest.mark.parametrize(
    ("quantised", "whole"),
    [
        ("q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) y = Mul (d, one)", True),
        # Of a constant, however it is written, and of what no output reads.
        (
            "k = Constant <value = float[2] {1, 2}> () q = QuantizeLinear (k, s, z) d = DequantizeLinear (q, s, z)"
            " y = Mul (x, d)",
            False,
        ),
        ("q = QuantizeLinear (x, s, z) y = Mul (x, one)", False),
    ],
)
def test_only_what_rounds_activations_isnt_measured(quantised: str, whole: bool, tmp_path: Path) -> None:
    text = f"""<ir_version: 10, opset_import: ["" : 21]> net (float[1, 2] x) => (float[1, 2] y)
    <float[1] one = {{1}}, float s = {{0.5}}, uint8 z = {{0}}> {{ {quantised} }}"""
    path = tmp_path / "n.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    if whole:
        with pytest.raises(float64_network.WholeNumbersError):
            float64_network.read(path, quantised)
    else:
        assert len(float64_network.read(path, quantised).run([0.25, 0.5])) == 2


def test_what_depends_on_the_input_is_rounded_to_no_type(tmp_path: Path) -> None:
    point = np.array([1 / 3, 0.1])
    for kind in (10, 16):
        path = _text(tmp_path / f"{kind}.onnx", f"h = Cast <to = {kind}> (x) y = Cast <to = 1> (h)")
        network = float64_network.Network(path)
        np.testing.assert_array_equal(network.run(point), point)
        # Its random errors are those of 16 bits.
        deviation = np.std([network.run(point, np.random.default_rng(seed)) - point for seed in range(50)])
        unit = {10: 2.0**-11, 16: 2.0**-8}[kind]
        assert 0.02 * unit < deviation < unit
    # The weights are what the file makes of them.
    path = _text(
        tmp_path / "w.onnx",
        "h = Cast <to = 10> (w) c = Cast <to = 1> (h) y = Mul (x, c)",
        "float",
        ", float[1] w = {0.1}",
    )
    np.testing.assert_array_equal(float64_network.Network(path).run(point), point * float(np.float16(0.1)))


BRANCH = """t = Constant <value = bool[1] {1}> () y = If (t)
    <then_branch = a () => (float[1, 2] u) { u = Mul (x, one) },
    else_branch = b () => (float[1, 2] v) { v = Neg (x) }>"""


def test_where_a_file_can_not_be_run_its_normal_form_is(tmp_path: Path) -> None:
    path = _text(tmp_path / "n.onnx", BRANCH)
    with pytest.raises(float64_network.UnreadableError, match="holds a graph of its own"):
        float64_network.Network(path)
    network = float64_network.read(path, "0")
    np.testing.assert_array_equal(network.run([0.25, -2.0]), [0.25, -2.0])
    assert network.weights > 0


def test_the_normal_form_stands_in_where_a_run_fails_and_keeps_the_order_of_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of images with channels last, whose normal form has another order."""
    path = tmp_path / "n.onnx"
    text = """<ir_version: 8, opset_import: ["" : 13]> net (float[1, 2, 2, 3] x) => (float[1, 12] y) {
    t = Transpose <perm = [0, 3, 1, 2]> (x) p = AveragePool <kernel_shape = [1, 1]> (t) y = Flatten (p) }"""
    onnx.save(onnx.parser.parse_model(text), path)
    point = np.random.default_rng(0).normal(size=(2, 2, 3)).astype(np.float32)
    right = float64_network.Network(path).run(point)
    plain = float64_network.Network.run

    def run(self: float64_network.Network, *arguments: Any) -> NDArray[np.float64]:
        if any(node.operator == "Transpose" for node in self._nodes):
            raise float64_network.UnreadableError("no transposing today")
        return plain(self, *arguments)

    monkeypatch.setattr(float64_network.Network, "run", run)
    network = float64_network.Float64(path, 12)
    np.testing.assert_allclose(network.run(point), right, rtol=1e-6)
    np.testing.assert_allclose(counterexample.outputs(path, point[None])[0], right, rtol=1e-6)


def test_without_a_comparable_normal_form_both_reasons_are_said(tmp_path: Path) -> None:
    path = _text(tmp_path / "n.onnx", BRANCH.replace("y = If", "z = If") + " y = Softmax (z)")
    with pytest.raises(
        float64_network.UnreadableError, match=r"graph of its own; its normal form lacks the last Softmax"
    ):
        float64_network.read(path, "1")
