"""What is lent to a pruner: epochs that are counted, data in order, and rehearsals that train nothing."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from prunecert.errors import UserError
from prunecert.models import OBJECTIVES
from prunecert.models.lent import LentTraining, Rehearsal, keywords_of, offers, views_of
from prunecert.models.masks import Masks
from prunecert.models.pruners.contract import Epoch, Hook, Hooks
from prunecert.models.schedules import Stage
from prunecert.models.training import Trainer
from tests.models.training_kit import job, pipeline


def lent(folder: Path, objective: str = "ibp", epochs: int = 6) -> tuple[LentTraining, nn.Module]:
    line, one = pipeline(folder, images=40), job(objective=objective)
    training = LentTraining(
        line.trainer(one), "cell", folder, "key", seed=0, eps=0.01, epochs=epochs, objective=objective
    )
    return training, line.initial(one)


@pytest.mark.slow
def test_a_stretch_that_a_hook_ends_leaves_its_epochs(tmp_path: Path) -> None:
    training, model = lent(tmp_path)
    ends: list[int] = []

    def over(epoch: Epoch) -> bool:
        ends.append(epoch.number)
        return epoch.number == 2

    training(model, 5, name="search", hooks=Hooks(epoch=over))
    assert ends == [1, 2]
    assert training.left == 4
    # The same again, as after an interruption: nothing is trained, and as much is left.
    again, fresh = lent(tmp_path)
    hooks = Hooks(epoch=over, memory={"stale": 1})
    again(fresh, 5, name="search", hooks=hooks)
    assert again.left == 4
    assert hooks.memory == {}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))
    with pytest.raises(ValueError, match="5 epochs asked for, 4 left"):
        again(fresh, 5, name="more")
    again.clean()
    assert not list(tmp_path.glob("*.done.pt"))


def test_data_and_losses_are_the_cell_s(tmp_path: Path) -> None:
    training, model = lent(tmp_path)
    batches = list(training.batches(30))
    assert [len(y) for _, y in batches] == [20, 10]
    x, y = batches[0]
    expected = OBJECTIVES.get("ibp")(model, x, y, 0.01, progress=1.0)
    assert torch.equal(training.loss(model, x, y), expected)
    assert float((training.attack(model, x, y) - x).abs().max()) <= 0.01 + 1e-6
    assert training.feedback(model, images=10, steps=1).clean <= 1
    assert (training.radius, training.bounding, training.learning) == (0.01, True, 1)


@pytest.mark.slow
def test_regularisers_and_losses_of_hooks_are_trained(tmp_path: Path) -> None:
    sizes = []
    for number in range(3):
        training, model = lent(tmp_path / str(number))
        every = (Hooks(), Hooks(regulariser=partial(sum_of, model, 10.0)), Hooks(loss=lambda batch: 0 * batch.own()))
        before = sum_of(model).item()
        training(model, 2, name="a", hooks=every[number])
        sizes.append(sum_of(model).item() - before)
    assert sizes[1] < sizes[0], "a penalty on weights makes them smaller"
    assert sizes[2] == 0, "a loss of nothing moves nothing"


def sum_of(model: nn.Module, factor: float = 1.0) -> torch.Tensor:
    return factor * torch.stack([parameter.abs().sum() for parameter in model.parameters()]).sum()


def test_noise_offers_no_attacks() -> None:
    assert offers("ibp") == frozenset(Hook)
    assert Hook.EVALUATOR not in offers("smoothing")
    assert Hook.STEP in offers("smoothing")


def test_without_held_out_images_nothing_is_judged_by_them() -> None:
    assert offers("ibp", holdout=False) == frozenset(Hook) - {Hook.HELD_OUT, Hook.EVALUATOR}
    assert Hook.HELD_OUT in offers("smoothing")
    for pruner in ("flying-bird-plus", "coevolution"):
        ratio = 15.0 if pruner == "coevolution" else 10.0
        with pytest.raises(
            UserError, match=r"needs .*held-out images, which .* all images lacks; .*, or holdout: true"
        ):
            job(pruner, ratio, pretrain_epochs=20, prune_epochs=10, holdout=False).refuse_unreachable()
    job("flying-bird", holdout=False, pretrain_epochs=20).refuse_unreachable()


def test_rehearsals_end_where_training_would_begin() -> None:
    rehearsal = Rehearsal(10, 2, 0.1, objective="natural", settings={})
    assert (rehearsal.left, rehearsal.learning, rehearsal.radius) == (10, 2, 0.1)
    for use in (rehearsal, rehearsal.batches, rehearsal.loss, rehearsal.attack, rehearsal.feedback):
        with pytest.raises(Rehearsal.BeganError):
            use(1)
    rehearsal.note(anything=1)


def test_a_cell_is_rehearsed_before_anything_is_trained() -> None:
    job("drop-grow", pruners={"drop-grow": {"drop": 0.5}}).refuse_unreachable()
    for one, message in (
        (job("inheritance", pruners={"inheritance": {"lean": 0.7, "full": 0.7}}), "cell_inheritance_10: lean 0.7 and"),
        (job("lwm-rewind", pruners={"lwm-rewind": {"epoch": 9}}), "Rewinding to epoch 9 is refused"),
        (job("mad", objective="smoothing"), "Pruner 'mad' is refused: it needs curvature"),
    ):
        with pytest.raises(UserError, match=message):
            one.refuse_unreachable()


def test_objectives_that_mix_are_looked_at_with_all_of_their_settings() -> None:
    assert views_of("ibp", {"kappa_end": 0.3}) is None
    views = views_of("mtl-ibp", {"alpha": 0.3, "steps": 0, "share": 0.5})
    assert views is not None
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    alpha, attacked, bounded = views(model, torch.rand(4, 3, 2, 2), torch.arange(4), 0.1)
    assert (alpha, attacked.shape, bounded.shape) == (0.3, (4, 10), (2, 10))


@pytest.mark.slow
def test_a_ramp_is_that_of_pre_training_and_notes_are_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, model = lent(tmp_path)
    stages: list[Stage] = []
    monkeypatch.setattr(Trainer, "run", lambda _, __, stage, **___: stages.append(stage))
    training(model, 1, name="plain")
    training(model, 1, name="ramped", ramp=True)
    training(model, 1, name="again", restart=True)
    # FAST has a ramp of one of its two epochs of pre-training, and a rate of its own for these.
    assert [(stage.ramp, stage.lr) for stage in stages] == [(0, 1e-3), (0.5, 1e-3), (0.5, 3e-3)]
    training.note(one=1)
    training.note(two=[2.0])
    assert training.notes == {"one": 1, "two": [2.0]}


def test_keywords_are_those_that_a_function_names() -> None:
    def function(model: nn.Module, *, seed: int = 0) -> Masks:
        return Masks.dense(model)

    assert keywords_of(function, {"seed": 3, "train": None}) == {"seed": 3}
