"""SparseVLR: layers lose what the formula says, units come back by themselves, and what is dead changes nothing."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from prunecert.errors import UserError
from prunecert.models import NETWORKS
from prunecert.models.checkpoint import load_model
from prunecert.models.compact_export import export_compact
from prunecert.models.export import export_onnx
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners import sparse_vlr
from prunecert.models.pruners.sparse_vlr import alive, deactivate, masks_of, prune, removal, share_for
from tests.models.conftest import Lent
from tests.models.test_training import job, pipeline


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_the_alive_share_of_every_layer_is_the_formula_s(share: float) -> None:
    model = NETWORKS.get("cnn-small")()
    for weight in prunable(model).values():
        nn.init.normal_(weight)
    deactivate(model, share)
    weights = prunable(model)
    kernel = 1 - (16 + 32 + 4 + 4) / (16 * 32 * 4 * 4)
    filters = int((weights["2.weight"].flatten(1) != 0).any(1).sum())
    assert filters == 32 - math.floor(share / 2 * kernel * 32)
    columns = int((weights["5.weight"] != 0).any(0).sum())
    hidden = share * (1 - (100 + 2048) / (100 * 2048)) + (0.02 if share < 0.98 else 0)
    # Columns of dead filters are among those that go.
    assert columns == 2048 - max(math.floor(hidden * 2048), (32 - filters) * 64)
    assert int((weights["7.weight"] != 0).any(0).sum()) == 100 - math.floor(share / 2 * 100)
    bias = model.get_submodule("2").bias
    assert isinstance(bias, nn.Parameter)
    assert int((bias == 0).sum()) == 32 - filters
    assert removal(torch.Size((8, 4, 3, 3)), 1.0, last=False) == 0.5 * (1 - 18 / 288)


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
    living: list[torch.Tensor] = []

    def spy(model: nn.Module, share: float) -> None:
        deactivate(model, share)
        weights = prunable(model)
        living.append(torch.cat([(weights["2.weight"].flatten(1) != 0).any(1), (weights["5.weight"] != 0).any(0)]))

    monkeypatch.setattr(sparse_vlr, "deactivate", spy)
    pipeline(tmp_path, images=300).run(job("sparse-vlr", 4.0, "natural", pretrain_epochs=6, lr=0.01))
    came_back = [bool((~before & after).any()) for before, after in itertools.pairwise(living)]
    assert len(living) == 10, "at the start, after each of eight epochs, and at the end"
    assert any(came_back)


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


def test_rows_of_neurons_that_nothing_reads_go(tiny: nn.Module) -> None:
    filters, columns = alive(tiny, 0.9)
    masks = Masks(masks_of(tiny, filters, columns))
    unread = ~columns["7.weight"]
    assert not bool(masks["5.weight"][unread].any())
    assert not bool(masks["2.weight"][:, ~filters["0.weight"]].any())
    x = torch.rand(4, 3, 8, 8)
    deactivate(tiny, 0.9)
    before = tiny(x)
    masks.apply_(tiny)
    assert torch.allclose(tiny(x), before, atol=1e-6), "what the closure removes has no effect"


def test_what_it_cannot_reach_is_refused_beforehand(tiny: nn.Module) -> None:
    lent = Lent()
    with pytest.raises(UserError, match=r"Compression 100 is refused for sparse-vlr: .* allowed is at most"):
        prune(tiny, 100, train=lent)
    with pytest.raises(UserError, match="thickening 0 is refused"):
        prune(tiny, 2, train=lent, thickening=0)
    assert not lent.calls
    with pytest.raises(UserError, match="Compression 200 is refused for sparse-vlr"):
        job("sparse-vlr", 200.0).refuse_unreachable()
