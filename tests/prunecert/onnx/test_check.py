"""The self check: rounding passes, another function doesn't."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from prunecert.errors import UserError
from prunecert.onnx.check import check
from prunecert.onnx.normalise import UnsupportedNetworkError, normalise
from tests.prunecert.onnx.graphs import N, build, weights

LOW, HIGH = -np.ones(5), np.ones(5)


def layered(last: str = "Identity") -> onnx.ModelProto:
    nodes = [
        N("MatMul", ["x", "w"], ["h"]),
        N("Relu", ["h"], ["r"]),
        N("MatMul", ["r", "v"], ["l"]),
        N(last, ["l"], ["y"]),
    ]
    small = np.float32(0.3)
    return build(nodes, {"w": small * weights(5, 4), "v": small * weights(4, 3)}, (1, 5))


@pytest.mark.parametrize("last", ["Identity", "Softmax", "LogSoftmax", "Sigmoid", "Tanh"])
def test_rounding_passes_and_a_changed_weight_does_not(last: str) -> None:
    model = layered(last)
    normal = normalise(model)
    assert 0 <= check(model, normal, LOW, HIGH) < 1e-5
    other = onnx.ModelProto()
    other.CopyFrom(normal.model)
    tensor = other.graph.initializer[0]
    values = numpy_helper.to_array(tensor).copy()
    values += np.float32(0.25)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    with pytest.raises(RuntimeError, match="differ from the network's"):
        check(model, replace(normal, model=other), LOW, HIGH)


def test_a_wrong_order_of_inputs_is_seen() -> None:
    model = layered()
    normal = normalise(model)
    with pytest.raises(RuntimeError, match="differ from the network's"):
        check(model, replace(normal, input_order=np.array([1, 0, 2, 3, 4])), LOW, HIGH)


def test_a_network_that_is_not_changed_needs_no_check() -> None:
    normal = normalise(normalise(layered()).model)
    assert check(normal.model, normal, LOW, HIGH) == 0.0


def test_coarse_networks_are_compared_coarsely() -> None:
    constants = {"w": weights(5, 4).astype(np.float16), "v": weights(4, 3).astype(np.float16)}
    nodes = [N("MatMul", ["x", "w"], ["h"]), N("Relu", ["h"], ["r"]), N("MatMul", ["r", "v"], ["y"])]
    model = build(nodes, constants, (1, 5), kind=TensorProto.FLOAT16)
    assert 0 < check(model, normalise(model), LOW, HIGH) < 0.1


def test_overflow_of_the_normal_form_alone_is_an_error() -> None:
    nodes = [N("LeakyRelu", ["x"], ["a"], alpha=3e38), N("Clip", ["a", "l", "h"], ["y"])]
    model = build(nodes, {"l": np.float32(-1), "h": np.float32(1)}, (1, 5))
    with pytest.raises(RuntimeError, match="overflow"):
        check(model, normalise(model), LOW * 9, HIGH * 9)


def test_a_file_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    normal = normalise(layered())
    (tmp_path / "net.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match="onnxruntime can't run"):
        check(tmp_path / "net.onnx", normal, LOW, HIGH)


@pytest.mark.parametrize("last", ["Sigmoid", "Tanh"])
def test_outputs_that_saturate_are_refused(last: str) -> None:
    """Both outputs are 1 in float32 there, though their arguments have an order."""
    model = layered(last)
    normal = normalise(model)
    check(model, normal, LOW, HIGH)
    with pytest.raises(UnsupportedNetworkError, match=f"The last operator, {last}, may get arguments up to"):
        check(model, normal, LOW * 100, HIGH * 100)
