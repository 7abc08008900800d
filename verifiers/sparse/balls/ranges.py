"""What the nodes' values may be over an l2 ball: a box for each neuron, and a ball for the unstable ones of a layer.

Boxes are the better of intervals and of walks for what these leave unstable (`walk`). For balls, a layer's unstable
rows are walked back once more, linearly, as if each ReLU had a slope s: 1 where it is active, 0 where it is inactive,
1/2 where it is unstable. As relu(z) - relu(ẑ) = s (z - ẑ) + e with |e| <= |z - ẑ| / 2 for unstable neurons and e = 0
for all others,

    |z - ẑ|  <=  |A| ρ + sum over layers before: |B| |e|,

A and B being the rows' coefficients of the input and of the layers' unstable ReLUs, |·| the spectral norm (`spectral`).
That is never worse than the product of the layers' norms which SDP-CROWN takes, as long as what is unstable is little,
since stable layers are composed before a norm is taken. |e| is at most half the layer's own radius, and no more than
its box allows. Besides, it bounds every neuron by itself.
"""

from __future__ import annotations

import math
import time

import numpy as np
from scipy import sparse

from prunecert.verifiers.output_spec import OutputSpec
from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array
from prunecert.verifiers.sparse.balls.products import pull, weighed
from prunecert.verifiers.sparse.balls.spectral import norm
from prunecert.verifiers.sparse.balls.walk import Ball, Ranges, Walker
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.node_bounds import CheckedBounds, gamma
from prunecert.verifiers.sparse.walks import UNIT, LateError

#: Numbers that a walk's rows may have at one node: 32 MiB.
_ROOM = 2**22
#: Unstable neurons of a layer from which no ball is looked for: their matrix would be too large.
_MOST = 6_000


def ball_of(center: Float64Array, radius: float, low: Float64Array, high: Float64Array) -> Ball:
    """Returns the input set |x - center| <= radius, low <= x <= high.

    Args:
        center: Flat, exact.
        radius: At least 0, exact.
        low: Flat lower corner.
        high: Flat upper corner.
    """
    # Of a centre outside of the box, the point of the box nearest to it is no farther from any point of the box.
    inner = np.clip(center, low, high)
    radius = float(radius) * (1 + 8 * UNIT) + 1e-300
    low = np.maximum(low, np.nextafter(inner - radius, -np.inf))
    high = np.minimum(high, np.nextafter(inner + radius, np.inf))
    return Ball(inner, radius, low, high)


def find_ranges(checker: Checker, ball: Ball, *, balls: bool = True, deadline: float = math.inf) -> Ranges:
    """Bounds all nodes over a ball.

    Args:
        checker: Of the network.
        ball: The input set.
        balls: Whether hidden balls are looked for; without, bounds are those of CROWN over an l2 ball.
        deadline: `time.monotonic` after which no further rows are walked.

    Raises:
        LateError: Then.
    """
    size = len(ball.center)
    bounds = CheckedBounds([ball.low], [ball.high], [np.zeros(size)])
    point = CheckedBounds([ball.center], [ball.center], [np.zeros(size)])
    ranges = Ranges(ball, bounds, [ball.center], [np.zeros(size)])
    for node in range(1, checker.last + 1):
        at_low, at_high = checker.intervals(node, point)
        point.lower.append(at_low)
        point.upper.append(at_high)
        ranges.centers.append(0.5 * at_low + 0.5 * at_high)
        ranges.drifts.append(0.5 * (at_high - at_low) + 2 * UNIT * (np.abs(at_low) + np.abs(at_high)))
        low, high = checker.intervals(node, bounds)
        bounds.charges.append(checker.charge(node, bounds))
        bounds.lower.append(low)
        bounds.upper.append(high)
        if node in checker.activated:
            _improve(checker, ranges, node, balls, deadline)
            ranges.unstable[node] = bounds.unstable(node)
            if balls and 0 < len(ranges.unstable[node]) <= _MOST:
                _enclose(checker, ranges, node)
                ranges.unstable[node] = bounds.unstable(node)
    return ranges


def bound_disjuncts(
    checker: Checker, ball: Ball, spec: OutputSpec, *, balls: bool = True, deadline: float = math.inf
) -> tuple[tuple[float, ...], int]:
    """Bounds the largest row of each disjunct of a property from below, by one walk with CROWN's slopes.

    Args:
        checker: Of the network.
        ball: The input set.
        spec: The unsafe outputs.
        balls: As for `find_ranges`.
        deadline: Likewise.

    Returns:
        The bounds, minus infinity for a disjunct without rows, and the number of unstable ReLUs.

    Raises:
        LateError: Time was over before.
    """
    ranges = find_ranges(checker, ball, balls=balls, deadline=deadline)
    if not spec.disjuncts:
        return (), ranges.count
    rows = np.concatenate([a for a, _ in spec.disjuncts])
    offsets = np.concatenate([b for _, b in spec.disjuncts]).astype(np.float64)
    walker = Walker(checker, ranges, balls=balls)
    lower = walker.lower(checker.last, sparse.csr_array(rows.astype(np.float64)), -offsets)
    ends = np.cumsum([len(b) for _, b in spec.disjuncts])
    parts = np.split(lower, ends[:-1])
    return tuple(float(part.max(initial=-np.inf)) for part in parts), ranges.count


