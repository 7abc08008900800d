"""SparseVLR, later VeriCompress (Kaur, Xiao, Salekin 2024, "VeriCompress", section 3; arXiv 2211.09945).

Never dense, never masked: the weakest units are set to zero, an epoch is trained with nothing held, in which gradients
and the optimiser's momentum bring some of them back ("thickening"), and so on. Units are filters of convolutions and
input columns of linear layers.
"""

from __future__ import annotations

from torch import nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import budget
from prunecert.models.pruners.contract import Epoch, Hook, Hooks, Train, declares
from prunecert.models.pruners.lwm import exactly
from prunecert.models.pruners.thresholding import alive, deactivate, masks_of
from prunecert.models.settings import Count


def share_for(model: nn.Module, compression: float) -> float:
    """Returns the share of removal that leaves as many weights as a compression allows, by bisection.

    Raises:
        UserError: Even the largest share leaves more.
    """
    total = sum(weight.numel() for weight in prunable(model).values())
    kept_weights = budget(total, compression)

    def left(share: float) -> int:
        return sum(int(mask.sum()) for mask in masks_of(model, *alive(model, share)).values())

    if left(1.0) > kept_weights:
        raise UserError(
            f"Compression {compression:g} is refused for sparse-vlr: convolutions and the last layer keep half of "
            f"their units, so that {left(1.0):,} weights remain; allowed is at most {total / left(1.0):.1f}."
        )
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if left(middle) <= kept_weights else (middle, high)
    return high


@declares(Hook.EPOCH, from_scratch=True)
def prune(model: nn.Module, compression: float, *, train: Train, thickening: Count = 1) -> Masks:
    """Trains from scratch; every so many epochs, and at the end, the weakest units become zero.

    Args:
        model: The network with its initial weights; trained.
        compression: All over kept weights, at least 1. As many whole units go as it takes; what that is too many by is
            kept as places whose weights are zero.
        train: See `models.pruners.contract`.
        thickening: Epochs between two removals.

    Raises:
        UserError: The compression cannot be reached, or `thickening` is no number of epochs.
    """
    share = share_for(model, compression)
    deactivate(model, share)

    def over(epoch: Epoch) -> bool:
        if epoch.number % thickening == 0:
            deactivate(model, share)
        return False

    train(model, train.left, name="sparse", hooks=Hooks(epoch=over), restart=True)
    # Once more: averaging weights over steps has mixed those of several removals.
    deactivate(model, share, final=True)
    masks = Masks(masks_of(model, *alive(model, share)))
    return exactly(model, masks, budget(masks.total, compression))
