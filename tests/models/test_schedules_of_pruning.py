"""Pruners that train: rounds, rewinding, drop-and-grow; what they spend, keep and leave behind."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models import PRUNERS
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.contract import Step, method_of
from prunecert.models.pruners.drop_grow import exchange
from prunecert.models.pruners.iterative import rounds_to
from tests.models.conftest import Lent
from tests.models.training_kit import job, pipeline

#: Weights of the tiny network.
TOTAL = 6 * 27 + 8 * 6 * 16 + 20 * 128 + 10 * 20
TRAINING = ("lwm-iterative", "lwm-rewind", "drop-grow")


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize("ratio", [1, 2, 3.7, 10, 100])
@pytest.mark.parametrize("allocation", ["uniform", "erk", "balanced"])
def test_sparsity_is_exact_and_no_epoch_is_spent_twice(
    tiny: nn.Module, name: str, ratio: float, allocation: str
) -> None:
    lent = Lent(epochs=12)
    masks = PRUNERS.get(name)(tiny, ratio, train=lent, allocation=allocation)
    assert masks.kept == round(TOTAL / ratio)
    assert lent.left == 0
    assert masks.holds(tiny)


@pytest.mark.parametrize(("ratio", "rounds"), [(1, 1), (1.25, 1), (2, 4), (10, 11), (100, 21)])
def test_a_round_removes_a_fifth_of_what_remains(ratio: float, rounds: int) -> None:
    assert rounds_to(ratio, 0.2) == rounds


def test_iterative_pruning_is_nested_and_even(tiny: nn.Module) -> None:
    lent = Lent(epochs=11, update=lambda model: _shake(model))
    PRUNERS.get("lwm-iterative")(tiny, 10, train=lent, until=0.6)
    assert [call["name"] for call in lent.calls] == ["iterative"]
    kept = [masks.kept for masks in lent.history]
    levels = list(dict.fromkeys(kept))
    assert len(levels) == 11
    assert all(0.18 < 1 - after / before < 0.2 for before, after in itertools.pairwise(levels))
    for before, after in itertools.pairwise(lent.history):
        assert all(not bool((after[name] & ~before[name]).any()) for name in after), "what is gone stays gone"
    assert kept[0] == levels[0], "the first round comes at once"
    assert kept.index(levels[-1]) == 60


def _shake(model: nn.Module) -> None:
    with torch.no_grad():
        for weight in prunable(model).values():
            weight.add_(0.1 * torch.randn_like(weight))


def test_iterative_pruning_without_epochs_is_one_shot(tiny: nn.Module) -> None:
    masks = PRUNERS.get("lwm-iterative")(tiny, 10, train=Lent(epochs=0))
    assert masks.sha256() == PRUNERS.get("lwm")(tiny, 10).sha256()


def test_rewinding_starts_each_round_from_the_initial_weights(tiny: nn.Module) -> None:
    initial = {name: weight.detach().clone() for name, weight in prunable(tiny).items()}
    lent = Lent(epochs=20)
    masks = PRUNERS.get("lwm-rewind")(tiny, 4, train=lent, rate=0.5, last=0.4)
    assert [call["epochs"] for call in lent.calls] == [6, 6, 8], "equal rounds, and the last one's share"
    assert all(call["restart"] and call["first"] == 0 for call in lent.calls)
    assert [call["masks"].compression for call in lent.calls] == pytest.approx([1, 2, 4], rel=1e-3)
    for call in lent.calls:
        for name, weight in call["weights"].items():
            assert torch.equal(weight, initial[name] * call["masks"][name])
    assert masks.sha256() == lent.calls[-1]["masks"].sha256()


def test_rewinding_to_an_early_epoch(tiny: nn.Module) -> None:
    lent = Lent(epochs=20)
    PRUNERS.get("lwm-rewind")(tiny, 2, train=lent, rate=0.5, last=0.5, epoch=2)
    assert [(call["name"], call["epochs"], call["first"]) for call in lent.calls] == [
        ("rewind point", 2, 0),
        ("round 0", 8, 2),
        ("round 1", 10, 2),
    ]
    few = Lent(epochs=6)
    PRUNERS.get("lwm-rewind")(tiny, 100, train=few, least=1)
    assert [call["epochs"] for call in few.calls] == [1, 1, 1, 3], "fewer rounds than 21 where there are fewer epochs"
    longer = Lent(epochs=30)
    PRUNERS.get("lwm-rewind")(tiny, 100, train=longer)
    assert [call["epochs"] for call in longer.calls] == [5, 5, 5, 15], "no round is too short to say what matters"


def test_drop_and_grow_exchanges_the_smallest_for_the_steepest() -> None:
    model = nn.Sequential(nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        prunable(model)["0.weight"].copy_(torch.tensor([[5.0, 0.1, 3.0, 0.0], [0.2, 4.0, 0.0, 0.0]]))
    masks = Masks({"0.weight": torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]).bool()})
    gradient = torch.tensor([[9.0, 0.0, 9.0, 0.5], [1.0, 9.0, 0.0, 2.0]])
    step = Step(10, 100, masks, lambda: {"0.weight": gradient})
    # Two of five go, 0.1 and 0.2; the steepest of all that are not active are at (1, 3) and, just dropped, (1, 0).
    assert exchange(model, step, 0.4)["0.weight"].int().tolist() == [[1, 0, 1, 0], [1, 1, 0, 1]]
    assert exchange(model, step, 0.0)["0.weight"].tolist() == masks["0.weight"].tolist()


def test_drop_and_grow_keeps_every_layer_s_count_and_comes_to_rest(tiny: nn.Module) -> None:
    lent = Lent(epochs=20)
    PRUNERS.get("drop-grow")(tiny, 10, train=lent, every=10, drop=0.5, until=0.5, allocation="balanced", seed=3)
    counts = {tuple(int(mask.sum()) for mask in masks.values()) for masks in lent.history}
    assert len(counts) == 1
    changed = [
        sum(int((after[name] & ~before[name]).sum()) for name in after)
        for before, after in itertools.pairwise(lent.history)
    ]
    assert [number + 1 for number, count in enumerate(changed) if count] == list(range(10, 100, 10))
    assert changed[9] > changed[49] > changed[89], "fewer and fewer"
    first = lent.calls[0]["weights"]
    assert lent.calls[0]["restart"]
    # The rest of the layer keeps its variance: weights over the root of the density.
    density = float(lent.calls[0]["masks"]["5.weight"].float().mean())
    largest = max(abs(float(value)) for value in first["5.weight"].flatten())
    assert largest == pytest.approx(1 / 128**0.5 / density**0.5, rel=0.05)


@pytest.mark.slow
def test_drop_and_grow_sees_gradients_where_the_weights_are_zero(tmp_path: Path) -> None:
    """In a real training, grown weights have moved off zero, and the optimizer forgot the dropped ones."""
    records: list[tuple[Masks, dict[str, Tensor]]] = []

    def spy(model: nn.Module, step: Step, share: float) -> Masks:
        records.append((step.masks, {name: value.clone() for name, value in step.gradients().items()}))
        return exchange(model, step, share)

    import prunecert.models.pruners.drop_grow

    original, prunecert.models.pruners.drop_grow.exchange = prunecert.models.pruners.drop_grow.exchange, spy
    try:
        card = pipeline(tmp_path, images=60).run(job("drop-grow", pruners={"drop-grow": {"every": 2, "drop": 0.5}}))
    finally:
        prunecert.models.pruners.drop_grow.exchange = original
    assert card.kept == 21_476
    assert len(records) == 4
    for masks, gradients in records:
        assert bool(gradients["5.weight"][~masks["5.weight"]].any())
    assert not torch.equal(records[0][0]["5.weight"], records[-1][0]["5.weight"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "epochs"),
    [("lwm-iterative", ["pretrain"] * 2 + ["iterative"] * 2), ("drop-grow", ["sparse"] * 4),
     ("lwm-rewind", ["round 0", "round 1", "round 1"])],
)  # fmt: skip
def test_every_schedule_takes_the_dense_control_s_epochs(tmp_path: Path, name: str, epochs: list[str]) -> None:
    stages: list[str] = []
    line = pipeline(tmp_path, lambda report: stages.append(report.stage), images=60)
    settings = {"lwm-rewind": {"rate": 0.9}} if name == "lwm-rewind" else {}
    line.run(job(name, 10.0, pretrain_epochs=2 if name != "lwm-rewind" else 1, ramp_epochs=1, pruners=settings))
    assert stages == epochs
    assert method_of(PRUNERS.get(name)).from_scratch == ("pretrain" not in epochs)
    assert not list((tmp_path / "work").glob("*.done.pt")), "nothing is left of a finished cell"


@pytest.mark.slow
@pytest.mark.parametrize(("stop_after", "format_"), [(1, "contiguous"), (3, "contiguous"), (4, "channels-last")])
@pytest.mark.parametrize("name", TRAINING)
def test_an_interrupted_schedule_resumes_to_the_same_weights(
    tmp_path: Path, name: str, stop_after: int, format_: str
) -> None:
    pruners = {"drop-grow": {"every": 2}, "lwm-rewind": {"rate": 0.6, "epoch": 1}, "lwm-iterative": {"until": 0.9}}
    options: dict[str, Any] = {
        "pretrain_epochs": 3,
        "finetune_epochs": 2,
        "augment": True,
        "average": 0.9,
        "memory_format": format_,
        "optimizer": "adamw" if format_ == "contiguous" else "sgd",
        "pruners": pruners,
    }
    whole = pipeline(tmp_path / "whole", images=60).run(job(name, 10.0, **options))
    epochs = 0

    def interrupt(*_: object) -> None:
        nonlocal epochs
        epochs += 1
        if epochs == stop_after + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline(tmp_path / "cut", interrupt, images=60).run(job(name, 10.0, **options))
    rest: list[str] = []
    resumed = pipeline(tmp_path / "cut", lambda report: rest.append(report.stage), images=60).run(
        job(name, 10.0, **options)
    )
    assert resumed.sha256 == whole.sha256
    assert len(rest) == 6 - stop_after


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("lwm-iterative", {"rate": 1.0}, "rate 1 is refused"),
        ("lwm-iterative", {"until": 1.5}, "until 1.5 is refused"),
        ("lwm-rewind", {"last": 1.0}, "last 1 is refused"),
        ("lwm-rewind", {"epoch": 0.5}, "epoch 0.5 is refused"),
        ("lwm-rewind", {"least": 0}, "least 0 is refused"),
        ("lwm-rewind", {"epoch": 9}, "Rewinding to epoch 9 is refused: of 10 epochs 5 are for the last"),
        ("drop-grow", {"every": 0}, "every 0 is refused"),
        ("drop-grow", {"drop": 2.0}, "drop 2 is refused"),
    ],
)
def test_bad_settings_are_refused(tiny: nn.Module, name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PRUNERS.get(name)(tiny, 10, train=Lent(), **settings)


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize("ratio", [0.5, float("inf"), 1e6])
def test_unreachable_ratios_are_refused_before_anything_is_trained(tiny: nn.Module, name: str, ratio: float) -> None:
    lent = Lent()
    with pytest.raises(UserError, match="Compression"):
        PRUNERS.get(name)(tiny, ratio, train=lent)
    assert not lent.calls
