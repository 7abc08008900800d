"""Structured pruning by L1 norm (Li et al. 2017, "Pruning Filters for Efficient ConvNets", section 3).

Whole units go: filters of convolutions, neurons of hidden linear layers, and in residual networks channels of the sums
(section 3.3 of the paper: from all the layers that add into them). A unit's outgoing weights go with its incoming ones,
as in the paper, so that the layers are really smaller once `models.compact` has cut the zeros out. `filter-l1`, in
contrast, clears incoming weights only and so pays for the outgoing ones.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import nn

from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import budget
from prunecert.models.pruners.contract import declares
from prunecert.models.pruners.removal import Place, refuse_beyond, remove_units
from prunecert.models.pruners.units import Units, units_of
from prunecert.models.settings import Choices, ProperShare

Layers = Annotated[str, Choices("uniform", "balanced", "global")]


@declares(refuses_by_shape=True)
def prune(model: nn.Module, compression: float, *, layers: Layers = "uniform", floor: ProperShare = 0.05) -> Masks:
    """Removes filters and neurons until the wanted number of weights is left.

    Args:
        model: The network; not changed.
        compression: All over kept weights, at least 1.
        layers: ``uniform``: every layer loses the same share of its units; ``balanced``: layers with fewer weights lose
            a smaller share, in proportion to the fourth root of their weights; ``global``: units go by their norm
            relative to the mean of their layer.
        floor: Share of a layer's units that stay in any case, at least one of them; in (0, 1).

    Raises:
        UserError: The compression cannot be reached with so many units left, or a setting is unknown.
    """
    return _prune(model, compression, units_of(model), layers, floor)


@declares(refuses_by_shape=True)
def prune_filters(
    model: nn.Module, compression: float, *, layers: Layers = "uniform", floor: ProperShare = 0.05
) -> Masks:
    """Removes filters of convolutions only; see `prune`."""
    return _prune(model, compression, [g for g in units_of(model) if g.kind == "conv"], layers, floor)


@declares(refuses_by_shape=True)
def prune_neurons(
    model: nn.Module, compression: float, *, layers: Layers = "uniform", floor: ProperShare = 0.05
) -> Masks:
    """Removes neurons of hidden linear layers only; see `prune`."""
    return _prune(model, compression, [g for g in units_of(model) if g.kind == "linear"], layers, floor)


def _prune(model: nn.Module, compression: float, groups: list[Units], layers: str, floor: float) -> Masks:
    refuse_beyond(model, groups, compression, floor)
    total = sum(weight.numel() for weight in prunable(model).values())
    return remove_units(model, groups, _order(groups, layers, floor), budget(total, compression))


def _order(groups: list[Units], layers: str, floor: float) -> list[Place]:
    """Returns (group, unit) in the order of removal, without those that stay in any case."""
    steps = []
    sizes = [sum(w.numel() for w in (*group.producers.values(), *group.consumers.values())) for group in groups]
    for index, group in enumerate(groups):
        pace = (max(sizes) / sizes[index]) ** 0.25 if layers == "balanced" else 1.0
        norms = group.norms()
        ranked = torch.sort(norms, stable=True).indices.tolist()
        going = group.size - max(1, math.ceil(floor * group.size))
        for rank, unit in enumerate(ranked[:going]):
            steps.append((float(norms[unit]) if layers == "global" else pace * rank / group.size, index, unit))
    return [(index, unit) for _, index, unit in sorted(steps)]
