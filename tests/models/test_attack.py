"""The attack of training stays in its ball, climbs, and leaves the network alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
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


def test_the_best_point_is_that_of_the_largest_loss_over_all_steps(tiny: nn.Module) -> None:
    x, y = torch.rand(16, 3, 8, 8), torch.arange(16) % 10
    passes: list[tuple[Tensor, Tensor]] = []

    def forward(point: Tensor) -> Tensor:
        logits: Tensor = tiny(point)
        passes.append((point.detach().clone(), F.cross_entropy(logits, y, reduction="none").detach()))
        return logits

    torch.manual_seed(1)
    best = pgd_linf(forward, x, y, 0.1, steps=6, step_size=0.15, best=True)
    # The random start is no candidate; each of the six steps' points is.
    points, losses = (torch.stack(parts) for parts in zip(*passes[1:], strict=True))
    chosen = losses.argmax(0)
    assert len(losses) == 6
    assert len(set(chosen.tolist())) > 2, "the largest loss is not always at the same step"
    assert torch.equal(best, points[chosen, torch.arange(16)])
    torch.manual_seed(1)
    assert torch.equal(pgd_linf(tiny, x, y, 0.1, steps=6, step_size=0.15), points[-1])


def test_a_step_goes_from_a_random_start_along_the_sign_of_the_gradient(tiny: nn.Module) -> None:
    x, y = torch.rand(4, 3, 8, 8), torch.arange(4)
    torch.manual_seed(2)
    actual = pgd_linf(tiny, x, y, 0.05, steps=1, step_size=0.02)
    torch.manual_seed(2)
    start = (x + torch.empty_like(x).uniform_(-0.05, 0.05)).clamp(0, 1).requires_grad_(True)
    (grad,) = torch.autograd.grad(F.cross_entropy(tiny(start), y), start)
    expected = torch.minimum(torch.maximum(start + 0.02 * grad.sign(), x - 0.05), x + 0.05).clamp(0, 1)
    assert torch.allclose(actual, expected.detach())


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
