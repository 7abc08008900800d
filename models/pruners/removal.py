"""How whole units leave: which masks that makes, how many weights are left, and in how many rounds."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import budget
from prunecert.models.pruners.lwm import keep_largest
from prunecert.models.pruners.units import Units

#: A unit: the number of its group, and its own.
Place = tuple[int, int]


def refuse_beyond(model: nn.Module, groups: Sequence[Units], compression: float, floor: float) -> None:
    """Refuses a compression that a share of each layer's units that stay in any case, at least one, doesn't allow.

    Raises:
        UserError: It doesn't.
    """
    weights = prunable(model)
    total = sum(weight.numel() for weight in weights.values())
    going = [group.size - max(1, math.ceil(floor * group.size)) for group in groups]
    gone = [(index, unit) for index, number in enumerate(going) for unit in range(number)]
    least = count(masks_without(weights, groups, gone))
    if least > budget(total, compression):
        raise UserError(
            f"Compression {compression:g} is refused: with {floor:.0%} of the units of each layer left, {least:,} "
            f"weights remain; allowed is at most {total / least:.1f}, or a smaller 'floor'."
        )


def masks_without(weights: Mapping[str, Tensor], groups: Sequence[Units], gone: Sequence[Place]) -> dict[str, Tensor]:
    """Returns masks of all weights but those of units."""
    masks = {name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in weights.items()}
    kept = [torch.ones(group.size, dtype=torch.bool) for group in groups]
    for index, unit in gone:
        kept[index][unit] = False
    for group, mask in zip(groups, kept, strict=True):
        group.remove(mask, masks)
    return masks


def count(masks: Mapping[str, Tensor]) -> int:
    """Returns how many weights masks keep."""
    return sum(int(mask.sum()) for mask in masks.values())


def remove_units(model: nn.Module, groups: Sequence[Units], order: Sequence[Place], kept: int) -> Masks:
    """Removes units until exactly `kept` weights are left; of the last unit removed, its largest weights stay.

    Args:
        model: The network; not changed.
        groups: Its units.
        order: Units in the order of removal, (group, unit); enough of them.
        kept: Weights to keep.
    """
    weights = prunable(model)
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        few = count(masks_without(weights, groups, order[:middle])) <= kept
        low, high = (low, middle) if few else (middle + 1, high)
    masks = masks_without(weights, groups, order[:low])
    missing = kept - count(masks)
    if missing:
        fuller = masks_without(weights, groups, order[: low - 1])
        room = {name: fuller[name] & ~masks[name] for name in masks}
        scores = torch.cat([w.detach().abs().cpu()[room[name]] for name, w in weights.items()])
        chosen = iter(torch.split(keep_largest(scores, missing), [int(mask.sum()) for mask in room.values()]))
        for name in masks:
            masks[name][room[name]] = next(chosen)
    return Masks(masks)


def even_rounds(
    model: nn.Module, groups: Sequence[Units], compression: float, bound: float, floor: float
) -> list[list[int]]:
    """Returns how many units of each group go in each round, so that a compression is reached in the end.

    All layers lose the same share of their units, as far as the floor lets them; a round at most `bound` of the rest.

    Raises:
        UserError: More are left at the floor.
    """
    refuse_beyond(model, groups, compression, floor)
    weights = prunable(model)
    kept = budget(sum(weight.numel() for weight in weights.values()), compression)
    most = [group.size - max(1, math.ceil(floor * group.size)) for group in groups]

    def gone(share: float) -> list[int]:
        return [min(limit, math.floor(share * group.size)) for limit, group in zip(most, groups, strict=True)]

    def left(counts: list[int]) -> int:
        return count(masks_without(weights, groups, [(g, u) for g, size in enumerate(counts) for u in range(size)]))

    # The more goes, the less is left, so that the first thousandth that suffices is found by bisection.
    share = bisect.bisect_left(range(1000), True, key=lambda number: left(gone(number / 1000)) <= kept) / 1000
    final = gone(share)
    rounds = max(
        1,
        *(
            math.ceil(math.log(1 - size / group.size) / math.log(1 - bound) - 1e-9)
            for size, group in zip(final, groups, strict=True)
        ),
    )
    remaining = [
        [
            round(group.size * (1 - size / group.size) ** (number / rounds))
            for size, group in zip(final, groups, strict=True)
        ]
        for number in range(rounds + 1)
    ]
    return [[b - a for b, a in zip(one, two, strict=True)] for one, two in itertools.pairwise(remaining)]


def removal_order(groups: list[Units], scores: list[Tensor], floor: float) -> list[Place]:
    """Returns the units in the order of removal, lowest scores first, without those that stay in any case."""
    ranked: list[tuple[float, int, int]] = []
    for index, (group, score) in enumerate(zip(groups, scores, strict=True)):
        going = group.size - max(1, math.ceil(floor * group.size))
        ranked += [(float(score[unit]), index, int(unit)) for unit in torch.sort(score, stable=True).indices[:going]]
    return [(index, unit) for _, index, unit in sorted(ranked)]
