"""Better bounds of hidden neurons, for questions that take many splits.

Every unstable neuron of the second and later nodes is bounded with slopes of its own, optimised as those of the outputs
are (α-CROWN with optimised intermediate bounds: Xu et al. 2021, section 3.1), in float32 on the reduced network; each
result is then certified on the original layers before it replaces a bound.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import Float32Array, Int64Array
from prunecert.verifiers.sparse.bab.dual import Dual
from prunecert.verifiers.sparse.bab.prover import Sharpen
from prunecert.verifiers.sparse.bab.reduced_network import Composition, Reduced
from prunecert.verifiers.sparse.certify import CheckedBounds, Checker, Planes, grouped

#: Neurons that are bounded, and certified, together.
_TOGETHER = 128


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
        net = composition.reduced(empty, np.zeros(0))
        start, stop = net.levels[-1]
        for first in range(start, stop, _TOGETHER):
            if time.monotonic() > deadline:
                composition.drop(node)
                return gone
            improved = _improve(checker, bounds, net, node, first, min(first + _TOGETHER, stop), steps)
            if record is not None:
                record.append(improved)
        if sharpen is not None:
            sharpen(node, bounds.lower[node], bounds.upper[node])
        composition.drop(node)
        gone += len(free) - len(composition.free(node))
        for later in range(node + 1, checker.last + 1):
            low, high = checker.intervals(later, bounds)
            np.maximum(bounds.lower[later], low, out=bounds.lower[later])
            np.minimum(bounds.upper[later], high, out=bounds.upper[later])
            if sharpen is not None:
                sharpen(later, bounds.lower[later], bounds.upper[later])
            bounds.charges[later] = checker.charge(later, bounds)
    return gone


def _improve(
    checker: Checker, bounds: CheckedBounds, net: Reduced, node: int, first: int, last: int, steps: int
) -> Tightened:
    """Bounds unstable neurons first to last of the reduced network, all of one node, from below and from above."""
    start = next(a for a, b in net.levels if a <= first < b)
    count = last - first
    rows = np.r_[first:last]
    part = Reduced(
        nodes=net.nodes[:start],
        indices=net.indices[:start],
        levels=tuple(level for level in net.levels if level[1] <= start),
        lower=net.lower[:start],
        upper=net.upper[:start],
        M=np.concatenate([net.M[:start], net.M[rows], -net.M[rows]]),
        N=np.concatenate([net.N[:start, :start], net.N[rows, :start], -net.N[rows, :start]]),
        c=np.concatenate([net.c[:start], net.c[rows], -net.c[rows]]),
        pixels=net.pixels,
        center=net.center,
        radius=net.radius,
    )
    dual = Dual(part, [(k, k + 1) for k in range(2 * count)], checker.threads)
    batch = dual.optimise(dual.start(np.arange(2 * count)), steps)
    planes = {}
    for a, b in part.levels:
        sign, alpha, beta = (array[:, a:b] for array in (batch.sign, batch.alpha, batch.beta))
        planes[int(net.nodes[a])] = Planes(
            grouped(sign), grouped(alpha.astype(np.float64)), grouped(beta.astype(np.float64))
        )
    places = net.indices[first:last]
    seeds = np.zeros((2 * count, checker.network.nodes[node].size))
    seeds[np.arange(count), places] = 1.0
    seeds[np.arange(count, 2 * count), places] = -1.0
    certified = checker.lower(node, seeds, bounds, planes)
    bounds.lower[node][places] = np.maximum(bounds.lower[node][places], certified[:count])
    bounds.upper[node][places] = np.minimum(bounds.upper[node][places], -certified[count:])
    return Tightened(node, places, (part.nodes, part.indices), batch.alpha)
