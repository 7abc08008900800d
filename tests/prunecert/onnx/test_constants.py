"""Constants: folded as onnxruntime folds them, within limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunecert.errors import UserError
from prunecert.onnx.constants import Evaluator, constant_value, label, to_array
from prunecert.onnx.normalise import UnsupportedNetworkError, normalise
from tests.prunecert.onnx.graphs import Array, N, assert_same, build, operators, run, weights


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
    assert bias[0] == np.float32(run(direct, np.zeros(1, np.float32))[0])


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
    ("tensor", "words"),
    [
        (TensorProto(name="w", data_type=1, dims=[2**40]), r"'w' has \[1099511627776\] elements"),
        (TensorProto(name="w", data_type=1, dims=[-1]), r"'w' has \[-1\] elements"),
        (TensorProto(name="w", data_type=1, dims=[3], raw_data=b"1234"), "'w' is damaged"),
        (TensorProto(name="w", data_type=99, dims=[1], raw_data=b"1234"), "'w' is damaged"),
    ],
)
def test_damaged_tensors_are_refused(tensor: TensorProto, words: str) -> None:
    with pytest.raises(UserError, match=words):
        to_array(tensor)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"value_float": 0.5}, np.array(0.5, np.float32)),
        ({"value_floats": [0.5, 1.0]}, np.array([0.5, 1.0], np.float32)),
        ({"value_int": 3}, np.array(3)),
        ({"value_ints": [3, -4]}, np.array([3, -4])),
        ({"value": numpy_helper.from_array(np.array([[True]]))}, np.array([[True]])),
    ],
)
def test_values_of_constant_nodes(how: dict[str, Any], expected: Array) -> None:
    value = constant_value(N("Constant", [], ["c"], **how))
    assert (value.dtype, value.tolist()) == (expected.dtype, expected.tolist())


def test_texts_are_no_constants() -> None:
    with pytest.raises(UnsupportedNetworkError, match=r"The node 'c' \(Constant\) isn't taken: its value is no number"):
        constant_value(N("Constant", [], ["c"], value_string="x"))


def test_nodes_are_refused_before_they_are_computed() -> None:
    evaluator = Evaluator(13)
    for node, arrays, words in (
        (N("RandomNormal", [], ["y"], shape=[2]), {}, "gives other numbers in each run"),
        (N("Expand", ["a", "s"], ["y"]), {"a": np.ones(1), "s": np.array([2**30, 2**30])}, "allowed are 134,217,728"),
        (N("Reshape", ["a", "s"], ["y"]), {"a": np.ones(3), "s": np.array([2])}, "can't be evaluated|doesn't fit"),
        (N("NoSuch", ["a"], ["y"]), {"a": np.ones(3)}, r"The node 'y' \(NoSuch\)"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            evaluator.run(node, arrays)
        assert "\n" not in str(caught.value)


def test_a_node_is_run_again_with_other_free_inputs() -> None:
    arrays = {"a": np.zeros(2, np.float32), "b": np.array([1, 2], np.float32)}
    run_add = Evaluator(13).session(N("Add", ["a", "b"], ["y"]), arrays, ("a",))
    for number in (3, 4):
        assert run_add({"a": np.full(2, number, np.float32)})[0].tolist() == [number + 1, number + 2]


def test_types_that_onnxruntime_has_no_kernel_for_are_computed_by_onnx_itself() -> None:
    (result,) = Evaluator(13).run(N("Abs", ["a"], ["y"]), {"a": np.array([-1, 2], np.float16)})
    assert (str(result.dtype), result.tolist()) == ("float16", [1, 2])


def test_labels_are_short_and_printable() -> None:
    assert label(N("Relu", ["x"], ["y"], name="a\nb")) == "'a?b' (Relu)"
    assert label(N("Relu", ["x"], ["out"])) == "'out' (Relu)"
    assert len(label(N("R" * 999, ["x"], ["y"], name="n" * 999))) < 150


@pytest.mark.parametrize(
    ("node", "arrays", "is_refused"),
    [
        # 1.001 squared has more digits than 16 bits hold, and 1.5 times 2 has not.
        (("Mul", ["a", "a"]), {"a": np.array([1.001], np.float16)}, True),
        (("Mul", ["a", "b"]), {"a": np.array([1.5], np.float16), "b": np.array([2], np.float16)}, False),
        (("Mul", ["a", "a"]), {"a": np.array([1.001], np.float32)}, False),
        (("Concat", ["a", "a"]), {"a": np.array([1.001], np.float16)}, False),
        (("Cast", ["a"]), {"a": np.array([1.001], np.float32)}, True),
        (("Cast", ["a"]), {"a": np.array([1.5, 3], np.float32)}, False),
    ],
)
def test_constants_that_16_and_32_bits_make_different_are_refused(
    node: tuple[str, list[str]], arrays: dict[str, Any], is_refused: bool
) -> None:
    by_operator: dict[str, dict[str, Any]] = {"Concat": {"axis": 0}, "Cast": {"to": TensorProto.FLOAT16}}
    attributes = by_operator.get(node[0], {})
    computation = helper.make_node(*node, ["y"], **attributes)
    if is_refused:
        with pytest.raises(UnsupportedNetworkError, match="computes constants in 16 bits"):
            Evaluator(15).fold(computation, arrays)
    else:
        assert len(Evaluator(15).fold(computation, arrays)) == 1


@pytest.mark.parametrize("kind", ["BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "INT4"])
def test_values_of_types_that_numpy_has_not_are_read_and_not_their_bits(kind: str) -> None:
    """onnxruntime gives one of them to NumPy as bytes, of which 57 stands for 1.125, and the others not at all."""
    evaluator, number = Evaluator(21), TensorProto.DataType.Value(kind)
    numbers = np.array([[1, -3], [6, 2]], np.float32)
    (narrow,) = evaluator.fold(N("Cast", ["a"], ["y"], to=number), {"a": numbers})
    assert narrow.dtype == helper.tensor_dtype_to_np_dtype(number)
    (turned,) = evaluator.fold(N("Transpose", ["wide 0"], ["y"], perm=[1, 0]), {"wide 0": narrow})
    (back,) = evaluator.fold(N("Cast", ["a"], ["y"], to=TensorProto.FLOAT), {"a": turned})
    assert back.tolist() == numbers.T.tolist()


def test_a_cast_to_eight_bits_rounds_as_in_the_file() -> None:
    (narrow,) = Evaluator(19).fold(
        N("Cast", ["a"], ["y"], to=TensorProto.FLOAT8E4M3FN), {"a": np.array([1.1, -3.3], np.float32)}
    )
    assert narrow.astype(np.float32).tolist() == [1.125, -3.25]
