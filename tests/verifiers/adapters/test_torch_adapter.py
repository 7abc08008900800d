"""Adapters that run the network in torch give onnxruntime's outputs, point by point, whatever shape points have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from prunecert.verifiers.adapters.torch_adapter import TorchVerifier, run_module
from prunecert.verifiers.base import Instance, Kind, Verdict
from prunecert.verifiers.formats import counterexample
from tests.verifiers import onnxnets


class Runner(TorchVerifier):
    """Runs, and answers nothing."""

    name = "runner"
    kind = Kind.ATTACK

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        raise NotImplementedError


def test_outputs_are_those_of_onnxruntime(tmp_path: Path) -> None:
    path = onnxnets.convolutional(tmp_path / "net.onnx", seed=3)
    runner = Runner()
    runner.start()
    runner.load(path)
    points = np.random.default_rng(0).random((5, 3, 8, 8), dtype=np.float32)
    outputs = runner.evaluate(points)
    assert outputs is not None
    np.testing.assert_allclose(outputs, counterexample.outputs(path, points), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(outputs, runner.evaluate(points.reshape(5, -1)))
    # Not of memory in another order.
    turned = np.ascontiguousarray(points.transpose(0, 3, 2, 1)).transpose(0, 3, 2, 1)
    np.testing.assert_array_equal(outputs, runner.evaluate(turned))


def test_each_point_is_run_alone() -> None:
    sizes = []

    class Noting(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(tuple(x.shape))
            return x.flatten(1)

    points = np.arange(12, dtype=np.float32).reshape(3, 4)
    outputs = run_module(Noting(), points, (2, 2), torch.device("cpu"))
    np.testing.assert_array_equal(outputs, points)
    assert sizes == [(1, 2, 2)] * 3


def test_a_device_that_is_not_there_is_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("here is a CUDA device")
    with pytest.raises(RuntimeError, match="no CUDA device"):
        Runner(device="cuda").start()
