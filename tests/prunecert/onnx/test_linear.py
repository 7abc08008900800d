"""Convolutions, linear layers, products and sums along axes: as onnxruntime has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from prunecert.onnx import emit, linear
from prunecert.onnx.normalise import UnsupportedNetworkError, normalise
from prunecert.onnx.rounding import noted
from tests.prunecert.onnx.graphs import CONV, N, assert_same, build, conv, operators, reduction, weights


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 1, 2, 0]},
        {"pads": [2, 0, 0, 1], "strides": [2, 2]},
        {"pads": [0, 0, 3, 3], "strides": [3, 2]},
        {"pads": [1, 2, 2, 1], "dilations": [2, 2]},
        {"dilations": [2, 1]},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [3, 2]},
        {"auto_pad": "VALID"},
        {"auto_pad": "NOTSET", "pads": [1, 0, 1, 0]},
    ],
)
@pytest.mark.parametrize("kernel", [{}, {"kernel_shape": [3, 3]}])
def test_convolutions(attributes: dict[str, Any], kernel: dict[str, Any]) -> None:
    normal = assert_same(build(conv(**attributes, **kernel), CONV))
    assert operators(normal) == ["Conv", "Flatten"]


def test_grouped_convolutions_behind_factors_and_shifts() -> None:
    constants = {"w": weights(4, 1, 3, 3), "b": weights(4), "m": weights(1, 2, 1, 1), "d": weights(2, 1, 1)}
    nodes = [N("Sub", ["x", "m"], ["s"]), N("Div", ["s", "d"], ["t"]), N("Conv", ["t", "w", "b"], ["y"], group=2)]
    assert operators(assert_same(build(nodes, constants))) == ["Conv", "Flatten"]


def test_normalisation_before_padding_is_a_layer_of_its_own() -> None:
    constants = CONV | {"m": weights(1, 2, 1, 1), "d": weights(2, 1, 1)}
    nodes = [N("Sub", ["x", "m"], ["s"]), N("Div", ["s", "d"], ["t"]), N("Conv", ["t", "w", "b"], ["y"], pads=[1] * 4)]
    assert operators(assert_same(build(nodes, constants))) == ["Conv", "Conv", "Flatten"]


@pytest.mark.parametrize(
    "axes", [{}, {"strides": [2]}, {"pads": [1, 2]}, {"dilations": [2]}, {"auto_pad": "SAME_UPPER"}]
)
def test_one_dimensional_convolutions(axes: dict[str, Any]) -> None:
    constants = {"w": weights(3, 2, 3), "b": weights(3)}
    assert_same(build([N("Conv", ["x", "w", "b"], ["y"], **axes)], constants, (1, 2, 11)))


@pytest.mark.parametrize("attributes", [{}, {"strides": [2, 2]}, {"pads": [1, 1, 0, 0], "output_padding": [0, 0]}])
@pytest.mark.parametrize("bias", [True, False])
def test_transposed_convolutions(attributes: dict[str, Any], bias: bool) -> None:
    constants = {"w": weights(2, 3, 2, 2)} | ({"b": weights(3)} if bias else {})
    nodes = [N("ConvTranspose", ["x", *constants], ["h"], **attributes), N("Relu", ["h"], ["y"])]
    assert_same(build(nodes, constants, (1, 2, 3, 3)))


AXIS = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2), st.integers(0, 2))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(down=AXIS, across=AXIS, groups=st.sampled_from([1, 2]), more=st.integers(0, 1), flat=st.booleans())
def test_large_transposed_convolutions_set_zeros_between(
    down: tuple[int, ...], across: tuple[int, ...], groups: int, more: int, flat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (emit, linear):
        monkeypatch.setattr(module, "SPREAD", 0)
    shape = (1, 4, 5) if flat else (1, 4, 3, 4)
    # Size, kernel, stride, dilation, pads before and after, and further rows, of each axis.
    axes = [
        (size, *axis, min(more, axis[1] - 1))
        for size, axis in zip(shape[2:], [down] if flat else [down, across], strict=True)
    ]
    sizes = [
        stride * (size - 1) + extra + dilation * (kernel - 1) + 1 - first - last
        for size, kernel, stride, dilation, first, last, extra in axes
    ]
    if min(sizes) < 1:
        return
    node = N(
        "ConvTranspose",
        ["h", "w", "b"],
        ["t"],
        strides=[axis[2] for axis in axes],
        dilations=[axis[3] for axis in axes],
        pads=[*(axis[4] for axis in axes), *(axis[5] for axis in axes)],
        output_padding=[axis[6] for axis in axes],
        group=groups,
    )
    nodes = [N("Conv", ["x", "v"], ["h"]), node, N("Relu", ["t"], ["y"])]
    kernels = [axis[1] for axis in axes]
    constants = {"v": weights(4, 4, *[1] * len(axes)), "w": weights(4, 3, *kernels), "b": weights(3 * groups)}
    normal = assert_same(build(nodes, constants, shape), points=2)
    cut = any(
        min(dilation * (kernel - 1) - first, dilation * (kernel - 1) - last + extra + 1 - stride) < 0
        for _, kernel, stride, dilation, first, last, extra in axes
    )
    assert ("Gemm" in operators(normal)) == cut


def test_a_transposed_convolution_needs_no_large_matrix() -> None:
    """Twice as many rows and columns, of 64 times 16 by 16 places: a matrix would have 10^9 weights."""
    nodes = [
        N("Relu", ["x"], ["r"]),
        N("ConvTranspose", ["r", "w"], ["h"], strides=[2, 2], pads=[1] * 4),
        N("Relu", ["h"], ["y"]),
    ]
    normal = normalise(build(nodes, {"w": weights(64, 4, 4, 4)}, (1, 64, 16, 16)))
    assert sum(numpy_helper.to_array(item).size for item in normal.model.graph.initializer) < 100_000
    assert noted(normal.model) == {}
    stored = [numpy_helper.to_array(item) for item in normal.model.graph.initializer if "weight" in item.name]
    assert [np.unique(weight).tolist() for weight in stored[:2]] == [[0, 1]] * 2


@pytest.mark.parametrize(
    ("attributes", "first", "bias"),
    [
        ({}, (5, 3), (3,)),
        ({"transB": 1}, (3, 5), (1, 3)),
        ({"alpha": 0.5, "beta": 2.0}, (5, 3), (1,)),
        ({"alpha": -1.5}, (5, 3), ()),
        ({}, (5, 3), None),
        ({"transB": 1, "beta": 0.25}, (3, 5), (1, 1)),
    ],
)
def test_linear_layers(attributes: dict[str, Any], first: tuple[int, int], bias: tuple[int, ...] | None) -> None:
    constants = {"w": weights(*first)} | ({} if bias is None else {"b": weights(*bias)})
    assert operators(assert_same(build([N("Gemm", ["x", *constants], ["y"], **attributes)], constants, (1, 5)))) == [
        "Gemm"
    ]


def test_weights_on_the_left() -> None:
    nodes = [N("Gemm", ["w", "x", "b"], ["y"], transA=1)]
    assert_same(build(nodes, {"w": weights(4, 3), "b": weights(3, 1)}, (4, 1)))


@pytest.mark.parametrize(
    ("shape", "weight", "left"),
    [
        ((1, 4), (4, 3), False),
        ((4,), (4, 3), False),
        ((4,), (3, 4), True),
        ((4,), (4,), False),
        ((4, 1), (3, 4), True),
        ((1, 1, 4), (4, 3), False),
        ((1, 5, 4), (4, 3), False),
        ((1, 4, 5), (3, 4), True),
        ((1, 2, 5, 4), (4, 3), False),
        ((1, 2, 5, 4), (1, 4, 3), False),
        ((1, 2, 5, 4), (2, 4, 3), False),
        ((1, 2, 4, 5), (2, 3, 4), True),
        ((1, 5, 4), (4,), False),
        ((1, 4, 5), (4,), True),
        ((4,), (2, 4, 3), False),
    ],
)
def test_products(shape: tuple[int, ...], weight: tuple[int, ...], left: bool) -> None:
    nodes = [N("MatMul", ["w", "x"] if left else ["x", "w"], ["m"]), N("Relu", ["m"], ["y"])]
    assert_same(build(nodes, {"w": weights(*weight)}, shape))


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceSum"])
@pytest.mark.parametrize("axes", [[2, 3], [-1], [1], [0, 2], [3], None])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("opset", [11, 18])
def test_reductions(operator: str, axes: list[int] | None, keepdims: int, opset: int) -> None:
    assert_same(reduction(operator, axes, keepdims, opset))


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (N("CumSum", ["r", "a"], ["m"]), {"a": np.array(1)}),
        (N("Einsum", ["r", "k"], ["m"], equation="nchw,cd->ndhw"), {"k": weights(2, 3)}),
    ],
)
@pytest.mark.parametrize("after", ["Relu", "LeakyRelu"])
def test_what_is_read_off_its_values_at_unit_vectors(
    node: onnx.NodeProto, constants: dict[str, Any], after: str
) -> None:
    nodes = [N("Add", ["x", "shift"], ["s"]), N("Relu", ["s"], ["r"]), node, N(after, ["m"], ["y"])]
    normal = assert_same(build(nodes, constants | {"shift": weights(1, 2, 1, 1)}, (1, 2, 3, 4)))
    assert f"{node.op_type} is written as a linear layer." in normal.notes


def test_an_operator_of_two_inputs_that_depend_on_the_network_s_is_refused() -> None:
    nodes = [N("Relu", ["x"], ["r"]), N("Einsum", ["x", "r"], ["y"], equation="ni,nj->nij")]
    with pytest.raises(UnsupportedNetworkError, match=r"linear in one input .* not in several"):
        normalise(build(nodes, {}, (1, 3)))
