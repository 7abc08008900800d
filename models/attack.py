"""Projected gradient descent inside training; measured attacks are the verifiers' business."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Keeps batch norm's running statistics out of the attack's reach."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d) and module.training]
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


def pgd_linf(model: nn.Module, x: Tensor, y: Tensor, eps: float, *, steps: int, step_size: float) -> Tensor:
    """Maximises the cross-entropy from a random start (Madry et al. 2018).

    Args:
        model: The network; its parameters get no gradient.
        x: Images [N, 3, H, W] in [0, 1].
        y: Labels [N].
        eps: Radius in pixels of [0, 1].
        steps: Gradient steps.
        step_size: Of one step, in pixels of [0, 1].

    Returns:
        Detached points of the ball, within [0, 1].
    """
    if eps == 0 or steps == 0:
        return x
    point = project_linf(x + torch.empty_like(x).uniform_(-eps, eps), x, eps)
    for _ in range(steps):
        point.requires_grad_(True)
        (grad,) = torch.autograd.grad(F.cross_entropy(model(point), y), point)
        point = project_linf(point.detach() + step_size * grad.sign(), x, eps)
    return point
