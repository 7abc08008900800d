"""Each rewrite: the normal form is the given network, as onnxruntime evaluates both."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunecert.errors import UserError
from prunecert.onnx.normalise import UnsupportedNetworkError, normalise
from tests.prunecert.onnx.graphs import N, assert_same, build, operators, weights

Nodes = list[onnx.NodeProto]
I64 = np.int64


def _conv(**attributes: Any) -> Nodes:
    return [N("Conv", ["x", "w", "b"], ["y"], name="c", **attributes)]


CONV = {"w": weights(3, 2, 3, 3), "b": weights(3)}


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
    normal = assert_same(build(_conv(**attributes, **kernel), CONV))
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


POOL = (1, 2, 7, 6)


@pytest.mark.parametrize("operator", ["AveragePool", "MaxPool"])
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
@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("positive", [True, False])
def test_pooling(operator: str, attributes: dict[str, Any], include: int, positive: bool) -> None:
    if operator == "MaxPool" and include:
        pytest.skip("an attribute of averages")
    more: dict[str, Any] = {"count_include_pad": include} if operator == "AveragePool" else {}
    nodes = [N("Relu", ["x"], ["r"])] if positive else []
    nodes += [N(operator, ["r" if positive else "x"], ["p"], **attributes, **more), N("Relu", ["p"], ["y"])]
    assert_same(build(nodes, {}, POOL, opset=19))


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


def test_maxima_are_kept_where_they_may_be() -> None:
    nodes = [N("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])]
    assert operators(assert_same(build(nodes), keep={"MaxPool"})) == ["MaxPool", "Flatten"]
    nodes = [N("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[1, 1])]
    assert "MaxPool" not in operators(assert_same(build(nodes), keep={"MaxPool"}))


@pytest.mark.parametrize("operator", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (1, 3, 7)])
def test_global_pooling(operator: str, shape: tuple[int, ...]) -> None:
    assert_same(build([N(operator, ["x"], ["y"])], {}, shape))


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("axes", [[2, 3], [-1], [1], [0, 2], [3], None])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("opset", [11, 18])
def test_reductions(operator: str, axes: list[int] | None, keepdims: int, opset: int) -> None:
    given = opset >= 18 or (operator == "ReduceSum" and opset >= 13)
    inputs = ["x", "a"] if given and axes is not None else ["x"]
    more: dict[str, Any] = {} if given or axes is None else {"axes": axes}
    constants = {"a": np.array(axes, I64)} if given and axes is not None else {}
    nodes = [N(operator, inputs, ["y"], keepdims=keepdims, **more)]
    assert_same(build(nodes, constants, (1, 3, 4, 2), opset=opset))


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
        (N("Neg", ["x"], ["y"]), {}),
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
        (N("Clip", ["x"], ["y"]), {}),
        (N("Max", ["x", "l"], ["y"]), {"l": np.float32(0)}),
        (N("Max", ["l", "x"], ["y"]), {"l": np.float32(0.5)}),
        (N("Min", ["x", "l"], ["y"]), {"l": np.float32(0.5)}),
        (N("Min", ["l", "x", "k"], ["y"]), {"l": np.float32(0.5), "k": np.float32(-0.5)}),
        (N("Add", ["x", "x"], ["y"]), {}),
        (N("Sub", ["x", "x"], ["y"]), {}),
        (N("Sub", ["l", "x"], ["y"]), {"l": np.float32(0.5)}),
        (N("Mul", ["l", "x"], ["y"]), {"l": np.float32(-0.5)}),
        (N("Mul", ["l", "x"], ["y"]), {"l": np.float32(0)}),
        (N("Div", ["x", "l"], ["y"]), {"l": np.float32(3)}),
        (N("Sum", ["x", "l", "x"], ["y"]), {"l": np.float32(3)}),
        (N("Mean", ["x", "l", "x"], ["y"]), {"l": np.float32(3)}),
        (N("Identity", ["x"], ["y"]), {}),
        (N("Cast", ["x"], ["y"], to=TensorProto.FLOAT), {}),
        (N("Pow", ["x", "l"], ["y"]), {"l": np.float32(1)}),
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


def test_clip_of_old_opsets_has_attributes() -> None:
    assert_same(build([N("Clip", ["x"], ["y"], min=0.0, max=6.0)], {}, (1, 5), opset=7))
    assert_same(build([N("Clip", ["x"], ["y"])], {}, (1, 5), opset=10))


@pytest.mark.parametrize("rank", [2, 4])
@pytest.mark.parametrize("epsilon", [{}, {"epsilon": 0.1}])
def test_batch_norm(rank: int, epsilon: dict[str, Any]) -> None:
    shape = (1, 3, 2, 2)[:rank]
    constants = {"s": weights(3), "b": weights(3, seed=1), "m": weights(3, seed=2), "v": np.abs(weights(3, seed=3))}
    nodes = [N("BatchNormalization", ["x", *constants], ["n"], **epsilon), N("Relu", ["n"], ["y"])]
    assert_same(build(nodes, constants, shape))


def test_batch_norm_goes_into_the_convolution_that_nothing_else_reads() -> None:
    norm = {"s": weights(3), "t": weights(3, seed=1), "m": weights(3, seed=2), "v": np.abs(weights(3, seed=3))}
    nodes = [N("Conv", ["x", "w", "b"], ["c"]), N("BatchNormalization", ["c", *norm], ["n"]), N("Relu", ["n"], ["y"])]
    assert operators(assert_same(build(nodes, CONV | norm))) == ["Conv", "Relu", "Flatten"]
    nodes[2:] = [N("Relu", ["n"], ["r"]), N("Add", ["r", "c"], ["y"])]
    assert operators(assert_same(build(nodes, CONV | norm))) == ["Conv", "Conv", "Relu", "Add", "Flatten"]


@pytest.mark.parametrize("shape", [(1, 2, 3, 4)])
@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (N("Transpose", ["c"], ["m"], perm=[0, 2, 3, 1]), {}),
        (N("Transpose", ["c"], ["m"], perm=[0, 2, 1, 3]), {}),
        (N("Transpose", ["c"], ["m"]), {}),
        (N("Reshape", ["c", "s"], ["m"]), {"s": np.array([0, -1], I64)}),
        (N("Reshape", ["c", "s"], ["m"]), {"s": np.array([1, 4, 2, 3], I64)}),
        (N("Reshape", ["c", "s"], ["m"]), {"s": np.array([-1], I64)}),
        (N("Flatten", ["c"], ["m"], axis=0), {}),
        (N("Flatten", ["c"], ["m"], axis=-1), {}),
        (N("Flatten", ["c"], ["m"], axis=2), {}),
        (
            N("Slice", ["c", "s", "e", "a", "t"], ["m"]),
            {"s": np.array([0, 3]), "e": np.array([2, -9]), "a": np.array([1, -1]), "t": np.array([1, -2])},
        ),
        (N("Slice", ["c", "s", "e", "a"], ["m"]), {"s": np.array([1]), "e": np.array([3]), "a": np.array([2])}),
        (
            N("Slice", ["c", "s", "e", "a", "t"], ["m"]),
            {"s": np.array([0]), "e": np.array([99]), "a": np.array([3]), "t": np.array([3])},
        ),
        (N("Gather", ["c", "i"], ["m"], axis=1), {"i": np.array([1, 0, 1])}),
        (N("Gather", ["c", "i"], ["m"], axis=3), {"i": np.array(-1)}),
        (N("Gather", ["c", "i"], ["m"], axis=2), {"i": np.array([[2, 0]])}),
        (N("Expand", ["c", "s"], ["m"]), {"s": np.array([1, 2, 1, 1])}),
        (N("Tile", ["c", "s"], ["m"]), {"s": np.array([1, 2, 1, 2])}),
        (N("Unsqueeze", ["c", "a"], ["m"]), {"a": np.array([0, -1])}),
        (N("Pad", ["c", "p"], ["m"]), {"p": np.array([0, 0, 1, 2, 0, 0, 0, 1])}),
        (N("Pad", ["c", "p", "v"], ["m"]), {"p": np.array([0, 1, 1, 0, 0, 0, 2, 0]), "v": np.float32(0.5)}),
        (N("Pad", ["c", "p"], ["m"]), {"p": np.array([0, 0, -1, 0, 0, 0, 0, -2])}),
        (N("Pad", ["c", "p"], ["m"], mode="edge"), {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
        (N("Pad", ["c", "p"], ["m"], mode="reflect"), {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
        (N("Concat", ["c", "k", "x"], ["m"], axis=1), {"k": weights(1, 1, 3, 4)}),
        (N("Concat", ["c", "c"], ["m"], axis=2), {}),
        (N("Concat", ["k", "c"], ["m"], axis=-1), {"k": weights(1, 2, 3, 1)}),
        (N("Where", ["w", "c", "k"], ["m"]), {"w": weights(1, 2, 3, 4) > 0, "k": weights(4)}),
        (N("DepthToSpace", ["q"], ["m"], blocksize=2), {}),
        (N("ScatterND", ["c", "i", "k"], ["m"]), {"i": np.array([[0, 1]]), "k": weights(1, 3, 4)}),
        (N("CumSum", ["c", "a"], ["m"]), {"a": np.array(1)}),
        (N("Einsum", ["c", "k"], ["m"], equation="nchw,cd->ndhw"), {"k": weights(2, 3)}),
    ],
)
@pytest.mark.parametrize("after", ["Relu", "LeakyRelu", "Gemm"])
def test_rearrangements(shape: tuple[int, ...], node: onnx.NodeProto, constants: dict[str, Any], after: str) -> None:
    nodes = [
        N("Relu", ["x"], ["r"]),
        N("Add", ["r", "shift"], ["c"]),
        N("Concat", ["c", "x"], ["q4"], axis=1),
        N("Slice", ["q4", "q0", "q2", "q3"], ["q"]),
        node,
    ]
    more = {"shift": weights(1, 2, 1, 1), "q0": np.array([0]), "q2": np.array([2]), "q3": np.array([2])}
    if after == "Gemm":
        nodes += [N("Reshape", ["m", "flat"], ["f"]), N("MatMul", ["f", "g"], ["y"])]
        more["flat"] = np.array([1, -1])
        probe = build([*nodes[:-1]], constants | more, shape, outputs=["f"])
        length = onnx.shape_inference.infer_shapes(probe, data_prop=True).graph.output[0].type.tensor_type.shape
        more["g"] = weights(normalise(probe).outputs, 3)
        assert length is not None
    else:
        nodes += [N(after, ["m"], ["y"])]
    assert_same(build(nodes, constants | more, shape))


def test_split_and_old_forms() -> None:
    nodes = [N("Split", ["x", "s"], ["a", "b"], axis=1), N("Sub", ["a", "b"], ["y"])]
    assert_same(build(nodes, {"s": np.array([2, 2])}, (1, 4, 2, 2)))
    nodes = [N("Split", ["x"], ["a", "b"], axis=1, split=[2, 2]), N("Sub", ["a", "b"], ["y"])]
    assert_same(build(nodes, {}, (1, 4, 2, 2), opset=11))
    assert_same(build([N("Slice", ["x"], ["y"], starts=[1], ends=[3], axes=[2])], {}, opset=9))
    assert_same(build([N("Pad", ["x"], ["y"], pads=[0, 0, 1, 0, 0, 0, 0, 1], value=0.5)], {}, opset=9))
    assert_same(build([N("Squeeze", ["x"], ["y"], axes=[0, 3])], {}, (1, 3, 2, 1), opset=11))
    assert_same(build([N("Unsqueeze", ["x"], ["y"], axes=[0])], {}, (3,), opset=7))
    assert_same(build([N("Upsample", ["x", "s"], ["y"])], {"s": np.array([1, 1, 2, 2], np.float32)}, opset=9))
    nodes = [N("Resize", ["x", "", "s"], ["y"], mode="nearest")]
    assert_same(build(nodes, {"s": np.array([1, 1, 2, 2], np.float32)}, opset=13))


def test_channels_last_there_and_back() -> None:
    nodes = [
        N("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        N("Conv", ["t", "w", "b"], ["c"], pads=[1] * 4),
        N("Transpose", ["c"], ["u"], perm=[0, 2, 3, 1]),
        N("Add", ["u", "k"], ["a"]),
        N("Relu", ["a"], ["r"]),
        N("Transpose", ["r"], ["v"], perm=[0, 3, 1, 2]),
        N("Conv", ["v", "v2", "b2"], ["d"]),
        N("Transpose", ["d"], ["z"], perm=[0, 2, 3, 1]),
        N("Reshape", ["z", "s"], ["f"]),
        N("MatMul", ["f", "g"], ["y"]),
    ]
    constants = CONV | {"k": weights(3), "v2": weights(2, 3, 3, 3), "b2": weights(2), "s": np.array([1, -1])}
    normal = assert_same(build(nodes, constants | {"g": weights(24, 3)}, (1, 5, 6, 2)))
    assert operators(normal) == ["Conv", "Relu", "Conv", "Flatten", "Gemm"]
    assert normal.input_order is not None
    assert [dim.dim_value for dim in normal.model.graph.input[0].type.tensor_type.shape.dim] == [1, 2, 5, 6]


def test_channels_last_after_normalisation_and_reshape() -> None:
    nodes = [
        N("Reshape", ["x", "s"], ["i"]),
        N("Mul", ["i", "k"], ["m"]),
        N("Transpose", ["m"], ["t"], perm=[0, 3, 1, 2]),
        N("Conv", ["t", "w", "b"], ["y"]),
    ]
    normal = assert_same(build(nodes, CONV | {"k": weights(2), "s": np.array([1, 4, 5, 2])}, (1, 40)))
    assert operators(normal) == ["Conv", "Flatten"]


def test_channel_shuffle_is_a_small_convolution() -> None:
    nodes = [
        N("Conv", ["x", "w", "b"], ["c"]),
        N("Reshape", ["c", "s"], ["r"]),
        N("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3, 4]),
        N("Reshape", ["t", "u"], ["v"]),
        N("MaxPool", ["v"], ["y"], kernel_shape=[2, 2]),
    ]
    constants = {"w": weights(4, 2, 3, 3), "b": weights(4), "s": np.array([1, 2, 2, 4, 4]), "u": np.array([1, 4, 4, 4])}
    assert "Gemm" not in operators(assert_same(build(nodes, constants)))


def test_what_depends_on_constants_alone_is_folded() -> None:
    nodes = [
        N("ConstantOfShape", ["s"], ["one"], value=numpy_helper.from_array(np.array([1], np.float32))),
        N("Mul", ["w", "mask"], ["v"]),
        N("Add", ["v", "one"], ["u"]),
        N("DequantizeLinear", ["q", "scale", "zero"], ["b"]),
        N("Shape", ["x"], ["shape"]),
        N("Gather", ["shape", "i"], ["batch"]),
        N("Concat", ["batch", "rest"], ["whole"], axis=0),
        N("Reshape", ["x", "whole"], ["f"]),
        N("Gemm", ["f", "u", "b"], ["y"], transB=1),
    ]
    constants = {
        "s": np.array([3, 8]),
        "w": weights(3, 8),
        "mask": (weights(3, 8, seed=1) > 0).astype(np.float32),
        "q": np.array([3, -4, 5], np.int8),
        "scale": np.float32(0.5),
        "zero": np.int8(1),
        "i": np.array([0]),
        "rest": np.array([-1]),
    }
    assert operators(assert_same(build(nodes, constants, ("N", 2, 2, 2)))) == ["Flatten", "Gemm"]


def test_constants_are_summed_as_the_runtime_sums_them() -> None:
    """4,096 float32 numbers: the exact sum is another float32 than the one that onnxruntime finds."""
    row = np.full((1, 4096), 0.1, np.float32)
    nodes = [N("MatMul", ["a", "o"], ["sum"]), N("Add", ["x", "sum"], ["h"]), N("Gemm", ["h", "w"], ["y"])]
    constants = {"a": row, "o": np.ones((4096, 1), np.float32), "w": np.ones((1, 1), np.float32)}
    model = build(nodes, constants, (1, 1))
    normal = assert_same(model)
    bias = numpy_helper.to_array(normal.model.graph.initializer[1])
    direct = build([N("MatMul", ["a", "o"], ["sum"]), N("Add", ["x", "sum"], ["y"])], constants, (1, 1))
    assert bias[0] == np.float32(normalise_run(direct))


def normalise_run(model: onnx.ModelProto) -> float:
    from tests.prunecert.onnx.graphs import run

    return float(run(model, np.zeros(1, np.float32))[0])


def test_sparse_weights() -> None:
    values = helper.make_sparse_tensor(
        helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0, -2.0, 3.0]),
        helper.make_tensor("w_i", TensorProto.INT64, [3], [0, 5, 11]),
        [3, 4],
    )
    normal = assert_same(build([N("Gemm", ["x", "w"], ["y"], transB=1)], {}, (1, 4), sparse=[values]))
    matrix = numpy_helper.to_array(normal.model.graph.initializer[0])
    np.testing.assert_array_equal(matrix, [[1, 0, 0, 0], [0, -2, 0, 0], [0, 0, 0, 3]])
    values.indices.CopyFrom(helper.make_tensor("w_i", TensorProto.INT64, [3], [0, 5, 12]))
    with pytest.raises(UserError, match="sparse tensor 'w' is damaged"):
        normalise(build([N("Gemm", ["x", "w"], ["y"], transB=1)], {}, (1, 4), sparse=[values]))


@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [(TensorProto.DOUBLE, np.float64, 1e-5), (TensorProto.FLOAT16, np.float16, 1e-2)],
)
def test_other_types(kind: int, dtype: Any, tolerance: float) -> None:
    nodes = [N("Gemm", ["x", "w", "b"], ["h"]), N("Relu", ["h"], ["r"]), N("Gemm", ["r", "v"], ["y"])]
    constants = {"w": weights(5, 4).astype(dtype), "b": weights(4).astype(dtype), "v": weights(4, 2).astype(dtype)}
    normal = assert_same(build(nodes, constants, (1, 5), kind=kind), tolerance=tolerance)
    assert any("verified in float32" in note for note in normal.notes)


def test_bytes_as_input() -> None:
    nodes = [N("Cast", ["x"], ["f"], to=TensorProto.FLOAT), N("Div", ["f", "k"], ["d"]), N("Gemm", ["d", "w"], ["y"])]
    assert_same(build(nodes, {"k": np.float32(255), "w": weights(5, 3)}, (1, 5), kind=TensorProto.UINT8))


@pytest.mark.parametrize("opset", range(7, 24))
def test_every_opset(opset: int) -> None:
    nodes = [
        N("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4, strides=[2, 2]),
        N("Relu", ["c"], ["r"]),
        N("Flatten", ["r"], ["f"]),
        N("Gemm", ["f", "g", "h"], ["y"]),
    ]
    normal = assert_same(build(nodes, CONV | {"g": weights(27, 3), "h": weights(3)}, opset=opset))
    assert operators(normal) == ["Conv", "Relu", "Flatten", "Gemm"]


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


def test_the_output_that_counts() -> None:
    nodes = [N("Gemm", ["x", "w"], ["h"]), N("Relu", ["h"], ["y"]), N("Gemm", ["y", "v"], ["z"])]
    model = build(nodes, {"w": weights(5, 4), "v": weights(4, 2)}, (1, 5), outputs=["y", "z"])
    assert (assert_same(model).output, assert_same(model).outputs) == ("y", 4)
    assert assert_same(model, outputs=2).output == "z"
    assert assert_same(model, output="z").output == "z"
    assert assert_same(model, output=1).output == "z"
    with pytest.raises(UserError, match="no output with 7 values"):
        normalise(model, outputs=7)
    with pytest.raises(UserError, match="no output 'q'"):
        normalise(model, output="q")


def test_dead_heads_are_not_read() -> None:
    nodes = [N("Gemm", ["x", "w"], ["y"]), N("Erf", ["y"], ["unused"]), N("RandomNormalLike", ["y"], ["noise"])]
    assert operators(assert_same(build(nodes, {"w": weights(5, 4)}, (1, 5)))) == ["Gemm"]
    model = build(nodes, {"w": weights(5, 4)}, (1, 5), outputs=["unused", "y"])
    assert normalise(model, outputs=4).output == "y"


def test_a_branch_whose_condition_is_known() -> None:
    def branch(value: float) -> onnx.GraphProto:
        inner = [N("Constant", [], [f"k{value}"], value_float=value), N("Mul", ["h", f"k{value}"], [f"o{value}"])]
        return helper.make_graph(inner, "b", [], [helper.make_tensor_value_info(f"o{value}", 1, None)])

    nodes = [
        N("Gemm", ["x", "w"], ["h"]),
        N("Shape", ["x"], ["s"]),
        N("Size", ["s"], ["n"]),
        N("Equal", ["n", "two"], ["c"]),
        N("If", ["c"], ["y"], then_branch=branch(2.0), else_branch=branch(3.0)),
    ]
    assert_same(build(nodes, {"w": weights(5, 4), "two": np.array(2)}, (1, 5)))


def test_local_functions_are_written_out() -> None:
    model = build([N("Twice", ["x"], ["y"], domain="mine")], {}, (1, 5))
    function = helper.make_function(
        "mine", "Twice", ["a"], ["b"], [N("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 13)]
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    assert_same(model)


def test_a_constant_output_and_the_identity() -> None:
    assert_same(
        build(
            [N("Mul", ["x", "z"], ["m"]), N("Add", ["m", "k"], ["y"])], {"z": np.float32(0), "k": weights(1, 5)}, (1, 5)
        )
    )
    assert operators(assert_same(build([N("Identity", ["x"], ["y"])], {}, (1, 5)))) == ["Gemm"]


@pytest.mark.parametrize(
    ("nodes", "constants", "shape", "words"),
    [
        ([N("Dropout", ["x", "r", "t"], ["y"])], {"r": np.float32(0.5), "t": np.array(True)}, (1, 5), "model.eval()"),
        ([N("RandomNormalLike", ["x"], ["y"])], {}, (1, 5), "no function"),
        ([N("RandomNormal", [], ["n"], shape=[1, 5]), N("Add", ["x", "n"], ["y"])], {}, (1, 5), "no function"),
        ([N("Erf", ["x"], ["y"])], {}, (1, 5), "taken are Abs, Add"),
        ([N("Mul", ["x", "x"], ["y"])], {}, (1, 5), "both its factors"),
        ([N("MatMul", ["x", "x"], ["y"])], {}, (1, 1), "both its factors"),
        ([N("Div", ["k", "x"], ["y"])], {"k": np.float32(1)}, (1, 5), "divisor depends"),
        ([N("Div", ["x", "k"], ["y"])], {"k": np.float32(0)}, (1, 5), "holds a zero"),
        ([N("Mul", ["x", "k"], ["y"])], {"k": np.float32(np.inf)}, (1, 5), "infinite"),
        ([N("Cast", ["x"], ["i"], to=7), N("Cast", ["i"], ["y"], to=1)], {}, (1, 5), "rounds what depends"),
        (
            [N("QuantizeLinear", ["x", "s"], ["q"]), N("DequantizeLinear", ["q", "s"], ["y"])],
            {"s": np.float32(1)},
            (1, 5),
            "float network",
        ),
        ([N("Conv", ["x", "w"], ["y"], pads=[40000] * 4)], {"w": weights(3, 1, 3, 3)}, (1, 1, 4, 4), "allowed are"),
        ([N("Expand", ["x", "s"], ["y"])], {"s": np.array([2**20, 2**20, 5])}, (1, 5), "allowed are"),
        (
            [N("ConstantOfShape", ["s"], ["c"]), N("Add", ["x", "c"], ["y"])],
            {"s": np.array([2**20, 2**20, 5])},
            (1, 5),
            "allowed are",
        ),
        (
            [N("Tile", ["k", "s"], ["c"]), N("Add", ["x", "c"], ["y"])],
            {"k": weights(1, 5), "s": np.array([2**40, 1])},
            (1, 5),
            "allowed are",
        ),
        ([N("Reshape", ["x", "s"], ["y"])], {"s": np.array([2, 3])}, (1, 5), "can't be evaluated|doesn't fit"),
        (
            [N("Gemm", ["x", "w", "b"], ["y"])],
            {"w": weights(5, 3), "b": np.zeros(0, np.float32)},
            (1, 5),
            "doesn't fit",
        ),
        ([N("Gemm", ["x", "w"], ["y"])], {"w": weights(4, 3)}, (1, 5), "doesn't fit"),
        ([N("Add", ["x", "w"], ["y"])], {"w": weights(4)}, (1, 5), "isn't understood"),
        ([N("Gather", ["x", "i"], ["y"], axis=1)], {"i": np.array([7])}, (1, 5), "can't be evaluated|doesn't fit"),
        ([N("Gemm", ["x", "w"], ["y"])], {"w": weights(5, 3)}, (8, 5), "8 samples at once"),
        ([N("Relu", ["x"], ["y"])], {}, (1, "n", 3), "axis 1 is free"),
        ([N("ArgMax", ["x"], ["y"])], {}, (1, 5), "scores"),
    ],
)
def test_refusals(nodes: Nodes, constants: dict[str, Any], shape: tuple[int | str, ...], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        normalise(build(nodes, constants, shape))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1200


def test_control_flow_is_refused() -> None:
    body = helper.make_graph(
        [N("Identity", ["c"], ["d"]), N("Identity", ["v"], ["w"])],
        "b",
        [helper.make_tensor_value_info(n, t, []) for n, t in (("i", 7), ("c", 9))]
        + [helper.make_tensor_value_info("v", 1, [1, 5])],
        [helper.make_tensor_value_info("d", 9, []), helper.make_tensor_value_info("w", 1, [1, 5])],
    )
    nodes = [N("Loop", ["", "t", "x"], ["y"], body=body, name="l")]
    with pytest.raises(UnsupportedNetworkError, match=r"'l' \(Loop\) isn't taken: control flow"):
        normalise(build(nodes, {"t": np.array(True)}, (1, 5)))


def test_normalise_leaves_the_given_model_alone() -> None:
    model = build([N("Relu", ["x"], ["y"])], {}, (1, 5))
    before = model.SerializeToString()
    normalise(model)
    assert model.SerializeToString() == before
