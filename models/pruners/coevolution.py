"""CCRP (Wu et al. 2022, PPSN, "Neural Network Pruning by Cooperative Coevolution ... Robust"): filters by evolution.

Each layer has a small evolution of its own, in which a mask is worth what the whole network is worth with only that
layer pruned: clean and attacked accuracy on held-out images, in equal parts. The best masks are joined, the network is
fine-tuned, and so on. The search itself follows the published predecessor's description; how many units go in a round
follows from the compression here, so that masks of a layer differ in which, and never in how many.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import budget
from prunecert.models.pruners.contract import Hook, Train, declares
from prunecert.models.pruners.evolution import evolve, fitness
from prunecert.models.pruners.removal import Place, even_rounds, masks_without, remove_units
from prunecert.models.pruners.units import units_of
from prunecert.models.settings import Count, Share
from prunecert.ranges import NumberRange


@declares(Hook.EVALUATOR, Hook.HELD_OUT)
def prune(
    model: nn.Module,
    compression: float,
    *,
    train: Train,
    seed: int = 0,
    bound: Annotated[float, NumberRange(at_least=0.01, at_most=0.9)] = 0.2,
    until: Share = 0.6,
    population: Annotated[int, NumberRange(at_least=1, at_most=1000)] = 5,
    generations: Annotated[int, NumberRange(at_least=0, at_most=1000)] = 5,
    images: Count = 250,
    floor: Share = 0.05,
) -> Masks:
    """Removes filters and neurons in rounds, those that each layer's evolution finds.

    Args:
        model: The pre-trained network; fine-tuned between the rounds.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        seed: Seed of the evolution.
        bound: Largest share of a layer's remaining units that a round removes (published: 0.1, with 20 rounds).
        until: Share of the epochs that the rounds take, at least one each.
        population: Masks of a layer that are kept alive.
        generations: Times that each of them is mutated.
        images: Held-out images that a mask's worth is measured on.
        floor: Share of a layer's units that stay in any case, at least one of them.

    What each round left, and lost, stands on the card (`rounds`); its network isn't kept, since cells at other
    compressions are trained for themselves.

    Raises:
        UserError: The compression cannot be reached, there are too few epochs for it, or a setting is out of range.
    """
    groups, weights = units_of(model), prunable(model)
    kept = budget(sum(weight.numel() for weight in weights.values()), compression)
    plan = even_rounds(model, groups, compression, bound, floor)
    rounds, epochs = len(plan), int(until * train.left)
    if rounds > max(1, epochs):
        raise UserError(
            f"Compression {compression:g} is refused for coevolution: at most {bound:.0%} of each layer's units a "
            f"round take {rounds} rounds, and {epochs} epochs are set apart for them; allowed is a larger 'bound' or "
            "'until', or a longer recipe."
        )
    generator = torch.Generator().manual_seed(seed)
    gone: list[Place] = []
    masks = Masks.dense(model)
    log: list[dict[str, object]] = []
    for number, sizes in enumerate(plan):
        before = list(gone)
        worth_before = fitness(model, groups, before, train, int(images))
        alone = []
        for index, going in enumerate(sizes):

            def worth(units: Tensor, index: int = index, before: list[Place] = before) -> float:
                places = [*before, *((index, int(unit)) for unit in units)]
                return fitness(model, groups, places, train, images)

            alive = sorted(set(range(groups[index].size)) - {unit for group, unit in before if group == index})
            norms = groups[index].norms()[alive]
            start = torch.tensor(alive)[norms.argsort(stable=True)[:going]].sort().values
            best = evolve(start, torch.tensor(alive), worth, population, generations, generator)
            gone += [(index, int(unit)) for unit in best]
            alone.append(round(worth_before - worth(best), 6))
        last = number == rounds - 1
        masks = remove_units(model, groups, gone, kept) if last else Masks(masks_without(weights, groups, gone))
        joined = round(worth_before - fitness(model, groups, gone, train, int(images)), 6)
        log.append({"kept": masks.kept, "fitness": round(worth_before, 6), "alone": alone, "joined": joined})
        masks.apply_(model)
        if length := epochs // rounds + (number < epochs % rounds):
            train(model, length, name=f"round {number}", masks=masks)
    # How much of what joined masks lose is interaction: they against the sum of what each layer's loses alone.
    train.note(rounds=log)
    return masks
