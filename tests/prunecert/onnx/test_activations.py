"""Piecewise linear functions, and what is removed at the end: as onnxruntime has them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import onnx
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
