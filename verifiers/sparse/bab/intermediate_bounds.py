"""Better bounds of hidden neurons, for questions that take many splits.

Every unstable neuron of the second and later nodes is bounded with slopes of its own, optimised as those of the outputs
are (α-CROWN with optimised intermediate bounds: Xu et al. 2021, section 3.1), in float32 on the reduced network; each
result is then certified on the original layers before it replaces a bound. Behind a convolution a neuron sees few of
the others, and only these are walked through.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import Float32Array, Int64Array
from prunecert.verifiers.sparse.bab.dual import Dual
from prunecert.verifiers.sparse.bab.prover import Sharpen
from prunecert.verifiers.sparse.bab.reduced_network import Composition, Reduced
from prunecert.verifiers.sparse.certify import Checker, Planes, grouped
from prunecert.verifiers.sparse.node_bounds import CheckedBounds

#: Neurons that are bounded, and certified, together: neighbours, so that they see a small part of the network.
_TOGETHER = 32
#: Share of the distance of its bounds that a neuron must gain for its better ones to be certified.
_LEAST = 1e-3


@dataclass(frozen=True, eq=False)
class Tightened:
    """How some neurons of a node were bounded: U unstable neurons of earlier nodes.

    Args:
        node: The node.
        places: The neurons, [n].
        before: Nodes and indices of the earlier ones, [U] each.
        alpha: Their slopes, [2 n, U]: first of the bounds from below, then of those from above.
    """

    node: int
    places: Int64Array
    before: tuple[Int64Array, Int64Array]
    alpha: Float32Array


def tighten(
    checker: Checker,
    bounds: CheckedBounds,
    steps: int,
    deadline: float,
    record: list[Tightened] | None = None,
    composition: Composition | None = None,
    sharpen: Sharpen | None = None,
) -> int:
    """Improves hidden bounds in place, node by node.

    Args:
        checker: Of the network.
        bounds: Of all nodes over a box.
        steps: Gradient steps for each neuron.
        deadline: Value of `time.monotonic` after which no further neurons are begun.
        record: Where the slopes are kept.
        composition: Of nothing yet; the nodes that are bounded are composed in it.
        sharpen: What is known of nodes' values beyond the network's bounds, see `prover.sharpened`.

    Returns:
        How many unstable neurons have become stable.

    Raises:
        TimeoutError: The deadline passed while the network was composed; bounds found so far are there.
    """
    gone = 0
    composition = composition or Composition(checker, bounds)
    empty = np.zeros((0, checker.network.nodes[-1].size))
    for node in checker.activated:
        composition.add(node, deadline)
        free = composition.free(node)
        before = [m for m in checker.activated if m < node and len(composition.free(m))]
        if not len(free) or not before:
            continue
        view = _View(composition.reduced(empty, np.zeros(0)))
        nearby = view.nearby(*view.net.levels[-1])
        for first in range(0, len(nearby), _TOGETHER):
            if time.monotonic() > deadline:
                composition.drop(node)
                return gone
            improved = _improve(checker, bounds, view, node, nearby[first : first + _TOGETHER], steps)
            if record is not None and len(improved.places):
                record.append(improved)
        if sharpen is not None:
            sharpen(node, bounds.lower[node], bounds.upper[node])
        composition.drop(node)
        gone += len(free) - len(composition.free(node))
        for later in range(node + 1, checker.last + 1):
            low, high = checker.intervals(later, bounds, checker.living(later, bounds.upper[later]))
            np.maximum(bounds.lower[later], low, out=bounds.lower[later])
            np.minimum(bounds.upper[later], high, out=bounds.upper[later])
            if sharpen is not None:
                sharpen(later, bounds.lower[later], bounds.upper[later])
            bounds.charges[later] = checker.charge(later, bounds, bounds.upper[later])
    return gone


class _View:
    """What the neurons of a reduced network see of it, through all weights that are not 0.

    Args:
        net: The network.
    """

    def __init__(self, net: Reduced) -> None:
        self.net = net
        self._pixels, self._neurons = net.M != 0, net.N != 0

    def nearby(self, first: int, last: int) -> Int64Array:
        """Returns neurons first to last, all of one node, neighbours together.

        Of an image the first pixel that a neuron sees is the upper left corner of what it sees, but for zeros.
        """
        none = self._pixels.shape[1]
        corner = np.where(self._pixels.any(axis=1), self._pixels.argmax(axis=1), none) if none else np.zeros(last)
        for start, stop in self.net.levels:
            if start and stop <= last:
                order = np.argsort(corner[:start], kind="stable")
                links = self._neurons[start:stop, order]
                behind = np.where(links.any(axis=1), corner[order[links.argmax(axis=1)]], none)
                corner[start:stop] = np.minimum(corner[start:stop], behind)
        neurons: Int64Array = first + np.argsort(corner[first:last], kind="stable")
        return neurons

    def part(self, rows: Int64Array) -> tuple[Reduced, Int64Array]:
        """Returns the part that some neurons see, and its neurons: its rows are the values of those, and these negated.

        Args:
            rows: The neurons, all of one node.
        """
        net = self.net
        before = [span for span in net.levels if span[1] <= rows[0]]
        reached = self._neurons[rows].any(axis=0)
        for first, last in reversed(before):
            mine = first + np.flatnonzero(reached[first:last])
            reached |= self._neurons[mine].any(axis=0)
        own: Int64Array = np.flatnonzero(reached)
        count, both = len(own), np.concatenate([own, rows])
        pixels = np.flatnonzero(self._pixels[both].any(axis=0))
        ends = [np.searchsorted(own, span).tolist() for span in before]
        M, N, c = net.M[np.ix_(both, pixels)], net.N[np.ix_(both, own)], net.c[both]
        return Reduced(
            nodes=net.nodes[own],
            indices=net.indices[own],
            levels=tuple((first, last) for first, last in ends if last > first),
            lower=net.lower[own],
            upper=net.upper[own],
            M=np.concatenate([M, -M[count:]]),
            N=np.concatenate([N, -N[count:]]),
            c=np.concatenate([c, -c[count:]]),
            pixels=net.pixels[pixels],
            center=net.center,
            radius=net.radius,
        ), own


def _improve(
    checker: Checker, bounds: CheckedBounds, view: _View, node: int, rows: Int64Array, steps: int
) -> Tightened:
    """Bounds unstable neurons of the reduced network, all of one node, from below and from above.

    What the search's own arithmetic finds no better than the bounds that are there isn't certified, and is left out of
    what is returned.
    """
    net = view.net
    start = next(first for first, last in net.levels if first <= rows[0] < last)
    part, own = view.part(rows)
    dual = Dual(part, [(k, k + 1) for k in range(2 * len(rows))], checker.threads)
    batch = dual.optimise(dual.start(np.arange(2 * len(rows))), steps)
    low, high = net.lower[rows], net.upper[rows]
    gain = np.maximum(batch.bound[: len(rows)] - low, high + batch.bound[len(rows) :])
    # What is no number is better than nothing to the checker, which decides.
    better = np.flatnonzero(~(gain <= _LEAST * (high - low)))
    count, places = len(better), net.indices[rows[better]]
    # Neurons that these don't see have slopes, too, without effect.
    alpha = np.tile((net.upper[:start] >= -net.lower[:start]).astype(np.float32), (2 * count, 1))
    alpha[:, own] = batch.alpha[np.concatenate([better, len(rows) + better])]
    improved = Tightened(node, places, (net.nodes[:start], net.indices[:start]), alpha)
    if not count:
        return improved
    planes = {}
    for first, last in (span for span in net.levels if span[1] <= start):
        none = np.zeros((2 * count, last - first))
        slopes = grouped(alpha[:, first:last].astype(np.float64))
        planes[int(net.nodes[first])] = Planes(grouped(none.astype(np.int8)), slopes, grouped(none))
    seeds = np.zeros((2 * count, checker.network.nodes[node].size))
    seeds[np.arange(count), places] = 1.0
    seeds[np.arange(count, 2 * count), places] = -1.0
    certified = checker.lower(node, seeds, bounds, planes)
    bounds.lower[node][places] = np.maximum(bounds.lower[node][places], certified[:count])
    bounds.upper[node][places] = np.minimum(bounds.upper[node][places], -certified[count:])
    return improved
