"""Distillation: nothing to learn from oneself, a gradient that temperature leaves alone, and forms that mean it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prunecert.errors import UserError
from prunecert.models.bounds import interval_margins, propagate
from prunecert.models.lent import views_of
from prunecert.models.objectives.mtl_ibp import loss as mtl_ibp
from prunecert.models.pruners.contract import Batch
from prunecert.models.pruners.distillation import Form, distil, form_of, frozen_copy, soft_loss
from tests.models.conftest import Lent

FORMS = ["attacked", "certified", "mixed"]


def form(name: str, **settings: float) -> Form:
    lent = Lent()
    lent.settings, lent.views = dict(settings), views_of("mtl-ibp", settings) if name == "mixed" else None
    return Form(name, lent)


def batch(model: nn.Module, eps: float) -> Batch:
    torch.manual_seed(1)
    return Batch(model, torch.rand(8, 3, 8, 8), torch.arange(8), eps, 1.0, lambda: torch.zeros(()))


@pytest.mark.parametrize("name", FORMS)
def test_a_network_has_nothing_to_learn_from_itself_at_radius_0(tiny: nn.Module, name: str) -> None:
    teacher = frozen_copy(tiny)
    loss = distil(batch(tiny, 0.0), teacher, alpha=1.0, temperature=30.0, form=form(name))
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


@pytest.mark.parametrize("name", FORMS)
def test_no_gradient_reaches_the_teacher(tiny: nn.Module, name: str) -> None:
    teacher = frozen_copy(tiny)
    distil(batch(tiny, 0.1), teacher, alpha=0.5, temperature=5.0, form=form(name)).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in teacher.parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in tiny.parameters())


def test_worst_logits_are_attacked_or_bounded(tiny: nn.Module) -> None:
    one = batch(tiny, 0.05)
    ((whole, bounded),) = form("certified").worst(one)
    assert whole == 1
    assert torch.allclose(bounded, -interval_margins(propagate(tiny, one.x, 0.05), one.y))
    ((whole, attacked),) = form("attacked").worst(one)
    assert whole == 1
    label = attacked.gather(1, one.y[:, None])
    assert bool((bounded >= attacked - label - 1e-4).all()), "no attack is worse than the bound"


def test_the_attack_is_the_objective_s_where_the_recipe_says_it(tiny: nn.Module) -> None:
    one = batch(tiny, 0.05)
    assert torch.equal(form("attacked", steps=0).worst(one)[0][1], tiny(one.x))


def test_the_mixed_form_looks_at_what_the_objective_looks_at(tiny: nn.Module) -> None:
    """With hard labels in the teacher's place it is MTL-IBP's loss, with every setting of it."""
    one = batch(tiny, 0.05)
    for settings in ({}, {"alpha": 0.3, "attack_factor": 2.0, "steps": 1, "step_size": 1.25, "share": 0.5}):
        torch.manual_seed(2)
        expected = mtl_ibp(tiny, one.x, one.y, 0.05, **settings)  # type: ignore[arg-type]
        torch.manual_seed(2)
        parts = form("mixed", **settings).worst(one)
        mixed = sum(weight * F.cross_entropy(logits, one.y[: len(logits)]) for weight, logits in parts)
        assert torch.equal(torch.as_tensor(mixed), expected)
    assert len(parts[1][1]) == 4


def test_auto_is_what_the_objective_is(tiny: nn.Module) -> None:
    lent = Lent()
    choose = partial(form_of, train=lent, model=tiny)
    assert choose("auto").name == "attacked"
    with pytest.raises(UserError, match="'mixed' is refused: the objective mixes no"):
        choose("mixed")
    lent.bounding = True
    assert choose("auto").name == "certified"
    lent.views = views_of("mtl-ibp", {})
    assert choose("auto").name == "mixed"
    assert not choose("attacked").bounds
    with pytest.raises(UserError, match="MaxPool"):
        form_of("certified", lent, nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 2)))


def test_a_form_names_what_it_has_no_use_for() -> None:
    settings = {"steps": 3, "kappa_end": 0.25}
    assert form("certified", **settings).ignored() == ["kappa_end", "steps"]
    assert form("attacked", **settings).ignored() == ["kappa_end"]
    assert replace(form("mixed"), train=form("mixed", alpha=0.1).train).ignored() == []
