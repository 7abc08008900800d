"""Cuts off sub-boxes what the linear bounds of a conjunction of rows prove.

A counterexample in a sub-box keeps all rows at or below 0, hence m + G t - ρ <= 0 for every row's linear bound
(`box_bounds`). Along input i, with what the other inputs can do at best, that is G_i t_i <= b: a bound on t_i alone
(interval constraint propagation; as domain clipping: Zhou et al. 2025). Rows are taken one after the other, each over
what the one before has left, so that a conjunction can empty a sub-box that no row of it excludes alone.

What is cut off is proved with `KEPT` to spare: there some row is above it in real arithmetic. Every operation errs
towards keeping more.
"""

from __future__ import annotations

import numba
import numpy as np

from prunecert.verifiers.sparse.bab.box_bounds import frame

#: What a row exceeds in all that is cut off.
KEPT = 1e-9
_UNIT = 2.0**-53
#: What a product that underflows may lose, with room to spare; so near to 0 sub-boxes are hardly cut.
_TINY = 1e-300
#: Times that all rows are taken.
_SWEEPS = 2


@numba.njit(cache=True, nogil=True)
def _least(line, inputs, left, right):  # type: ignore[no-untyped-def]
    """Returns the least value of a line over [left, right], rounded, and the magnitude of its terms."""
    least, size = line[0] - line[inputs + 1], abs(line[0]) + line[inputs + 1]
    for i in range(inputs):
        slope = line[1 + i]
        least += slope * (left[i] if slope > 0.0 else right[i])
        size += abs(slope)
    return least, size


@numba.njit(cache=True, nogil=True)
def _cut(line, inputs, left, right):  # type: ignore[no-untyped-def]
    """Cuts the box [left, right] of t, within [-1, 1], by one line; returns whether nothing is left."""
    least, size = _least(line, inputs, left, right)
    slack = 16.0 * _UNIT * (inputs + 8.0) * (size + KEPT)
    if least - slack > KEPT:
        return True
    for i in range(inputs):
        slope = line[1 + i]
        if slope == 0.0:
            continue
        at = left[i] if slope > 0.0 else right[i]
        # What a t_i that is kept may make of its term, at most.
        most = KEPT - (least - slope * at) + slack
        edge = most / slope
        spare = 8.0 * _UNIT * abs(edge)
        # Comparisons with what is not a number, or infinite, keep all.
        if slope > 0.0:
            if edge + spare < right[i]:
                right[i] = max(edge + spare, left[i])
        elif edge - spare > left[i]:
            left[i] = min(edge - spare, right[i])
    return False


@numba.njit(cache=True, nogil=True)
def clip_boxes(lines, counts, low, high, begin, end, empty):  # type: ignore[no-untyped-def]
    """Shrinks sub-boxes begin, …, end - 1 in place.

    Args:
        lines: From `box_bounds.bound_boxes`.
        counts: How many rows each sub-box has, [B].
        low: Lower corners, [B, d]; written.
        high: Upper corners; written.
        begin: First sub-box.
        end: Last, and one.
        empty: Set to whether nothing is left, [B]; such a sub-box's corners mean nothing then.
    """
    inputs = low.shape[1]
    left, right = np.empty(inputs), np.empty(inputs)
    for box in range(begin, end):
        left[:], right[:] = -1.0, 1.0
        empty[box] = False
        for _ in range(_SWEEPS):
            for number in range(counts[box]):
                empty[box] = empty[box] or _cut(lines[box, number], inputs, left, right)
        for i in range(inputs):
            lower, upper = low[box, i], high[box, i]
            center, radius = frame(lower, upper)
            spare = 8.0 * _UNIT * (abs(center) + radius) + _TINY
            if left[i] > -1.0:
                low[box, i] = min(max(center + radius * left[i] - spare, lower), upper)
            if right[i] < 1.0:
                high[box, i] = max(min(center + radius * right[i] + spare, upper), low[box, i])
