"""Networks made by hand, each with one thing that compaction must, or must not, remove."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from prunecert.compaction import Compaction
from prunecert.errors import UserError
from prunecert.models.compact import compact, compact_file
from prunecert.models.compact_graph import CompactGraph
from prunecert.models.compact_values import evaluate
from tests.models.compact_networks import Builder, Floats, points, run

PIXELS = (0.0, 1.0)


def shapes(record: Compaction) -> dict[str, tuple[int, ...]]:
    return {layer.name: layer.after for layer in record.layers}


def weights(model: onnx.ModelProto) -> dict[str, Floats]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def chain(
    weights_: list[Floats], biases: list[Floats], pad: int = 1, size: int = 6, stride: int = 1, head: bool = True
) -> onnx.ModelProto:
    """Returns convolutions with ReLUs behind them, and a linear layer that reads all."""
    builder = Builder(np.random.default_rng(0), zeros=0, rows=0, columns=0)
    x = builder.start(weights_[0].shape[1], size, size)
    for weight, bias in zip(weights_, biases, strict=True):
        names = [x, builder.constant(weight), builder.constant(bias)]
        side = (builder.shapes[x][1] + 2 * pad - 3) // stride + 1
        x = builder.node(
            "Conv", names, (len(weight), side, side), kernel_shape=[3, 3], pads=[pad] * 4, strides=[stride] * 2
        )
        x = builder.relu(x)
    if not head:
        return builder.model(x)
    flat = builder.flatten(x)
    ones = builder.constant(np.ones((2, builder.shapes[flat][0])))
    return builder.model(builder.node("Gemm", [flat, ones], (2,), transB=1))


def random_conv(outputs: int, inputs: int, seed: int = 0) -> Floats:
    values = np.random.default_rng(seed).integers(1, 4, (outputs, inputs, 3, 3)) / 4
    return values.astype(np.float32)


def test_a_constant_before_zero_padding_is_not_a_constant_behind_it() -> None:
    first, second = random_conv(4, 2), random_conv(3, 4, 1)
    first[1:] = 0
    bias = np.array([0.5, 0.5, 2.0, -1.0], dtype=np.float32)
    model = chain([first, second], [bias, np.zeros(3, dtype=np.float32)])
    small, record = compact(model)
    # One channel varies, two constants become one, and the last is 0.
    assert [layer.after[0] for layer in record.layers] == [2, 3, 2]
    assert (record.merged, record.folded) == (2, 0)
    inputs = points(model, 6, np.random.default_rng(0), -8, 8)
    assert np.array_equal(run(model, inputs), run(small, inputs))
    # Folding them into the biases would have been wrong.
    names = [node.input[2] for node in model.graph.node if node.op_type == "Conv"]
    wrong = weights(model)[names[1]] + second[:, 1:3].sum(axis=(2, 3)) @ bias[1:3]
    naive = onnx.ModelProto()
    naive.CopyFrom(small)
    for item in naive.graph.initializer:
        if item.name == names[0]:
            item.CopyFrom(numpy_helper.from_array(np.array([0.5, 0.0], dtype=np.float32), item.name))
        elif item.name == names[1]:
            item.CopyFrom(numpy_helper.from_array(wrong.astype(np.float32), item.name))
    assert not np.array_equal(run(model, inputs), run(naive, inputs))


def test_a_single_constant_before_zero_padding_stays_as_it_is() -> None:
    first, second = random_conv(3, 2), random_conv(3, 3, 1)
    first[1:] = 0
    model = chain([first, second], [np.array([0.5, 0.7, -1.0], dtype=np.float32), np.zeros(3, dtype=np.float32)])
    small, record = compact(model)
    assert [layer.after[:2] for layer in record.layers[:2]] == [(2, 2), (3, 2)]
    assert (record.merged, record.folded) == (0, 0)
    names = [node.input[2] for node in model.graph.node if node.op_type == "Conv"]
    assert weights(small)[names[0]].tolist() == pytest.approx([0.5, 0.7])


def test_without_padding_constants_are_folded_and_rounded_once() -> None:
    first, second = random_conv(3, 2), random_conv(3, 3, 1)
    first[1:] = 0
    bias = np.array([0.5, 0.7, 0.3], dtype=np.float32)
    model = chain([first, second], [bias, np.full(3, 0.1, dtype=np.float32)], pad=0)
    small, record = compact(model)
    assert [layer.after[:2] for layer in record.layers[:2]] == [(1, 2), (3, 1)]
    assert (record.merged, record.folded) == (0, 2)
    name = [node.input[2] for node in model.graph.node if node.op_type == "Conv"][1]
    exact = np.float64(np.float32(0.1)) + second.astype(np.float64).sum(axis=(2, 3))[:, 1:] @ bias[1:].astype(
        np.float64
    )
    assert np.array_equal(weights(small)[name], exact.astype(np.float32))
    kept, zeros_only = compact(model, exact=True)
    # Nothing but zeros may be folded then.
    assert not zeros_only.shrank
    assert kept is model


def test_constants_that_differ_from_place_to_place_are_folded_into_a_linear_layer() -> None:
    first, second = random_conv(2, 2), random_conv(2, 2, 1)
    first[1] = 0
    second[1, 0] = 0
    model = chain([first, second], [np.array([0.5, 1.0], dtype=np.float32)] * 2)
    small, record = compact(model)
    # The second channel of the second layer is the same for all inputs, but not in all places.
    assert [layer.after[:2] for layer in record.layers] == [(2, 2), (1, 2), (2, 36)]
    assert record.folded == 1
    inputs = points(model, 4, np.random.default_rng(0), -8, 8)
    assert np.array_equal(run(model, inputs), run(small, inputs))


def test_a_constant_that_becomes_larger_than_float32_is_no_silent_infinity(tmp_path: Path) -> None:
    first, second = random_conv(2, 2), random_conv(2, 2, 1)
    first[1] = 0
    model = chain([first, 3e38 * second], [np.array([0.5, 1e3], dtype=np.float32)] * 2, pad=0)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(UserError, match=r"v2 \(Conv\) can't be compacted: .* not a finite float32"):
        compact_file(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()


def test_a_sums_channel_goes_only_if_no_branch_and_no_reader_needs_it() -> None:
    def block(stem_row: float, branch_row: float, column: float, head_column: float) -> onnx.ModelProto:
        builder = Builder(np.random.default_rng(0), zeros=0, rows=0, columns=0)
        stem, inner, outer = (np.ones(shape, dtype=np.float32) for shape in ((2, 1, 1, 1), (1, 2, 1, 1), (2, 1, 1, 1)))
        stem[1], outer[1], inner[:, 1] = stem_row, branch_row, column
        zero = builder.constant(np.zeros(2))
        x = builder.start(1, 2, 2)
        x = builder.node("Conv", [x, builder.constant(stem), zero], (2, 2, 2), kernel_shape=[1, 1])
        y = builder.relu(
            builder.node("Conv", [builder.relu(x), builder.constant(inner)], (1, 2, 2), kernel_shape=[1, 1])
        )
        y = builder.node("Conv", [y, builder.constant(outer)], (2, 2, 2), kernel_shape=[1, 1])
        head = np.ones((2, 8), dtype=np.float32)
        head[:, 4:] = head_column
        flat = builder.flatten(builder.add(y, x))
        return builder.model(builder.node("Gemm", [flat, builder.constant(head)], (2,), transB=1))

    def left(*values: float) -> int:
        model = block(*values)
        small, record = compact(model)
        inputs = points(model, 4, np.random.default_rng(0), -8, 8)
        assert np.array_equal(run(model, inputs), run(small, inputs))
        return dict(shapes(record)).get("v0", (2,))[0]

    assert left(1, 1, 1, 1) == 2
    # Constant in one branch only.
    assert left(0, 1, 1, 1) == 2
    assert left(1, 0, 1, 1) == 2
    # Constant in both.
    assert left(0, 0, 1, 1) == 1
    # The last layer does not read it, the block's first one does.
    assert left(1, 1, 1, 0) == 2
    assert left(1, 1, 0, 0) == 1
    # Only the block's branch writes it, and nobody reads it.
    assert left(0, 1, 0, 0) == 1


def test_a_residual_loop_that_nobody_reads_goes() -> None:
    builder = Builder(np.random.default_rng(0), zeros=0, rows=0, columns=0)
    x = builder.conv(builder.start(1, 2, 2), 2, 1)
    inner = builder.relu(x)
    # Channel 1 of the stream is made of channel 1 and read for channel 1 only.
    loop = builder.constant(np.diag([1.0, 1.0])[:, :, None, None])
    y = builder.add(builder.node("Conv", [inner, loop], (2, 2, 2), kernel_shape=[1, 1]), x)
    head = np.ones((2, 8), dtype=np.float32)
    head[:, 4:] = 0
    model = builder.model(builder.node("Gemm", [builder.flatten(y), builder.constant(head)], (2,), transB=1))
    small, record = compact(model)
    # (With one channel left, the loop's convolution looks like a scaling.)
    assert shapes(record) == {"v0": (1, 1, 1, 1), "v2": (1, 1, 1, 1), "v5": (2, 4)}
    inputs = points(model, 4, np.random.default_rng(0), -8, 8)
    assert np.array_equal(run(model, inputs), run(small, inputs))


@pytest.mark.parametrize("bias", [-1.0, 0.0, 1.0])
def test_a_network_that_is_constant_keeps_one_unit_a_layer(bias: float) -> None:
    first, second = random_conv(4, 2), random_conv(5, 4, 1)
    second[:] = 0
    model = chain([first, second], [np.ones(4, dtype=np.float32), np.full(5, bias, dtype=np.float32)])
    small, record = compact(model)
    assert [layer.after for layer in record.layers] == [(1, 2, 3, 3), (1, 1, 3, 3), (2, 36)]
    inputs = points(model, 4, np.random.default_rng(0), -8, 8)
    assert np.array_equal(run(model, inputs), run(small, inputs))
    assert len(np.unique(run(small, inputs), axis=0)) == 1


def test_a_relu_that_no_pixel_can_switch_on_goes_for_pixels_only() -> None:
    builder = Builder(np.random.default_rng(0))
    x = builder.start(2)
    weight = np.array([[1, 1], [1, 1], [-1, -1]], dtype=np.float32)
    bias = np.array([-2.5, -1.5, 0], dtype=np.float32)
    x = builder.relu(builder.node("Gemm", [x, builder.constant(weight), builder.constant(bias)], (3,), transB=1))
    model = builder.model(builder.node("Gemm", [x, builder.constant(np.ones((2, 3)))], (2,), transB=1))
    assert not compact(model)[1].shrank
    _, record = compact(model, domain=PIXELS)
    # The third is at most 0, but only in exact arithmetic, and 0 is within its error.
    assert shapes(record) == {"v0": (2, 2), "v2": (2, 2)}
    assert record.kept["v1"].tolist() == [False, True, True]
    _, wider = compact(model, domain=(0.0, 1.3))
    assert not wider.shrank


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 200))
def test_a_relu_at_the_edge_of_rounding_stays(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.random((1, count)).astype(np.float32)
    # At the corner of ones the input is 0 in exact arithmetic, to the rounding of the bias: what float32 makes of it
    # depends on the order of the sum.
    bias = np.array([-weight.astype(np.float64).sum()], dtype=np.float32)
    builder = Builder(rng)
    x = builder.start(count)
    x = builder.relu(builder.node("Gemm", [x, builder.constant(weight), builder.constant(bias)], (1,), transB=1))
    model = builder.model(builder.node("Gemm", [x, builder.constant(np.ones((2, 1)))], (2,), transB=1))
    graph = CompactGraph(model)
    assert not evaluate(graph, PIXELS)["v1"].constant.any()


def test_what_is_not_understood_keeps_its_channels() -> None:
    builder = Builder(np.random.default_rng(0), zeros=0, rows=0, columns=0)
    x = builder.start(3)
    weight = np.zeros((4, 3), dtype=np.float32)
    weight[0] = 1
    x = builder.node("Gemm", [x, builder.constant(weight)], (4,), transB=1)
    x = builder.node("Sigmoid", [x], (4,))
    x = builder.relu(builder.linear(x, 3, transB=1))
    last = np.ones((2, 3), dtype=np.float32)
    last[:, 1] = 0
    model = builder.model(builder.node("Gemm", [x, builder.constant(last)], (2,), transB=1))
    small, record = compact(model)
    assert shapes(record) == {"v0": (4, 3), "v2": (2, 4), "v4": (2, 2)}
    inputs = points(model, 4, np.random.default_rng(0), -8, 8)
    assert np.array_equal(run(model, inputs), run(small, inputs))


def test_weights_that_layers_share_are_not_mixed_up() -> None:
    builder = Builder(np.random.default_rng(0))
    x = builder.start(2)
    shared = builder.constant(np.array([[1, 0], [0, 0]]))
    x = builder.relu(builder.node("Gemm", [x, shared], (2,), transB=1))
    x = builder.relu(builder.node("Gemm", [x, shared], (2,), transB=1))
    model = builder.model(builder.node("Gemm", [x, builder.constant(np.ones((3, 2)))], (3,), transB=1))
    small, record = compact(model)
    assert shapes(record) == {"v0": (1, 2), "v2": (1, 1), "v4": (3, 1)}
    inputs = points(model, 4, np.random.default_rng(0), -8, 8)
    assert np.array_equal(run(model, inputs), run(small, inputs))


def test_constants_written_as_nodes_or_as_inputs_are_understood() -> None:
    builder = Builder(np.random.default_rng(3), zeros=0.5, rows=0.5, columns=0.3)
    x = builder.relu(builder.linear(builder.start(4), 6, transB=1))
    model = builder.model(builder.linear(x, 3, transB=1))
    expected = shapes(compact(model)[1])
    assert expected != {layer.name: layer.before for layer in compact(model)[1].layers}
    inputs = points(model, 4, np.random.default_rng(0), -8, 8)
    as_nodes = onnx.ModelProto()
    as_nodes.CopyFrom(model)
    item = as_nodes.graph.initializer[0]
    as_nodes.graph.node.insert(
        0, helper.make_node("Constant", [], [item.name], value=numpy_helper.from_array(numpy_helper.to_array(item)))
    )
    del as_nodes.graph.initializer[0]
    as_inputs = onnx.ModelProto()
    as_inputs.CopyFrom(model)
    as_inputs.ir_version = 3
    for item in model.graph.initializer:
        as_inputs.graph.input.append(helper.make_tensor_value_info(item.name, item.data_type, item.dims))
    for variant in (as_nodes, as_inputs):
        small, record = compact(variant)
        onnx.checker.check_model(small, full_check=True)
        assert shapes(record) == expected
        assert np.array_equal(run(model, inputs), run(small, inputs))
