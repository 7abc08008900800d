"""Robust Bird: distances of masks, when the search stops, and who gets its epochs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners import robust_bird
from prunecert.models.pruners.robust_bird import at_rest, distance, flat, magnitudes, prune
from tests.models.conftest import Lent
from tests.models.training_kit import job, pipeline


def test_distance_is_a_metric_of_bits() -> None:
    one, other = torch.rand(1000) < 0.5, torch.rand(1000) < 0.5
    assert distance(one, one) == 0
    assert distance(one, ~one) == 1
    assert distance(one, other) == distance(other, one) == pytest.approx(0.5, abs=0.1)


def scripted(shares: list[float]) -> list[Tensor]:
    """Masks that differ from the last one in the first so many of a hundred places."""
    return [torch.arange(100) < round(100 * share) for share in shares]


@pytest.mark.parametrize(
    ("shares", "rests"),
    [
        ([0.0, 0.0, 0.0, 0.0], False),
        ([0.08, 0.05, 0.02, 0.01, 0.0], True),
        ([0.09, 0.0, 0.0, 0.0, 0.0], False),
        ([0.0, 0.0, 0.09, 0.0, 0.0], False),
        ([0.5, 0.08, 0.05, 0.02, 0.01, 0.0], True),
    ],
)
def test_the_search_stops_when_four_masks_before_are_near(shares: list[float], rests: bool) -> None:
    assert at_rest(scripted(shares), 0.08) == rests


def test_epochs_that_the_search_does_not_need_go_to_the_ticket(tiny: nn.Module) -> None:
    lent = Lent(epochs=40)
    masks = prune(tiny, 5, train=lent, most=0.5)
    assert [(call["name"], call["epochs"], call["restart"]) for call in lent.calls] == [
        ("search", 20, True),
        ("ticket", 35, True),
    ], "weights that stand still are at rest after five epochs"
    assert masks.kept == round(masks.total / 5)
    assert masks.holds(tiny)
    assert lent.left == 0


@pytest.mark.parametrize("compression", [5, 100])
def test_rest_is_relative_to_the_density(tiny: nn.Module, compression: float) -> None:
    """Masks that share nothing differ in 2 % of the places at 100x: less than the threshold as the paper has it."""

    def drift(model: nn.Module) -> None:
        with torch.no_grad():
            for weight in prunable(model).values():
                weight.normal_()

    lent = Lent(epochs=20, update=drift)
    prune(tiny, compression, train=lent, most=0.5)
    assert lent.notes == {"search_epochs": 10, "most_epochs": 10}
    still = Lent(epochs=20)
    prune(tiny, compression, train=still, most=0.5)
    assert still.notes == {"search_epochs": 5, "most_epochs": 10}


def test_at_the_paper_s_density_the_threshold_is_the_paper_s(tiny: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    thresholds: list[float] = []

    def note(_: list[Tensor], threshold: float) -> bool:
        thresholds.append(threshold)
        return True

    monkeypatch.setattr(robust_bird, "at_rest", note)
    for compression in (5, 10, 100):
        prune(tiny, compression, train=Lent(epochs=20))
    assert thresholds == pytest.approx([0.08, 0.04, 0.004], rel=0.02)


def test_without_rest_it_takes_the_last_mask(tiny: nn.Module) -> None:
    def shake(model: nn.Module) -> None:
        with torch.no_grad():
            for weight in prunable(model).values():
                weight.normal_()

    lent = Lent(epochs=40, update=shake)
    prune(tiny, 2, train=lent, most=0.25)
    assert [call["epochs"] for call in lent.calls] == [10, 30]
    # The ticket begins with the weights as they were, not with the initial ones.
    assert lent.calls[1]["weights"]["0.weight"].abs().max() > 2


def test_masks_are_global_and_of_the_largest(tiny: nn.Module) -> None:
    masks = magnitudes(tiny, 500)
    assert masks.kept == 500
    assert len(flat(masks)) == masks.total
    kept = min(float(weight.detach().abs()[masks[name]].min()) for name, weight in prunable(tiny).items())
    gone = max(float(weight.detach().abs()[~masks[name]].max()) for name, weight in prunable(tiny).items())
    assert kept >= gone
    assert isinstance(masks, Masks)


@pytest.mark.slow
def test_an_early_end_is_counted_and_resumed(tmp_path: Path) -> None:
    """The whole takes as many epochs as any other cell, also when it is interrupted after the search."""
    settings = {"threshold": 1.0, "most": 0.8}
    options: dict[str, Any] = {"pretrain_epochs": 8, "pruners": {"robust-bird": settings}}
    stages: list[str] = []
    whole = pipeline(tmp_path / "whole", lambda report: stages.append(report.stage), images=60).run(
        job("robust-bird", **options)
    )
    assert stages == ["search"] * 5 + ["ticket"] * 5
    epochs = 0

    def interrupt(*_: object) -> None:
        nonlocal epochs
        epochs += 1
        if epochs == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline(tmp_path / "cut", interrupt, images=60).run(job("robust-bird", **options))
    rest: list[str] = []
    resumed = pipeline(tmp_path / "cut", lambda report: rest.append(report.stage), images=60).run(
        job("robust-bird", **options)
    )
    assert resumed.sha256 == whole.sha256
    assert rest == ["ticket"] * 3


@pytest.mark.slow
def test_masks_come_to_rest_with_the_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue: list[Tensor] = []

    def never(masks: list[Tensor], threshold: float) -> bool:
        queue.append(masks[-1])
        return False

    monkeypatch.setattr(robust_bird, "at_rest", never)
    # A learning rate that falls from the start.
    options: dict[str, Any] = {"pretrain_epochs": 14, "decay": 1.0, "pruners": {"robust-bird": {"most": 0.8}}}
    pipeline(tmp_path, images=200).run(job("robust-bird", 5.0, **options))
    steps = [distance(one, two) for one, two in itertools.pairwise(queue)]
    assert len(steps) == 12
    assert sum(steps[-3:]) < 0.5 * sum(steps[:3])


def test_too_few_epochs_are_refused(tiny: nn.Module) -> None:
    lent = Lent(epochs=3)
    with pytest.raises(UserError, match="15% of 3 epochs for its search is 0"):
        prune(tiny, 2, train=lent)
    with pytest.raises(UserError, match=r"threshold 1\.5 is refused"):
        prune(tiny, 2, train=lent, threshold=1.5)
    assert not lent.calls
    with pytest.raises(UserError, match="Robust Bird is refused: 10% of 3 epochs"):
        job("robust-bird", pretrain_epochs=1, pruners={"robust-bird": {"most": 0.1}}).refuse_unreachable()
