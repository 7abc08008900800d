"""Piecewise linear functions, and what is removed at the end: as onnxruntime has them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from prunecert.onnx.normal import normal_nodes
from prunecert.onnx.normalise import UnsupportedNetworkError, normalise
from tests.prunecert.onnx.graphs import CONV, N, assert_same, build, weights
from tests.prunecert.onnx.test_rounding import enclosed


@pytest.mark.parametrize("shape", [(1, 2, 3, 3), (1, 5), (5,), (1, 2, 4)])
@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (N("Relu", ["x"], ["y"]), {}),
        (N("LeakyRelu", ["x"], ["y"]), {}),
        (N("LeakyRelu", ["x"], ["y"], alpha=0.3), {}),
        (N("LeakyRelu", ["x"], ["y"], alpha=1.5), {}),
        (N("PRelu", ["x", "s"], ["y"]), {"s": np.array([0.2], np.float32)}),
        (N("Abs", ["x"], ["y"]), {}),
        (N("HardSigmoid", ["x"], ["y"]), {}),
        (N("HardSigmoid", ["x"], ["y"], alpha=0.5, beta=0.1), {}),
        (N("Clip", ["x", "l"], ["y"]), {"l": np.float32(0)}),
        (N("Clip", ["x", "l"], ["y"]), {"l": np.float32(0.25)}),
        (N("Clip", ["x", "l", "h"], ["y"]), {"l": np.float32(0), "h": np.float32(1)}),
        (N("Clip", ["x", "l", "h"], ["y"]), {"l": np.float32(-0.5), "h": np.float32(0.75)}),
        (N("Clip", ["x", "l", "h"], ["y"]), {"l": np.float32(1), "h": np.float32(-1)}),
        (N("Clip", ["x", "l", "h"], ["y"]), {"l": np.float32(0), "h": np.float32(3.4e38)}),
        (N("Clip", ["x", "l", "h"], ["y"]), {"l": np.float32(0), "h": np.float32(1e6)}),
        (N("Clip", ["x", "", "h"], ["y"]), {"h": np.float32(0.5)}),
        (N("Clip", ["x", "l", "h"], ["y"]), {"l": np.float32(-1e31), "h": np.float32(1e31)}),
        (N("Clip", ["x", "l"], ["y"]), {"l": np.float32(1e31)}),
        (N("Clip", ["x"], ["y"]), {}),
        (N("Max", ["x", "l"], ["y"]), {"l": np.float32(0)}),
        (N("Max", ["l", "x"], ["y"]), {"l": np.float32(0.5)}),
        (N("Min", ["x", "l"], ["y"]), {"l": np.float32(0.5)}),
        (N("Min", ["l", "x", "k"], ["y"]), {"l": np.float32(0.5), "k": np.float32(-0.5)}),
        (N("Sigmoid", ["x"], ["y"]), {}),
        (N("Tanh", ["x"], ["y"]), {}),
    ],
)
def test_element_by_element(shape: tuple[int, ...], node: onnx.NodeProto, constants: dict[str, Any]) -> None:
    assert_same(build([node], constants, shape))


@pytest.mark.parametrize("operator", ["Max", "Min"])
def test_maxima_of_computed_values(operator: str) -> None:
    nodes = [
        N("Conv", ["x", "w", "b"], ["c"]),
        N("Neg", ["c"], ["n"]),
        N("Relu", ["c"], ["r"]),
        N(operator, ["c", "n", "r", "k"], ["y"]),
    ]
    assert_same(build(nodes, CONV | {"k": weights(1, 3, 1, 1)}))


@pytest.mark.parametrize(("low", "high"), [(-1e31, 1e31), (None, 1e31), (-1e31, None), (-(2.0**30), 0.5), (3.0, 1e38)])
def test_far_limits_are_limits(low: float | None, high: float | None) -> None:
    """Values beyond 1e30 are rare, and a limit there counts all the same; small values lose no digit to it."""
    limits = {"l": low, "h": high}
    constants = {name: np.float32(limit) for name, limit in limits.items() if limit is not None}
    inputs = ["x", *(name if name in constants else "" for name in limits)]
    form = normalise(build([N("Clip", inputs, ["y"])], constants, (1, 1)))
    nodes = normal_nodes(form.model)
    assert nodes is not None
    ends = [Fraction(float(constants.get(name, default))) for name, default in (("l", -3.4e38), ("h", 3.4e38))]
    for point in (1e33, -1e33, 0.1, -0.1, 5.0):
        number = Fraction(float(np.float32(point)))
        ((lowest, highest),) = enclosed(nodes, np.array([point], np.float32))
        exact = min(max(number, ends[0]), ends[1])
        assert lowest <= exact <= highest
        assert highest - lowest <= abs(exact) / 2**20


def test_clip_of_old_opsets_has_attributes() -> None:
    assert_same(build([N("Clip", ["x"], ["y"], min=0.0, max=6.0)], {}, (1, 5), opset=7))
    assert_same(build([N("Clip", ["x"], ["y"])], {}, (1, 5), opset=10))


@pytest.mark.parametrize(("operator", "last"), [("Softmax", "order"), ("LogSoftmax", "difference")])
@pytest.mark.parametrize("opset", [11, 13])
def test_a_last_softmax_is_removed(operator: str, last: str, opset: int) -> None:
    nodes = [N("Gemm", ["x", "w"], ["l"]), N(operator, ["l"], ["s"], axis=1), N("Identity", ["s"], ["y"])]
    normal = assert_same(build(nodes, {"w": weights(5, 3)}, (1, 5), opset=opset))
    assert (normal.last, normal.removed) == (last, operator)
    nodes = [N(operator, ["x"], ["s"]), N("Gemm", ["s", "w"], ["y"])]
    with pytest.raises(UnsupportedNetworkError, match=f"after {operator}"):
        normalise(build(nodes, {"w": weights(5, 3)}, (1, 5), opset=opset))


def test_a_softmax_over_a_part_is_refused() -> None:
    with pytest.raises(UnsupportedNetworkError, match="normalises a part"):
        normalise(build([N("Softmax", ["x"], ["y"], axis=1)], {}, (1, 2, 3)))


@pytest.mark.parametrize("operator", ["Sigmoid", "Tanh"])
def test_smooth_activations_stay_where_they_are_asked_for(operator: str) -> None:
    """Between layers, in whatever order their values are; at the end they are removed all the same."""
    nodes = [
        N("Sub", ["x", "m"], ["c"]),
        N("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
        N(operator, ["t"], ["s"]),
        N("Transpose", ["s"], ["u"], perm=[0, 3, 1, 2]),
        N("Conv", ["u", "w", "b"], ["v"]),
        N(operator, ["v"], ["y"]),
    ]
    model = build(nodes, CONV | {"m": weights(1, 2, 1, 1)})
    with pytest.raises(UnsupportedNetworkError, match=f"after {operator}"):
        normalise(model)
    normal = normalise(model, keep=(operator,))
    assert [node.op_type for node in normal.model.graph.node].count(operator) == 2
    assert normal.last == "none"
    assert normal_nodes(normal.model) is None
    read = normal_nodes(normal.model, (operator,))
    assert read is not None
    again = normalise(normal.model, keep=(operator,))
    assert not again.changed
    points = np.random.default_rng(0).normal(size=(4, *input_shape(model)[1:])).astype(np.float32)
    for point in points:
        outputs = run(normal.model, point.reshape(input_shape(normal.model)))
        np.testing.assert_allclose(outputs.reshape(-1), run(model, point[None]).reshape(-1), atol=1e-5)


@pytest.mark.parametrize("operator", ["Sigmoid", "Tanh"])
def test_a_last_smooth_activation_is_removed_even_if_it_may_stay(operator: str) -> None:
    nodes = [N("Gemm", ["x", "w", "b"], ["g"], transB=1), N(operator, ["g"], ["y"])]
    normal = normalise(build(nodes, {"w": weights(3, 5), "b": weights(3)}, (1, 5)), keep=(operator,))
    assert (normal.last, normal.removed) == ("order", operator)


def test_a_constant_s_sigmoid_is_its_value() -> None:
    """What the input has no part in, and places that padding adds, are 1/2 where the argument is 0."""
    nodes = [
        N("Mul", ["x", "z"], ["n"]),
        N("Sigmoid", ["n"], ["s"]),
        N("Pad", ["x", "p"], ["q"]),
        N("Sigmoid", ["q"], ["r"]),
        N("Concat", ["s", "r"], ["k"], axis=1),
        N("Gemm", ["k", "w", "b"], ["y"], transB=1),
    ]
    constants = {"z": np.zeros(1, np.float32), "p": np.array([0, 0, 0, 2]), "w": weights(2, 8), "b": weights(2)}
    model = build(nodes, constants, (1, 3))
    normal = normalise(model, keep=("Sigmoid",))
    x = np.array([[0.3, -1.0, 2.0]], np.float32)
    np.testing.assert_allclose(run(normal.model, x), run(model, x), atol=1e-6)


def input_shape(model: onnx.ModelProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)


def run(model: onnx.ModelProto, x: Any) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {model.graph.input[0].name: x})[0]
