"""The counter of weights: what the graph makes of its constants is what counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from prunecert.errors import UserError
from prunecert.onnx.count import count_layers, count_shapes, totals
from tests.prunecert.onnx.graphs import N, build, weights

MASK = (np.arange(24).reshape(3, 8) % 3 == 0).astype(np.float32)


def saved(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, Any], shape: tuple[int, ...]) -> Path:
    model = build(nodes, constants, shape)
    for size in (1, 3):
        model.graph.output[0].type.tensor_type.shape.dim.add(dim_value=size)
    onnx.save(model, path)
    return path


def test_masks_in_the_graph_are_multiplied_in(tmp_path: Path) -> None:
    nodes = [N("Mul", ["w", "mask"], ["v"]), N("Gemm", ["x", "v"], ["y"], transB=1, name="last")]
    path = saved(tmp_path / "a.onnx", nodes, {"w": weights(3, 8), "mask": MASK}, (1, 8))
    (layer,) = count_layers(path)
    assert layer.to_json() == {"name": "last", "kind": "Gemm", "shape": [3, 8], "weights": 24, "zeros": 16}
    assert totals([layer]) == (24, 8)
    assert count_shapes(path).to_json() == {"neurons": 0, "weights": 24, "nonzero": 8, "macs": 24, "sparse_macs": 8}


def test_weights_that_two_layers_share_count_once(tmp_path: Path) -> None:
    nodes = [
        N("Transpose", ["w"], ["t"], perm=[1, 0]),
        N("MatMul", ["x", "t"], ["h"]),
        N("Relu", ["h"], ["r"]),
        N("Gemm", ["r", "w"], ["s"]),
        N("MatMul", ["s", "t"], ["y"]),
    ]
    path = saved(tmp_path / "a.onnx", nodes, {"w": weights(3, 8)}, (1, 8))
    assert [(layer.kind, layer.weights) for layer in count_layers(path)] == [("MatMul", 24)]
    shapes = count_shapes(path)
    assert (shapes.neurons, shapes.macs) == (3, 72)


def test_what_no_output_needs_does_not_count(tmp_path: Path) -> None:
    nodes = [N("Gemm", ["x", "w"], ["y"], transB=1), N("Gemm", ["x", "u"], ["dead"])]
    path = saved(tmp_path / "a.onnx", nodes, {"w": weights(3, 8), "u": weights(8, 99)}, (1, 8))
    assert totals(count_layers(path)) == (24, 24)


def test_what_the_normal_form_adds_does_not_count(tmp_path: Path) -> None:
    nodes = [
        N("Conv", ["x", "w"], ["c"], pads=[1, 1, 0, 0], strides=[2, 2], name="c"),
        N("LeakyRelu", ["c"], ["a"]),
        N("MaxPool", ["a"], ["m"], kernel_shape=[2, 2]),
        N("Flatten", ["m"], ["f"]),
        N("Gemm", ["f", "u"], ["y"], name="g"),
    ]
    path = saved(tmp_path / "a.onnx", nodes, {"w": weights(3, 2, 3, 3), "u": weights(12, 3)}, (1, 2, 6, 6))
    assert [(layer.name, layer.weights) for layer in count_layers(path)] == [("c", 54), ("g", 36)]
    shapes = count_shapes(path)
    assert (shapes.weights, shapes.macs) == (90, 9 * 54 + 36)


def test_folded_normalisations_are_no_layer(tmp_path: Path) -> None:
    nodes = [N("Conv", ["x", "n"], ["s"], group=2), N("Flatten", ["s"], ["f"]), N("Gemm", ["f", "u"], ["y"])]
    path = saved(tmp_path / "a.onnx", nodes, {"n": weights(2, 1, 1, 1), "u": weights(72, 3)}, (1, 2, 6, 6))
    assert [layer.kind for layer in count_layers(path)] == ["Gemm"]
    assert count_shapes(path).weights == 2 + 216


def test_weights_that_depend_on_the_input_are_refused(tmp_path: Path) -> None:
    nodes = [N("Relu", ["x"], ["r"]), N("MatMul", ["x", "r"], ["y"], name="m")]
    path = saved(tmp_path / "a.onnx", nodes, {}, (1, 1))
    with pytest.raises(UserError, match=r"weights of 'm' \(MatMul\) are not stored as a constant"):
        count_layers(path)
    path = saved(tmp_path / "b.onnx", [N("Relu", ["x"], ["y"])], {}, (1, 3))
    with pytest.raises(UserError, match="nothing to prune"):
        count_layers(path)
