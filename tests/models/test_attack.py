"""The attack of training stays in its ball, climbs, and leaves the network alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prunecert.models.attack import frozen_statistics, pgd_linf, project_linf
from tests.models.conftest import normalised


@pytest.mark.parametrize("best", [False, True])
def test_points_lie_in_the_ball_and_cost_more(tiny: nn.Module, best: bool) -> None:
    x, y = torch.rand(8, 3, 8, 8), torch.arange(8)
    point = pgd_linf(tiny, x, y, 0.1, steps=10, step_size=0.025, best=best)
    assert not point.requires_grad
    assert float((point - x).abs().max()) <= 0.1 + 1e-6
    assert float(point.min()) >= 0
    assert float(point.max()) <= 1
    assert F.cross_entropy(tiny(point), y) > F.cross_entropy(tiny(x), y)
    assert all(parameter.grad is None for parameter in tiny.parameters())


def test_the_best_point_is_no_worse_than_the_last(tiny: nn.Module) -> None:
    x, y = torch.rand(8, 3, 8, 8), torch.arange(8)
    losses = []
    for best in (False, True):
        torch.manual_seed(1)
        # Steps this long overshoot, so that the last point is not the worst.
        point = pgd_linf(tiny, x, y, 0.1, steps=5, step_size=0.2, best=best)
        losses.append(F.cross_entropy(tiny(point), y, reduction="none"))
    assert bool((losses[1] >= losses[0] - 1e-6).all())


def test_without_radius_or_steps_the_images_come_back(tiny: nn.Module) -> None:
    x, y = torch.rand(2, 3, 8, 8), torch.arange(2)
    assert pgd_linf(tiny, x, y, 0.0, steps=3, step_size=0.1) is x
    assert pgd_linf(tiny, x, y, 0.1, steps=0, step_size=0.1) is x


def test_projection_is_idempotent() -> None:
    x, point = torch.rand(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    nearest = project_linf(point, x, 0.2)
    assert torch.equal(project_linf(nearest, x, 0.2), nearest)


def test_running_statistics_are_out_of_reach() -> None:
    model = normalised()
    before = {name: value.clone() for name, value in model.named_buffers()}
    with frozen_statistics(model):
        model(torch.rand(4, 3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert all(module.training for module in model.modules())
