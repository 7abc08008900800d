"""A graph's roles and classes are those of its operators: what shares channels, and what keeps them all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from prunecert.models.compact_graph import CompactGraph, CompactNode, Role, windows
from tests.models.compact_networks import FAMILIES, Builder, shape_of


def built(add: Callable[[Builder, str], str], *shape: int, seed: int = 0) -> tuple[CompactGraph, CompactNode]:
    """One operator behind a rectifier; returns the graph and the operator's node."""
    builder = Builder(np.random.default_rng(seed))
    model = builder.model(add(builder, builder.relu(builder.start(*(shape or (4, 6, 6))))))
    graph = CompactGraph(model)
    return graph, graph.nodes[-1]


ROLES: dict[str, tuple[Callable[[Builder, str], str], Role]] = {
    "conv": (lambda b, x: b.conv(x, 3, 3, 2, 1), Role.DENSE),
    "grouped": (lambda b, x: b.grouped(x), Role.BARRIER),
    "scaling": (lambda b, x: b.scaling(x), Role.AFFINE),
    "norm": (lambda b, x: b.norm(x), Role.AFFINE),
    "add constant": (lambda b, x: b.arithmetic(x, "Add"), Role.AFFINE),
    "constant minus": (lambda b, x: b.arithmetic(x, "Sub", first=True), Role.AFFINE),
    "divide": (lambda b, x: b.arithmetic(x, "Div"), Role.AFFINE),
    "divide by": (lambda b, x: b.arithmetic(x, "Div", first=True), Role.BARRIER),
    "max": (lambda b, x: b.pool(x, "MaxPool"), Role.POOL),
    "flatten": (lambda b, x: b.flatten(x), Role.RESHAPE),
    "reshape": (lambda b, x: b.flatten(x, reshape=True), Role.RESHAPE),
    "sum": (lambda b, x: b.add(x, "input"), Role.ADD),
    "sigmoid": (lambda b, x: b.node("Sigmoid", [x], b.shapes[x]), Role.BARRIER),
}


@pytest.mark.parametrize("name", ROLES)
def test_what_an_operator_does_to_channels(name: str) -> None:
    add, role = ROLES[name]
    graph, node = built(add)
    assert node.role is role
    entry = graph.nodes[0].output
    # Layers and barriers begin a class of their own; all others go on with their input's.
    assert (graph.find(node.output) == graph.find(entry)) == (role not in (Role.DENSE, Role.BARRIER))


@pytest.mark.parametrize("name", ["conv", "grouped", "divide by", "sigmoid"])
def test_what_a_barrier_reads_keeps_all_its_channels(name: str) -> None:
    add, role = ROLES[name]
    graph, node = built(lambda b, x: b.conv(add(b, b.relu(b.conv(x, 4, 1))), 2, 1))
    (inner,) = (other for other in graph.nodes if other.output == graph.nodes[-1].inputs[0])
    assert inner.role is role
    assert (graph.find(inner.inputs[0]) in graph.locked) == (role is Role.BARRIER)
    assert (graph.find(inner.output) in graph.locked) == (role is Role.BARRIER)
    assert graph.find("input") in graph.locked
    assert graph.find(node.output) in graph.locked


@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
@pytest.mark.parametrize("transposed", [0, 1])
def test_linear_layers_are_read_row_by_row(kind: str, transposed: int) -> None:
    attributes = {"transB": transposed} if kind == "Gemm" else {}
    graph, node = built(lambda b, x: b.linear(x, 3, kind, **attributes), 5)
    constants = [numpy_helper.to_array(item) for item in graph.model.graph.initializer]
    expected = constants[0] if kind == "Gemm" and transposed else constants[0].T
    assert node.role is Role.DENSE
    np.testing.assert_array_equal(node.weight[:, :, 0], expected)
    np.testing.assert_array_equal(node.bias, constants[1] if kind == "Gemm" else np.zeros(3))
    assert (node.kernel, node.is_conv) == ((), False)


def test_a_linear_layer_behind_a_convolution_reads_a_channel_s_places_together() -> None:
    graph, node = built(lambda b, x: b.linear(b.flatten(b.conv(x, 3, 3)), 2))
    assert node.weight.shape == (2, 3, 16)
    flat = node.inputs[0]
    assert (graph.channels[flat], graph.places[flat]) == (3, 16)


