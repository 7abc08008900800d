"""Two networks as one file: both answers, bit by bit, and what can't be joined is refused in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from prunecert.compaction import METADATA_KEY
from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.onnx.merge import PAIR_KEY, isomorphic, merge, taken_apart
from prunecert.onnx.normal import UnsupportedNetworkError, is_normal
from prunecert.onnx.normalise import normalise
from prunecert.verifiers.formats.counterexample import outputs
from tests.soundness.pairs import twin
from tests.soundness.questions import FAMILIES

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture(name="files")
def _files(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(3)
    net = FAMILIES["conv-skip"]("net", rng)
    return net.save(tmp_path / "a.onnx"), twin(net, rng, 0.3, 0.1).save(tmp_path / "b.onnx")


def test_both_outputs_are_those_of_the_files(files: tuple[Path, Path], tmp_path: Path) -> None:
    merged = merge(*files)
    onnx.save(merged, tmp_path / "both.onnx")
    points = np.random.default_rng(0).random((8, 1, 4, 4)).astype(np.float32)
    apart = np.hstack([outputs(path, points) for path in files])
    np.testing.assert_array_equal(outputs(tmp_path / "both.onnx", points), apart)
    assert is_normal(merged)
    (record,) = (item.value for item in merged.metadata_props if item.key == PAIR_KEY)
    assert json.loads(record) == {"first": sha256_file(files[0]), "second": sha256_file(files[1])}
    # The same file on both sides is a pair, too.
    assert len(merge(files[0], files[0]).graph.node) == len(merged.graph.node)


def test_networks_of_the_same_layers_are_isomorphic_whatever_their_weights_and_names(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    assert isomorphic(*files)
    model = onnx.load(files[1])
    for item in model.graph.initializer:
        item.name = f"own {item.name}"
    for node in model.graph.node:
        node.input[1:] = [f"own {name}" if node.op_type in ("Conv", "Gemm") else name for name in node.input[1:]]
    onnx.save(model, tmp_path / "renamed.onnx")
    assert isomorphic(files[0], tmp_path / "renamed.onnx")
    (first, *_) = (node for node in model.graph.node if node.op_type == "Conv")
    (stride,) = (item for item in first.attribute if item.name == "strides")
    stride.ints[:] = [2, 2]
    onnx.save(model, tmp_path / "strided.onnx")
    assert not isomorphic(files[0], tmp_path / "strided.onnx")
    rng = np.random.default_rng(0)
    assert not isomorphic(files[0], FAMILIES["conv"]("net", rng).save(tmp_path / "conv.onnx"))


def test_constants_that_are_no_weights_are_of_the_layers(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.onnx" for number in range(3)]
    for path, shape, scale in zip(paths, ([1, 2, 3], [1, 3, 2], [1, 2, 3]), (1.0, 1.0, 2.0), strict=True):
        nodes = [
            helper.make_node("Reshape", ["x", "shape"], ["image"]),
            helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 2, 1]),
            helper.make_node("Flatten", ["turned"], ["flat"]),
            helper.make_node("Mul", ["flat", "scale"], ["y"]),
        ]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 6]) for name in "xy"]
        constants = [
            helper.make_tensor("shape", TensorProto.INT64, [3], shape),
            helper.make_tensor("scale", TensorProto.FLOAT, [1], [scale]),
        ]
        graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], constants)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    assert isomorphic(paths[0], paths[2])
    # Images of other heights and widths are turned to another order.
    assert not isomorphic(paths[0], paths[1])


def test_networks_may_call_their_own_what_they_like(files: tuple[Path, Path], tmp_path: Path) -> None:
    for path in files:
        model = onnx.load(path)
        names = [item.name for item in model.graph.initializer][:2]
        for node in model.graph.node:
            node.input[:] = [["place", "zeros"][names.index(name)] if name in names else name for name in node.input]
        for item, name in zip(model.graph.initializer, ("place", "zeros"), strict=False):
            item.name = name
        onnx.save(model, path)
    onnx.save(merge(*files), tmp_path / "both.onnx")
    point = np.full((1, 1, 4, 4), 0.5, dtype=np.float32)
    np.testing.assert_array_equal(
        outputs(tmp_path / "both.onnx", point), np.hstack([outputs(path, point) for path in files])
    )


def test_a_free_batch_axis_stays_free(files: tuple[Path, Path], tmp_path: Path) -> None:
    for path in files:
        model = onnx.load(path)
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_param = "n"
        onnx.save(model, path)
    merged = merge(*files)
    assert merged.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 0
    onnx.save(merged, tmp_path / "both.onnx")
    point = np.full((1, 1, 4, 4), 0.5, dtype=np.float32)
    np.testing.assert_array_equal(
        outputs(tmp_path / "both.onnx", point), np.hstack([outputs(path, point) for path in files])
    )


def _opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 14


def _domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def _compacted(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key=METADATA_KEY, value="{}")


def _wide(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "n"


def test_a_pair_that_rounds_is_for_who_compares_pairs(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y)
        <float s = {0.5}, uint8 z = {0}> { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }"""
    rounding, plain = (
        onnx.parser.parse_model(text),
        onnx.parser.parse_model(f"{text.partition('<float s')[0]}{{ y = Relu (x) }}"),
    )
    for name, model in (("rounding", rounding), ("plain", plain)):
        onnx.save(model, tmp_path / name)
    with pytest.raises(UnsupportedNetworkError, match=r"few pieces; take sparse-pair, or verify"):
        normalise(merge(tmp_path / "plain", tmp_path / "rounding"))
    with pytest.raises(UnsupportedNetworkError, match=r"take a verifier of quantised networks \(sparse-bab"):
        normalise(rounding)


