"""HARP: rates get the paper's gradient, the penalty grows until the target is met, and frozen it is HYDRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners import harp
from prunecert.models.pruners.contract import Epoch, Feedback
from prunecert.models.pruners.harp import Rated, count, excess, prune
from prunecert.models.pruners.hydra import prune as hydra
from tests.models.conftest import Lent
from tests.models.test_training import job, pipeline


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


def test_a_rate_s_gradient_is_the_masks_sum_times_its_slope() -> None:
    torch.manual_seed(0)
    weight, upstream = torch.randn(5, 4), torch.randn(5, 4)
    rated = Rated(weight, 0.5, 0.05)
    (rated(weight) * upstream).sum().backward()
    slope = (1 - 0.05) * (rated.rate.sigmoid() * (1 - rated.rate.sigmoid())).item()
    assert float(rated.rate.grad) == pytest.approx(float((upstream * weight).sum()) * slope, rel=1e-5)  # type: ignore[arg-type]
    # Scores get the mask's gradient as it is, with the sign of |score|'s slope.
    assert rated.scores.grad is not None
    assert torch.allclose(rated.scores.grad, upstream * weight * rated.scores.detach().sign())


@pytest.mark.parametrize("total", [7, 100, 204_800])
def test_a_rate_starts_at_the_count_that_it_is_to_keep(total: int) -> None:
    # Beyond that a sigmoid has no slope to learn by.
    flat = total // 2000
    for kept in {1 + flat, 2 + flat, total // 3, total - 1 - flat}:
        rated = Rated(torch.randn(1, total), kept / total, 0.1 * kept / total)
        assert count(rated.share().item(), total) == kept


def test_the_penalty_is_nothing_under_the_target_and_the_excess_above(tiny: nn.Module) -> None:
    rated = {name: Rated(weight, 0.5, 0.01) for name, weight in prunable(tiny).items()}
    total = sum(module.scores.numel() for module in rated.values())
    assert excess(rated, total).item() == 0
    assert excess(rated, total // 4).item() == pytest.approx(1, rel=1e-2)
    excess(rated, total // 4).backward()  # type: ignore[no-untyped-call]
    assert all(module.rate.grad is not None and float(module.rate.grad) > 0 for module in rated.values())


def test_the_penalty_s_weight_grows_until_the_target_is_met_and_stays(
    tiny: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    excesses = iter([0.3, 0.2, 0.1, 0.0, 0.5, 0.5])
    gammas = []

    class Spy(Lent):
        def __call__(self, model: nn.Module, epochs: int, **more: object) -> Masks | None:
            hooks = more["hooks"]
            gammas.append(hooks.memory["gamma"])  # type: ignore[attr-defined]
            monkeypatch.setattr(harp, "excess", lambda *_: torch.tensor(next(excesses)))
            for number in range(1, 7):
                hooks.epoch(Epoch(number, 6, lambda: Feedback(0, 0, 0, 0)))  # type: ignore[attr-defined]
                gammas.append(hooks.memory["gamma"])  # type: ignore[attr-defined]
            return None

    prune(tiny, 10, train=Spy(), gamma=0.5)
    assert gammas == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0]


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