def scaled(node: CompactNode, x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1) * node.factor + node.shift


@pytest.mark.parametrize("name", ["scaling", "norm", "add constant", "constant minus", "divide"])
@pytest.mark.parametrize("seed", range(3))
def test_factors_and_shifts_are_the_operator_s(name: str, seed: int) -> None:
    from tests.models.compact_networks import points, run

    graph, node = built(ROLES[name][0], seed=seed)
    for x in points(graph.model, 3, np.random.default_rng(seed)):
        # Inputs are not negative, so that the rectifier before changes nothing.
        expected = run(graph.model, x[None])[0].astype(np.float64)
        np.testing.assert_allclose(scaled(node, x.astype(np.float64)).reshape(expected.shape), expected, atol=1e-6)
    assert np.all(node.size >= np.abs(node.shift))


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [
        ("Gemm", {"alpha": 2.0}),
        ("Gemm", {"beta": 0.5}),
        ("Conv", {"auto_pad": "SAME_UPPER"}),
        ("BatchNormalization", {"training_mode": 1}),
        ("Flatten", {"axis": 2}),
    ],
)
def test_attributes_that_are_not_understood_make_a_barrier(operator: str, attributes: dict[str, object]) -> None:
    builder = Builder(np.random.default_rng(0))
    x = builder.relu(builder.start(5) if operator == "Gemm" else builder.start(4, 6, 6))
    match operator:
        case "Gemm":
            builder.linear(x, 3)
        case "Conv":
            builder.conv(x, 3, 3)
        case "BatchNormalization":
            builder.norm(x)
        case _:
            builder.flatten(x)
    node = builder.nodes[-1]
    understood = CompactGraph(model_of(builder)).nodes[-1]
    assert understood.role is not Role.BARRIER
    for name, value in attributes.items():
        kept = [item for item in node.attribute if item.name not in (name, "pads")]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])
    assert CompactGraph(model_of(builder)).nodes[-1].role is Role.BARRIER


def model_of(builder: Builder) -> onnx.ModelProto:
    """The network without a check: some of these are none that a runtime takes."""
    graph = helper.make_graph(
        builder.nodes,
        "graph",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, *builder.shapes["input"]])],
        [helper.make_tensor_value_info(builder.nodes[-1].output[0], onnx.TensorProto.FLOAT, None)],
        builder.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=7)


@settings(deadline=None, max_examples=40)
@given(family=st.sampled_from(sorted(FAMILIES)), seed=st.integers(0, 2**32 - 1))
def test_channels_and_places_make_up_each_tensor(family: str, seed: int) -> None:
    model = FAMILIES[family](np.random.default_rng(seed))
    graph = CompactGraph(model)
    sizes = graph.classes()
    for name in graph.tensors:
        assert graph.channels[name] * graph.places[name] == int(np.prod(graph.shapes[name][1:]))
        assert sizes[graph.find(name)] == graph.channels[name]
    assert graph.channels["input"] == shape_of(model)[0]
    assert graph.find("input") in graph.locked
    assert all(graph.find(name) in graph.locked for name in graph.exits)
    # Whatever is added up shares its channels.
    for node in graph.nodes:
        if node.role is Role.ADD:
            assert len({graph.find(name) for name in (*node.inputs, node.output)}) == 1
    assert [node.output for node in graph.nodes] == [proto.output[0] for proto in model.graph.node]


def test_windows_are_top_left_bottom_right() -> None:
    proto = helper.make_node("Conv", ["x", "w"], ["y"], name="first")
    node = CompactNode(proto, Role.DENSE, ("x",), "y", attributes={"strides": [2, 3], "pads": [1, 2, 3, 4]})
    assert windows((5, 5), node) == ((2, 3), (1, 1), (1, 2, 3, 4))
    assert node.padded
    assert (node.label, node.is_conv) == ("first", True)
    bare = CompactNode(helper.make_node("Relu", ["x"], ["y"]), Role.RELU, ("x",), "y", attributes={"pads": [0] * 4})
    assert not bare.padded
    assert bare.label == "y"
