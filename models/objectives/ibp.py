"""Interval bound propagation (Gowal et al. 2018, arXiv 1810.12715)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models.bounds import interval_margins, propagate
from prunecert.models.settings import Share


def loss(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, *, progress: float = 1.0, kappa_end: Share = 0.5
) -> Tensor:
    """Returns kappa * CE(clean) + (1 - kappa) * CE(worst case by intervals), eq. 12 of the paper.

    Args:
        model: A network that `models.bounds` can bound.
        x: Images.
        y: Labels.
        eps: Radius.
        progress: kappa falls from 1 to `kappa_end` with it.
        kappa_end: Weight of the clean loss when the ramp is over.
    """
    kappa = 1 - progress * (1 - kappa_end)
    bounds = propagate(model, x, eps)
    clean = F.cross_entropy(bounds.logits, y)
    if progress == 0:
        return clean
    # The softmax of the negated margins is that of the worst-case logits, shifted by the label's.
    return kappa * clean + (1 - kappa) * F.cross_entropy(-interval_margins(bounds, y), y)
