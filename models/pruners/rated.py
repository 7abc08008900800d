"""Weights under scores and a rate, both trained (HARP: Zhao, Koenigl, Wressnegger 2023, sections 3.2 and 3.3).

A layer keeps the share k of its weights that have the largest scores, and k itself is a parameter: it gets the sum of
the mask's gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prunecert.models.pruners.hydra import initial_scores
from prunecert.models.pruners.lwm import keep_largest

#: Where the sigmoid of a layer that starts whole, or nearly emptied, still has a slope.
_FLAT = 1e-4


class _Keep(torch.autograd.Function):
    """The largest share of |scores| as 0/1; the gradient goes to |scores| as it is, and its sum to the share."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, magnitude: Tensor, share: Tensor) -> Tensor:
        return keep_largest(magnitude, count(float(share), magnitude.numel())).to(magnitude.dtype)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad.double().sum()


def count(share: float, total: int) -> int:
    """Returns how many weights a rate keeps: all but the floor of what it doesn't."""
    return max(1, total - math.floor((1 - share) * total + 1e-6))


class Rated(nn.Module):
    """Parametrisation of a weight: the frozen weight times the mask that its scores and its rate select.

    Args:
        weight: The weight.
        share: Share of its entries that is kept at first.
        least: Smallest share that the rate can fall to.
    """

    def __init__(self, weight: Tensor, share: float, least: float) -> None:
        super().__init__()
        self.scores = nn.Parameter(initial_scores(weight))
        self.least = least
        logit = min(max((share - least) / (1 - least), _FLAT), 1 - _FLAT)
        # In float64, so that the count that it starts at is exact.
        self.rate = nn.Parameter(torch.tensor(math.log(logit / (1 - logit)), dtype=torch.float64))

    def share(self) -> Tensor:
        """Returns k = least + (1 - least) * sigmoid(rate), section 3.2."""
        return self.least + (1 - self.least) * self.rate.sigmoid()

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the masked weight."""
        selected: Tensor = _Keep.apply(self.scores.abs(), self.share())  # type: ignore[no-untyped-call]
        return weight * selected


def excess(rated: Mapping[str, Rated], kept: int) -> Tensor:
    """Returns max(sum of n k / target - 1, 0), section 3.3."""
    total = torch.stack([module.share() * module.scores.numel() for module in rated.values()]).sum()
    return (total / kept - 1).clamp_min(0)
