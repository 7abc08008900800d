"""ARD: who is taught for how long, with which ramp, and which of the recipe's settings count."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from prunecert.errors import UserError
from prunecert.models.pruners.ard import prune
from prunecert.models.pruners.contract import Batch
from tests.models.conftest import Lent
from tests.models.training_kit import job, pipeline


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["ibp", "pgd"])
def test_a_cell_is_distilled_for_all_of_its_epochs(tmp_path: Path, objective: str) -> None:
    stages: list[str] = []
    line = pipeline(tmp_path, lambda report: stages.append(report.stage), images=60)
    card = line.run(job("ard", 10.0, objective))
    assert stages == ["pretrain"] * 2 + ["distil"] * 2
    plain = pipeline(tmp_path / "b", images=60).run(job("lwm", 10.0, objective))
    assert (card.mask_sha256, card.kept) == (plain.mask_sha256, plain.kept)
    assert card.sha256 != plain.sha256


def test_settings_out_of_range_are_refused(tiny: nn.Module) -> None:
    lent = Lent()
    for settings, message in (
        ({"alpha": 2}, "alpha 2"),
        ({"temperature": 0}, "temperature 0"),
        ({"form": "x"}, "form"),
    ):
        with pytest.raises(UserError, match=message):
            prune(tiny, 2, train=lent, **settings)
    assert not lent.calls


@pytest.mark.parametrize(("bounding", "ramp"), [(False, False), (True, True)])
def test_forms_that_bound_have_the_ramp_and_additions_count(tiny: nn.Module, bounding: bool, ramp: bool) -> None:
    lent = Lent(epochs=4)
    lent.bounding = bounding
    prune(tiny, 4, train=lent)
    (call,) = lent.calls
    assert (call["epochs"], call["ramp"], call["restart"]) == (4, ramp, False)
    x, y = torch.rand(8, 3, 8, 8), torch.arange(8)
    losses = []
    for extra in (torch.tensor(0.0), torch.tensor(2.0)):
        torch.manual_seed(0)
        losses.append(call["hooks"].loss(Batch(tiny, x, y, 0.01, 1.0, torch.Tensor, extra.clone)).item())
    assert losses[1] - losses[0] == pytest.approx(2, rel=1e-4)


def test_settings_that_it_would_ignore_are_refused_before_training() -> None:
    with pytest.raises(UserError, match=r"ARD in its certified form is refused.*no use for its kappa_end"):
        job("ard", objective="ibp", objective_settings={"kappa_end": 0.25}).refuse_unreachable()
    job("ard", objective="mtl-ibp", objective_settings={"alpha": 0.25}).refuse_unreachable()
    settings = {"ard": {"form": "certified"}}
    one = job("ard", objective="mtl-ibp", objective_settings={"alpha": 0.25}, pruners=settings)
    with pytest.raises(UserError, match="no use for its alpha"):
        one.refuse_unreachable()


@pytest.mark.slow
def test_by_mtl_ibp_its_weight_counts(tmp_path: Path) -> None:
    sums = [
        pipeline(tmp_path / f"{alpha}", images=20)
        .run(job("ard", 10.0, "mtl-ibp", objective_settings={"alpha": alpha, "steps": 1}, pretrain_epochs=1))
        .sha256
        for alpha in (0.1, 0.9)
    ]
    assert sums[0] != sums[1]
