"""Evolution of the set of units that leave a layer (CCEP, the predecessor of Wu et al. 2022, by its description).

A set is worth what the whole network is worth without it: clean and attacked accuracy on held-out images, in equal
parts. All sets have the same size, so that they differ in which units go, and never in how many.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.contract import Train
from prunecert.models.pruners.removal import Place, masks_without
from prunecert.models.pruners.units import Units

#: Share of the units that a mutation exchanges.
_EXCHANGED = 0.3


def fitness(model: nn.Module, groups: list[Units], gone: list[Place], train: Train, images: int) -> float:
    """Returns half the clean plus half the attacked accuracy of a network without some of its units."""
    pruned = copy.deepcopy(model)
    Masks(masks_without(prunable(pruned), groups, gone)).apply_(pruned)
    feedback = train.feedback(pruned, images=images, steps=2)
    return (feedback.clean + feedback.accuracy) / 2


def mutate(chosen: Tensor, candidates: Tensor, generator: torch.Generator) -> Tensor:
    """Returns a set of units of the same size in which some are exchanged for others, at least one if there are others.

    Args:
        chosen: Units that go.
        candidates: Units that may go, those among them.
        generator: Of the choice.
    """
    others = candidates[~torch.isin(candidates, chosen)]
    exchanged = min(len(others), max(1, round(_EXCHANGED * len(chosen))))
    stays = chosen[torch.randperm(len(chosen), generator=generator)[: len(chosen) - exchanged]]
    comes = others[torch.randperm(len(others), generator=generator)[:exchanged]]
    return torch.cat([stays, comes]).sort().values


def evolve(
    start: Tensor,
    candidates: Tensor,
    worth: Callable[[Tensor], float],
    population: int,
    generations: int,
    generator: torch.Generator,
) -> Tensor:
    """Returns the best set of units to remove, of the size of the first one: mutation, and the fittest survive."""
    if not len(start) or len(start) == len(candidates):
        return start
    worths: dict[tuple[int, ...], float] = {}

    def value(units: Tensor) -> float:
        key = tuple(units.tolist())
        if key not in worths:
            worths[key] = worth(units)
        return worths[key]

    members = [start, *(mutate(start, candidates, generator) for _ in range(population - 1))]
    for _ in range(generations):
        members += [mutate(member, candidates, generator) for member in members]
        members = sorted({tuple(m.tolist()): m for m in members}.values(), key=value, reverse=True)[:population]
    return max(members, key=value)
