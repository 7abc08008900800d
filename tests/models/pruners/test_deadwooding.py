"""Deadwooding: the dual rises until the budget is met, and what is cut then matters less."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from prunecert.errors import UserError
from prunecert.models.checkpoint import load_model
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners import deadwooding
from prunecert.models.pruners.deadwooding import ascend, prune, violation
from prunecert.models.pruners.lwm import global_masks
from tests.models.conftest import Lent
from tests.models.training_kit import job, pipeline


@given(st.floats(0, 100), st.floats(0, 10), st.floats(-1, 1))
def test_the_multiplier_never_falls_and_stands_where_nothing_is_violated(old: float, rate: float, gap: float) -> None:
    new = ascend(old, rate, gap)
    assert new >= old
    assert new == old or gap > 0


def test_the_violation_counts_large_weights_smoothly() -> None:
    weights = [torch.tensor([0.0, 0.0, 5.0, -5.0]), torch.tensor([[0.0, 5.0]])]
    assert violation(weights, 0.1, 0.25).item() == pytest.approx(0.25)
    assert violation(weights, 0.1, 0.5).item() == pytest.approx(0, abs=1e-6)
    assert violation(weights, 0.1, 0.9).item() == 0


@pytest.mark.slow
def test_on_least_squares_the_dual_meets_the_budget() -> None:
    """Twenty coefficients of which five matter; a budget of a quarter."""
    torch.manual_seed(0)
    x = torch.randn(200, 20)
    truth = torch.cat([torch.tensor([3.0, -2.0, 2.0, -3.0, 4.0]), torch.full((15,), 0.2)])
    y = x @ truth
    w = torch.randn(20, requires_grad=True)
    adam, multiplier, history = torch.optim.Adam([w], lr=0.02), 0.0, []
    for _ in range(150):
        for _ in range(40):
            loss = ((x @ w - y) ** 2).mean() + multiplier * violation([w], 0.1, 0.3)
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
        multiplier = ascend(multiplier, 1.0, violation([w], 0.1, 0.3).item())
        history.append(multiplier)
    assert violation([w], 0.1, 0.3).item() < 0.05
    assert history[-1] - history[-20] < 0.2 * history[-1], "it has converged"
    assert set(w.detach().abs().topk(5).indices.tolist()) == set(range(5))


@pytest.mark.slow
def test_the_cut_costs_less_than_without_the_dual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the sum of |w|, the share that is below the threshold before it is cut."""
    shares: list[float] = []

    def spy(scores: dict[str, torch.Tensor], kept: int) -> Masks:
        masks = global_masks(scores, kept)
        gone = sum(float(score.detach()[~masks[name]].sum()) for name, score in scores.items())
        shares.append(gone / sum(float(score.detach().sum()) for score in scores.values()))
        return masks

    monkeypatch.setattr(deadwooding, "global_masks", spy)
    for rate in (0.0, 50.0):
        options = {"deadwooding": {"rate": rate, "dual": 1.0, "scale": 0.3}}
        one = job("deadwooding", 5.0, "natural", finetune_epochs=7, pruners=options)
        pipeline(tmp_path / str(rate), images=200).run(one)
    assert shares[1] < 0.9 * shares[0]


def test_stretches_and_early_end(tiny: nn.Module) -> None:
    lent = Lent(epochs=10)
    masks = prune(tiny, 1.0, train=lent)
    assert [(call["name"], call["epochs"]) for call in lent.calls] == [("dual", 5), ("distil", 9)], "met at once"
    assert masks.kept == masks.total
    lent = Lent(epochs=10)
    masks = prune(tiny, 10, train=lent, soft=0.5)
    assert [(call["name"], call["epochs"]) for call in lent.calls] == [("dual", 5), ("distil", 5)]
    assert masks.kept == round(masks.total / 10)
    assert masks.holds(tiny)
    hooks = lent.calls[0]["hooks"]
    assert hooks.memory["multiplier"] > 0


@pytest.mark.slow
def test_a_cell_is_trained_with_and_without_distillation(tmp_path: Path) -> None:
    hashes = set()
    for soft in (0.0, 0.5):
        line = pipeline(tmp_path / str(soft), images=60)
        card = line.run(job("deadwooding", 10.0, pruners={"deadwooding": {"soft": soft}}))
        assert card.kept == round(card.weights / 10)
        model, masks, _ = load_model(tmp_path / str(soft) / card.name)
        assert masks.holds(model)
        assert len(prunable(model)) == 4
        hashes.add(card.sha256)
    assert len(hashes) == 2


def test_bad_settings_are_refused(tiny: nn.Module) -> None:
    lent = Lent()
    for settings, message in (({"dual": 2}, "dual 2"), ({"scale": 0}, "scale 0"), ({"soft": 2}, "soft 2")):
        with pytest.raises(UserError, match=message):
            prune(tiny, 5, train=lent, **settings)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Compression"):
        prune(tiny, 1e9, train=lent)
    assert not lent.calls
