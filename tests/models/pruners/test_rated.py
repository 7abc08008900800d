"""Rates: they get the paper's gradient, start at the count that they are to keep, and pay for what is too much."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunecert.models.masks import prunable
from prunecert.models.pruners.rated import Rated, count, excess


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
