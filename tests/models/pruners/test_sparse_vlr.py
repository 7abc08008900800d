"""SparseVLR: the share of removal, units that come back by themselves, and what is dead can be cut out."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from prunecert.errors import UserError
from prunecert.models.checkpoint import load_model
from prunecert.models.compact_export import export_compact
from prunecert.models.export import export_onnx
from prunecert.models.masks import prunable
from prunecert.models.pruners import sparse_vlr
from prunecert.models.pruners.sparse_vlr import prune, share_for
from prunecert.models.pruners.thresholding import alive, deactivate, masks_of
from tests.models.conftest import Lent
from tests.models.training_kit import job, pipeline


@pytest.mark.parametrize("ratio", [1.5, 4])
def test_the_share_is_the_smallest_that_reaches_the_compression(tiny: nn.Module, ratio: float) -> None:
    share, total = share_for(tiny, ratio), sum(weight.numel() for weight in prunable(tiny).values())

    def left(at: float) -> int:
        return sum(int(mask.sum()) for mask in masks_of(tiny, *alive(tiny, at)).values())

    assert left(share) <= total / ratio < left(share - 1e-4) + 1
    masks = prune(tiny, ratio, train=Lent())
    assert masks.kept == round(total / ratio)


@pytest.mark.slow
def test_units_come_back_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With masks in the backward pass this would be nothing: the weights would stay at zero."""
    living: dict[str, list[torch.Tensor]] = {"filters": [], "columns": []}

    def spy(model: nn.Module, share: float, *, final: bool = False) -> None:
        deactivate(model, share, final=final)
        weights = prunable(model)
        living["filters"].append((weights["2.weight"].flatten(1) != 0).any(1))
        living["columns"].append((weights["5.weight"] != 0).any(0))

    monkeypatch.setattr(sparse_vlr, "deactivate", spy)
    pipeline(tmp_path, images=300).run(job("sparse-vlr", 4.0, "natural", pretrain_epochs=6, lr=0.02))
    for kind, states in living.items():
        came_back = [bool((~before & after).any()) for before, after in itertools.pairwise(states)]
        assert len(states) == 10, "at the start, after each of eight epochs, and at the end"
        assert any(came_back), kind


@pytest.mark.slow
def test_what_is_dead_can_be_removed(tmp_path: Path) -> None:
    card = pipeline(tmp_path, images=100).run(job("sparse-vlr", 10.0))
    assert card.kept == round(card.weights / 10)
    model, _, _ = load_model(tmp_path / card.name)
    info = export_onnx(tmp_path / f"{card.name}.safetensors", tmp_path / "net.onnx")
    small = export_compact(info.path, tmp_path / "small.onnx")
    assert small.max_difference < 1e-5
    conv = next(layer for layer in small.record.layers if layer.before[:2] == (32, 16))
    assert conv.after[0] <= int((prunable(model)["2.weight"].flatten(1) != 0).any(1).sum()) < 32


def test_what_it_cannot_reach_is_refused_beforehand(tiny: nn.Module) -> None:
    lent = Lent()
    with pytest.raises(UserError, match=r"Compression 100 is refused for sparse-vlr: .* allowed is at most"):
        prune(tiny, 100, train=lent)
    with pytest.raises(UserError, match="thickening 0 is refused"):
        prune(tiny, 2, train=lent, thickening=0)
    assert not lent.calls
    with pytest.raises(UserError, match="Compression 200 is refused for sparse-vlr"):
        job("sparse-vlr", 200.0).refuse_unreachable()