def _double(model: onnx.ModelProto) -> None:
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Flatten", ["input"], ["output"]))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE


def _two_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("v1", TensorProto.FLOAT, [1, 2, 4, 4]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_opset, "are written in the opsets 13 and 14; export both in one"),
        (_domain, "uses functions or operators beyond ONNX's own"),
        (_compacted, "is a compacted network; compare the network that it was made from"),
        (_wide, r"takes the shape \[1, 1, 4, 4\] and returns \[1, \?\]"),
        (_double, "takes double and returns double; two networks are compared that take and return float"),
        (_two_outputs, "has 1 inputs and 2 outputs"),
    ],
)
def test_what_cannot_be_joined_is_refused(files: tuple[Path, Path], change: Change, reason: str) -> None:
    model = onnx.load(files[1])
    change(model)
    onnx.save(model, files[1])
    with pytest.raises(UserError, match=reason):
        merge(*files)


def test_other_shapes_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    other = FAMILIES["fc"]("fc", np.random.default_rng(0)).save(tmp_path / "c.onnx")
    with pytest.raises(UserError, match=r"because they take inputs of the shapes \[1, 1, 4, 4\] and \[1, 3\]; allowed"):
        merge(files[0], other)
    wide = onnx.load(files[1])
    wide.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    onnx.save(wide, tmp_path / "wide.onnx")
    with pytest.raises(UserError, match="because they have 3 and 5 outputs; allowed are two networks with the same"):
        merge(files[0], tmp_path / "wide.onnx")


def test_what_was_joined_is_taken_apart_and_nothing_else(files: tuple[Path, Path], tmp_path: Path) -> None:
    merged = merge(*files)
    halves = taken_apart(merged)
    assert halves is not None
    points = np.random.default_rng(1).random((4, 1, 4, 4)).astype(np.float32)
    for half, path in zip(halves, files, strict=True):
        onnx.save(half, tmp_path / "half.onnx")
        np.testing.assert_array_equal(outputs(tmp_path / "half.onnx", points), outputs(path, points))
    assert taken_apart(onnx.load(files[0])) is None
    # Its first network reads what the second computes.
    first = next(node for node in merged.graph.node if node.name == "placing first/")
    first.input[0] = next(node for node in merged.graph.node if node.name == "placing second/").input[0]
    assert taken_apart(merged) is None
