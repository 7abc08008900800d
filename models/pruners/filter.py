"""L1 filter pruning (Li et al. 2017, "Pruning Filters for Efficient ConvNets", section 3.1).

Whole filters (output channels of convolutions, output units of hidden linear layers) of smallest mean |w| go. The
last layer's units are the classes, and stay.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import budget
from prunecert.models.pruners.contract import declares
from prunecert.models.pruners.lwm import keep_largest


@declares(refuses_by_shape=True)
def prune(model: nn.Module, compression: float) -> Masks:
    """Removes filters until the wanted number of weights is left.

    Every hidden layer loses the same share of its filters, found by bisection. The last filter removed is removed
    only in part, by magnitude, so that the number of kept weights is exact.

    Args:
        model: The network; not changed.
        compression: All over kept weights, at least 1.

    Raises:
        UserError: The compression cannot be reached with one filter a layer left.
    """
    weights = prunable(model)
    last = list(weights)[-1]
    hidden = {name: weight.detach().cpu() for name, weight in weights.items() if name != last}
    kept = budget(sum(weight.numel() for weight in weights.values()), compression) - weights[last].numel()
    # Mean, not sum, so that filters of different layers can be compared when the order of removal is decided.
    order = {
        name: torch.sort(w.abs().flatten(1).mean(1), descending=True, stable=True).indices for name, w in hidden.items()
    }
    steps = sorted(
        ((rank / len(ranked), name, int(unit)) for name, ranked in order.items() for rank, unit in enumerate(ranked)),
        key=lambda step: step[0],
    )
    masks: dict[str, Tensor] = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in hidden.items()}
    masks[last] = torch.ones_like(weights[last], dtype=torch.bool)
    least = sum(w[0].numel() for w in hidden.values())
    if kept < least:
        raise UserError(
            f"Compression {compression:g} is refused for filter pruning: one whole filter a layer and the last layer "
            f"already need {least + weights[last].numel():,} weights; allowed is at most "
            f"{sum(w.numel() for w in weights.values()) / (least + weights[last].numel()):.1f}."
        )
    for _, name, unit in steps:
        size = hidden[name][unit].numel()
        if size <= kept:
            masks[name][unit] = True
            kept -= size
        elif kept:
            masks[name][unit] = keep_largest(hidden[name][unit].abs(), kept)
            kept = 0
    return Masks(masks)
