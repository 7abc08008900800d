"""A network in normal form as a torch module: onnxruntime's outputs, for any batch, and refusals by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from prunecert.verifiers.base import UnsupportedError
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.formats.onnx_torch import read_onnx
from prunecert.verifiers.formats.support import mark_rewritten
from tests.verifiers import onnxnets

FLATTEN = helper.make_node("Flatten", ["r"], ["output"])
ONES = np.ones((2, 2, 3, 3), np.float32)


@pytest.mark.parametrize("make", [onnxnets.linear, onnxnets.connected, onnxnets.residual, onnxnets.convolutional])
@pytest.mark.parametrize("averages", [False, True])
def test_outputs_are_those_of_onnxruntime(make: Callable[[Path], Path], averages: bool, tmp_path: Path) -> None:
    path = onnxnets.normal_form(make(tmp_path / "net.onnx"))
    module = read_onnx(path, averages_as_convolutions=averages)
    assert not any(isinstance(layer, nn.AvgPool2d) for layer in module.modules()) or not averages
    points = np.random.default_rng(0).random((4, *module.input_shape), dtype=np.float32)
    with torch.no_grad():
        outputs = module(torch.from_numpy(points)).numpy()
    assert outputs.shape == (4, module.outputs)
    np.testing.assert_allclose(outputs, counterexample.outputs(path, points), rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert module.starts_linear()


def test_what_was_rounded_when_it_was_rewritten_is_marked(tmp_path: Path) -> None:
    plain = read_onnx(onnxnets.convolutional(tmp_path / "plain.onnx"))
    assert not any(getattr(layer, "rounded", False) for layer in plain.modules())
    # As a worker does with one in which normalisation and batch norm are folded.
    path = onnxnets.normal_form(onnxnets.residual(tmp_path / "folded.onnx"))
    model = onnx.load(str(path))
    mark_rewritten(model)
    onnx.save(model, str(path))
    folded = read_onnx(path)
    layers = [layer for layer in folded.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert layers
    assert all(getattr(layer, "rounded", False) for layer in layers)


def test_a_relu_first_is_no_linear_start(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["input"], ["r"]), FLATTEN]
    assert not read_onnx(onnxnets.write(tmp_path / "net.onnx", nodes, {}, (2, 1, 1), outputs=2)).starts_linear()


@pytest.mark.parametrize(
    ("operator", "attributes", "constants", "said"),
    [
        ("Conv", {"pads": [1, 0, 0, 1]}, {"w": ONES}, "symmetric"),
        ("Conv", {"auto_pad": "SAME_UPPER"}, {"w": ONES}, "explicit"),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [1, 1]}, {}, "overlap"),
        ("AveragePool", {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}, {}, "a padded pool"),
        ("Tanh", {}, {}, "its operator or inputs"),
    ],
)
def test_what_is_none_of_the_normal_form_is_named(
    operator: str, attributes: dict[str, Any], constants: dict[str, Any], said: str, tmp_path: Path
) -> None:
    nodes = [helper.make_node(operator, ["input", *constants], ["r"], name="odd", **attributes), FLATTEN]
    path = onnxnets.write(tmp_path / "net.onnx", nodes, constants, (2, 4, 4), outputs=8)
    with pytest.raises(UnsupportedError, match=rf"'odd' \({operator}\).*{said}"):
        read_onnx(path)
