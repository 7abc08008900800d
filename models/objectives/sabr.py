"""SABR (Mueller et al. 2023, "Certified Training: Small Boxes are All You Need", section 3)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models.attack import pgd_linf
from prunecert.models.bounds import interval_margins, propagate
from prunecert.models.graph import has_norms
from prunecert.models.norms import frozen_forward
from prunecert.models.settings import CountFromZero, Positive, PositiveShare, Switch, Weight


def loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    progress: float = 1.0,
    lam: PositiveShare = 0.1,
    steps: CountFromZero = 8,
    step_size: Positive = 0.25,
    attack_factor: Weight = 0.0,
    best: Switch = 0,
) -> Tensor:
    """Returns the interval loss of a small box round an adversarial point.

    Args:
        model: A network that `models.bounds` can bound; its batch norms take the statistics of the clean images.
        x: Images.
        y: Labels.
        eps: Radius; 0 gives the clean loss.
        progress: Not used: eps grows with it already.
        lam: Radius of the small box over `eps`, in (0, 1]; 1 is IBP.
        steps: Gradient steps of the search.
        step_size: Of one step, as a share of its radius.
        attack_factor: Radius of the search for the small box's centre over `eps`. 0 stands for 1 - lam, with which the
            small box lies in the ball, as in the paper; up to 2.9 is published for networks trained at 2/255.
        best: 1 takes each image's point of the largest loss over the steps, 0 the last one.
    """
    if eps == 0:
        return F.cross_entropy(model(x), y)
    radius = (attack_factor or 1 - lam) * eps
    forward = frozen_forward(model)
    point = pgd_linf(forward, x, y, radius, steps=steps, step_size=step_size * radius, best=bool(best))
    bounds = propagate(model, point, lam * eps, clean=x if has_norms(model) else point)
    return F.cross_entropy(-interval_margins(bounds, y), y)