def _improve(checker: Checker, ranges: Ranges, node: int, balls: bool, deadline: float) -> None:
    """Walks the neurons that intervals leave unstable."""
    bounds = ranges.bounds
    walker = Walker(checker, ranges, balls=balls)
    widest = max(item.size for item in checker.network.nodes)
    neurons = bounds.unstable(node)
    for some in np.array_split(neurons, -(-2 * len(neurons) * widest // _ROOM) or 1):
        if not len(some):
            continue
        if time.monotonic() > deadline:
            raise LateError
        rows = _picked(some, checker.network.nodes[node].size)
        both = sparse.csr_array(sparse.vstack([rows, -rows]))
        lower = walker.lower(node, both, np.zeros(2 * len(some)))
        bounds.lower[node][some] = np.maximum(bounds.lower[node][some], lower[: len(some)])
        bounds.upper[node][some] = np.minimum(bounds.upper[node][some], -lower[len(some) :])


def _picked(neurons: Int64Array, size: int) -> sparse.csr_array:
    """Returns the rows of the identity of that size that pick some neurons."""
    count = len(neurons)
    return sparse.csr_array((np.ones(count), neurons, np.arange(count + 1)), shape=(count, size))


def _enclose(checker: Checker, ranges: Ranges, node: int) -> None:
    """Finds the ball of a node's unstable neurons, and takes over what it says of each."""
    bounds, free = ranges.bounds, ranges.unstable[node]
    error = ranges.drifts[node][free].copy()
    radius = 0.0
    apart = np.zeros(len(free))
    zeros = np.zeros(max(item.size for item in checker.network.nodes))
    linear: dict[int, Float64Array] = {}
    relu: dict[int, Float64Array] = {}
    rows: Float64Array | sparse.csr_array = _picked(free, checker.network.nodes[node].size)
    for place in range(node, 0, -1):
        if place < node:
            if place not in linear and place not in relu:
                continue
            rows = linear.pop(place, np.zeros(0))
            if place in relu:
                through = relu.pop(place)
                low, high, own = bounds.lower[place], bounds.upper[place], ranges.unstable[place]
                slope = (high > 0).astype(np.float64)
                slope[own] = 0.5
                if len(own):
                    length = _unlinear(ranges, place, low[own], high[own])
                    part = np.ascontiguousarray(through[:, own])
                    radius += norm(part) * length
                    apart += _lengths(part) * length
                # Halving is exact.
                scaled = np.multiply(through, slope, out=through)
                if rows.size:
                    rows = rows + scaled
                    reach = np.maximum(np.abs(low), np.abs(high))
                    error += 4 * UNIT * (np.abs(rows) @ reach)
                else:
                    rows = scaled
            # Both the value and that at the centre are off by that much.
            error += 2.0 * weighed(rows, zeros[: rows.shape[1]], bounds.charges[place])[2]
        pull(checker, place, rows, linear, relu)
    if 0 in linear:
        radius += norm(linear[0]) * ranges.ball.radius
        apart += _lengths(linear[0]) * ranges.ball.radius
    error *= 1.01
    radius = (radius + float(np.linalg.norm(error))) * (1 + 1e-12)
    apart = (apart + error) * (1 + 1e-12)
    center = ranges.centers[node][free]
    with np.errstate(all="ignore"):
        low, high = np.nextafter(center - apart, -np.inf), np.nextafter(center + apart, np.inf)
    bounds.lower[node][free] = np.fmax(bounds.lower[node][free], low)
    bounds.upper[node][free] = np.fmin(bounds.upper[node][free], high)
    ranges.radii[node] = radius if np.isfinite(radius) else np.inf


def _unlinear(ranges: Ranges, node: int, low: Float64Array, high: Float64Array) -> float:
    """Bounds |relu(z) - relu(ẑ) - (z - ẑ) / 2| over a node's unstable neurons."""
    own = ranges.unstable[node]
    center = ranges.centers[node][own]
    with np.errstate(all="ignore"):
        reach = np.maximum(high - center, center - low)
        box = float(np.linalg.norm(reach)) * (1 + 1e-12)
    # What is said of the centre holds of the value at the ball's centre within its drift.
    return (0.5 * min(ranges.radii.get(node, np.inf), box) + float(np.linalg.norm(ranges.drifts[node][own]))) * (
        1 + 1e-12
    )


def _lengths(rows: Float64Array) -> Float64Array:
    """Bounds the l2 norms of rows from above."""
    lengths: Float64Array = np.sqrt((rows * rows).sum(axis=1) + 1e-300) * (1 + float(gamma(rows.shape[1])) + 1e-15)
    return lengths
