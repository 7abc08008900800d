"""Least weight magnitude (Han et al. 2015): the smallest |w| go, one-shot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import SEMISTRUCTURED, Allocation, allocate_in_pattern, budget, reachable
from prunecert.models.pruners.contract import declares
from prunecert.models.pruners.semistructured import pattern
from prunecert.ranges import NumberRange


def keep_largest(scores: Tensor, kept: int) -> Tensor:
    """Returns a mask of the `kept` largest entries; ties go to the lower index, so the count is exact."""
    flat = scores.detach().flatten()
    if kept == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    # Several times faster than a stable sort, which would say the same; and a CUDA device is not waited for.
    threshold = torch.topk(flat, kept, sorted=False).values.min()
    mask = flat > threshold
    tied = flat == threshold
    return (mask | (tied & (tied.cumsum(0) <= kept - mask.sum()))).view_as(scores)


def untied(scores: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the scores' ranks over the network; of equal ones, many of them 0, a smaller weight has the lower."""
    score, size = (torch.cat([part.detach().cpu().flatten() for part in of.values()]) for of in (scores, weights))
    order = size.abs().argsort(stable=True)
    order = order[score[order].argsort(stable=True)]
    ranks = torch.empty_like(score, dtype=torch.float64).index_copy_(0, order, torch.arange(len(order)).double())
    parts = torch.split(ranks, [part.numel() for part in scores.values()])
    return {name: rank.view_as(score) for (name, score), rank in zip(scores.items(), parts, strict=True)}


def keep_allocated(scores: Tensor, kept: int, allocation: Allocation) -> Tensor:
    """Returns a mask of the `kept` largest scores that an allocation allows.

    Args:
        scores: Of at least 0, [outputs, inputs, ...].
        kept: How many; no more than a pattern has room for.
        allocation: See `models.pruners.allocation`; of ``2of4`` the two largest of each group compete.
    """
    if allocation == SEMISTRUCTURED:
        scores = scores.detach().masked_fill(~pattern(scores), -1.0)
    return keep_largest(scores, kept)


def layer_masks(scores: Mapping[str, Tensor], compression: float, allocation: Allocation) -> Masks:
    """Keeps the weights of largest score in each layer, as many as `allocation` says.

    Args:
        scores: Scores of at least 0 by parameter name, each of its parameter's shape.
        compression: All over kept weights, at least 1.
        allocation: See `models.pruners.allocation`.
    """
    kept = budget(sum(score.numel() for score in scores.values()), compression)
    counts = allocate_in_pattern({name: tuple(score.shape) for name, score in scores.items()}, kept, allocation)
    return Masks({name: keep_allocated(score, counts[name], allocation) for name, score in scores.items()})


def global_masks(scores: Mapping[str, Tensor], kept: int, least: Mapping[str, int] | None = None) -> Masks:
    """Keeps the weights of largest score in the whole network.

    Args:
        scores: Scores by parameter name, each of its parameter's shape.
        kept: Weights to keep in all.
        least: How many of a layer stay in any case, its largest; 1 by default, since an empty layer is no network.
    """
    least = least or dict.fromkeys(scores, 1)
    # What stays in any case comes before everything else.
    ranked = [score.detach().masked_fill(keep_largest(score, least[name]), torch.inf) for name, score in scores.items()]
    mask = keep_largest(torch.cat([score.flatten() for score in ranked]), kept)
    parts = torch.split(mask, [score.numel() for score in ranked])
    return Masks({name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)})


def exactly(model: nn.Module, masks: Masks, kept: int) -> Masks:
    """Returns masks of exactly `kept` weights: the network's smallest go, or empty places come, first ones first."""
    sizes = {
        name: weight.detach().abs().cpu().masked_fill(~masks[name], -1.0) for name, weight in prunable(model).items()
    }
    return global_masks(sizes, kept)


@declares(keeps_patterns=True)
def prune(model: nn.Module, compression: float, *, allocation: Allocation = "uniform") -> Masks:
    """Keeps the largest |w| of each layer.

    Args:
        model: The network; not changed.
        compression: All over kept weights, at least 1.
        allocation: How many weights each layer keeps; see `models.pruners.allocation`.

    Raises:
        UserError: The compression cannot be reached.

    >>> layer = nn.Sequential(nn.Linear(2, 2))
    >>> _ = layer[0].weight.data.copy_(torch.tensor([[0.1, -3.0], [2.0, 0.5]]))
    >>> prune(layer, 2.0)["0.weight"].tolist()
    [[False, True], [True, False]]
    """
    return layer_masks({name: weight.abs() for name, weight in prunable(model).items()}, compression, allocation)


@declares(refuses_by_shape=True, keeps_patterns=True)
def prune_two_of_four(model: nn.Module, compression: float) -> Masks:
    """Keeps the largest |w| of each layer, at most two of every four along the input (2:4).

    Args:
        model: The network; not changed.
        compression: All over kept weights, at least 2.

    Raises:
        UserError: The compression cannot be reached.
    """
    return prune(model, compression, allocation=SEMISTRUCTURED)


@declares()
def prune_global(
    model: nn.Module, compression: float, *, floor: Annotated[float, NumberRange(at_least=0, below=1)] = 0.0
) -> Masks:
    """Keeps the largest |w| of the whole network.

    Args:
        model: The network; not changed.
        compression: All over kept weights, at least 1.
        floor: Share of each layer's weights, its largest, that stay in any case. At 100x nothing protects the last
            layer of a small network, and some classes may lose all their weights; 0.05 protects it.

    Raises:
        UserError: The compression cannot be reached with that floor, or a layer would be emptied.
    """
    weights = prunable(model)
    total = sum(weight.numel() for weight in weights.values())
    kept = reachable({name: weight.numel() for name, weight in weights.items()}, compression)
    least = {name: math.ceil(floor * weight.numel()) for name, weight in weights.items()}
    if sum(least.values()) > kept:
        raise UserError(
            f"Compression {compression:g} is refused: a floor of {floor:.0%} of each layer leaves "
            f"{sum(least.values()):,} weights; allowed is at most {total / sum(least.values()):.1f}, or a smaller "
            "floor."
        )
    return global_masks({name: weight.abs() for name, weight in weights.items()}, kept, least)
