"""TRADES (Zhang et al. 2019, arXiv 1901.08573): clean loss plus beta times the KL divergence at the worst point."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models.attack import frozen_statistics, project_linf
from prunecert.models.settings import Count, Positive, Weight


def _divergence(model: nn.Module, point: Tensor, target: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(model(point), dim=1), target, reduction="batchmean", log_target=True)


def loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    progress: float = 1.0,
    beta: Weight = 6.0,
    steps: Count = 10,
    step_size: Positive = 0.25,
) -> Tensor:
    """Returns CE(clean) + beta * KL(clean || worst), eq. 5 of the paper.

    Args:
        model: The network.
        x: Images.
        y: Labels.
        eps: Radius; 0 gives the clean loss.
        progress: Not used.
        beta: Weight of the divergence (1 / lambda in the paper).
        steps: Gradient steps of the inner maximisation.
        step_size: Of one step, as a share of `eps`.
    """
    if eps == 0:
        return F.cross_entropy(model(x), y)
    with frozen_statistics(model):
        with torch.no_grad():
            target = F.log_softmax(model(x), dim=1)
        # A small Gaussian start, as the paper has it: at x itself the divergence has no gradient.
        point = project_linf(x + 1e-3 * torch.randn_like(x), x, eps)
        for _ in range(steps):
            point.requires_grad_(True)
            (grad,) = torch.autograd.grad(_divergence(model, point, target), point)
            point = project_linf(point.detach() + step_size * eps * grad.sign(), x, eps)
    logits = model(x)
    divergence = F.kl_div(
        F.log_softmax(model(point), dim=1), F.log_softmax(logits, dim=1), reduction="batchmean", log_target=True
    )
    return F.cross_entropy(logits, y) + beta * divergence
