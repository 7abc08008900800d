"""An allocation that divides two budgets by the compression: weights, and multiply-adds of an image.

A convolution's weight is multiplied at every place of its output, so that allocations by numbers of weights, which
spare small layers, leave a network as expensive to bound as it was: at 10x ``balanced`` takes nearly all from the first
linear layer. ``both`` lies between ``balanced`` and the division that multiplies least, as near to the former as the
budget of multiply-adds allows: layers whose weights are used often keep their proportions to one another and give to
those whose weights are used seldom. Where that leaves a layer too little, ``both:S`` stops on the way: it spends 1 - S
of the multiply-adds that ``balanced`` spends and S of those that ``both`` does. ``uniform`` meets both budgets, too,
but leaves the small layers with a handful of weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prunecert.models.masks import prunable
from prunecert.models.pruners.allocation import Allocation, allocate, budget, fill, share_of_both


def for_network(allocation: str, model: nn.Module, shape: Sequence[int], compression: float) -> Allocation:
    """Returns an allocation as pruners take it: layers' parts for ``both`` and ``both:S``, all others as they are.

    Args:
        allocation: Its name.
        model: The network.
        shape: Of an image: channels, height, width.
        compression: See `parts_by_both`.

    Raises:
        UserError: See `parts_by_both`; or the share is none.
    """
    share = share_of_both(allocation)
    if share is None:
        return allocation
    shapes = {name: tuple(weight.shape) for name, weight in prunable(model).items()}
    return parts_by_both(shapes, uses(model, shape), compression, share)


def uses(model: nn.Module, shape: Sequence[int]) -> dict[str, int]:
    """Returns how often each prunable weight is multiplied for one image, by parameter name.

    >>> uses(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)), (1, 4, 4))
    {'0.weight': 4, '2.weight': 1}

    Args:
        model: A network; layers that run several times are counted so often.
        shape: Of an image: channels, height, width.
    """
    weights = prunable(model)
    counts = dict.fromkeys(weights, 0)

    def count(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        counts[name] += output[0].numel() // len(weights[name])

    handles = [
        module.register_forward_hook(partial(count, f"{name}.weight"))
        for name, module in model.named_modules()
        if f"{name}.weight" in weights
    ]
    training = model.training
    try:
        # Batch norm in training mode would count the image among its statistics.
        model.eval()
        with torch.no_grad():
            model(torch.zeros(1, *shape, device=next(model.parameters()).device))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return counts


def parts_by_both(
    shapes: Mapping[str, Sequence[int]], times: Mapping[str, int], compression: float, share: float = 1.0
) -> dict[str, float]:
    """Returns each layer's part of the kept weights, so that multiply-adds are divided by the compression, too.

    >>> shapes, times = {"conv": (4, 3, 3, 3), "linear": (10, 400)}, {"conv": 100, "linear": 1}
    >>> parts = parts_by_both(shapes, times, 4)
    >>> round(sum(times[name] * part for name, part in parts.items())), (108 * 100 + 4000) / 4
    (3700, 3700.0)
    >>> parts_by_both(shapes, times, 4, 0.5), parts_by_both(shapes, times, 4, 0.0)
    ({'conv': 67.5, 'linear': 959.5}, {'conv': 108.0, 'linear': 919.0})

    Args:
        shapes: Weight shapes by layer.
        times: How often a weight of each layer is multiplied (`uses`).
        compression: All weights over kept ones, at least 1, and all multiply-adds over those that are left, at least.
        share: How far to go from ``balanced``, 0, to both budgets, 1.

    Raises:
        UserError: There are fewer weights to keep than layers.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    kept = budget(sum(sizes.values()), compression)
    balanced = allocate(shapes, kept, "balanced")
    cheapest = _cheapest(sizes, times, kept, balanced)
    most = sum(size * times[name] for name, size in sizes.items()) / compression
    spent, least = (sum(times[name] * parts[name] for name in sizes) for parts in (balanced, cheapest))
    if spent <= most:
        return {name: float(count) for name, count in balanced.items()}
    # The least is below what `uniform` spends, which is `most` but for the rounding of `kept`.
    way = share * min((spent - most) / (spent - least), 1.0) if spent > least else 0.0
    return {name: (1 - way) * balanced[name] + way * cheapest[name] for name in sizes}


def _cheapest(
    sizes: Mapping[str, int], times: Mapping[str, int], kept: int, balanced: Mapping[str, int]
) -> dict[str, float]:
    """Returns the parts that multiply least: layers that use their weights seldom are full before others have any."""
    parts: dict[str, float] = {}
    for number in sorted(set(times.values())):
        level = {name: float(balanced[name]) for name in sizes if times[name] == number}
        room = {name: float(sizes[name]) for name in level}
        parts |= fill(level, room, min(kept - sum(parts.values()), sum(room.values())))
    return parts
