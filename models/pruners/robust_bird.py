"""Robust Bird (Chen et al. 2022, "Sparsity Winning Twice", ICLR, section 3.2): an early mask from cheap training.

Natural training until the global magnitude mask has come to rest; then that mask, and the whole rest of the epochs of
robust training from the weights as they are, with a fresh optimiser.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import reachable
from prunecert.models.pruners.contract import Batch, Epoch, Hook, Hooks, Train, declares
from prunecert.models.pruners.lwm import global_masks
from prunecert.models.settings import Share

#: Masks that are compared, the newest included.
_QUEUE = 5
#: The density at which the published threshold is what it says.
_DENSITY = 0.2


def distance(one: Tensor, other: Tensor) -> float:
    """Returns the share of places in which two masks differ, in [0, 1]."""
    return float((one.cpu() != other.cpu()).float().mean())


def at_rest(masks: list[Tensor], threshold: float) -> bool:
    """Whether the newest of the last five masks is as near to each of the four before as the threshold says."""
    *before, newest = masks[-_QUEUE:]
    return len(before) == _QUEUE - 1 and all(distance(newest, mask) <= threshold for mask in before)


@declares(Hook.EPOCH, from_scratch=True)
def prune(model: nn.Module, compression: float, *, train: Train, threshold: Share = 0.08, most: Share = 0.15) -> Masks:
    """Finds an early mask by natural training, and trains what it keeps.

    Args:
        model: The network with its initial weights; trained.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        threshold: Largest distance of masks at rest, for masks of the paper's density, 0.2; for others in proportion.
            Masks that keep 1 % differ in 2 % of the places at most, so that one for all would always be met there.
        most: Largest share of the epochs for the search; where the mask isn't at rest by then, the last one is taken.

    Raises:
        UserError: The compression cannot be reached, a setting is out of range, or too few epochs are left.
    """
    kept = reachable({name: weight.numel() for name, weight in prunable(model).items()}, compression)
    largest = threshold / _DENSITY * kept / sum(weight.numel() for weight in prunable(model).values())
    longest = round(most * train.left)
    if not 1 <= longest < train.left:
        raise UserError(
            f"Robust Bird is refused: {most:.0%} of {train.left} epochs for its search is {longest}, and it needs one "
            "there and one after it; allowed is a longer recipe or another 'most'."
        )
    hooks = Hooks(loss=natural, memory={"masks": []})

    def over(epoch: Epoch) -> bool:
        hooks.memory["masks"] = [*hooks.memory["masks"], flat(magnitudes(model, kept))][-_QUEUE:]
        return at_rest(hooks.memory["masks"], largest)

    hooks.epoch = over
    epochs = train.left
    train(model, longest, name="search", hooks=hooks, restart=True)
    # Fewer than there were: the mask came to rest.
    train.note(search_epochs=epochs - train.left, most_epochs=longest)
    masks = magnitudes(model, kept)
    masks.apply_(model)
    if train.left:
        train(model, train.left, name="ticket", masks=masks, restart=True)
    return masks


def natural(batch: Batch) -> Tensor:
    """Returns the cross-entropy of the images as they are."""
    return F.cross_entropy(batch.model(batch.x), batch.y)


def magnitudes(model: nn.Module, kept: int) -> Masks:
    """Returns the masks of the network's largest weights."""
    return global_masks({name: weight.abs() for name, weight in prunable(model).items()}, kept)


def flat(masks: Masks) -> Tensor:
    """Returns masks as one row of bits."""
    return torch.cat([mask.flatten() for mask in masks.values()])
