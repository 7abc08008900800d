"""Rectifiers of which some neurons are straight lines (Chen et al. 2022, "Linearity Grafting", section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: The lines' first slope, as published.
SLOPE = 0.4


class GraftedReLU(nn.Module):
    """max(x, 0) for most neurons, slope * x + offset for those that are grafted.

    Args:
        shape: Shape of the neurons, without the batch axis.
        slopes: Shape of the slopes: that of the neurons, or [C, 1, 1] where those of a channel share one.
    """

    grafted: Tensor

    def __init__(self, shape: Sequence[int], slopes: Sequence[int] | None = None) -> None:
        super().__init__()
        self.register_buffer("grafted", torch.zeros(*shape, dtype=torch.bool))
        self.slope = nn.Parameter(torch.full(tuple(slopes or shape), SLOPE))
        self.offset = nn.Parameter(torch.zeros(*shape))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the activations of pre-activations [N, *shape]."""
        return torch.where(self.grafted, self.slope * x + self.offset, x.relu())

    def lines(self) -> tuple[Tensor, Tensor]:
        """Returns slope and offset of each neuron's line, 0 where it has none."""
        return torch.where(self.grafted, self.slope, 0.0), torch.where(self.grafted, self.offset, 0.0)
