"""Iterative magnitude pruning (Han et al. 2015): a share of what remains goes each round, with training between."""

from __future__ import annotations

import math

import torch
from torch import nn

from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import Allocation, budget, reachable
from prunecert.models.pruners.contract import Hook, Hooks, Step, Train, declares
from prunecert.models.pruners.lwm import layer_masks
from prunecert.models.settings import ProperShare, Share


def rounds_to(compression: float, rate: float) -> int:
    """Returns the rounds that it takes to reach a compression when each removes at most `rate` of what remains.

    Args:
        compression: At least 1.
        rate: Within (0, 1).
    """
    return max(1, math.ceil(math.log(compression) / -math.log(1 - rate) - 1e-9))


@torch.no_grad()
def cut(model: nn.Module, masks: Masks, compression: float, allocation: Allocation) -> Masks:
    """Keeps the largest of the weights that `masks` keep, as many as compression and allocation say."""
    scores = {
        name: weight.abs().masked_fill(~masks[name].to(weight.device), -1.0) for name, weight in prunable(model).items()
    }
    return layer_masks(scores, compression, allocation)


@declares(Hook.STEP)
def prune(
    model: nn.Module,
    compression: float,
    *,
    train: Train,
    allocation: Allocation = "uniform",
    rate: ProperShare = 0.2,
    until: Share = 0.5,
) -> Masks:
    """Prunes in rounds, each to the same share of what remains, while the network is fine-tuned.

    The rounds lie at equal distances in the first part of one fine-tuning stage, so that they share the dense control's
    epochs whatever their number, and the rest of the stage, where the learning rate falls, is trained at the final
    sparsity.

    Args:
        model: The network; fine-tuned.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        allocation: How many weights each layer keeps; see `models.pruners.allocation`.
        rate: Largest share of the remaining weights that a round removes.
        until: Share of the epochs that the rounds take, in [0, 1].

    Raises:
        UserError: The compression cannot be reached, or a setting is out of range.
    """
    sizes = {name: weight.numel() for name, weight in prunable(model).items()}
    total = sum(sizes.values())
    reachable(sizes, compression)
    rounds = rounds_to(compression, rate)

    def revise(step: Step) -> Masks | None:
        times = [int(index * until * step.steps / rounds) for index in range(rounds)]
        if step.number not in times:
            return None
        due = sum(step.number >= time for time in times)
        return cut(model, step.masks, compression ** (due / rounds), allocation)

    masks = train(model, train.left, name="iterative", masks=Masks.dense(model), hooks=Hooks(before=revise))
    assert masks is not None
    # Without an epoch to spend there was no step to prune at.
    return masks if masks.kept == budget(total, compression) else cut(model, masks, compression, allocation)
