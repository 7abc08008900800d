"""Projected gradient descent inside training; measured attacks are the verifiers' business."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models.norms import norms_of


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Keeps batch norm's running statistics out of the attack's reach."""
    norms = [module for module in norms_of(model) if module.training]
    for module in norms:
        module.eval()
    try:
        yield
    finally:
        for module in norms:
            module.train()


def project_linf(point: Tensor, x: Tensor, eps: float) -> Tensor:
    """Returns the nearest point of the l-infinity ball of radius `eps` round `x` within [0, 1]."""
    return torch.min(torch.max(point, x - eps), x + eps).clamp(0, 1)


def pgd_linf(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    steps: int,
    step_size: float,
    best: bool = False,
) -> Tensor:
    """Maximises the cross-entropy from a random start (Madry et al. 2018).

    Args:
        model: The network; its parameters get no gradient.
        x: Images [N, 3, H, W] in [0, 1].
        y: Labels [N].
        eps: Radius in pixels of [0, 1].
        steps: Gradient steps.
        step_size: Of one step, in pixels of [0, 1].
        best: Whether each image's point of the largest loss after any step is returned, for one more forward pass, and
            not the last one.

    Returns:
        Detached points of the ball, within [0, 1].
    """
    if eps == 0 or steps == 0:
        return x
    point = project_linf(x + torch.empty_like(x).uniform_(-eps, eps), x, eps)
    chosen, highest = point.detach(), torch.full((len(x),), -torch.inf, device=x.device)
    for step in range(steps):
        point.requires_grad_(True)
        losses = F.cross_entropy(model(point), y, reduction="none")
        (grad,) = torch.autograd.grad(losses.sum(), point)
        if best and step > 0:
            chosen, highest = _better(chosen, highest, point.detach(), losses.detach())
        point = project_linf(point.detach() + step_size * grad.sign(), x, eps)
    if not best or steps == 1:
        return point
    with torch.no_grad():
        losses = F.cross_entropy(model(point), y, reduction="none")
    return _better(chosen, highest, point, losses)[0]


def _better(chosen: Tensor, highest: Tensor, point: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Returns each image's point of the higher loss, and that loss."""
    higher = losses > highest
    return torch.where(higher[:, None, None, None], point, chosen), torch.maximum(losses.float(), highest)
