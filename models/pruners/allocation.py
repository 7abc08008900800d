"""How many weights each layer keeps; exact to one weight over the whole network.

* ``uniform``: every layer keeps the same share (Sehwag et al. 2019; HYDRA).
* ``erk``: Erdos-Renyi kernel (Evci et al. 2020, "Rigging the Lottery", appendix): a layer's density is
  proportional to the sum of its dimensions over their product.
* ``balanced``: half of the budget goes in equal parts to the layers, half in proportion to their sizes. In
  networks whose first linear layer holds nearly everything, ``uniform`` leaves the small layers with a handful of
  weights at 100x; this one keeps them whole for as long as the budget allows.
* ``both``: as ``balanced``, and no more multiply-adds than are to be kept of them, too (`models.pruners.both_budgets`).
  It takes the network and the images' shape, so that the pipeline turns it into layers' parts for the pruners.
  ``both:S``, with S from 0 to 1, goes that share of the way: ``both:0`` is ``balanced``, ``both:1`` is ``both``.
* ``2of4``: as ``uniform``, and of every four consecutive weights along the input at most two are kept (2:4, the pattern
  that GPUs multiply by; see `models.pruners.semistructured`); for the pruners that keep to a pattern.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from prunecert.errors import UserError, did_you_mean
from prunecert.numbers import read_number

#: A name below, or each layer's part of the kept weights; what a layer has no room for goes to the others.
Allocation: TypeAlias = str | Mapping[str, float]
#: By numbers alone: any weights of a layer may be kept.
ALLOCATIONS = ("uniform", "erk", "balanced")
#: By numbers of weights and of multiply-adds; ``both:S`` goes a share of the way there.
BOTH = "both"
#: By numbers and a pattern: two of four.
SEMISTRUCTURED = "2of4"
_AT_MOST, _OF = 2, 4


def share_of_both(allocation: str) -> float | None:
    """Returns how far an allocation goes from ``balanced`` to ``both``, in [0, 1]; None for one that is neither.

    >>> share_of_both("both"), share_of_both("both:0.25"), share_of_both("balanced")
    (1.0, 0.25, None)

    Raises:
        UserError: What stands behind the colon is no share.
    """
    name, colon, text = allocation.partition(":")
    if name != BOTH:
        return None
    share = read_number(text) if colon else 1.0
    if share is None or not 0 <= share <= 1:
        raise UserError(
            f"Allocation {allocation!r} is refused: behind the colon stands how far it goes from balanced, 0, to both, "
            f"1; allowed is a number from 0 to 1, e.g. {BOTH}:0.5."
        )
    return share


def budget(total: int, compression: float) -> int:
    """Returns how many of `total` weights are kept at a compression ratio.

    Args:
        total: Number of prunable weights.
        compression: All over kept; at least 1.

    Raises:
        UserError: The ratio is below 1, not finite, or would keep nothing.
    """
    if not math.isfinite(compression) or compression < 1:
        raise UserError(
            f"Compression {compression} is refused: it is all weights over kept weights, so it must be finite and at "
            "least 1 (10 means sparsity 0.9)."
        )
    kept = round(total / compression)
    if kept < 1:
        raise UserError(
            f"Compression {compression:g} is refused: it would keep none of {total:,} weights; at most {total:,} works."
        )
    return kept


def reachable(sizes: Mapping[str, int], compression: float) -> int:
    """Returns how many weights are kept at a compression by a method that ranks them over all layers.

    Args:
        sizes: Number of weights by layer.
        compression: All over kept; at least 1.

    Raises:
        UserError: See `budget`; or there would be fewer weights than layers.
    """
    kept = budget(sum(sizes.values()), compression)
    _refuse_empty(sizes, kept)
    return kept


def allocate(shapes: Mapping[str, Sequence[int]], kept: int, allocation: Allocation = "uniform") -> dict[str, int]:
    """Distributes `kept` weights over layers.

    Args:
        shapes: Weight shapes by layer, at least two-dimensional.
        kept: Weights to keep in all.
        allocation: One of `ALLOCATIONS`, or parts.

    Returns:
        Weights to keep by layer: at least 1 and at most the layer's size each, `kept` in sum.

    Raises:
        UserError: The allocation is unknown, or has a pattern, which numbers don't say; or there are fewer weights to
            keep than layers.
    """
    refuse_pattern(allocation)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    _refuse_empty(sizes, kept)
    if not isinstance(allocation, str):
        return distribute(allocation, sizes, kept)
    if share_of_both(allocation) is not None:
        raise UserError(
            f"Allocation {allocation!r} counts multiply-adds, which weights alone don't have: give each layer's part, "
            "as `models.pruners.both_budgets.parts_by_both` returns them."
        )
    if allocation not in ALLOCATIONS:
        raise UserError(did_you_mean("allocation", allocation, ALLOCATIONS))
    if allocation == "balanced":
        equal = fill(dict.fromkeys(sizes, 1.0), sizes, kept / 2)
        room = {name: size - equal[name] for name, size in sizes.items()}
        rest = fill({name: float(size) for name, size in sizes.items()}, room, kept - sum(equal.values()))
        shares = {name: equal[name] + rest[name] for name in sizes}
    else:
        weights = {
            name: float(size) if allocation == "uniform" else float(sum(shapes[name])) for name, size in sizes.items()
        }
        return distribute(weights, sizes, kept)
    return _round(shares, sizes, kept)


def allocate_in_pattern(
    shapes: Mapping[str, Sequence[int]], kept: int, allocation: Allocation = "uniform"
) -> dict[str, int]:
    """As `allocate`, for pruners that keep to the pattern of ``2of4``.

    Args:
        shapes: Weight shapes by layer, [outputs, inputs, ...].
        kept: Weights to keep in all.
        allocation: One of `ALLOCATIONS`, or `SEMISTRUCTURED`.

    Raises:
        UserError: As `allocate`; or the pattern keeps fewer weights than are to be kept.
    """
    if allocation != SEMISTRUCTURED:
        return allocate(shapes, kept, allocation)
    room = {name: pattern_room(shape) for name, shape in shapes.items()}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    if kept > sum(room.values()):
        raise UserError(
            f"Keeping {kept:,} of {sum(sizes.values()):,} weights is refused: at most two of every four along the "
            f"input are kept by {SEMISTRUCTURED!r}, {sum(room.values()):,} in all; allowed is a compression of at "
            "least 2."
        )
    return distribute({name: float(size) for name, size in sizes.items()}, room, kept)


def pattern_room(shape: Sequence[int]) -> int:
    """Returns how many weights of a layer two of four leave at most.

    >>> pattern_room((10, 100)), pattern_room((16, 3, 4, 4)), pattern_room((1, 5))
    (500, 512, 3)

    Args:
        shape: [outputs, inputs, ...]; inputs are filled up with zeros to whole groups of four.
    """
    groups, rest = divmod(shape[1], _OF)
    return math.prod(shape) // shape[1] * (groups * _AT_MOST + min(rest, _AT_MOST))


def refuse_pattern(allocation: Allocation) -> None:
    """Refuses ``2of4`` where it would not be kept to.

    Raises:
        UserError: It is that.
    """
    if allocation == SEMISTRUCTURED:
        raise UserError(
            f"Allocation {allocation!r} is refused: this pruner keeps to no pattern; allowed are "
            f"{', '.join((*ALLOCATIONS, BOTH, f'{BOTH}:S'))}, or a pruner that does: lwm, lwm-2of4, random, hydra, "
            "ard, grafting."
        )


def _refuse_empty(sizes: Mapping[str, int], kept: int) -> None:
    if kept < len(sizes):
        raise UserError(
            f"Keeping {kept} weights is refused: {len(sizes)} layers need at least one each, or the network is "
            f"constant; allowed is a compression of at most {sum(sizes.values()) / len(sizes):,.0f}."
        )


def distribute(weights: Mapping[str, float], sizes: Mapping[str, int], kept: int) -> dict[str, int]:
    """Distributes `kept` weights in proportion to layers' `weights`; what a layer has no room for goes to the others.

    Returns:
        Weights to keep by layer: at least 1 and at most the layer's size each, `kept` in sum.

    Raises:
        UserError: There are fewer weights to keep than layers.
    """
    _refuse_empty(sizes, kept)
    return _round(fill(weights, sizes, kept), sizes, kept)


def fill(weights: Mapping[str, float], room: Mapping[str, float], amount: float) -> dict[str, float]:
    """Pours `amount` in proportion to `weights`; what does not fit in a layer's room goes to the others."""
    amounts = dict.fromkeys(weights, 0.0)
    free = {name for name in weights if room[name] > 0}
    while free and amount > 1e-9:
        scale = amount / sum(weights[name] for name in free)
        full = {name for name in free if amounts[name] + scale * weights[name] >= room[name]}
        for name in full or free:
            more = room[name] - amounts[name] if full else scale * weights[name]
            amounts[name] += more
            amount -= more
        free -= full or free
    return amounts


def _round(shares: Mapping[str, float], sizes: Mapping[str, int], kept: int) -> dict[str, int]:
    """Rounds by largest remainder, with at least one and at most all weights a layer, to the exact sum."""
    whole = {name: min(max(int(value), 1), sizes[name]) for name, value in shares.items()}
    by_remainder = sorted(shares, key=lambda name: shares[name] - whole[name], reverse=True)
    while (missing := kept - sum(whole.values())) != 0:
        step = 1 if missing > 0 else -1
        order = by_remainder if missing > 0 else sorted(whole, key=lambda name: whole[name], reverse=True)
        for name in order[: abs(missing)]:
            if 1 <= whole[name] + step <= sizes[name]:
                whole[name] += step
    return whole
