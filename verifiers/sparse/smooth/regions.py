"""Bounds of all nodes over a region: intervals, and a walk for each neuron that has an activation."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.node_bounds import CheckedBounds
from prunecert.verifiers.sparse.smooth import curves
from prunecert.verifiers.sparse.smooth.walk import Region, SmoothChecker, walk
from prunecert.verifiers.sparse.walks import LateError

#: Numbers that the rows of a walk may have at one node.
_ROOM = 2**22
#: Width, relative to the ends, below which an interval is not improved.
_NARROW = 1e-9


class EmptyError(Exception):
    """No input is in the region: a neuron's bounds, all of which hold there, exclude one another."""


def find_region(
    checker: SmoothChecker,
    low: Float64Array,
    high: Float64Array,
    *,
    around: Region | None = None,
    cut: Mapping[int, tuple[Float64Array, Float64Array]] | None = None,
    deadline: float = math.inf,
    walks_until: float = math.inf,
) -> Region:
    """Bounds all nodes but the output.

    Args:
        checker: Of the network.
        low: Lower corner of the inputs, flat float64.
        high: Upper corner.
        around: A larger region, whose bounds hold here, too.
        cut: By node, what the region's own splits say of its value.
        deadline: `time.monotonic` after which it gives up.
        walks_until: Likewise, after which intervals must do.

    Raises:
        LateError: It has given up.
        EmptyError: The region is empty.
    """
    bounds = CheckedBounds([low], [high], [np.zeros(len(low))])
    region = Region(bounds, {})
    cut = cut or {}
    # Nodes before the first cut are as they were, where the inputs are.
    first = 1
    if around is not None and around.bounds.lower[0] is low and around.bounds.upper[0] is high:
        first = min(cut, default=1)
        for node in range(1, first):
            bounds.lower.append(around.bounds.lower[node])
            bounds.upper.append(around.bounds.upper[node])
            bounds.charges.append(around.bounds.charges[node])
            if node in around.lines:
                region.lines[node] = around.lines[node]
    with np.errstate(all="ignore"):
        for node in range(first, checker.last + 1):
            bounds.charges.append(checker.charge(node, bounds))
            if node == checker.last:
                break
            if time.monotonic() > deadline:
                raise LateError
            lower, upper = checker.intervals(node, bounds)
            bounds.lower.append(lower)
            bounds.upper.append(upper)
            if around is not None:
                _meet(bounds, node, around.bounds.lower[node], around.bounds.upper[node])
            if node in cut:
                _meet(bounds, node, *cut[node])
            if node in checker.smooth.curves:
                if any(product.source for product in checker.products[node]):
                    _improve(checker, region, node, deadline, walks_until)
                _check(bounds, node)
                region.lines[node] = curves.lines(checker.smooth.curves[node], bounds.lower[node], bounds.upper[node])
            else:
                _check(bounds, node)
    return region


def _meet(bounds: CheckedBounds, node: int, low: Float64Array, high: Float64Array) -> None:
    # What is not a number says nothing.
    bounds.lower[node] = np.fmax(bounds.lower[node], low)
    bounds.upper[node] = np.fmin(bounds.upper[node], high)


def _check(bounds: CheckedBounds, node: int) -> None:
    if bool((bounds.lower[node] > bounds.upper[node]).any()):
        raise EmptyError


def _improve(checker: SmoothChecker, region: Region, node: int, deadline: float, walks_until: float) -> None:
    """Walks a node's neurons, both ways, but those whose activations are known well enough."""
    low, high = region.bounds.lower[node], region.bounds.upper[node]
    loose = ~(high - low <= _NARROW * (1.0 + np.abs(low) + np.abs(high)))
    if checker.smooth.curves[node] == "Relu":
        loose &= (low < 0) & (high > 0)
    neurons = np.flatnonzero(loose)
    size = checker.network.nodes[node].size
    widest = max(item.size for item in checker.network.nodes)
    for some in np.array_split(neurons, -(-2 * len(neurons) * widest // _ROOM) or 1):
        now = time.monotonic()
        if now > deadline:
            raise LateError
        if now > walks_until or not len(some):
            return
        rows = np.zeros((2 * len(some), size))
        rows[np.arange(len(some)), some] = 1.0
        rows[len(some) + np.arange(len(some)), some] = -1.0
        lowest = walk(checker, node, rows, np.zeros(len(rows)), region).lower
        lower, upper = np.full(size, -np.inf), np.full(size, np.inf)
        lower[some], upper[some] = lowest[: len(some)], -lowest[len(some) :]
        _meet(region.bounds, node, lower, upper)
