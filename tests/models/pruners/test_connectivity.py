"""Bayesian connectivity sampling: the budget, the fixed signs, and births in proportion to layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners import connectivity
from prunecert.models.pruners.connectivity import first_densities, prune, rewire, start
from prunecert.models.pruners.contract import Step
from tests.models.conftest import Lent
from tests.models.training_kit import job, pipeline


@pytest.mark.parametrize("ratio", [2, 10, 50])
def test_the_budget_holds_always_and_is_full_soon(tiny: nn.Module, ratio: float) -> None:
    def drift(model: nn.Module) -> None:
        with torch.no_grad():
            for weight in prunable(model).values():
                weight.add_(0.02 * torch.randn_like(weight))

    lent = Lent(epochs=3, update=drift)
    masks = prune(tiny, ratio, train=lent)
    total = masks.total
    first = lent.calls[0]["masks"]
    assert first.kept <= round(total / ratio)
    counts = [one.kept for one in lent.history]
    assert max(counts) <= round(total / ratio)
    assert all(count > 0.95 * total / ratio for count in counts[2:])
    assert masks.holds(tiny)


def test_signs_never_change(tiny: nn.Module) -> None:
    signs, masks = start(tiny, 400, 0.6, seed=1)
    for number in range(50):
        with torch.no_grad():
            for weight in prunable(tiny).values():
                weight.add_(0.05 * torch.randn_like(weight))
        masks.apply_(tiny)
        masks = rewire(tiny, signs, Step(number, 50, masks, dict, 0.1), 400) or masks
        masks.apply_(tiny)
        for name, weight in prunable(tiny).items():
            assert bool((weight * signs[name] >= 0).all())
            assert bool((weight[masks[name]] != 0).all()), "the living are alive"
    assert masks.kept == 400


def test_the_start_is_below_the_budget_and_heavy_at_the_ends(tiny: nn.Module) -> None:
    sizes = {name: weight.numel() for name, weight in prunable(tiny).items()}
    counts = first_densities(sizes, sum(sizes.values()) // 2, 0.6)
    assert counts["0.weight"] == int(0.6 * 162)
    assert counts["7.weight"] == int(0.6 * 200)
    assert counts["5.weight"] == pytest.approx(0.25 * 2560, abs=2)
    assert sum(first_densities(sizes, 60, 0.6).values()) <= 60
    _, masks = start(tiny, sum(sizes.values()) // 2, 0.6, seed=0)
    weight = prunable(tiny)["5.weight"].detach()[masks["5.weight"]]
    # He's normal distribution: a mean square of 2 / fan-in.
    assert float((weight**2).mean()) == pytest.approx(2 / 128, rel=0.2)
    assert float((weight > 0).float().mean()) == pytest.approx(0.5, abs=0.08)


def test_births_follow_layers_sizes() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(*sizes, bias=False) for sizes in ((100, 300), (300, 100), (100, 100))]
    model = nn.Sequential(*layers)
    signs, masks = start(model, 4000, 0.05, seed=0)
    born = torch.zeros(3)
    for _ in range(30):
        after = rewire(model, signs, Step(0, 1, masks, dict, 0.0), 5000)
        assert after is not None
        born += torch.tensor([float((after[name] & ~masks[name]).sum()) for name in masks])
    shares = torch.tensor([3.0, 3.0, 1.0]) / 7
    expected = born.sum() * shares
    # Two degrees of freedom: beyond 13.8 once in a thousand.
    assert float(((born - expected) ** 2 / expected).sum()) < 13.8


def test_decay_alone_kills_nobody_and_a_crossing_kills_at_once() -> None:
    model = nn.Sequential(nn.Linear(20, 20, bias=False))
    signs, masks = start(model, 100, 0.25, seed=0)
    masks = rewire(model, signs, Step(0, 1, masks, dict, 0.0), 100) or masks
    masks.apply_(model)
    weight = prunable(model)["0.weight"]
    with torch.no_grad():
        weight.mul_(0.5)
    step = Step(0, 1, masks, dict, 0.0)
    assert rewire(model, signs, step, 100) is None, "nothing changes: no masks are made"
    victims = masks["0.weight"].nonzero()[:7]
    with torch.no_grad():
        weight[victims[:, 0], victims[:, 1]] *= -1e-3
    after = rewire(model, signs, step, 100)
    assert after is not None
    assert not bool(after["0.weight"][victims[:, 0], victims[:, 1]].any())
    assert after.kept == 100
    fresh = after["0.weight"] & ~masks["0.weight"]
    assert float(weight.detach()[fresh].abs().max()) == pytest.approx(1e-12)


def test_noise_reaches_the_living_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connectivity, "_NOISE", 1e-2)
    model = nn.Sequential(nn.Linear(40, 50, bias=False))
    signs, masks = start(model, 1000, 0.5, seed=0)
    masks.apply_(model)
    with torch.no_grad():
        prunable(model)["0.weight"].copy_(signs["0.weight"] * masks["0.weight"])
    before = prunable(model)["0.weight"].detach().clone()
    rewire(model, signs, Step(0, 1, masks, dict, 0.1), masks.kept)
    moved = prunable(model)["0.weight"].detach() - before
    assert float(moved[masks["0.weight"]].std()) == pytest.approx(1e-3, rel=0.2)
    assert not bool(moved[~masks["0.weight"]].any())


def test_an_emptied_layer_gets_a_connection(tiny: nn.Module) -> None:
    signs, masks = start(tiny, 300, 0.6, seed=0)
    with torch.no_grad():
        prunable(tiny)["7.weight"].mul_(-1)
    after = rewire(tiny, signs, replace(Step(0, 1, masks, dict, 0.0)), 300)
    assert isinstance(after, Masks)
    assert int(after["7.weight"].sum()) >= 1


@pytest.mark.slow
def test_interrupted_it_ends_the_same(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "pretrain_epochs": 3,
        "augment": True,
        "optimizer": "sgd",
        "lr": 0.01,
        "weight_decay": 5e-4,
    }
    whole = pipeline(tmp_path / "whole", images=60).run(job("connectivity", **options))
    epochs = 0

    def interrupt(*_: object) -> None:
        nonlocal epochs
        epochs += 1
        if epochs == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline(tmp_path / "cut", interrupt, images=60).run(job("connectivity", **options))
    assert pipeline(tmp_path / "cut", images=60).run(job("connectivity", **options)).sha256 == whole.sha256
    assert whole.kept == pytest.approx(whole.weights / 10, rel=0.01)


def test_too_few_connections_are_refused(tiny: nn.Module) -> None:
    lent = Lent()
    with pytest.raises(UserError, match="are too few to be sampled"):
        prune(tiny, 500, train=lent)
    with pytest.raises(UserError, match="outer 2 is refused"):
        prune(tiny, 5, train=lent, outer=2)
    assert not lent.calls
