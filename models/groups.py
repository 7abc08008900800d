"""What a network's loss and its gradient are on each class (Tran et al. 2022, section 4).

Their bound on what pruning costs a group: the norm of the group's mean gradient times how far the weights move, and
half the largest eigenvalue of its Hessian times that distance squared. The first factor is measured here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

_BATCH = 500


@dataclass(frozen=True, eq=False)
class Groups:
    """A network's classes.

    Args:
        losses: Mean cross-entropy of each class's images as they are; NaN for a class without images.
        gradients: Norm of the mean gradient of that loss in all parameters; empty if it wasn't asked for.
    """

    losses: npt.NDArray[np.float64]
    gradients: npt.NDArray[np.float64]


def measure(
    model: nn.Module,
    images: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    classes: int,
    *,
    gradients: bool = True,
) -> Groups:
    """Returns each class's loss, and the norm of its gradient.

    Args:
        model: A network, in evaluation mode on the CPU; its parameters' gradients are overwritten.
        images: float32 [N, C, H, W] in [0, 1].
        labels: Classes [N], from 0.
        classes: How many classes there are.
        gradients: Whether gradients are wanted.
    """
    losses, norms = np.full(classes, np.nan), np.full(classes, np.nan)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for label in range(classes):
        x = torch.from_numpy(images[labels == label])
        if not len(x):
            continue
        model.zero_grad(set_to_none=True)
        total = 0.0
        with torch.set_grad_enabled(gradients):
            for batch in torch.split(x, _BATCH):
                targets = torch.full((len(batch),), label, dtype=torch.long)
                loss = F.cross_entropy(model(batch), targets, reduction="sum") / len(x)
                if gradients:
                    loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
        losses[label] = total
        if gradients:
            squares = [float((p.grad.double() ** 2).sum()) for p in parameters if p.grad is not None]
            norms[label] = float(np.sqrt(sum(squares)))
    model.zero_grad(set_to_none=True)
    return Groups(losses, norms if gradients else np.empty(0))
