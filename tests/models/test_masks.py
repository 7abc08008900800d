"""Masks count, hold and refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable


def test_counts_and_hash(tiny: nn.Module) -> None:
    dense = Masks.dense(tiny)
    assert dense.total == dense.kept == sum(weight.numel() for weight in prunable(tiny).values())
    assert dense.sparsity == 0
    half = Masks({**dense, "7.weight": torch.arange(200).view(10, 20) % 2 == 0})
    assert half.total - half.kept == 100
    assert half.compression == pytest.approx(half.total / (half.total - 100))
    assert half.sparsity_by_layer()["7.weight"] == 0.5
    assert half.sha256() != dense.sha256() == Masks.dense(tiny).sha256()
    assert len(set(half)) == len(half) == 4


def test_weights_that_go_are_zero_and_stay_so(tiny: nn.Module) -> None:
    masks = Masks({name: torch.rand(weight.shape) < 0.5 for name, weight in prunable(tiny).items()})
    assert not masks.holds(tiny)
    masks.apply_(tiny)
    assert masks.holds(tiny)
    with torch.no_grad():
        prunable(tiny)["0.weight"][~masks["0.weight"]] = 1e-30
    assert not masks.holds(tiny), "a tiny weight is no zero"


def test_an_empty_layer_is_refused(tiny: nn.Module) -> None:
    with pytest.raises(UserError, match=r"empty layer '5\.weight' \(2,560 weights\)"):
        Masks({**Masks.dense(tiny), "5.weight": torch.zeros(20, 128, dtype=torch.bool)})
