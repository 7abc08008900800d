"""What the attacks share: the margin that they make small, which points count, and the verdicts on a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecert.verifiers.base import FloatArray, Instance, Status, Times, Verdict

if TYPE_CHECKING:
    import torch
    from torch import nn

    #: Outputs [n, classes] to margins [n], below 0 if unsafe, and the scale [n] of what is compared.
    Loss = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

#: A point counts only if its margin, in the float32 of torch, is below 0 by so much of the outputs' scale: the replay
#: in onnxruntime, with no tolerance, rounds otherwise.
MARGIN = 1e-6


def loss_of(instances: Sequence[Instance], device: Any) -> Loss:
    """Returns what maps outputs [n, classes] to margins [n], below 0 if unsafe, and the scale [n] of what is compared.

    Args:
        instances: The specifications, in the order of the outputs.
        device: Where the outputs will be.
    """
    import torch

    disjuncts = max(len(item.spec.disjuncts) for item in instances)
    height = max((len(b) for item in instances for _, b in item.spec.disjuncts), default=1)
    # What is not filled holds 0 y + inf <= 0, which no output satisfies, or repeats a disjunct's last row.
    matrix = np.zeros((len(instances), max(disjuncts, 1), max(height, 1), instances[0].classes))
    offset = np.full(matrix.shape[:3], -np.inf)
    for i, item in enumerate(instances):
        for k, (a, b) in enumerate(item.spec.disjuncts):
            if len(b):
                rows = np.minimum(np.arange(matrix.shape[2]), len(b) - 1)
                matrix[i, k], offset[i, k] = a[rows], b[rows]
            else:
                offset[i, k] = 0.0
    weights = torch.from_numpy(matrix.astype(np.float32)).to(device)
    limits = torch.from_numpy(offset.astype(np.float32)).to(device)
    shifts = torch.where(limits.isinf(), 0.0, limits.abs())

    def margins(outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = torch.einsum("nkrc,nc->nkr", weights, outputs) - limits
        sizes = torch.einsum("nkrc,nc->nkr", weights.abs(), outputs.detach().abs()) + shifts
        return values.amax(dim=2).amin(dim=1), sizes.amax(dim=(1, 2)).clamp(min=1.0)

    return margins


def breaking(
    module: nn.Module, points: torch.Tensor, instances: Sequence[Instance], loss: Loss
) -> list[FloatArray | None]:
    """Returns each instance's point, moved into its box, if it is a counterexample by a margin beyond rounding.

    Args:
        module: The network, where the points are.
        points: [n, ...].
        instances: Whose.
        loss: See `loss_of`.
    """
    import torch

    corners = ([item.lower for item in instances], [item.upper for item in instances])
    lower, upper = (torch.from_numpy(np.stack(arrays)).reshape(points.shape).to(points.device) for arrays in corners)
    inside = torch.clamp(points, lower, upper)
    with torch.no_grad():
        margins, scale = loss(module(inside))
    unsafe = (margins < -MARGIN * scale).cpu().numpy()
    arrays: list[FloatArray] = [
        point.reshape(item.lower.shape) for point, item in zip(inside.cpu().numpy(), instances, strict=True)
    ]
    return [
        point if breaks and item.contains(point) else None
        for point, breaks, item in zip(arrays, unsafe, instances, strict=True)
    ]


def verdicts_on(count: int, points: Mapping[int, FloatArray | None], missed: Verdict, times: Times) -> list[Verdict]:
    """Returns the verdicts on a batch: `sat` where there is a point.

    Args:
        count: Instances of the batch.
        points: Counterexamples, by the number of the instance.
        missed: The verdict on the others.
        times: Of each.
    """
    return [
        missed
        if (point := points.get(index)) is None
        else Verdict(Status.SAT, witness=point, times=times, stage="attack", device=missed.device)
        for index in range(count)
    ]
