"""Sparse training from scratch with drop-and-grow (RigL, Evci et al. 2020, "Rigging the Lottery").

The mechanism that SparseVLR/VeriCompress and Flying Bird share: the smallest weights are dropped and those with the
largest gradient of the (robust) loss grow in their place, so that the network is never dense.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import Allocation, refuse_pattern
from prunecert.models.pruners.contract import Hook, Hooks, Step, Train, declares
from prunecert.models.pruners.lwm import keep_largest
from prunecert.models.pruners.random import prune as random_masks
from prunecert.models.settings import Count, Share, Switch


@declares(Hook.STEP, from_scratch=True)
def prune(
    model: nn.Module,
    compression: float,
    *,
    train: Train,
    allocation: Allocation = "uniform",
    seed: int = 0,
    every: Count = 100,
    drop: Share = 0.3,
    until: Share = 0.75,
    rescale: Switch = 1,
) -> Masks:
    """Trains a random sparse network, of which every so many steps some weights are dropped and others grown.

    Each layer keeps its number of weights. Grown weights start at zero, with no memory in the optimizer.

    Args:
        model: The network with its initial weights; trained.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        allocation: How many weights each layer keeps; see `models.pruners.allocation`.
        seed: Seed of the first masks.
        every: Steps between two changes.
        drop: Share of a layer's kept weights that the first change replaces; it falls by a cosine to 0.
        until: Share of the epochs after which nothing changes any more.
        rescale: 1 divides initial weights by the root of their layer's density, so that pre-activations keep their
            variance (Evci et al. 2022, "Gradient Flow in Sparse Neural Networks"); 0 leaves them as they are.

    Raises:
        UserError: The compression cannot be reached, or a setting is out of range.
    """
    refuse_pattern(allocation)
    masks = random_masks(model, compression, allocation=allocation, seed=seed)
    masks.apply_(model)
    if rescale:
        with torch.no_grad():
            for name, weight in prunable(model).items():
                weight.div_(math.sqrt(float(masks[name].float().mean())))

    def revise(step: Step) -> Masks | None:
        end = until * step.steps
        if step.number == 0 or step.number % every or step.number >= end:
            return None
        return exchange(model, step, drop / 2 * (1 + math.cos(math.pi * step.number / end)))

    trained = train(model, train.left, name="sparse", masks=masks, hooks=Hooks(before=revise), restart=True)
    assert trained is not None
    return trained


@torch.no_grad()
def exchange(model: nn.Module, step: Step, share: float) -> Masks:
    """Drops the smallest `share` of each layer's kept weights, and grows as many where the gradient is largest."""
    gradients = step.gradients()
    masks = {}
    for name, weight in prunable(model).items():
        mask = step.masks[name].to(weight.device)
        kept = int(step.masks[name].sum())
        # No more than there is room for elsewhere.
        changed = min(int(share * kept), mask.numel() - kept)
        stays = keep_largest(weight.abs().masked_fill(~mask, -1.0), kept - changed)
        # What has just been dropped may grow again (section 3 of the paper: all that are not active).
        grown = keep_largest(gradients[name].abs().masked_fill(stays, -1.0), changed)
        masks[name] = stays | grown
    return Masks(masks)
