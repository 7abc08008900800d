"""Inverse weights inheritance (Wang, Liao et al. 2020, "Achieving Adversarial Robustness via Sparsity", section 5).

A lean robust network's weights are put into the full one, whose other weights begin near zero: it starts with a sparse
distribution of weights, which the paper ties to robustness. Here the lean network is the pruned one, and what has been
trained in full is pruned again.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import Allocation
from prunecert.models.pruners.contract import Train, declares
from prunecert.models.pruners.lwm import prune as lwm
from prunecert.models.settings import Share


@torch.no_grad()
def inherit(model: nn.Module, masks: Masks, noise: float) -> None:
    """Fills the places that masks leave empty with noise, in place.

    Args:
        model: A network that honours the masks.
        masks: What it has.
        noise: Standard deviation of what comes over that of an initial weight, sqrt(1 / (3 fan_in)); 0 leaves zeros,
            with which the full network is the lean one.
    """
    for name, weight in prunable(model).items():
        spread = noise / math.sqrt(3 * weight[0].numel())
        empty = ~masks[name].to(weight.device)
        weight.add_(spread * torch.randn_like(weight) * empty)


@declares()
def prune(
    model: nn.Module,
    compression: float,
    *,
    train: Train,
    allocation: Allocation = "uniform",
    seed: int = 0,
    lean: Share = 0.3,
    full: Share = 0.4,
    noise: Share = 1e-3,
) -> Masks:
    """Prunes, trains the lean network, lets the full one inherit it and train, and prunes that.

    Args:
        model: The pre-trained network; trained.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        allocation: How many weights each layer keeps; see `models.pruners.allocation`.
        seed: Seed of the noise.
        lean: Share of the epochs for the lean network.
        full: Share of the epochs for the full one; the rest is for fine-tuning after the last pruning.
        noise: Size of the weights that come, over that of initial ones.

    Raises:
        UserError: The compression cannot be reached, or a setting is out of range.
    """
    if lean + full > 1:
        raise UserError(
            f"lean {lean:g} and full {full:g} are refused: they are shares of the epochs, at most 1 together."
        )
    masks = lwm(model, compression, allocation=allocation)
    epochs = train.left
    masks.apply_(model)
    if round(lean * epochs):
        train(model, round(lean * epochs), name="lean", masks=masks)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inherit(model, masks, noise)
    if length := min(train.left, round(full * epochs)):
        train(model, length, name="full")
    return lwm(model, compression, allocation=allocation)
