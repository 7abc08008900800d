"""Rigorous bounds of subdomains of one box, from the dual variables that a search has found."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array
from prunecert.verifiers.sparse.bab.dual import Batch
from prunecert.verifiers.sparse.bab.outcome import Outcome
from prunecert.verifiers.sparse.certify import CheckedBounds, Checker, Planes, gamma, grouped
from prunecert.verifiers.sparse.crown.engine import CrownBounds

#: Narrows a node's bounds in place.
Sharpen = Callable[[int, Float64Array, Float64Array], None]
#: Widths, in steps of a rounding, up to which neurons are cut: none, those with two neighbouring numbers, and more.
_STEPS = (-1.0, 1.5, 3.5, np.inf)
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
        bounds.charges.append(checker.charge(node, bounds))
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
        bounds.charges[node] = checker.charge(node, bounds)


def cut(
    checker: Checker, bounds: CheckedBounds, rows: Float64Array, offsets: Float64Array, deadline: float = np.inf
) -> Float64Array:
    """Chooses, for each node that rounds, up to which width its neurons are cut (`CheckedBounds.cuts`).

    Rounding adds an error of up to half a step on either side of what a neuron is made of: where its bounds are a step
    apart, they say more themselves. Further up that depends on how much of it cancels; a few widths are tried.

    Args:
        checker: Of the network.
        bounds: Of all nodes over the box; what is best is left in its `cuts`.
        rows: Of the specification, [R, outputs].
        offsets: [R].
        deadline: `time.monotonic` after which no more widths are tried.

    Returns:
        The best lower bounds of rows @ y - offsets, [R].
    """
    nodes = checker.network.roundings
    values = np.full(len(rows), -np.inf)
    if not len(rows):
        return values
    best, chosen = -np.inf, dict.fromkeys(nodes, _STEPS[0])

    def attempt(widths: dict[int, float]) -> None:
        nonlocal best, chosen
        _cut_narrow(checker, bounds, widths)
        certified = checker.lower(checker.last, rows, bounds, constant=-offsets)
        np.maximum(values, certified, out=values)
        if float(certified.min()) > best:
            best, chosen = float(certified.min()), widths

    for steps in _STEPS[:2]:
        attempt(dict.fromkeys(nodes, steps))
    for node, steps in itertools.product(reversed(nodes), _STEPS):
        if steps != chosen[node] and time.monotonic() < deadline:
            attempt({**chosen, node: steps})
    _cut_narrow(checker, bounds, chosen)
    return values


def _cut_narrow(checker: Checker, bounds: CheckedBounds, widths: dict[int, float]) -> None:
    """Cuts the neurons of each node that are active and have bounds at most so many steps apart."""
    bounds.cuts.clear()
    for node, steps in widths.items():
        width = 2.0 * steps * checker.network.nodes[node].bias_error.astype(np.float64)
        low, high = bounds.lower[node], bounds.upper[node]
        bounds.cuts[node] = (low >= 0) & (high > 0) & (high - low <= width)


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
        # A sum above 0 proves a disjunct by its own rows, and by weights of 0 or more, only. Like α and β, weights are
        # the search's, which is not trusted.
        row, spans = np.arange(len(self._rows)), self._spans[part.disjunct]
        own = (row >= spans[:, :1]) & (row < spans[:, 1:]) & (part.weights > 0)
        weights = np.where(own, part.weights, 0.0).astype(np.float64)
        constant = -(weights @ self._offsets) - np.abs(weights) @ self._error
        return self._checker.lower(self._checker.last, weights @ self._rows, self._bounds, planes, constant=constant)
