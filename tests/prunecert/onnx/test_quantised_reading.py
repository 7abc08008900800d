"""What is read of a QDQ file, and what is refused by its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunecert.errors import UserError
from prunecert.onnx.quantised import Grid, holds_quantisation
from prunecert.onnx.quantised_reading import read_steps

N = helper.make_node


def model(
    nodes: list[onnx.NodeProto], outputs: int = 2, shape: tuple[int, ...] = (1, 2), **constants: Any
) -> onnx.ModelProto:
    """Returns a network from x to y."""
    stored = {"s": np.float32(0.25), "z": np.uint8(0), "ws": np.array([0.5, 0.125], np.float32),
              "wz": np.zeros(2, np.int8),
              "w": np.array([[1, -2], [0, 127]], np.int8), "b": np.array([3, -4], np.int32),
              "bs": np.array([0.125, 0.03125], np.float32), "bz": np.zeros(2, np.int32), **constants}  # fmt: skip
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, outputs])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def pair(source: str, result: str, scale: str = "s", zero: str = "z") -> list[onnx.NodeProto]:
    """Returns the two nodes that round a value."""
    return [N("QuantizeLinear", [source, scale, zero], [f"{result}q"], name=f"round {source}"),
            N("DequantizeLinear", [f"{result}q", scale, zero], [result], name=f"real {result}")]  # fmt: skip


LAYER = [
    N("DequantizeLinear", ["w", "ws", "wz"], ["wf"], axis=0),
    N("DequantizeLinear", ["b", "bs", "bz"], ["bf"], axis=0),
    N("Gemm", ["a", "wf", "bf"], ["h"], transB=1, name="layer"),
]


def test_weights_are_whole_numbers_times_scales_and_grids_are_what_is_stored() -> None:
    net = model([*pair("x", "a"), *LAYER, N("Relu", ["h"], ["r"]), *pair("r", "y")])
    assert holds_quantisation(net)
    steps = read_steps(net, "net")
    assert [step.operator for step in steps] == ["Input", "Round", "Gemm", "Relu", "Round"]
    assert steps[1].grid == Grid(0.25, 0, 0, 255) == steps[4].grid
    assert steps[2].weight is not None
    assert steps[2].weight.tolist() == [[0.5, -1.0], [0.0, 15.875]]
    assert steps[2].bias is not None
    assert steps[2].bias.tolist() == [0.375, -0.125]
    assert [step.inputs for step in steps] == [(), (0,), (1,), (2,), (3,)]


def test_a_product_with_a_transposed_weight_and_a_stored_bias_is_a_layer_and_a_shift() -> None:
    nodes = [*pair("x", "a"), LAYER[0], N("Transpose", ["wf"], ["wt"]), N("MatMul", ["a", "wt"], ["m"]),
             LAYER[1], N("Add", ["bf", "m"], ["y"])]  # fmt: skip
    steps = read_steps(model(nodes), "net")
    assert [step.operator for step in steps] == ["Input", "Round", "Gemm", "Shift"]
    assert steps[2].weight is not None
    assert steps[2].weight.tolist() == [[0.5, -1.0], [0.0, 15.875]]
    assert steps[3].bias is not None
    assert steps[3].bias.tolist() == [0.375, -0.125]


def test_a_bias_is_off_by_as_much_as_its_unit_is_from_that_of_the_products() -> None:
    unit = np.array([0.125, np.nextafter(np.float32(0.03125), np.float32(1))], np.float32)
    (*_, layer) = read_steps(
        model([*pair("x", "a"), *LAYER[:2], N("Gemm", ["a", "wf", "bf"], ["y"], transB=1)], bs=unit), "n"
    )
    assert layer.rescaled is not None
    assert layer.rescaled[0] == 0.0
    assert layer.rescaled[1] == pytest.approx(4 * (float(unit[1]) - 0.03125), rel=1e-6)


def test_a_float_bias_may_be_rounded_to_the_unit_of_the_products() -> None:
    nodes = [*pair("x", "a"), LAYER[0], N("Gemm", ["a", "wf", "f"], ["y"], transB=1)]
    (*_, layer) = read_steps(model(nodes, f=np.array([0.3, 0.7], np.float32)), "net")
    assert layer.rescaled is not None
    assert layer.rescaled.tolist() == pytest.approx([0.0625, 0.015625], rel=1e-5)


@pytest.mark.parametrize(
    ("nodes", "constants", "word"),
    [
        ([*pair("x", "a"), N("Sigmoid", ["a"], ["y"], name="bend")], {}, "'bend' (Sigmoid) isn't taken: of what"),
        ([*pair("x", "a"), N("ReduceMax", ["a"], ["t"], keepdims=0), *pair("a", "y", "t")], {}, "ReduceMax"),
        ([*pair("x", "a"), *LAYER, *pair("h", "y", "ws")], {}, "each channel or block"),
        ([*pair("x", "a"), N("Identity", ["aq"], ["y"])], {}, "whole numbers that stand for others"),
        ([N("QuantizeLinear", ["x", "s", "z"], ["q"]), N("DequantizeLinear", ["q", "t", "z"], ["y"])],
         {"t": np.float32(0.5)}, "another than that with which"),
        ([N("Relu", ["x"], ["r"]), *pair("r", "y")], {}, "Its input isn't rounded before it is used"),
        ([*pair("x", "a"), *LAYER, *pair("h", "y")], {"bs": np.array([0.125, 0.04], np.float32)},
         "its bias isn't counted"),
        ([*pair("x", "a"), *LAYER, *pair("h", "y")], {"ws": np.array([0.5, 0], np.float32)}, "its scale is 0"),
        ([*pair("x", "a"), N("Clip", ["a"], ["y"], name="cut")], {}, "'cut' (Clip)"),
        ([*pair("x", "a", zero="i")], {"i": np.int32(0)}, "it writes int32"),
        ([*pair("x", "a"), *pair("a", "y", "t")], {"t": np.float32(0.5)}, "rounds what has just been rounded"),
        ([*pair("x", "a"), N("Gemm", ["a", "f"], ["h"]), *pair("h", "y")], {"f": np.eye(2, dtype=np.float32)},
         "its weights are no whole numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_bounded_is_named(nodes: list[onnx.NodeProto], constants: dict[str, Any], word: str) -> None:
    nodes[-1].output[0] = "y"
    with pytest.raises(UserError) as caught:
        read_steps(model(nodes, **constants), "net")
    text = str(caught.value)
    assert text.startswith("net is refused. ")
    assert word in text


def test_a_reshape_by_the_batch_s_own_size_is_read() -> None:
    """As PyTorch exports ``x.reshape(x.shape[0], -1)`` with a batch axis that is free."""
    nodes = [
        *pair("x", "a"),
        N("Shape", ["a"], ["sizes"]),
        N("Gather", ["sizes", "zero"], ["batch"], axis=0),
        N("Unsqueeze", ["batch", "axes"], ["one"]),
        N("Concat", ["one", "rest"], ["flat"], axis=0),
        N("Reshape", ["a", "flat"], ["c"]),
        *LAYER[:2],
        N("Gemm", ["c", "wf", "bf"], ["h"], transB=1, name="layer"),
        *pair("h", "y"),
    ]
    net = model(nodes, shape=(1, 1, 2), zero=np.int64(0), axes=np.array([0]), rest=np.array([-1]))
    net.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    steps = read_steps(net, "net")
    assert [step.operator for step in steps] == ["Input", "Round", "Reshape", "Gemm", "Round"]
    assert steps[2].shape == (1, 2)


def test_two_outputs_are_refused() -> None:
    net = model([*pair("x", "a"), *LAYER, *pair("h", "y")])
    net.graph.output.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 2]))
    with pytest.raises(UserError, match="2 outputs"):
        read_steps(net, "net")


@pytest.mark.parametrize(("axis", "operator"), [(1, "Gemm"), (0, "MatMul")])
def test_scales_along_the_axis_that_is_summed_over_are_refused(axis: int, operator: str) -> None:
    more: dict[str, Any] = {"transB": 1} if operator == "Gemm" else {}
    nodes = [*pair("x", "a"), N("DequantizeLinear", ["w", "ws", "wz"], ["wf"], axis=axis),
             N(operator, ["a", "wf"], ["y"], name="layer", **more)]  # fmt: skip
    with pytest.raises(UserError, match=r"'layer' .* scales along an axis that is summed over"):
        read_steps(model(nodes), "net")
    # Where all are one, the axis means nothing.
    assert len(read_steps(model(nodes, ws=np.full(2, 0.5, np.float32)), "net")) == 3


def test_sums_beyond_32_bits_are_refused() -> None:
    nodes = [*pair("x", "a"), *LAYER[:2], N("Gemm", ["a", "wf", "bf"], ["y"], transB=1, name="layer")]
    reach = 127 * 255
    read_steps(model(nodes, b=np.array([0, 2**31 - 4096 - reach], np.int32)), "net")
    with pytest.raises(UserError, match=r"'layer' .* beyond 32 bits"):
        read_steps(model(nodes, b=np.array([0, 2**31 - reach], np.int32)), "net")


@pytest.mark.parametrize("operator", ["Gemm", "MatMul"])
def test_weights_that_kernels_multiply_by_what_they_round_once_more_are_refused(operator: str) -> None:
    layer = [N("DequantizeLinear", ["w", "ws", "wz"], ["wf"], axis=1)]
    direct = [*pair("x", "a"), *layer, N(operator, ["a", "wf"], ["y"], name="layer")]
    assert len(read_steps(model(direct), "net")) == 3
    flat = [*pair("x", "a"), *layer, N("Flatten", ["a"], ["f"]), N(operator, ["f", "wf"], ["y"], name="layer")]
    with pytest.raises(UserError, match=r"'layer' .* store them transposed"):
        read_steps(model(flat), "net")
    with pytest.raises(UserError, match=r"'layer' .* store them transposed"):
        read_steps(model(direct, z=np.uint16(0)), "net")


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_transpose_that_a_product_takes_in_is_no_transposed_storage(times: int) -> None:
    """Without optimisation onnxruntime runs a Gemm with transB as it is written; with it, as MatMulNBits."""
    turns = [N("Transpose", [f"t{turn}"], [f"t{turn + 1}"], perm=[1, 0]) for turn in range(times)]
    layer = [N("DequantizeLinear", ["w", "ws", "wz"], ["t0"], axis=times % 2), *turns]
    last = N("Gemm", ["a", f"t{times}"], ["y"], transB=1, name="layer")
    assert len(read_steps(model([*pair("x", "a"), *layer, last]), "net")) == 3
    with pytest.raises(UserError, match=r"'layer' .* not behind a Transpose"):
        read_steps(model([*pair("x", "a"), *layer, last], z=np.uint16(0)), "net")
    # Whole numbers that are transposed before they become real ones are stored ones to optimisers.
    early = [N("Transpose", ["w"], ["wt"], perm=[1, 0]), N("DequantizeLinear", ["wt", "ws", "wz"], ["t0"], axis=0)]
    nodes = [*pair("x", "a"), *early, N("Gemm", ["a", "t0"], ["y"], transB=1)]
    assert len(read_steps(model(nodes, z=np.uint16(0)), "net")) == 3


def test_a_constant_that_is_added_to_a_product_is_counted_in_its_unit_or_refused() -> None:
    nodes = [
        *pair("x", "a"),
        LAYER[0],
        N("Gemm", ["a", "wf"], ["m"], transB=1),
        N("Add", ["m", "c"], ["y"], name="sum"),
    ]
    (*_, last) = read_steps(model(nodes, c=np.array([0.01, 0.02], np.float32)), "net")
    assert last.bias_error is not None
    np.testing.assert_allclose(last.bias_error, [0.0625, 0.015625], rtol=1e-5)
    nodes = [*nodes[:-1], LAYER[1], N("Add", ["m", "bf"], ["y"], name="sum")]
    with pytest.raises(UserError, match=r"'sum' .* isn't counted in the unit of its products"):
        read_steps(model(nodes, bs=np.array([0.125, 0.05], np.float32)), "net")
