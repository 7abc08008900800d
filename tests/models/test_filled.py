"""A filled network has no zeros left and computes what the pruned one does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from prunecert.hashing import sha256_file
from prunecert.models import PRUNERS, filled
from prunecert.models.export import count_zeros, export_model
from prunecert.models.filled import SCALE, fill_zeros


@pytest.fixture
def pruned(tmp_path: Path) -> Path:
    """A tenth of the weights, and a normalisation one of whose factors is zero."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 4, 8, stride=8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 20),
        nn.ReLU(),
        nn.Linear(20, 10),
    ).eval()
    with torch.no_grad():
        model[0].weight[1] = 0  # type: ignore[operator]
        model[1].bias[0] = 0  # type: ignore[operator]
    masks = PRUNERS.get("lwm")(model, 10)
    masks.apply_(model)
    return export_model(model, masks, {"cell": "x"}, tmp_path / "pruned.onnx").path


def constants(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    return {item.name: numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}


def test_zeros_alone_are_filled_with_tiny_numbers_of_both_signs(pruned: Path, tmp_path: Path) -> None:
    target = tmp_path / "folder" / "filled.onnx"
    assert fill_zeros(pruned, target) == sha256_file(target)
    before, after = constants(pruned), constants(target)
    assert count_zeros(pruned)[0] > 0
    assert count_zeros(target) == (0, count_zeros(pruned)[1])
    for name, values in before.items():
        if name.endswith("_weight"):
            zero = values == 0
            size = SCALE * np.sqrt((values[~zero].astype(np.float64) ** 2).mean())
            np.testing.assert_array_equal(after[name][~zero], values[~zero])
            np.testing.assert_allclose(np.abs(after[name][zero]), size, rtol=1e-6)
            assert 0.3 < (after[name][zero] > 0).mean() < 0.7
        else:
            # Normalisation and biases are no weights: their zeros stay.
            np.testing.assert_array_equal(after[name], values)
    assert not before["norm_0_scale"][1].any()
    assert onnx.load(target).metadata_props[0].value == "x"


def test_the_seed_decides_the_signs(pruned: Path, tmp_path: Path) -> None:
    hashes = [fill_zeros(pruned, tmp_path / f"{i}.onnx", seed) for i, seed in enumerate((0, 0, 1))]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_layer_without_any_weight_is_filled_too(pruned: Path, tmp_path: Path) -> None:
    model = onnx.load(pruned)
    for item in model.graph.initializer:
        if item.name == "4_weight":
            item.CopyFrom(numpy_helper.from_array(np.zeros((20, 64), np.float32), item.name))
    onnx.save(model, tmp_path / "empty.onnx")
    fill_zeros(tmp_path / "empty.onnx", tmp_path / "filled.onnx")
    np.testing.assert_allclose(np.abs(constants(tmp_path / "filled.onnx")["4_weight"]), SCALE)


def test_a_filling_that_changes_the_outputs_leaves_the_target_as_it_was(
    pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "filled.onnx"
    target.write_bytes(b"older")
    monkeypatch.setattr(filled, "SCALE", 0.1)
    with pytest.raises(ValueError, match=r"pruned\.onnx: filling its zeros changes its outputs by"):
        fill_zeros(pruned, target)
    assert target.read_bytes() == b"older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["filled.onnx", "pruned.onnx"]
