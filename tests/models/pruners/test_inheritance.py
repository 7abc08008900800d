"""Inverse weights inheritance: with nothing new the large network is the small one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners import inheritance
from prunecert.models.pruners.inheritance import inherit, prune
from prunecert.models.pruners.lwm import prune as lwm
from tests.models.conftest import Lent
from tests.models.training_kit import job, pipeline


def test_with_zeros_the_full_network_is_the_lean_one_to_the_bit(tiny: nn.Module) -> None:
    masks = lwm(tiny, 4)
    masks.apply_(tiny)
    x = torch.rand(8, 3, 8, 8)
    before = tiny(x)
    inherit(tiny, masks, 0.0)
    assert torch.equal(tiny(x), before)


def test_what_comes_is_small_and_what_was_there_stays(tiny: nn.Module) -> None:
    masks = lwm(tiny, 4)
    masks.apply_(tiny)
    before = {name: weight.detach().clone() for name, weight in prunable(tiny).items()}
    inherit(tiny, masks, 1e-2)
    for name, weight in prunable(tiny).items():
        assert torch.equal(weight[masks[name]], before[name][masks[name]])
        fresh = weight.detach()[~masks[name]]
        assert float(fresh.std()) == pytest.approx(1e-2 / (3 * weight[0].numel()) ** 0.5, rel=0.25)


@pytest.mark.slow
def test_its_weights_are_sparser_than_from_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of weights below 1e-3 after training in full, which the last cut begins with."""
    shares: list[float] = []

    def small(model: nn.Module) -> float:
        sizes = torch.cat([weight.detach().abs().flatten() for weight in prunable(model).values()])
        return float((sizes < 1e-3).float().mean())

    def spy(model: nn.Module, compression: float, **options: Any) -> Masks:
        shares.append(small(model))
        return lwm(model, compression, **options)

    monkeypatch.setattr(inheritance, "lwm", spy)
    line = pipeline(tmp_path, images=100)
    one = job("inheritance", 10.0, pretrain_epochs=4, prune_epochs=2, finetune_epochs=2)
    line.run(one)
    before, after = shares
    # As many epochs of training in full, from scratch.
    scratch = line.pretrained(job("dense", 1.0, pretrain_epochs=8))
    assert after > 2 * max(before, small(scratch))


def test_stretches_and_the_last_cut(tiny: nn.Module) -> None:
    lent = Lent(epochs=10)
    masks = prune(tiny, 5, train=lent)
    assert [(call["name"], call["epochs"]) for call in lent.calls] == [("lean", 3), ("full", 4)]
    assert lent.calls[0]["masks"].kept == masks.kept == round(masks.total / 5)
    assert lent.calls[1]["masks"] is None
    assert not Masks(lent.calls[0]["masks"]).holds(tiny), "the full network has all weights"
    assert lent.left == 3
    state = torch.get_rng_state()
    prune(tiny, 5, train=Lent(epochs=0), seed=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_bad_settings_are_refused(tiny: nn.Module) -> None:
    lent = Lent()
    for settings, message in (
        ({"noise": 2}, "noise 2"),
        ({"lean": -1}, "lean -1"),
        ({"lean": 0.7, "full": 0.7}, "at most 1 together"),
    ):
        with pytest.raises(UserError, match=message):
            prune(tiny, 5, train=lent, **settings)
    assert not lent.calls
