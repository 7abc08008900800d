"""Networks as users' exporters write them, rebuilt: each is read as what it is, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from prunecert.errors import UserError
from prunecert.onnx.io import identity, load_model
from prunecert.onnx.normalise import is_normal, normalise
from tests.prunecert.onnx.graphs import N, assert_same, build, operators, weights

CONV = {"w": weights(4, 2, 3, 3), "b": weights(4)}
HEAD = {"v": weights(36, 8), "c": weights(8), "u": weights(8, 3), "d": weights(3)}


def head(source: str) -> list[onnx.NodeProto]:
    return [
        N("Flatten", [source], ["flat"], axis=1),
        N("Gemm", ["flat", "v", "c"], ["h"]),
        N("Relu", ["h"], ["hr"]),
        N("Gemm", ["hr", "u", "d"], ["y"]),
    ]


def dense(*layers: onnx.NodeProto, names: tuple[str, str] = ("a", "b")) -> list[onnx.NodeProto]:
    """Gemm, one layer of something, Gemm; the layers between read ``a`` and write ``b``."""
    return [N("Gemm", ["x", "k"], [names[0]]), *layers, N("Gemm", [names[1], "l"], ["y"])]


TWO = {"k": weights(4, 5), "l": weights(5, 3)}
CASES: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], tuple[Any, ...], int, list[str]]] = {
    "a view with a free batch, opset 11": (
        [
            N("Conv", ["x", "w", "b"], ["f"], strides=[2, 2], pads=[1, 1, 1, 1]),
            N("Shape", ["f"], ["s"]),
            N("Gather", ["s", "zero"], ["n"], axis=0),
            N("Unsqueeze", ["n"], ["n1"], axes=[0]),
            N("Concat", ["n1", "rest"], ["to"], axis=0),
            N("Reshape", ["f", "to"], ["r"]),
            N("Gemm", ["r", "v", "c"], ["y"]),
        ],
        CONV | HEAD | {"zero": np.array(0), "rest": np.array([-1])},
        ("N", 2, 6, 6),
        11,
        ["Conv", "Flatten", "Gemm"],
    ),
    "a part of Shape, opset 15": (
        [
            N("Conv", ["x", "w", "b"], ["f"], strides=[2, 2], pads=[1, 1, 1, 1]),
            N("Shape", ["f"], ["s"], start=0, end=1),
            N("Concat", ["s", "rest"], ["to"], axis=0),
            N("Reshape", ["f", "to"], ["r"]),
            N("Gemm", ["r", "v", "c"], ["y"]),
        ],
        CONV | HEAD | {"rest": np.array([-1])},
        ("N", 2, 6, 6),
        15,
        ["Conv", "Flatten", "Gemm"],
    ),
    "weights as Constant nodes": (
        [
            N("Constant", [], ["k"], value=onnx.numpy_helper.from_array(weights(4, 5))),
            N("Constant", [], ["l"], value=onnx.numpy_helper.from_array(weights(5, 3))),
            *dense(N("Relu", ["a"], ["b"])),
        ],
        {},
        (1, 4),
        13,
        ["Gemm", "Relu", "Gemm"],
    ),
    "a bias for each position": (
        [
            N("Conv", ["x", "w", "b"], ["f"], strides=[2, 2], pads=[1] * 4),
            N("Add", ["f", "p"], ["g"]),
            N("Relu", ["g"], ["q"]),
            *head("q"),
        ],
        CONV | HEAD | {"p": weights(1, 4, 3, 3)},
        (1, 2, 6, 6),
        13,
        ["Conv", "Flatten", "Gemm", "Gemm", "Reshape", "Add", "Relu", "Flatten", "Gemm", "Relu", "Gemm"],
    ),
    "a kernel without its shape": (
        [N("Reshape", ["x", "s"], ["i"]), N("Conv", ["i", "w"], ["f"]), N("Relu", ["f"], ["y"])],
        {"s": np.array([1, 4, 1, 1]), "w": weights(3, 4, 1, 1)},
        (1, 4),
        13,
        ["Conv", "Relu", "Flatten"],
    ),
    "transposed weights": (
        [N("Transpose", ["k"], ["kt"], perm=[1, 0]), N("MatMul", ["x", "kt"], ["m"]), N("Add", ["m", "e"], ["y"])],
        {"k": weights(5, 4), "e": weights(5)},
        (1, 4),
        17,
        ["Gemm"],
    ),
    "Clip from zero": (
        dense(N("Clip", ["a", "z"], ["b"])),
        TWO | {"z": np.float32(0)},
        (1, 4),
        13,
        ["Gemm", "Relu", "Gemm"],
    ),
    "Max with zero": (
        dense(N("Max", ["a", "z"], ["b"])),
        TWO | {"z": np.float32(0)},
        (1, 4),
        13,
        ["Gemm", "Relu", "Gemm"],
    ),
    "no batch axis": (
        [N("MatMul", ["x", "k"], ["m"]), N("Add", ["m", "e"], ["a"]), N("Relu", ["a"], ["y"])],
        {"k": weights(4, 5), "e": weights(5)},
        (4,),
        13,
        ["Gemm", "Relu"],
    ),
    "a column vector": (
        [N("MatMul", ["k", "x"], ["m"]), N("Add", ["m", "e"], ["a"]), N("Relu", ["a"], ["y"])],
        {"k": weights(5, 4), "e": weights(5, 1)},
        (4, 1),
        13,
        ["Gemm", "Relu"],
    ),
    "products of three axes": (
        [
            N("MatMul", ["x", "k"], ["m"]),
            N("Add", ["m", "e"], ["a"]),
            N("Relu", ["a"], ["r"]),
            N("MatMul", ["r", "l"], ["y"]),
        ],
        TWO | {"e": weights(5)},
        (1, 1, 4),
        13,
        ["Gemm", "Relu", "Gemm"],
    ),
    "a flat output": ([N("Gemm", ["x", "k"], ["a"]), N("Squeeze", ["a"], ["y"])], TWO, (1, 4), 13, ["Gemm"]),
    "a pooled output": (
        [N("Conv", ["x", "w", "b"], ["f"]), N("Relu", ["f"], ["r"]), N("GlobalAveragePool", ["r"], ["y"])],
        CONV,
        (1, 2, 6, 6),
        13,
        ["Conv", "Relu", "AveragePool", "Flatten"],
    ),
    "identities, a dropout that rests": (
        [
            N("Identity", ["x"], ["i"]),
            N("Gemm", ["i", "k", "e"], ["a"]),
            N("Dropout", ["a"], ["o"], ratio=0.5),
            N("Relu", ["o"], ["y"]),
        ],
        TWO | {"e": weights(5)},
        (1, 4),
        9,
        ["Gemm", "Relu"],
    ),
    "a last layer without a bias": ([N("MatMul", ["x", "k"], ["y"])], TWO, (1, 4), 13, ["Gemm"]),
    "Flatten at the last axis": (
        [N("Flatten", ["x"], ["f"], axis=-1), N("Gemm", ["f", "k"], ["y"])],
        TWO,
        (1, 1, 1, 4),
        13,
        ["Flatten", "Gemm"],
    ),
    "a channel of constants": (
        [
            N("Concat", ["x", "k"], ["j"], axis=1),
            N("Conv", ["j", "w"], ["f"], strides=[2, 2], pads=[1] * 4),
            *head("f"),
        ],
        HEAD | {"k": np.full((1, 1, 6, 6), 0.5, np.float32), "w": weights(4, 3, 3, 3)},
        (1, 2, 6, 6),
        13,
        ["Conv", "Conv", "Flatten", "Gemm", "Relu", "Gemm"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_cases(name: str) -> None:
    nodes, constants, shape, opset, expected = CASES[name]
    assert operators(assert_same(build(nodes, constants, shape, opset=opset))) == expected


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_torch_exports(tmp_path: Path, dynamo: bool) -> None:
    """Both of torch's exporters; the default one puts the weights beside the graph."""
    if dynamo:
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU6(),
        torch.nn.MaxPool2d(2),
        torch.nn.LeakyReLU(0.1),
        torch.nn.Flatten(),
        torch.nn.Dropout(),
        torch.nn.Linear(36, 3),
        torch.nn.LogSoftmax(dim=1),
    ).eval()
    path = tmp_path / "net.onnx"
    torch.onnx.export(network, (torch.zeros(1, 2, 6, 6),), str(path), dynamo=dynamo)
    model = load_model(path)
    normal = assert_same(model)
    assert (normal.last, normal.outputs) == ("difference", 3)
    assert len(identity(path)) == 64


