"""CROWN-IBP (Zhang et al. 2020, arXiv 1906.06316)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models.bounds import interval_margins, propagate
from prunecert.models.crown import crown_ibp_margins, fused_cross_entropy
from prunecert.models.settings import Share, Switch


def loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    progress: float = 1.0,
    kappa_end: Share = 0.5,
    beta_end: Share = 0.0,
    fusion: Switch = 0,
) -> Tensor:
    """Returns kappa * CE(clean) + (1 - kappa) * CE(bound), bound = beta * CROWN-IBP + (1 - beta) * IBP (eq. 9).

    Args:
        model: A network that `models.bounds` can bound.
        x: Images.
        y: Labels.
        eps: Radius.
        progress: kappa falls from 1 to `kappa_end` and beta from 1 to `beta_end` with it.
        kappa_end: Weight of the clean loss when the ramp is over.
        beta_end: Weight of the CROWN-IBP bound when the ramp is over.
        fusion: 1 bounds the cross-entropy itself (loss fusion, Xu et al. 2020) instead of every margin: one backward
            row instead of ten. beta then weighs the two losses, no longer the two bounds.
    """
    kappa = 1 - progress * (1 - kappa_end)
    beta = 1 - progress * (1 - beta_end)
    bounds = propagate(model, x, eps)
    clean = F.cross_entropy(bounds.logits, y)
    if progress == 0:
        return clean
    margins = interval_margins(bounds, y) if beta < 1 else None
    if fusion and beta > 0:
        robust = beta * fused_cross_entropy(model, x, eps, bounds, y).mean()
        if margins is not None:
            robust = robust + (1 - beta) * F.cross_entropy(-margins, y)
        return kappa * clean + (1 - kappa) * robust
    if beta > 0:
        crown = crown_ibp_margins(model, x, eps, bounds, y)
        margins = crown if margins is None else beta * crown + (1 - beta) * margins
    assert margins is not None
    return kappa * clean + (1 - kappa) * F.cross_entropy(-margins, y)
