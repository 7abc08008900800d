"""Least weight magnitude (Han et al. 2015): the smallest |w| go, one-shot."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.masks import Masks, prunable
from models.pruners.allocation import allocate, budget


def keep_largest(scores: Tensor, kept: int) -> Tensor:
    """Returns a mask of the `kept` largest entries; ties go to the lower index, so the count is exact."""
    flat = scores.detach().flatten()
    if kept == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    # Several times faster than a stable sort, which would say the same.
    threshold = torch.topk(flat, kept, sorted=False).values.min()
    mask = flat > threshold
    tied = torch.nonzero(flat == threshold).flatten()
    mask[tied[: kept - int(mask.sum())]] = True
    return mask.view_as(scores)


def layer_masks(scores: Mapping[str, Tensor], compression: float, allocation: str) -> Masks:
    """Keeps the weights of largest score in each layer, as many as `allocation` says.

    Args:
        scores: Scores of at least 0 by parameter name, each of its parameter's shape.
        compression: All over kept weights, at least 1.
        allocation: See `models.pruners.allocation`.
    """
    kept = budget(sum(score.numel() for score in scores.values()), compression)
    counts = allocate({name: tuple(score.shape) for name, score in scores.items()}, kept, allocation)
    return Masks({name: keep_largest(score, counts[name]) for name, score in scores.items()})


def prune(model: nn.Module, compression: float, *, allocation: str = "uniform") -> Masks:
    """Keeps the largest |w| of each layer.

    Args:
        model: The network; not changed.
        compression: All over kept weights, at least 1.
        allocation: How many weights each layer keeps; see `models.pruners.allocation`.

    Raises:
        UserError: The compression cannot be reached.
    """
    return layer_masks({name: weight.abs() for name, weight in prunable(model).items()}, compression, allocation)


def prune_global(model: nn.Module, compression: float) -> Masks:
    """Keeps the largest |w| of the whole network.

    Args:
        model: The network; not changed.
        compression: All over kept weights, at least 1.

    Raises:
        UserError: The compression cannot be reached, or a layer would be emptied.
    """
    weights = prunable(model)
    flat = torch.cat([weight.detach().abs().flatten() for weight in weights.values()])
    mask = keep_largest(flat, budget(flat.numel(), compression))
    parts = torch.split(mask, [weight.numel() for weight in weights.values()])
    return Masks({name: part.view_as(weights[name]) for name, part in zip(weights, parts, strict=True)})
