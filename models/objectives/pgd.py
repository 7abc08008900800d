"""Adversarial training with projected gradient descent (Madry et al. 2018)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models.attack import frozen_statistics, pgd_linf
from prunecert.models.settings import Count, Positive


def loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    progress: float = 1.0,
    steps: Count = 7,
    step_size: Positive = 0.25,
) -> Tensor:
    """Returns the mean cross-entropy at the points that PGD finds.

    Args:
        model: The network.
        x: Images.
        y: Labels.
        eps: Radius; 0 gives the clean loss.
        progress: Not used.
        steps: Gradient steps.
        step_size: Of one step, as a share of `eps`.
    """
    with frozen_statistics(model):
        point = pgd_linf(model, x, y, eps, steps=steps, step_size=step_size * eps)
    return F.cross_entropy(model(point), y)
