"""Ranks of low-rank factors within a budget (CSTAR, Phan et al. 2023, algorithm 1): all layers compete for it.

A layer whose factors would have as many numbers as its weight keeps the weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prunecert.models.networks.factorised import basis, project, size

#: By the weight's name: the ranks of its factors, or None where it stays whole.
Ranks = dict[str, tuple[int, ...] | None]


def cost(shape: Sequence[int], ranks: Sequence[int]) -> int:
    """Returns how many numbers a layer of these ranks has: its factors', at most its weight's."""
    whole = int(torch.Size(shape).numel())
    return min(whole, size(shape, ranks))


def choose(weights: Mapping[str, Tensor], kept: int) -> Ranks:
    """Returns the ranks whose numbers fit into a budget: singular values of all layers compete.

    A value counts by its share of its unfolding's energy; one that doesn't fit any more ends its unfolding, and smaller
    ones of other layers may still fit.

    Args:
        weights: By name.
        kept: Numbers in all.
    """
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    ranks = {name: [1] * (1 if len(shape) == 2 else 2) for name, shape in shapes.items()}
    left = kept - sum(cost(shapes[name], of) for name, of in ranks.items())
    values: list[tuple[float, str, int, int]] = []
    for name, weight in weights.items():
        # Inputs first, as the ranks stand; both unfoldings of a matrix have the same singular values.
        for place, mode in enumerate((0,) if weight.ndim == 2 else (1, 0)):
            energies = basis(weight, mode)[1] ** 2
            energies = energies / energies.sum().clamp_min(1e-30)
            values += [(-float(e), name, place, rank + 1) for rank, e in enumerate(energies) if rank]
    closed: set[tuple[str, int]] = set()
    for _, name, place, rank in sorted(values):
        if (name, place) in closed:
            continue
        before = cost(shapes[name], ranks[name])
        higher = [rank if i == place else r for i, r in enumerate(ranks[name])]
        more = cost(shapes[name], higher) - before
        if more <= left:
            ranks[name], left = higher, left - more
        else:
            closed.add((name, place))
    return {
        name: None if size(shapes[name], of) >= int(torch.Size(shapes[name]).numel()) else tuple(of)
        for name, of in ranks.items()
    }


def projected(weights: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Returns the weights' projections on ranks; those that stay whole as they are."""
    return {
        name: weight.detach().clone() if (of := ranks[name]) is None else project(weight, of)
        for name, weight in weights.items()
    }
