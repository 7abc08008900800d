"""SparseVLR, later VeriCompress (Kaur, Xiao, Salekin 2024, "VeriCompress", section 3; arXiv 2211.09945).

Never dense, never masked: the weakest units are set to zero, an epoch is trained with nothing held, in which gradients
and the optimiser's momentum bring some of them back ("thickening"), and so on. Units are filters of convolutions and
input columns of linear layers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import budget
from prunecert.models.pruners.contract import Epoch, Hook, Hooks, Train, declares
from prunecert.models.pruners.lwm import exactly, keep_largest
from prunecert.models.pruners.units import units_of
from prunecert.models.settings import Count


def removal(shape: torch.Size, share: float, *, last: bool) -> float:
    """Returns the share of its units that a layer loses, by Erdos-Renyi kernels of a share for the network."""
    spared = 1 - sum(shape) / math.prod(shape)
    if len(shape) == 4:
        return share / 2 * spared
    if last:
        return share / 2
    # The addition is the public code's.
    return share * spared + (0.02 if share < 0.98 else 0.0)


@torch.no_grad()
def alive(model: nn.Module, share: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns which filters of each convolution and which columns of each linear layer are the strongest.

    Columns behind a filter that goes count as the weakest; one unit a layer stays.
    """
    weights = prunable(model)
    last = list(weights)[-1]
    filters, columns = {}, {}
    behind = {name: torch.zeros(weight.shape[1], dtype=torch.bool) for name, weight in weights.items()}
    for group in units_of(model):
        if group.kind == "conv":
            norms = torch.stack([w.flatten(1).norm(dim=1).cpu() for w in group.producers.values()]).norm(dim=0)
            shape = next(iter(group.producers.values())).shape
            kept = max(1, group.size - math.floor(removal(shape, share, last=False) * group.size))
            strong = keep_largest(norms, kept)
            filters.update(dict.fromkeys(group.producers, strong))
            for name, weight in group.consumers.items():
                behind[name] |= (~strong).repeat_interleave(weight.shape[1] // group.size)
    for name, weight in weights.items():
        if weight.ndim == 2:
            norms = weight.norm(dim=0).cpu().masked_fill(behind[name], -1.0)
            kept = max(1, len(norms) - math.floor(removal(weight.shape, share, last=name == last) * len(norms)))
            columns[name] = keep_largest(norms, kept) & ~behind[name]
    return filters, columns


def masks_of(model: nn.Module, filters: dict[str, Tensor], columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns masks of what is left: also without the columns of dead filters, and the rows of unread neurons."""
    masks = {name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in prunable(model).items()}
    for name, kept in columns.items():
        masks[name][:, ~kept] = False
    for group in units_of(model):
        readers = [columns[name] for name in group.consumers if name in columns]
        if group.kind == "linear" and readers:
            group.remove(torch.stack(readers).any(0), masks)
        elif group.kind == "conv":
            group.remove(filters[next(iter(group.producers))], masks)
    return masks


@torch.no_grad()
def deactivate(model: nn.Module, share: float) -> None:
    """Sets the weakest units to zero, and the biases of filters that go and of neurons that nothing reads."""
    filters, columns = alive(model, share)
    weights = prunable(model)
    for name, kept in filters.items():
        weights[name][(~kept).to(weights[name].device)] = 0
        _silence(model, name, kept)
    for name, kept in columns.items():
        weights[name][:, (~kept).to(weights[name].device)] = 0
    for group in units_of(model):
        for name in group.consumers:
            if group.kind == "linear" and name in columns:
                for producer in group.producers:
                    _silence(model, producer, columns[name])


def _silence(model: nn.Module, name: str, kept: Tensor) -> None:
    bias = getattr(model.get_submodule(name.removesuffix(".weight")), "bias", None)
    if isinstance(bias, Tensor):
        bias[(~kept).to(bias.device)] = 0


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
    deactivate(model, share)
    masks = Masks(masks_of(model, *alive(model, share)))
    return exactly(model, masks, budget(masks.total, compression))
