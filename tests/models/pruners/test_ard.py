"""ARD: nothing to learn from oneself, a gradient that temperature leaves alone, and a teacher that stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from prunecert.errors import UserError
from prunecert.models.bounds import interval_margins, propagate
from prunecert.models.pruners.ard import certifies, distil, frozen_copy, prune, soft_loss, worst_logits
from prunecert.models.pruners.contract import Batch
from tests.models.conftest import Lent
from tests.models.test_training import job, pipeline


def batch(model: nn.Module, eps: float) -> Batch:
    torch.manual_seed(1)
    return Batch(model, torch.rand(8, 3, 8, 8), torch.arange(8), eps, 1.0, lambda: torch.zeros(()))


@pytest.mark.parametrize("certified", [False, True])
def test_a_network_has_nothing_to_learn_from_itself_at_radius_0(tiny: nn.Module, certified: bool) -> None:
    teacher = frozen_copy(tiny)
    loss = distil(batch(tiny, 0.0), teacher, alpha=1.0, temperature=30.0, certified=certified)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(float(p.grad.abs().max()) < 1e-4 for p in tiny.parameters() if p.grad is not None)


def test_temperature_does_not_change_the_gradient_of_small_logits() -> None:
    norms = []
    for temperature in (10.0, 30.0):
        student = torch.randn(16, 10, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
        teacher = torch.randn(16, 10, generator=torch.Generator().manual_seed(1))
        soft_loss(student, teacher, temperature).backward()  # type: ignore[no-untyped-call]
        assert student.grad is not None
        norms.append(float(student.grad.norm()))
    assert norms[0] == pytest.approx(norms[1], rel=0.1)


def test_the_soft_loss_is_the_mean_over_images_and_classes() -> None:
    student, teacher = torch.randn(4, 10), torch.randn(4, 10)
    p, q = (teacher / 3).softmax(1), (student / 3).softmax(1)
    assert soft_loss(student, teacher, 3.0).item() == pytest.approx(9 * float((p * (p / q).log()).mean()), rel=1e-4)


@pytest.mark.parametrize("certified", [False, True])
def test_no_gradient_reaches_the_teacher(tiny: nn.Module, certified: bool) -> None:
    teacher = frozen_copy(tiny)
    distil(batch(tiny, 0.1), teacher, alpha=0.5, temperature=5.0, certified=certified).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in teacher.parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in tiny.parameters())


def test_worst_logits_are_attacked_or_bounded(tiny: nn.Module) -> None:
    one = batch(tiny, 0.05)
    bounded, clean = worst_logits(one, certified=True)
    assert torch.allclose(bounded, -interval_margins(propagate(tiny, one.x, 0.05), one.y))
    assert torch.allclose(clean, tiny(one.x), atol=1e-6)
    attacked, _ = worst_logits(one, certified=False)
    label = attacked.gather(1, one.y[:, None])
    assert bool((bounded >= attacked - label - 1e-4).all()), "no attack is worse than the bound"


def test_auto_is_certified_where_the_objective_bounds(tiny: nn.Module) -> None:
    lent = Lent()
    assert not certifies("auto", lent, tiny)
    lent.bounding = True
    assert certifies("auto", lent, tiny)
    assert not certifies("attacked", lent, tiny)
    with pytest.raises(UserError, match="MaxPool"):
        certifies("certified", lent, nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 2)))


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
