"""The pass as a whole: types, opsets, outputs, branches, and one sentence for what isn't taken."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from prunecert.errors import UserError
from prunecert.onnx.normalise import UnsupportedNetworkError, normalise
from prunecert.verifiers.formats.counterexample import outputs
from tests.prunecert.onnx.graphs import CONV, N, Nodes, assert_same, build, operators, run, weights


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


@pytest.mark.parametrize(
    ("kind", "shapes", "refused"),
    [
        (TensorProto.FLOAT, (["batch", 4], [1, 4]), True),
        (TensorProto.FLOAT, (None, [1, 4]), True),
        (TensorProto.FLOAT, (["batch", "n"], [1, 4]), True),
        # What is declared is no promise where another size is open: the outputs are looked at then.
        (TensorProto.FLOAT, (["batch", 3], None), True),
        (TensorProto.FLOAT, (["batch", 3], ["batch", 4]), False),
        (TensorProto.FLOAT, ([], [1, 4]), False),
        (TensorProto.INT64, (["batch"], [1, 4]), False),
        (TensorProto.INT64, (["batch"], None), False),
    ],
)
def test_an_output_that_counts_and_is_not_taken_is_not_replaced_by_another(
    kind: int, shapes: Sequence[list[str | int] | None], refused: bool
) -> None:
    """The first of so many values is meant; a file may hide in it what the second hasn't."""
    nodes = [N("Gemm", ["x", "w"], ["z"]), N("Erf", ["z"], ["y"])]
    model = build(nodes, {"w": weights(5, 4)}, (1, 5), outputs=["y", "z"])
    for value, element, shape in zip(model.graph.output, (kind, TensorProto.FLOAT), shapes, strict=True):
        value.CopyFrom(helper.make_tensor_value_info(value.name, element, shape))
    with pytest.raises(UnsupportedNetworkError, match="Erf") if refused else contextlib.nullcontext():
        assert normalise(model, outputs=4).output == "z"
    with pytest.raises(UnsupportedNetworkError, match="Erf"):
        normalise(model)
    assert normalise(model, output="z").output == "z"


def test_an_output_counts_by_what_is_declared(tmp_path: Path) -> None:
    """A file that declares another size than an output has: the replay and the normal form take the same one."""
    nodes = [N("Gemm", ["x", "w"], ["y"]), N("Neg", ["y"], ["z"])]
    model = build(nodes, {"w": weights(5, 4)}, (1, 5), outputs=["y", "z"])
    for value, size in zip(model.graph.output, (3, 4), strict=True):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, [1, size]))
    onnx.save(model, tmp_path / "lies.onnx")
    point = np.ones((1, 5), np.float32)
    form = normalise(model, outputs=4)
    assert form.output == "z"
    np.testing.assert_allclose(run(form.model, point.reshape(-1)), outputs(tmp_path / "lies.onnx", point, 4)[0])


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
