"""MTL-IBP (De Palma et al. 2024, "Expressive Losses for Verified Robustness via Convex Combinations", section 4.3)."""

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
    alpha: float = 0.01,
    attack_factor: float = 1.0,
    steps: int = 8,
    step_size: float = 0.25,
) -> Tensor:
    """Returns (1 - alpha) * CE(point of PGD) + alpha * CE(worst case by intervals).

    A small alpha gives networks that intervals cannot verify, but branch and bound can.

    Args:
        model: A sequential network of convolutions, linear layers and ReLUs.
        x: Images.
        y: Labels.
        eps: Radius; 0 gives the clean loss.
        progress: Not used: eps grows with it already.
        alpha: Weight of the interval loss, in [0, 1].
        attack_factor: Radius of the attack over `eps`; the paper takes up to 2.1 at 2/255.
        steps: Gradient steps of the attack.
        step_size: Of one step, as a share of the attack's radius.
    """
    if eps == 0:
        return F.cross_entropy(model(x), y)
    radius = attack_factor * eps
    with frozen_statistics(model):
        point = pgd_linf(model, x, y, radius, steps=steps, step_size=step_size * radius)
    attacked = F.cross_entropy(model(point), y)
    bounded = F.cross_entropy(-interval_margins(propagate(model, x, eps), y), y)
    return (1 - alpha) * attacked + alpha * bounded
