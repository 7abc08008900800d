"""SABR (Mueller et al. 2023, "Certified Training: Small Boxes are All You Need", section 3)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from models.attack import frozen_statistics, pgd_linf
from models.bounds import interval_margins, propagate


def loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    progress: float = 1.0,
    lam: float = 0.1,
    steps: int = 8,
    step_size: float = 0.25,
) -> Tensor:
    """Returns the interval loss of a small box round an adversarial point.

    Args:
        model: A sequential network of convolutions, linear layers and ReLUs.
        x: Images.
        y: Labels.
        eps: Radius; 0 gives the clean loss.
        progress: Not used: eps grows with it already.
        lam: Radius of the small box over `eps`, in (0, 1]; 1 is IBP. Its centre is sought within (1 - lam) * eps of
            the image, so that the small box lies in the ball.
        steps: Gradient steps of the search.
        step_size: Of one step, as a share of its radius.
    """
    if eps == 0:
        return F.cross_entropy(model(x), y)
    radius = (1 - lam) * eps
    with frozen_statistics(model):
        point = pgd_linf(model, x, y, radius, steps=steps, step_size=step_size * radius)
    return F.cross_entropy(-interval_margins(propagate(model, point, lam * eps), y), y)
