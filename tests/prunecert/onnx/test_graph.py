"""A graph's parts: what is read, and what is refused before anything is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper

from prunecert.errors import UserError
from prunecert.onnx.graph import Graph, inlined
from prunecert.onnx.normal import UnsupportedNetworkError
from prunecert.onnx.normalise import normalise
from tests.prunecert.onnx.graphs import N, assert_same, build, operators, weights


def test_an_output_s_nodes_and_how_often_values_are_read() -> None:
    nodes = [
        N("Gemm", ["x", "w"], ["h"]),
        N("Relu", ["h"], ["r"]),
        N("Erf", ["h"], ["dead"]),
        N("Add", ["r", "h"], ["y"]),
    ]
    graph = Graph(build(nodes, {"w": weights(5, 4)}, ("batch", 5)))
    assert graph.alive("y") == ({0, 1, 3}, {"x": 1, "w": 1, "h": 2, "r": 1, "y": 1})
    assert graph.alive("dead")[0] == {0, 2}
    assert (graph.shape, graph.kind, graph.opset, list(graph.constants)) == ((1, 5), "float32", 13, ["w"])


def test_names_that_a_subgraph_reads_are_read() -> None:
    inner = helper.make_graph([N("Identity", ["h"], ["o"])], "b", [], [helper.make_tensor_value_info("o", 1, None)])
    nodes = [N("Relu", ["x"], ["h"]), N("If", ["c"], ["y"], then_branch=inner, else_branch=inner)]
    assert Graph(build(nodes, {"c": np.array(True)}, (1, 5))).alive("y")[0] == {0, 1}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda model: model.opset_import.add(domain="ai.onnx", version=12), "2 opsets of ONNX's own operators"),
        (lambda model: setattr(model.opset_import[0], "version", 6), "Its opset is 6; read are 7 to 23"),
        (lambda model: setattr(model.opset_import[0], "version", 24), "Its opset is 24; read are 7 to 23"),
        (lambda model: model.graph.input.add(name="z"), r"It has 2 inputs \('x', 'z'\); allowed is one"),
        (lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", 7), "Its input is INT64"),
        (lambda model: model.graph.input[0].type.tensor_type.ClearField("shape"), "shape of its input isn't known"),
        (
            lambda model: model.graph.input[0].type.tensor_type.shape.dim[1].Clear(),
            r"shape \[1, 0\], where axis 1 is free",
        ),
        (
            lambda model: setattr(model.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 2**40),
            "Its input has 1,099,511,627,776 elements",
        ),
        (
            lambda model: model.graph.node.extend([N("Relu", ["x"], [f"z{i}"]) for i in range(20_000)]),
            "It has 20,001 nodes; allowed are 20,000",
        ),
    ],
)
def test_graphs_that_are_not_read(edit: Callable[[onnx.ModelProto], object], words: str) -> None:
    model = build([N("Relu", ["x"], ["y"])], {}, (1, 5))
    Graph(model)
    edit(model)
    with pytest.raises(UserError, match=words):
        Graph(model)


def test_dead_heads_are_not_read() -> None:
    nodes = [N("Gemm", ["x", "w"], ["y"]), N("Erf", ["y"], ["unused"]), N("RandomNormalLike", ["y"], ["noise"])]
    assert operators(assert_same(build(nodes, {"w": weights(5, 4)}, (1, 5)))) == ["Gemm"]
    model = build(nodes, {"w": weights(5, 4)}, (1, 5), outputs=["unused", "y"])
    assert normalise(model, output="y").output == "y"
    # One of as many values is the one that is meant; see `test_normalise`.
    for value, size in zip(model.graph.output, (20, 4), strict=True):
        value.CopyFrom(helper.make_tensor_value_info(value.name, 1, [1, size]))
    assert normalise(model, outputs=4).output == "y"


def test_local_functions_are_written_out() -> None:
    model = build([N("Twice", ["x"], ["y"], domain="mine")], {}, (1, 5))
    function = helper.make_function(
        "mine", "Twice", ["a"], ["b"], [N("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 13)]
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    assert_same(model)


def _functions(*functions: str) -> onnx.ModelProto:
    body = "\n".join(functions)
    return onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 15, "my" : 1]> net (float[1, 2] x) => (float[1, 2] y) {{ y = my.F (x) }}
        {body}"""
    )


LEAKY = """<domain: "my", opset_import: ["" : 15]> G <alpha: float = 5.0> (v) => (w) {
    w = LeakyRelu <alpha: float = @alpha> (v) }"""


def test_a_function_s_default_holds_in_the_functions_that_call_it() -> None:
    caller = """<domain: "my", opset_import: ["" : 15, "my" : 1]> F (a) => (b) { n = Neg (a) b = my.G (n) }"""
    (leaky,) = [node for node in inlined(_functions(caller, LEAKY)).graph.node if node.op_type == "LeakyRelu"]
    assert [(item.name, item.f) for item in leaky.attribute] == [("alpha", 5.0)]


def test_functions_that_runtimes_and_the_inliner_read_otherwise_are_refused() -> None:
    handing = """<domain: "my", opset_import: ["" : 15, "my" : 1]> F <slope> (a) => (b) {
        b = my.G <alpha: float = @slope> (a) }"""
    with pytest.raises(UnsupportedNetworkError, match="'F' hands 'slope', which has no default, on to 'G'"):
        inlined(_functions(handing, LEAKY))
    plain = """<domain: "my", opset_import: ["" : 15]> F (a) => (b) { b = Abs (a) }"""
    own = """<domain: "", opset_import: ["" : 15]> Abs (a) => (b) { b = Relu (a) }"""
    with pytest.raises(UnsupportedNetworkError, match="'Abs' is of ONNX's own domain"):
        inlined(_functions(plain, own))
