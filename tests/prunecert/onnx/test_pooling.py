"""Averages and maxima over windows and axes: the normal form is the network, as onnxruntime has both."""

from __future__ import annotations

from typing import Any

import pytest

from prunecert.onnx.normalise import UnsupportedNetworkError, normalise
from tests.prunecert.onnx.graphs import N, assert_same, build, operators, reduction, weights


@pytest.mark.parametrize(("operator", "include"), [("AveragePool", 0), ("AveragePool", 1), ("MaxPool", 0)])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2]},
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2], "strides": [2, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 1, 1, 0]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [1, 0, 0, 1], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"},
        {"kernel_shape": [3, 3], "auto_pad": "VALID"},
        {"kernel_shape": [2, 2], "dilations": [2, 2]},
        {"kernel_shape": [1, 1], "strides": [2, 2]},
    ],
)
@pytest.mark.parametrize("positive", [True, False])
def test_pooling(operator: str, attributes: dict[str, Any], include: int, positive: bool) -> None:
    more: dict[str, Any] = {"count_include_pad": include} if operator == "AveragePool" else {}
    nodes = [N("Relu", ["x"], ["r"])] if positive else []
    nodes += [N(operator, ["r" if positive else "x"], ["p"], **attributes, **more), N("Relu", ["p"], ["y"])]
    assert_same(build(nodes, {}, (1, 2, 7, 6), opset=19))


def test_padded_averages_that_count_what_is_inside_go_into_the_next_layer() -> None:
    nodes = [
        N("AveragePool", ["x"], ["p"], kernel_shape=[3, 3], pads=[1] * 4),
        N("Flatten", ["p"], ["f"]),
        N("Gemm", ["f", "w"], ["y"]),
    ]
    normal = assert_same(build(nodes, {"w": weights(72, 3)}))
    assert operators(normal) == ["Conv", "Flatten", "Gemm"]


def test_averages_without_pads_next_to_auto_pad() -> None:
    """onnxruntime ignores the pads there."""
    nodes = [N("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], auto_pad="VALID", pads=[1] * 4, count_include_pad=1)]
    assert operators(assert_same(build(nodes))) == ["AveragePool", "Flatten"]


@pytest.mark.parametrize("positive", [True, False])
def test_maxima_along_a_row_are_read_in_equal_steps(positive: bool) -> None:
    """Along an axis of one place any step does, and bounds of some verifiers take no unequal ones."""
    nodes = [N("Relu", ["x"], ["r"])] if positive else []
    nodes += [N("MaxPool", ["r" if positive else "x"], ["y"], kernel_shape=[3], strides=[2], pads=[1, 1])]
    normal = assert_same(build(nodes, {}, (1, 2, 6)))
    steps = [
        list(item.ints)
        for node in normal.model.graph.node
        if node.op_type == "Conv"
        for item in node.attribute
        if item.name == "strides"
    ]
    assert [2, 2] in steps
    assert all(down == across for down, across in steps)


def test_maxima_are_kept_where_they_may_be() -> None:
    nodes = [N("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])]
    assert operators(assert_same(build(nodes), keep={"MaxPool"})) == ["MaxPool", "Flatten"]
    nodes = [N("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[1, 1])]
    assert "MaxPool" not in operators(assert_same(build(nodes), keep={"MaxPool"}))


@pytest.mark.parametrize("operator", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (1, 3, 7)])
def test_global_pooling(operator: str, shape: tuple[int, ...]) -> None:
    assert_same(build([N(operator, ["x"], ["y"])], {}, shape))


@pytest.mark.parametrize("operator", ["ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("axes", [[2, 3], [-1], [1], [0, 2], [3], None])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("opset", [11, 18])
def test_reductions(operator: str, axes: list[int] | None, keepdims: int, opset: int) -> None:
    assert_same(reduction(operator, axes, keepdims, opset))


def test_the_places_of_maxima_are_refused() -> None:
    nodes = [N("MaxPool", ["x"], ["y", "places"], kernel_shape=[2, 2])]
    with pytest.raises(UnsupportedNetworkError, match="the places of its maxima"):
        normalise(build(nodes))


def test_windows_of_padding_alone_and_long_ones_are_refused() -> None:
    nodes = [N("MaxPool", ["x"], ["y"], kernel_shape=[65, 1])]
    with pytest.raises(UnsupportedNetworkError, match=r"its windows are \[65, 1\] large"):
        normalise(build(nodes, {}, (1, 1, 65, 1)))
    with pytest.raises(UnsupportedNetworkError, match=r"an axis of it is 65 long"):
        normalise(build([N("ReduceMax", ["x"], ["y"])], {}, (1, 65)))
