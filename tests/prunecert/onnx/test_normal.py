"""The cheap test of the normal form takes what is one, and nothing that a reader would have to interpret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunecert.onnx.normal import has_relu_on_input, is_normal, normal_nodes
from prunecert.onnx.normalise import normalise
from tests.prunecert.onnx import seeds
from tests.prunecert.onnx.graphs import N, weights


def network(*, opset: int = 13, shape: tuple[int, ...] = (1, 2, 6, 6), **changes: Any) -> onnx.ModelProto:
    """A normal network; `changes` are attributes of its convolution."""
    how: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1] * 4, **changes}
    nodes = [
        N("Conv", ["x", "w", "b"], ["c"], **{name: value for name, value in how.items() if value is not None}),
        N("Relu", ["c"], ["r"]),
        N("Add", ["r", "c"], ["a"]),
        N("AveragePool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        N("Flatten", ["p"], ["f"]),
        N("Gemm", ["f", "v", "d"], ["y"], transB=1),
    ]
    constants = {"w": weights(3, 2, 3, 3), "b": weights(3), "v": weights(4, 27), "d": weights(4)}
    graph = helper.make_graph(
        nodes,
        "n",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def test_normal_networks_are_normal() -> None:
    for opset in range(13, 18):
        onnx.checker.check_model(network(opset=opset), full_check=True)
        assert is_normal(network(opset=opset))
    for model in seeds.models():
        form = normalise(model, keep={"MaxPool"}).model
        assert is_normal(form, {"MaxPool"})
        assert is_normal(form) == ("MaxPool" not in {node.op_type for node in form.graph.node})


@pytest.mark.parametrize(
    "changes",
    [
        {"opset": 12},
        {"opset": 18},
        {"shape": ("n", 2, 6, 6)},
        {"shape": (2, 2, 6, 6)},
        {"shape": (1, 2, 36)},
        {"kernel_shape": None},
        {"pads": [1, 0, 1, 1]},
        {"pads": None, "auto_pad": "SAME_UPPER"},
        {"dilations": [2, 2], "pads": [2] * 4},
        {"group": 2},
    ],
)
def test_other_attributes_are_not_normal(changes: dict[str, Any]) -> None:
    assert not is_normal(network(**changes))


def _edits() -> dict[str, Callable[[onnx.GraphProto], object]]:
    def wide(graph: onnx.GraphProto) -> None:
        graph.initializer[0].CopyFrom(numpy_helper.from_array(weights(3, 2, 3, 3).astype(np.float64), "w"))

    def infinite(graph: onnx.GraphProto) -> None:
        graph.initializer[3].CopyFrom(numpy_helper.from_array(np.array([1, 2, np.inf, 3], np.float32), "d"))

    def axis(graph: onnx.GraphProto) -> None:
        graph.node[4].attribute[0].i = 0

    def transposed(graph: onnx.GraphProto) -> None:
        graph.node[5].attribute[0].i = 0

    return {
        "float64 weights": wide,
        "an infinite bias": infinite,
        "no bias": lambda graph: graph.node[5].input.pop(),
        "a constant that is computed with": lambda graph: graph.node[2].input.__setitem__(1, "b"),
        "another axis": axis,
        "weights in the other order": transposed,
        "another operator": lambda graph: setattr(graph.node[1], "op_type", "Sigmoid"),
        "another domain": lambda graph: setattr(graph.node[1], "domain", "mine"),
        "a node that nothing reads": lambda graph: graph.node.add(op_type="Relu", input=["c"], output=["z"]),
        "two outputs": lambda graph: graph.output.add(name="r"),
        "an output of another shape": lambda graph: setattr(
            graph.output[0].type.tensor_type.shape.dim[1], "dim_value", 5
        ),
        "two results": lambda graph: graph.node[3].output.append("places"),
        "an overlap of names": lambda graph: graph.initializer.add(name="x"),
    }


@pytest.mark.parametrize("edit", _edits())
def test_a_graph_that_departs_in_one_place_is_not_normal(edit: str) -> None:
    model = network()
    if edit == "another axis":
        model.graph.node[4].attribute.add(name="axis", i=1, type=onnx.AttributeProto.INT)
    assert is_normal(model)
    _edits()[edit](model.graph)
    assert not is_normal(model)


def test_maxima_stay_where_they_may_and_do_not_overlap() -> None:
    model = network()
    model.graph.node[3].op_type = "MaxPool"
    assert not is_normal(model)
    assert is_normal(model, {"MaxPool"})
    model.graph.node[3].attribute[1].ints[:] = [1, 1]
    assert not is_normal(model, {"MaxPool"})


@pytest.mark.parametrize(
    ("nodes", "stands"),
    [
        ("r = Relu (x) y = Gemm <transB = 1> (r, w, b)", True),
        ("f = Flatten (x) r = Relu (f) s = Relu (r) y = Gemm <transB = 1> (s, w, b)", True),
        ("g = Gemm <transB = 1> (x, w, b) y = Relu (g)", False),
        ("g = Gemm <transB = 1> (x, w, b) h = Relu (g) f = Flatten (h) y = Relu (f)", False),
    ],
)
def test_a_relu_on_the_input_itself_is_seen(nodes: str, stands: bool) -> None:
    text = f"""<ir_version: 7, opset_import: ["" : 13]> net (float[1, 2] x) => (float[1, 2] y)
    <float[2, 2] w = {{1, 0, 2, -1}}, float[2] b = {{0, 1}}> {{ {nodes} }}"""
    model = onnx.parser.parse_model(text)
    read = normal_nodes(model)
    assert read is not None
    assert has_relu_on_input(read) is stands
    assert normalise(model).changed is stands
