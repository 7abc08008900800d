"""Filter robustness estimation (ICASSP 2023): filters go by how much the adversarial loss depends on them.

A filter's importance is |sum of w dL/dw| over its weights, the first-order change of the attacked loss if it went,
averaged over batches and normalised by the layer's norm. The least important go in rounds, with fine-tuning between.
The paper's abstract names the idea; the formula is our reading of it.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import budget
from prunecert.models.pruners.contract import Hook, Train, declares
from prunecert.models.pruners.iterative import rounds_to
from prunecert.models.pruners.removal import refuse_beyond, removal_order, remove_units
from prunecert.models.pruners.units import Units, units_of
from prunecert.models.settings import Choices, Count, ProperShare, Share


def importances(model: nn.Module, groups: list[Units], train: Train, images: int, loss: str) -> list[Tensor]:
    """Returns each unit's importance, by group, each group's of norm 1.

    Args:
        model: The network; its gradients are cleared.
        groups: Its units.
        train: Lends images and attacks.
        images: How many to look at.
        loss: ``attacked``: the cross-entropy of attacked images; ``own``: the objective's loss.
    """
    model.eval()
    names = {id(weight): name for name, weight in prunable(model).items()}
    totals = [torch.zeros(group.size) for group in groups]
    for x, y in train.batches(images):
        point = train.attack(model, x, y) if loss == "attacked" else x
        model.zero_grad()
        lost = F.cross_entropy(model(point), y) if loss == "attacked" else train.loss(model, x, y)
        lost.backward()  # type: ignore[no-untyped-call]
        for total, group in zip(totals, groups, strict=True):
            assert all(id(weight) in names for weight in group.producers.values())
            total += sum(_products(weight) for weight in group.producers.values()).abs()  # type: ignore[union-attr]
    model.zero_grad()
    return [total / total.norm().clamp_min(1e-30) for total in totals]


def _products(weight: Tensor) -> Tensor:
    """Returns the sum of w dL/dw of each row."""
    assert weight.grad is not None
    return (weight.detach() * weight.grad).flatten(1).sum(1).cpu()


@declares(Hook.GRADIENTS)
def prune(
    model: nn.Module,
    compression: float,
    *,
    train: Train,
    rate: ProperShare = 0.2,
    until: Share = 0.5,
    images: Count = 512,
    floor: Share = 0.05,
    loss: Annotated[str, Choices("attacked", "own")] = "attacked",
) -> Masks:
    """Removes filters and neurons in rounds, each by importances anew, with epochs of fine-tuning between.

    Args:
        model: The pre-trained network; fine-tuned.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        rate: Largest share of the remaining weights that a round removes; more if there are too few epochs.
        until: Share of the epochs that the rounds take, at least one each.
        images: Training images that importances are averaged over.
        floor: Share of a layer's units that stay in any case, at least one of them.
        loss: ``attacked``, as published; or ``own``: the objective's loss, such as a certified one.

    Raises:
        UserError: The compression cannot be reached with so many units left, or a setting is out of range.
    """
    groups, weights = units_of(model), prunable(model)
    total = sum(weight.numel() for weight in weights.values())
    refuse_beyond(model, groups, compression, floor)
    epochs = int(until * train.left)
    rounds = min(rounds_to(compression, rate), max(1, epochs))
    masks = Masks.dense(model)
    for index in range(rounds):
        order = removal_order(groups, importances(model, groups, train, images, loss), floor)
        masks = remove_units(model, groups, order, budget(total, compression ** ((index + 1) / rounds)))
        masks.apply_(model)
        length = epochs // rounds + (index < epochs % rounds)
        if length:
            train(model, length, name=f"round {index}", masks=masks)
    return masks
