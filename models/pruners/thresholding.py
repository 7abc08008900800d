"""Hard thresholding of whole units between epochs (Kaur, Xiao, Salekin 2024, "VeriCompress", section 3).

Units are filters of convolutions and input columns of linear layers. Those that are weakest become zero, and nothing is
held there: they may come back. A filter of zeros has a constant output, and where that is not positive its ReLU lets
no gradient through; in the published networks batch norm's shift stands between. So, by our reading, the bias of a
filter that goes, or the shift of its batch norm, becomes a little more than zero, and what reads it stays as it is
until the end: with both zero, gradients of both would be next to nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from prunecert.models.masks import prunable
from prunecert.models.pruners.lwm import keep_largest
from prunecert.models.pruners.units import units_of

#: The bias of a dead filter while it may come back: small, so that what reads it hardly sees it.
_OPEN = 0.01


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
def deactivate(model: nn.Module, share: float, *, final: bool = False) -> None:
    """Sets the weakest units to zero, and the biases of neurons that nothing reads.

    Args:
        model: The network; changed.
        share: Share of removal; see `removal`.
        final: Whether they stay dead: then the biases of filters become zero, and what reads them.
    """
    filters, columns = alive(model, share)
    weights = prunable(model)
    waiting: dict[str, Tensor] = {name: torch.zeros_like(kept) for name, kept in columns.items()}
    for group in (group for group in units_of(model) if group.kind == "conv"):
        gone = ~filters[next(iter(group.producers))]
        for name in group.producers:
            weights[name][gone.to(weights[name].device)] = 0
            for bias in _biases(model, name, shifts=not final):
                bias[gone.to(bias.device)] = 0.0 if final else _OPEN
        for name in group.consumers:
            behind = gone.repeat_interleave(weights[name].shape[1] // group.size)
            if final:
                weights[name][:, behind.to(weights[name].device)] = 0
            elif name in waiting:
                waiting[name] |= behind
    for name, kept in columns.items():
        weights[name][:, (~kept & ~waiting[name]).to(weights[name].device)] = 0
    for group in units_of(model):
        for name in group.consumers:
            if group.kind == "linear" and name in columns:
                for producer in group.producers:
                    for bias in _biases(model, producer, shifts=False):
                        bias[(~columns[name]).to(bias.device)] = 0


def _biases(model: nn.Module, name: str, *, shifts: bool) -> list[Tensor]:
    """Returns the bias of a weight's layer, or the shift of the batch norm right behind it, if there is one."""
    layer = name.removesuffix(".weight")
    bias = model.get_submodule(layer).bias
    if isinstance(bias, Tensor):
        return [bias]
    folder, _, own = layer.rpartition(".")
    children = list(model.get_submodule(folder).named_children())
    behind = children[[child for child, _ in children].index(own) + 1 :][:1]
    return [norm.bias for _, norm in behind if shifts and isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)]
