"""Rigorous bounds of subdomains of one box, from the dual variables that a search has found."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array
from prunecert.verifiers.sparse.bab.dual import Batch
from prunecert.verifiers.sparse.bab.outcome import Outcome
from prunecert.verifiers.sparse.certify import Checker, Planes, grouped
from prunecert.verifiers.sparse.crown.engine import CrownBounds
from prunecert.verifiers.sparse.node_bounds import CheckedBounds, gamma

#: Narrows a node's bounds in place.
Sharpen = Callable[[int, Float64Array, Float64Array], None]
#: Subdomains that are certified together.
TOGETHER = 64


def adopt_crown(checker: Checker, lower: Float64Array, upper: Float64Array, crown: CrownBounds) -> CheckedBounds:
    """Returns CROWN's bounds of all nodes over a box as the checker's, with intervals where CROWN gives none.

    Args:
        checker: Of the network.
        lower: Lower corner of the box, flat float64.
        upper: Upper corner.
        crown: Bounds of the box; they hold in real arithmetic and are no worse than intervals.
    """
    bounds = CheckedBounds([lower.copy()], [upper.copy()], [np.zeros(len(lower))])
    for node in range(1, checker.last + 1):
        if node in crown.lower:
            low, high = crown.lower[node].copy(), crown.upper[node].copy()
        else:
            low, high = checker.intervals(node, bounds)
        bounds.charges.append(checker.charge(node, bounds, high))
        bounds.lower.append(low)
        bounds.upper.append(high)
    return bounds


def sharpened(checker: Checker, bounds: CheckedBounds, sharpen: Sharpen) -> None:
    """Improves bounds by what is known of nodes' values beyond the network, and by what follows from it.

    Args:
        checker: Of the network.
        bounds: Of all nodes over the box; improved in place.
        sharpen: Called with a node's number and its bounds, which it may narrow in place to what holds as well.
    """
    for node in range(1, checker.last + 1):
        low, high = checker.intervals(node, bounds)
        np.maximum(bounds.lower[node], low, out=bounds.lower[node])
        np.minimum(bounds.upper[node], high, out=bounds.upper[node])
        sharpen(node, bounds.lower[node], bounds.upper[node])
        bounds.charges[node] = checker.charge(node, bounds, bounds.upper[node])


def unstable(checker: Checker, bounds: CheckedBounds) -> tuple[Int64Array, Int64Array]:
    """Returns node and index of the unstable neurons, in the order of `reduced_network.Reduced`."""
    free = [bounds.unstable(node) for node in checker.activated]
    nodes = np.repeat(np.array(checker.activated, dtype=np.int64), [len(index) for index in free])
    return nodes, np.concatenate([*free, np.zeros(0, dtype=np.int64)])


class Prover:
    """Certifies subdomains of one box.

    Args:
        checker: Of the network.
        bounds: Of all nodes over the box; `nodes` and `indices` of the batches' neurons follow from them.
        rows: Of the specification, [R, outputs].
        offsets: [R].
        disjuncts: Rows (start, stop) of each disjunct.
        outcome: Where the time is counted.
    """

    def __init__(
        self,
        checker: Checker,
        bounds: CheckedBounds,
        rows: Float64Array,
        offsets: Float64Array,
        disjuncts: Sequence[tuple[int, int]],
        outcome: Outcome,
    ) -> None:
        self._checker, self._bounds = checker, bounds
        self._rows, self._offsets = rows, offsets
        self._spans = np.array(disjuncts, dtype=np.int64).reshape(-1, 2)
        self.nodes, self.indices = unstable(checker, bounds)
        reach = np.maximum(np.abs(bounds.lower[checker.last]), np.abs(bounds.upper[checker.last]))
        # What combining the rows may err by, for each unit of weight.
        self._error = gamma(len(rows)) * (np.abs(rows) @ reach + np.abs(offsets)) * 1.01
        self._outcome = outcome

    def certify(self, batch: Batch) -> Float64Array:
        """Returns rigorous bounds of the weighted rows over a batch's subdomains, [D]."""
        begin = time.monotonic()
        parts = [
            self._together(batch.take(np.arange(start, min(start + TOGETHER, len(batch)))))
            for start in range(0, len(batch), TOGETHER)
        ]
        self._outcome.certify_s += time.monotonic() - begin
        return np.concatenate(parts) if parts else np.zeros(0)

    def _together(self, part: Batch) -> Float64Array:
        planes = {}
        for node in np.unique(self.nodes):
            first, last = np.searchsorted(self.nodes, (node, node + 1))
            planes[int(node)] = Planes(
                grouped(part.sign[:, first:last]),
                grouped(part.alpha[:, first:last].astype(np.float64)),
                grouped(part.beta[:, first:last].astype(np.float64)),
            )
        rows, constants = self.combined(part)
        return self._checker.lower(self._checker.last, rows, self._bounds, planes, constant=constants)

    def combined(self, batch: Batch) -> tuple[Float64Array, Float64Array]:
        """Returns each subdomain's combination of its disjunct's rows, [D, outputs], and a constant, [D].

        Where that row of the outputs plus the constant is above 0 the disjunct is excluded. Like α and β, weights are
        the search's, which is not trusted.
        """
        # A sum above 0 proves a disjunct by its own rows, and by weights of 0 or more, only.
        row, spans = np.arange(len(self._rows)), self._spans[batch.disjunct]
        own = (row >= spans[:, :1]) & (row < spans[:, 1:]) & (batch.weights > 0)
        weights = np.where(own, batch.weights, 0.0).astype(np.float64)
        return weights @ self._rows, -(weights @ self._offsets) - np.abs(weights) @ self._error
