"""Which hidden neurons a proof needs bounds of: those whose lines cost its last walk most.

A walk from a layer's neurons through all that is before it is most of what a proof by CROWN costs its checker, and a
bound that no line hangs on costs as much as one that decides. So a few walks are tried first, then more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.checker.bounds import Bounds
from prunecert.verifiers.checker.proof import Tree

Indices = npt.NDArray[np.int64]

#: Of what the lines over a layer's neurons cost the last walk, how much those neurons have that are walked from.
SHARES = (0.3, 0.5, 0.7, 0.9)


class _Costs(Bounds):
    """Bounds that write down what the lines above each neuron cost a walk.

    Args:
        bounds: Of a region, whole.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.__dict__.update(vars(bounds))
        #: For each node that feeds ReLUs, of its neurons: at least 0.
        self.costs: dict[int, npt.NDArray[np.float64]] = {}

    def through(self, site: int, mu: Any, live: Any, slopes: Any, splits: Any) -> tuple[Any, Any, Any, Any]:
        """See `Bounds`: a coefficient below 0 takes the line above, which is -lu / (u - l) too high at 0."""
        low, high = np.minimum(self.lower[site][live], 0.0), np.maximum(self.upper[site][live], 0.0)
        highest = -low * high / np.maximum(high - low, np.finfo(np.float64).tiny)
        costs = self.costs.setdefault(site, np.zeros(len(self.lower[site])))
        costs[live] += np.maximum(-mu, 0.0).max(axis=1, initial=0.0) * highest
        return super().through(site, mu, live, slopes, splits)


def relevant(tree: Tree, open_rows: Sequence[int], share: float) -> dict[int, Indices]:
    """Returns for each node that feeds ReLUs the neurons whose bounds matter most to a proof.

    Args:
        tree: A case, bounded.
        open_rows: Rows of the case that have no proof yet.
        share: Of the costs of a node's lines; in (0, 1].
    """
    costs = _Costs(tree.root.bounds)
    with np.errstate(all="ignore"):
        costs.below(len(tree.nodes) - 1, np.eye(len(tree.nodes[-1].bias))[list(open_rows)], 0)
    neurons = {}
    for site, cost in costs.costs.items():
        order = np.argsort(-cost, kind="stable")
        total = np.cumsum(cost[order])
        count = int(np.searchsorted(total, share * total[-1])) + 1 if total[-1] > 0 else 0
        neurons[site] = np.sort(order[:count])
    return neurons
