"""What AutoAttack is given: the attacks that a network is large enough for, and boxes as balls of a cube."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from prunecert.verifiers.base import FloatArray, Instance

if TYPE_CHECKING:
    import torch
    from torch import nn

#: The attacks of each version, in the authors' order.
VERSIONS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
}


def fitting(attacks: Sequence[str], image: bool, classes: int) -> list[str]:
    """Returns the attacks that a network of this size can be given; DLR in the place of its targeted form."""
    chosen: list[str] = []
    for name in attacks:
        if name == "apgd-t" and classes < 4:
            name = "apgd-dlr"
        if (name == "square" and not image) or (name == "apgd-dlr" and classes < 3) or name in chosen:
            continue
        chosen.append(name)
    return chosen


def ball(instance: Instance) -> tuple[FloatArray, float] | None:
    """Returns centre and radius if the box is an l-infinity ball clipped to [0, 1], up to float32 rounding, else None.

    Args:
        instance: The question; a pixel that is clipped on one side has its centre from the other.
    """
    lower, upper = instance.lower.astype(np.float64), instance.upper.astype(np.float64)
    eps = float(instance.eps if instance.eps is not None else (upper - lower).max(initial=0.0) / 2)
    if not (eps > 0 and lower.min(initial=0.0) >= 0 and upper.max(initial=1.0) <= 1):
        return None
    center = np.where(lower > 0, np.where(upper < 1, (lower + upper) / 2, lower + eps), upper - eps)
    center = np.clip(center, 0.0, 1.0)
    gaps = (np.clip(center - eps, 0, 1) - lower, np.clip(center + eps, 0, 1) - upper)
    if max(float(np.abs(gap).max(initial=0.0)) for gap in gaps) > 1e-6:
        return None
    return center.astype(np.float32), eps


def mapped(network: nn.Module, lower: torch.Tensor, upper: torch.Tensor) -> nn.Module:
    """Returns the network over the unit cube, whose points stand for those of a box."""
    from torch import nn

    class Mapped(nn.Module):
        def forward(self, u: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = network(lower + u * (upper - lower))
            return outputs

    return Mapped().eval()


def reshaped(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Returns the network over inputs with four axes."""
    from torch import nn

    class Reshaped(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = network(x.reshape(len(x), *shape))
            return outputs

    return Reshaped().eval()
