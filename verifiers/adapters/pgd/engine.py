"""foolbox's projected gradient descent with our loss and starts; imported in the worker only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from eagerpy.astensor import astensor
from foolbox.attacks.projected_gradient_descent import (
    L2ProjectedGradientDescentAttack,
    LinfProjectedGradientDescentAttack,
)
from foolbox.criteria import Misclassification
from foolbox.models.pytorch import PyTorchModel
from torch import nn

from prunecert.verifiers.base import Norm

if TYPE_CHECKING:
    from prunecert.verifiers.adapters.attacking import Loss


class _Mapped(nn.Module):
    """The network over points origin + u * scale."""

    def __init__(self, network: nn.Module, origin: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__()
        self.network = network
        self.origin = origin
        self.scale = scale

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.network(self.origin + u * self.scale)
        return outputs


class _Ours:
    """Overrides the two hooks that foolbox leaves to its users: the loss and the random start."""

    margins: Loss
    starts: torch.Tensor | None

    def get_loss_fn(self, model: Any, labels: Any) -> Callable[[Any], Any]:
        def loss(inputs: Any) -> Any:
            return astensor(-self.margins(model(inputs).raw)[0].sum())

        return loss

    def get_random_start(self, x0: Any, epsilon: float) -> Any:
        return astensor(self.starts)


class _Linf(_Ours, LinfProjectedGradientDescentAttack):
    pass


class _L2(_Ours, L2ProjectedGradientDescentAttack):
    pass


def attack(
    network: nn.Module,
    norm: Norm,
    *,
    center: torch.Tensor,
    radius: float,
    starts: torch.Tensor | None,
    origin: torch.Tensor,
    scale: torch.Tensor,
    bounds: tuple[float, float],
    loss: Loss,
    steps: int,
    step_size: float,
) -> torch.Tensor:
    """Runs PGD once on a batch.

    Args:
        network: Maps points [n, ...] to outputs [n, classes].
        norm: Of the ball.
        center: Centres of the balls, [n, ...].
        radius: Of all balls.
        starts: Points to start from; None: the centres.
        origin: The network is run at origin + u * scale for a point u.
        scale: See `origin`.
        bounds: Least and largest value of a coordinate of u.
        loss: Outputs to margins that the attack makes small.
        steps: Gradient steps.
        step_size: Length of a step relative to the radius.

    Returns:
        The last points u, [n, ...].
    """
    kind = _Linf if norm == "linf" else _L2
    pgd = kind(rel_stepsize=step_size, steps=steps, random_start=starts is not None)
    pgd.margins, pgd.starts = loss, starts
    model = PyTorchModel(_Mapped(network, origin, scale).eval(), bounds=bounds, device=center.device)
    labels = torch.zeros(len(center), dtype=torch.long, device=center.device)
    points: torch.Tensor = pgd.run(model, center, Misclassification(labels), epsilon=radius)
    return points.detach()
