"""What a file computes in, and what a CastLike is a Cast to."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto

from prunecert.onnx.types import FLOAT32_UNIT, all_nodes, casts_told, unit_of


def _model(body: str, kind: str = "float") -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 15]>
        net ({kind}[1, 2] x) => (float[1, 2] y) <float[1] f = {{0}}, float16[1] h = {{0}}, int64[1] n = {{1}},
        float s = {{0.5}}>
        {{ {body} }}"""
    )


HALF, BRAIN = 2.0**-11, 2.0**-8


@pytest.mark.parametrize(
    ("body", "kind", "unit"),
    [
        ("y = Relu (x)", "float", FLOAT32_UNIT),
        ("y = Relu (x)", "double", FLOAT32_UNIT),
        ("c = Cast <to = 10> (x) y = Cast <to = 1> (c)", "float", HALF),
        ("c = Cast <to = 16> (x) y = Cast <to = 1> (c)", "float", BRAIN),
        ("b = Cast <to = 16> (x) a = Cast <to = 10> (b) y = Cast <to = 1> (a)", "float", BRAIN),
        ("c = CastLike (x, h) y = Cast <to = 1> (c)", "float", HALF),
        # Types go through operators that don't name them.
        ("c = Cast <to = 10> (x) d = Relu (c) e = Add (d, h) y = Cast <to = 1> (e)", "float", HALF),
        ("c = Add (x, h) y = Cast <to = 1> (c)", "float16", HALF),
        # A point of the input is exact, and what is done to it is done in float32; so are weights that are cast first.
        ("c = Cast <to = 1> (x) y = Add (c, f)", "float16", FLOAT32_UNIT),
        ("c = Cast <to = 1> (h) y = Add (x, c)", "float", FLOAT32_UNIT),
        ("q = Constant <value = float16[1] {1}> () c = Cast <to = 1> (q) y = Mul (x, c)", "float", FLOAT32_UNIT),
        ("s = Shape (x) c = Cast <to = 10> (x) d = Reshape (c, s) y = Cast <to = 1> (d)", "float", HALF),
        # What has no type that can be told is of the coarsest that is mentioned.
        (
            "e = SequenceEmpty <dtype = 10> () c = Cast <to = 10> (x) i = SequenceInsert (e, c) k = SequenceLength (i)"
            " d = Cast <to = 1> (c) y = Mul (d, f)",
            "float",
            HALF,
        ),
        # In a branch, whichever is taken.
        (
            "t = Constant <value = bool[1] {1}> () y = If (t) <then_branch = a () => (float[1, 2] u) {"
            " c = Cast <to = 10> (x) u = Cast <to = 1> (c) }, else_branch = b () => (float[1, 2] v) { v = Neg (x) }>",
            "float",
            HALF,
        ),
    ],
)
def test_the_coarsest_type_of_what_depends_on_the_input_decides(body: str, kind: str, unit: float) -> None:
    assert unit_of(_model(body, kind)) == unit


def test_a_cast_like_something_becomes_a_cast_where_its_type_can_be_told() -> None:
    # Types of what compares, of second results and of quantisers are those that ONNX says, and not the first input's.
    model = _model(
        "a = CastLike (x, n) b = CastLike (x, h) c = CastLike (x, x) l = Less (x, f) d = CastLike (x, l)"
        " v, i = TopK <axis = 1> (x, n) e = CastLike (x, i) q = QuantizeLinear (x, s) g = CastLike (x, q)"
        " o = CastLike (x, nowhere) y = Relu (x)"
    )
    before = model.SerializeToString()
    model_of_casts = casts_told(model)
    casts = [node for node in model_of_casts.graph.node if node.op_type.startswith("Cast")]
    assert [(node.op_type, [item.i for item in node.attribute], list(node.output)) for node in casts] == [
        ("Cast", [7], ["a"]),
        ("Cast", [10], ["b"]),
        ("Cast", [1], ["c"]),
        ("Cast", [TensorProto.BOOL], ["d"]),
        ("Cast", [TensorProto.INT64], ["e"]),
        ("Cast", [TensorProto.UINT8], ["g"]),
        ("CastLike", [], ["o"]),
    ]
    assert model.SerializeToString() == before
    plain = _model("y = Relu (x)")
    assert casts_told(plain) is plain


def test_a_name_of_two_types_is_of_neither() -> None:
    branch = "then_branch = a () => (float[1, 2] u) <int64[1] k = {1}> { u = CastLike (x, k) }"
    other = "else_branch = b () => (float[1, 2] v) <float[1] k = {1}> { v = CastLike (x, k) }"
    model = _model(f"t = Constant <value = bool[1] {{1}}> () y = If (t) <{branch}, {other}>")
    model_of_casts = casts_told(model)
    # The first is read before anything else is known of the name; what is told of both must not be the first's.
    assert {node.op_type for node in all_nodes(model_of_casts.graph.node)} == {"Constant", "If", "CastLike"}
