"""FRE: what nothing reads counts nothing, first order is what it says, and rounds end at the exact count."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.errors import UserError
from prunecert.models.masks import prunable
from prunecert.models.pruners.fre import importances, prune
from prunecert.models.pruners.removal import removal_order
from prunecert.models.pruners.units import units_of
from tests.models.conftest import Lent
from tests.models.training_kit import job, pipeline


def test_a_filter_that_nothing_reads_has_no_importance(tiny: nn.Module) -> None:
    with torch.no_grad():
        prunable(tiny)["2.weight"][:, 3] = 0
    scores = importances(tiny, units_of(tiny), Lent(), 40, "attacked")
    assert float(scores[0][3]) == 0
    assert float(scores[0].norm()) == pytest.approx(1)
    assert int((scores[0] > 0).sum()) == 5
    assert all(parameter.grad is None for parameter in tiny.parameters())


def test_the_score_is_the_slope_of_scaling_a_filter(tiny: nn.Module) -> None:
    class Fixed(Lent):
        """One batch of attacked images that don't depend on the network."""

        def attack(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            return x

    tiny.double()
    lent = Fixed()
    ((x, y),) = lent.batches(20)
    lent.batches = lambda _: iter([(x.double(), y)])  # type: ignore[method-assign,assignment]
    (scores, *_) = importances(tiny, units_of(tiny), lent, 20, "attacked")
    slopes = []
    weight = prunable(tiny)["0.weight"]
    for unit in range(6):
        losses = []
        for t in (1e-5, -1e-5):
            before = weight.detach()[unit].clone()
            with torch.no_grad():
                weight[unit] *= 1 - t
                losses.append(F.cross_entropy(tiny(x.double()), y).item())
                weight[unit] = before
        slopes.append(abs(losses[0] - losses[1]) / 2e-5)
    expected = torch.tensor(slopes) / torch.tensor(slopes).norm()
    assert torch.allclose(scores, expected.float(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [1.5, 4, 8])
@pytest.mark.parametrize("loss", ["attacked", "own"])
def test_rounds_end_at_the_exact_count(tiny: nn.Module, ratio: float, loss: str) -> None:
    lent = Lent(epochs=10)
    masks = prune(tiny, ratio, train=lent, images=40, loss=loss)
    assert masks.kept == round(masks.total / ratio)
    assert masks.holds(tiny)
    assert sum(call["epochs"] for call in lent.calls) == 5
    kept = [call["masks"] for call in lent.calls]
    for before, after in itertools.pairwise(kept):
        assert before.kept > after.kept
        # Whole units go and stay gone, but for the one that is cut to the exact count.
        assert sum(int((after[name] & ~before[name]).sum()) for name in after) <= max(
            sum(w[0].numel() for w in group.producers.values())
            + sum(w[:, :16].numel() for w in group.consumers.values())
            for group in units_of(tiny)
        )


def test_the_order_spares_a_floor() -> None:
    groups = units_of(nn.Sequential(nn.Linear(3, 10), nn.ReLU(), nn.Linear(10, 2)))
    scores = [torch.arange(10.0).flip(0)]
    assert removal_order(groups, scores, 0.25) == [(0, unit) for unit in (9, 8, 7, 6, 5, 4, 3)]


def test_what_it_cannot_reach_is_refused_before_training(tiny: nn.Module) -> None:
    lent = Lent()
    for settings, message in (({"until": 2}, "until 2"), ({"loss": "mine"}, "loss"), ({"images": 0}, "images 0")):
        with pytest.raises(UserError, match=message):
            prune(tiny, 2, train=lent, **settings)
    with pytest.raises(UserError, match="Compression 10 is refused: with 50% of the units"):
        prune(tiny, 10, train=lent, floor=0.5)
    assert not lent.calls


@pytest.mark.slow
def test_interrupted_between_rounds_it_ends_the_same(tmp_path: Path) -> None:
    options: dict[str, Any] = {"prune_epochs": 3, "finetune_epochs": 3, "pruners": {"fre": {"until": 0.7}}}
    whole = pipeline(tmp_path / "whole", images=40).run(job("fre", 5.0, **options))
    epochs = 0

    def interrupt(*_: object) -> None:
        nonlocal epochs
        epochs += 1
        if epochs == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline(tmp_path / "cut", interrupt, images=40).run(job("fre", 5.0, **options))
    assert pipeline(tmp_path / "cut", images=40).run(job("fre", 5.0, **options)).sha256 == whole.sha256