def test_dropout_in_training_mode_is_refused() -> None:
    nodes = dense(N("Relu", ["a"], ["r"]), N("Dropout", ["r", "ratio", "training"], ["b"], name="drop"))
    model = build(nodes, TWO | {"ratio": np.float32(0.5), "training": np.array(True)}, (1, 4))
    with pytest.raises(UserError, match=r"'drop' \(Dropout\) isn't taken: it was exported in training mode"):
        normalise(model)
    # Not where no output depends on it.
    nodes = [*dense(N("Relu", ["a"], ["b"])), N("Dropout", ["y", "ratio", "training"], ["z"])]
    assert_same(build(nodes, TWO | {"ratio": np.float32(0.5), "training": np.array(True)}, (1, 4)))


def test_weights_that_overflow_are_refused() -> None:
    nodes = [N("Gemm", ["x", "k"], ["y"], alpha=1e30)]
    with pytest.raises(UserError, match="infinite or not a number in float32"):
        normalise(build(nodes, {"k": np.full((4, 3), 1e30, np.float32)}, (1, 4)))


def test_the_normal_form_is_strict() -> None:
    """What is not as the readers take it is rewritten, however small the difference."""
    constants = {"k": weights(3, 4), "b": weights(3)}
    plain = build([N("Gemm", ["x", "k", "b"], ["y"], transB=1)], constants, (1, 4))
    plain.ir_version = 8
    plain.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3]))
    assert is_normal(plain)
    assert not normalise(plain).changed

    def changed(**how: Any) -> onnx.ModelProto:
        other = onnx.ModelProto()
        other.CopyFrom(plain)
        node, tensor = other.graph.node[0], other.graph.initializer[0]
        match how:
            case {"opset": version}:
                other.opset_import[0].version = version
            case {"alpha": alpha}:
                node.attribute.append(helper.make_attribute("alpha", alpha))
            case {"batch": batch}:
                other.graph.input[0].type.tensor_type.shape.dim[0].dim_param = batch
            case {"infinite": _}:
                values = onnx.numpy_helper.to_array(tensor).copy()
                values[0, 0] = np.inf
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
            case {"bias": _}:
                del node.input[2]
            case {"entry": _}:
                other.graph.input.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, [3, 4]))
            case _:
                node.op_type = how["operator"]
        return other

    for how in (
        {"opset": 12},
        {"opset": 18},
        {"alpha": 0.5},
        {"batch": "N"},
        {"infinite": 1},
        {"bias": 1},
        {"entry": 1},
    ):
        assert not is_normal(changed(**how)), how
        if "infinite" not in how:
            assert_same(changed(**how))
    with pytest.raises(UserError, match="infinite or not a number"):
        normalise(changed(infinite=1))
