"""Random pruning: the control that every pruner has to beat."""

from __future__ import annotations

import torch
from torch import nn

from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import Allocation
from prunecert.models.pruners.contract import declares
from prunecert.models.pruners.lwm import layer_masks


@declares(keeps_patterns=True)
def prune(model: nn.Module, compression: float, *, allocation: Allocation = "uniform", seed: int = 0) -> Masks:
    """Keeps weights drawn at random in each layer.

    Args:
        model: The network; not changed.
        compression: All over kept weights, at least 1.
        allocation: How many weights each layer keeps; see `models.pruners.allocation`.
        seed: Seed of the draw.

    Raises:
        UserError: The compression cannot be reached.
    """
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(weight.shape, generator=generator) for name, weight in prunable(model).items()}
    return layer_masks(scores, compression, allocation)
