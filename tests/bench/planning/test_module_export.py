"""What the file of a module is; `tests/prunecert/api/test_exporting.py` has how it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from prunecert.bench.planning.module_export import export_module
from prunecert.errors import UserError
from prunecert.verifiers.formats.counterexample import outputs


def test_a_module_is_left_as_it_was(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    written = export_module(module, tmp_path / "net.onnx", torch.rand(1, 1, 2, 2))
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert (written.exporter, written.weights, written.kept) == ("trace", 18, 18)
    onnx.checker.check_model(onnx.load(written.path), full_check=True)


def test_an_input_that_is_normalised_in_place_stays_as_it_was(tmp_path: Path) -> None:
    class Normalising(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x -= 0.3
            x /= 0.2
            outputs: torch.Tensor = self.inner(x)
            return outputs

    module, sample = Normalising().eval(), torch.rand(1, 4)
    before = sample.clone()
    written = export_module(module, tmp_path / "net.onnx", sample)
    assert torch.equal(sample, before)
    expected = module(before.clone()).detach().numpy()
    assert np.allclose(outputs(written.path, before.numpy()), expected, atol=1e-5)


def test_nothing_is_left_of_a_refused_module(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="doesn't take an input"):
        export_module(nn.Linear(4, 2).eval(), tmp_path / "net.onnx", torch.rand(1, 3))
    assert not list(tmp_path.iterdir())
