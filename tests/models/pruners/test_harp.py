"""HARP: learned rates decide, the penalty grows until the target is met, and frozen it is HYDRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from prunecert.errors import UserError
from prunecert.models.masks import Masks
from prunecert.models.pruners import harp
from prunecert.models.pruners.contract import Step
from prunecert.models.pruners.harp import prune
from prunecert.models.pruners.hydra import prune as hydra
from prunecert.models.pruners.rated import Rated
from tests.models.conftest import Lent
from tests.models.training_kit import job, pipeline


@pytest.mark.parametrize("ratio", [1, 2, 3.7, 10, 100])
@pytest.mark.parametrize("allocation", ["uniform", "erk", "balanced"])
def test_sparsity_is_exact_whatever_was_learned(tiny: nn.Module, ratio: float, allocation: str) -> None:
    def learn(model: nn.Module, scores: object) -> None:
        with torch.no_grad():
            for number, module in enumerate(m for m in model.modules() if isinstance(m, Rated)):
                module.rate.add_(2 * number - 3)

    before = {name: weight.clone() for name, weight in tiny.state_dict().items()}
    masks = prune(tiny, ratio, train=Lent(learn=learn), allocation=allocation)
    assert masks.kept == round(masks.total / ratio)
    assert not any(parametrize.is_parametrized(module) for module in tiny.modules())
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())
    assert all(parameter.requires_grad for parameter in tiny.parameters())


def test_learned_rates_decide_what_layers_keep(tiny: nn.Module) -> None:
    def learn(model: nn.Module, scores: object) -> None:
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, Rated) and module.scores.numel() == 2560:
                    module.rate.sub_(2.0)

    plain, learned = (prune(tiny, 4, train=Lent(learn=one)) for one in (None, learn))
    assert int(learned["5.weight"].sum()) < 0.6 * int(plain["5.weight"].sum())
    assert int(learned["0.weight"].sum()) > int(plain["0.weight"].sum())


def test_the_penalty_s_weight_grows_by_the_published_total_wherever_the_target_is_not_met(
    tiny: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty looks, as many as the paper has epochs, in the epochs there are."""

    def weights(excesses: list[float]) -> list[float]:
        gammas: list[float] = []

        class Spy(Lent):
            def __call__(self, model: nn.Module, epochs: int, **more: object) -> Masks | None:
                hooks = more["hooks"]
                for number, share in enumerate(excesses):
                    gammas.append(hooks.memory["gamma"])  # type: ignore[attr-defined]
                    monkeypatch.setattr(harp, "excess", lambda *_, share=share: torch.tensor(share))
                    hooks.after(Step(number, 40, Masks({}), dict))  # type: ignore[attr-defined]
                gammas.append(hooks.memory["gamma"])  # type: ignore[attr-defined]
                return None

        prune(tiny, 10, train=Spy(), gamma=0.5)
        return gammas

    always = weights([0.3] * 40)
    assert always[:6] == [0.5, 0.5, 1.0, 1.0, 1.5, 1.5]
    assert always[-1] == 0.5 * 21
    between = weights([0.3] * 10 + [0.00004] * 20 + [0.3] * 10)
    assert set(between[10:31]) == {3.0}, "it stands still where the target is met, and goes on where it isn't any more"
    assert between[-1] == 0.5 * 11


@pytest.mark.slow
def test_the_target_is_met_in_the_few_epochs_of_a_suite(tmp_path: Path) -> None:
    """And where rates want more: without the penalty they end far above."""
    excesses = {}
    for gamma in (0.0, 0.01):
        options: dict[str, Any] = {"prune_epochs": 3, "finetune_epochs": 0, "score_lr": 1e-4, "batch_size": 4}
        card = pipeline(tmp_path / f"{gamma}", images=100).run(
            job("harp", 100.0, pruners={"harp": {"gamma": gamma}}, **options)
        )
        excesses[gamma] = card.notes["excess"]
        assert card.kept == round(card.weights / 100)
    assert excesses[0.0] > 0.1
    assert abs(excesses[0.01]) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("allocation", ["uniform", "balanced"])
def test_with_frozen_rates_it_is_hydra_to_the_bit(tmp_path: Path, allocation: str) -> None:
    settings: dict[str, Any] = {"allocation": allocation, "prune_epochs": 2}
    frozen = pipeline(tmp_path / "a", images=60).run(
        job("harp", 10.0, pruners={"harp": {"gamma": 0.0, "rate_factor": 0.0}}, **settings)
    )
    plain = pipeline(tmp_path / "b", images=60).run(job("hydra", 10.0, **settings))
    assert (frozen.mask_sha256, frozen.sha256) == (plain.mask_sha256, plain.sha256)


@pytest.mark.slow
def test_interrupted_while_rates_are_learned_it_ends_the_same(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "prune_epochs": 3,
        "score_lr": 1e-2,
        "pruners": {"harp": {"gamma": 0.1, "rate_factor": 10.0}},
    }
    whole = pipeline(tmp_path / "whole", images=60).run(job("harp", **options))
    epochs = 0

    def interrupt(*_: object) -> None:
        nonlocal epochs
        epochs += 1
        if epochs == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline(tmp_path / "cut", interrupt, images=60).run(job("harp", **options))
    assert pipeline(tmp_path / "cut", images=60).run(job("harp", **options)).sha256 == whole.sha256
    assert len(set(whole.sparsity_by_layer.values())) > 1


@pytest.mark.parametrize(
    ("settings", "message"), [({"gamma": -1}, "gamma -1 is"), ({"rate_factor": -1}, "rate_factor")]
)
def test_settings_out_of_range_are_refused(tiny: nn.Module, settings: dict[str, Any], message: str) -> None:
    lent = Lent()
    with pytest.raises(UserError, match=message):
        prune(tiny, 10, train=lent, **settings)
    assert not lent.calls


def test_the_start_is_hydra_s(tiny: nn.Module) -> None:
    assert prune(tiny, 10, train=Lent()).sha256() == hydra(tiny, 10, train=Lent()).sha256()
