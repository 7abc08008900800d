"""MTL-IBP (De Palma et al. 2024, "Expressive Losses for Verified Robustness via Convex Combinations", section 4.3)."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models.attack import pgd_linf
from prunecert.models.bounds import interval_margins, propagate
from prunecert.models.graph import has_norms
from prunecert.models.norms import frozen_forward
from prunecert.models.settings import Choices, CountFromZero, Positive, PositiveShare, Share, Switch, Weight


def loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    progress: float = 1.0,
    alpha: Share = 0.01,
    attack_factor: Weight = 1.0,
    steps: CountFromZero = 8,
    step_size: Positive = 0.25,
    best: Switch = 0,
    statistics: Annotated[str, Choices("clean", "attacked")] = "clean",
    share: PositiveShare = 1.0,
) -> Tensor:
    """Returns (1 - alpha) * CE(point of PGD) + alpha * CE(worst case by intervals).

    A small alpha gives networks that intervals cannot verify, but branch and bound can.

    Args:
        model: A network that `models.bounds` can bound.
        x: Images.
        y: Labels.
        eps: Radius; 0 gives the clean loss.
        progress: Not used: eps grows with it already.
        alpha: Weight of the interval loss, in [0, 1].
        attack_factor: Radius of the attack over `eps`; the paper takes up to 2.1 at 2/255.
        steps: Gradient steps of the attack.
        step_size: Of one step, as a share of the attack's radius.
        best: 1 takes each image's point of the largest loss over the steps, 0 the last one.
        statistics: Whose batch statistics batch norm takes for both losses: of the ``clean`` images, in a pass of their
            own, or of the ``attacked`` ones, which need none. The attack itself always takes the running ones.
        share: Share of the batch that the interval loss is computed on, in (0, 1]; its expectation stays the same.
    """
    if eps == 0:
        count = max(1, round(share * len(y)))
        # With batch norm the clean images pass apart from the boxes, so that add-ons share the pass at no cost.
        logits = propagate(model, x, eps, count=count).logits if has_norms(model) else model(x)
        return F.cross_entropy(logits, y)
    settings = {"attack_factor": attack_factor, "steps": steps, "step_size": step_size, "best": best, "share": share}
    alpha, logits, bounded = views(model, x, y, eps, alpha=alpha, statistics=statistics, **settings)
    return (1 - alpha) * F.cross_entropy(logits, y) + alpha * F.cross_entropy(bounded, y[: len(bounded)])


def views(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    alpha: float,
    attack_factor: float,
    steps: float,
    step_size: float,
    best: float,
    statistics: str,
    share: float,
) -> tuple[float, Tensor, Tensor]:
    """Returns what the loss is taken of, for losses of another kind, such as a teacher's.

    Arguments are those of `loss`.

    Returns:
        alpha; the logits at the attacked points, [N, classes]; and the worst ones by intervals, of as many images as
        `share` says, relative to the label's, [count, classes].
    """
    count = max(1, round(share * len(y)))
    radius = attack_factor * eps
    attacked = frozen_forward(model)
    point = pgd_linf(attacked, x, y, radius, steps=int(steps), step_size=step_size * radius, best=bool(best))
    if statistics == "clean" and has_norms(model):
        bounds = propagate(model, x, eps, points=point, count=count)
        assert bounds.points is not None
        logits = bounds.points
    else:
        # The points ride along with the centres: one product instead of two.
        bounds = propagate(model, x, eps, clean=point, count=count)
        logits = bounds.logits
    return alpha, logits, -interval_margins(bounds, y)
