from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunecert.verifiers.checker.files import UnreadableError
from prunecert.verifiers.checker.onnxfile import _decode, parse


def model(**changes: Any) -> onnx.ModelProto:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], name="layer", transB=1, alpha=0.5)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [changes.get("weight", numpy_helper.from_array(weight, "w"))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", changes.get("opset", 13))])


def test_a_graph_is_read_as_the_library_reads_it() -> None:
    operations, constants, entry, shape, output = parse(model().SerializeToString())
    assert operations == [("Gemm", ["x", "w"], "y", {"alpha": 0.5, "transB": 1})]
    assert (entry, shape, output) == ("x", [0, 3], "y")
    assert constants["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("kind", "values"),
    [(TensorProto.FLOAT, [0.5, -1.5]), (TensorProto.INT64, [3, -(2**63)]), (TensorProto.INT64, [2**63 - 1, -1])],
)
@pytest.mark.parametrize("raw", [False, True])
def test_tensors_are_read_in_both_forms(kind: int, values: list[float], raw: bool) -> None:
    dtype = np.float32 if kind == TensorProto.FLOAT else np.int64
    data: Any = np.array(values, dtype=dtype).tobytes() if raw else values
    tensor = helper.make_tensor("w", kind, [2, 1], data, raw=raw)
    _, constants, *_ = parse(model(weight=tensor).SerializeToString())
    assert constants["w"].tolist() == [[value] for value in values]


def refused(made: onnx.ModelProto, match: str) -> None:
    with pytest.raises(UnreadableError, match=match):
        parse(made.SerializeToString())


def test_what_is_not_known_is_refused() -> None:
    refused(model(opset=22), "operator set")
    refused(model(weight=helper.make_tensor("w", TensorProto.DOUBLE, [1], [1.0])), "isn't taken")
    refused(model(weight=helper.make_tensor("w", TensorProto.FLOAT, [1], [np.inf])), "not finite")
    made = model()
    made.graph.node[0].domain = "custom"
    refused(made, "another domain")
    unversioned = model()
    del unversioned.opset_import[:]
    refused(unversioned, "operator set")
    made = model()
    made.functions.append(onnx.FunctionProto(name="Gemm"))
    refused(made, "field 25")
    made = model()
    made.graph.node[0].attribute.append(helper.make_attribute("alpha", 1.0))
    refused(made, "attribute twice")
    made = model()
    made.graph.initializer[0].data_location = TensorProto.EXTERNAL
    refused(made, "isn't taken")
    made = model()
    made.graph.initializer.append(made.graph.initializer[0])
    refused(made, "a name twice")
    made = model()
    made.graph.initializer[0].dims[0] = 7
    refused(made, "another size")
    made = model()
    made.graph.initializer[0].float_data.append(1.0)
    refused(made, "values twice")
    made = model()
    made.graph.sparse_initializer.append(onnx.SparseTensorProto())
    refused(made, "field 15")
    made = model()
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    refused(made, "isn't float32")


def test_a_second_graph_is_not_merged() -> None:
    content = model().SerializeToString()
    with pytest.raises(UnreadableError, match="two fields graph"):
        parse(content + content)


def test_a_file_that_is_cut_off_is_not_read() -> None:
    content = model().SerializeToString()
    for length in range(content.index(b"layer"), content.index(b"batch") + 5):
        with pytest.raises((UnreadableError, IndexError, KeyError)):
            parse(content[:length])


def test_a_number_without_end_is_refused() -> None:
    with pytest.raises(UnreadableError, match="too long"):
        parse(b"\xff" * 40)


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ("attribute", b"\x12\x04" + np.float32(0.5).tobytes()),  # a float as a piece of the file
        ("attribute", b"\x1a\x01\x05"),  # an integer that is packed
        ("tensor", b"\x4d" + bytes(4)),  # raw data as one number of four bytes
        ("attribute", b"\x11" + bytes(8)),  # a float of eight bytes
    ],
)
def test_what_other_readers_would_pass_over_is_refused(message: str, content: bytes) -> None:
    """Of another wire type than its field's: others put it aside as unknown, and take the default."""
    with pytest.raises(UnreadableError, match="of another type"):
        _decode(content, message)


def test_what_may_be_packed_may_be_alone() -> None:
    packed, alone = b"\x0a\x02\x03\x04", b"\x08\x03\x08\x04"
    assert _decode(packed, "tensor")["SHAPE"] == _decode(alone, "tensor")["SHAPE"] == [3, 4]
