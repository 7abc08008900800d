"""Bounds over the flat layout: walks that prepare only the rows that they come by.

A row of the walk, without the variables that don't deviate from their reference, is written beside the original when
the first block passes it, and read by the blocks that follow. `verifiers.sparse.crown.rounding` and
`verifiers.sparse.crown.rows.intervals` say how rounding is accounted for.
"""

from __future__ import annotations

import numba
import numpy as np

from prunecert.verifiers.sparse.arrays import LANES32
from prunecert.verifiers.sparse.crown.program import FUSED, Program
from prunecert.verifiers.sparse.crown.rounding import RUN, adopt, below, flush, plane, reference
from prunecert.verifiers.sparse.crown.rows.intervals import finish_level, open_level, start
from prunecert.verifiers.sparse.crown.rows.layout import RowState, Taps
from prunecert.verifiers.sparse.crown.scratch import Scratch
from prunecert.verifiers.sparse.crown.specification import choose, conclude, intervals
from prunecert.verifiers.sparse.llvm.backward_unit import process1

_NARROW = (0,)
_WIDE = (0, 0)


@numba.njit(cache=True, nogil=True)
def _build(program: Program, taps: Taps, state: RowState, level, rows):  # type: ignore[no-untyped-def]
    """Relaxes variables of a level and writes their rows without the variables that don't deviate, where not done."""
    pointers, sources, values = program.pointers, program.columns, program.weights
    planes, columns, weights, ends, stamps = state.planes, state.columns, state.weights, state.ends, state.stamps
    lower, upper, centers, r, slacks, radii = state.lower, state.upper, state.centers, state.r, state.slack, state.radii
    slopes = state.slopes
    kind, tapped, stamp = program.kinds[level], taps.tapped[level], state.counts[0]
    gamma, grow, error = taps.gamma[level], taps.grow[level], state.errors[level]
    rectified = kind >= FUSED
    for row in rows:
        if stamps[row] == stamp:
            continue
        slack = (gamma * radii[row] + error) * grow if tapped else slacks[row]
        low, high = lower[row], upper[row]
        y, _ = reference(rectified, low, high)
        planes[row, 0], planes[row, 1], planes[row, 2], planes[row, 3] = plane(
            kind, low, high, centers[row], y, slack, slopes[row]
        )
        at = pointers[row]
        for k in range(at, pointers[row + 1]):
            column = sources[k]
            columns[at] = column
            weights[at] = values[k]
            # Not a number deviates, too.
            at += r[column] != 0.0
        ends[row] = at
        stamps[row] = stamp


@numba.njit(cache=True, nogil=True)
def build_all(program: Program, taps: Taps, state: RowState, scratch: Scratch, top):  # type: ignore[no-untyped-def]
    """Prepares all rows of the levels below `top`, so that threads that walk only read."""
    touched = scratch.touched
    for level in range(top):
        count = 0
        for row in range(program.starts[level], program.starts[level + 1]):
            touched[count] = row
            count += state.r[row] != 0.0 and program.gamma[row] > 0.0
        _build(program, taps, state, level, touched[:count])


@numba.njit(cache=True, nogil=True)
def _walk(program: Program, taps: Taps, state: RowState, scratch: Scratch, coefficients, vectors, top):  # type: ignore[no-untyped-def]
    """Walks back from the touched variables of the levels below `top` to the input; leaves bounds in `totals`."""
    flags, words, sums, totals = scratch.flags, scratch.words, scratch.sums, scratch.totals
    columns, weights, planes, pointers, ends = state.columns, state.weights, state.planes, program.pointers, state.ends
    touched, lanes = scratch.touched, coefficients.shape[1]
    run = 0
    for level in range(top - 1, -1, -1):
        first, last = program.starts[level], program.starts[level + 1]
        count = 0
        for word in range(first // 8, (last + 7) // 8):
            if words[word] != 0:
                for row in range(max(8 * word, first), min(8 * word + 8, last)):
                    touched[count] = row
                    count += flags[row]
                    flags[row] = 0
        _build(program, taps, state, level, touched[:count])
        for row in touched[:count]:
            b, e = pointers[row], ends[row]
            for k in range(b, e):
                flags[columns[k]] = 1
            process1(coefficients, planes, np.int64(row), sums, columns, b, e, weights, b, vectors)
            scratch.work[0] += (e - b) * len(vectors)
            run += 1
            if run == RUN:
                run = 0
                flush(sums, totals, lanes)
        scratch.work[1] += count * len(vectors)
    flush(sums, totals, lanes)


@numba.njit(cache=True, nogil=True)
def _bound_block(  # type: ignore[no-untyped-def]
    program: Program, taps: Taps, state: RowState, scratch: Scratch, coefficients, vectors, level, rows, intersect
):
    """Bounds at most lanes / 2 rows of a level by a walk with both signs."""
    half = coefficients.shape[1] // 2
    for lane in range(2 * half):
        scratch.totals[lane] = 0.0
    for lane in range(len(rows)):
        row = rows[lane]
        for k in range(program.pointers[row], program.pointers[row + 1]):
            column = program.columns[k]
            if state.r[column] != 0.0:
                coefficients[column, lane] = program.weights[k]
                coefficients[column, lane + half] = -program.weights[k]
                scratch.flags[column] = 1
    _walk(program, taps, state, scratch, coefficients, vectors, level)
    tapped, gamma, grow, error = taps.tapped[level], taps.gamma[level], taps.grow[level], state.errors[level]
    for lane in range(len(rows)):
        row = rows[lane]
        slack = (gamma * state.radii[row] + error) * grow if tapped else state.slack[row]
        slack += state.tiny[level]
        down, up = scratch.totals[lane], -scratch.totals[lane + half]
        adopt(state.lower, state.upper, state.slopes, row, state.centers[row], slack, down, up, intersect)


@numba.njit(cache=True, nogil=True)
def bound_rows(program: Program, taps: Taps, state: RowState, scratch: Scratch, level, begin, end, intersect):  # type: ignore[no-untyped-def]
    """Bounds the unstable rows begin ... end - 1 of the level in work; blocks begin at multiples of `LANES32`."""
    at = begin
    while at < end:
        if end - at > LANES32 // 2:
            stop = min(at + LANES32, end)
            _bound_block(
                program, taps, state, scratch, scratch.coefficients, _WIDE, level, state.rows[at:stop], intersect
            )
        else:
            stop = end
            _bound_block(program, taps, state, scratch, scratch.narrow, _NARROW, level, state.rows[at:stop], intersect)
        at = stop


@numba.njit(cache=True, nogil=True)
def close_level(program: Program, taps: Taps, state: RowState, level):  # type: ignore[no-untyped-def]
    """Ends a level whose rows were bounded by several threads."""
    state.counts[2] = state.counts[1]
    finish_level(program, taps, state, level)


@numba.njit(cache=True, nogil=True)
def advance(  # type: ignore[no-untyped-def]
    program: Program, taps: Taps, state: RowState, scratch: Scratch, low, high, level, tighten, intersect, most
):
    """Bounds levels from `level` on, in one thread.

    Args:
        program: The network.
        taps: Likewise.
        state: Filled here.
        scratch: For the walks.
        low: Lower corner of the box, float64, in the file's order.
        high: Upper corner.
        level: First level; 0 begins an image.
        tighten: Whether unstable rows are bounded by walks (CROWN), not by intervals alone.
        intersect: Whether bounds by walks are combined with those by intervals.
        most: Products of a weight with `LANES32` coefficients, a neuron counting as four, that a level's remaining
            blocks may take here, going by its first block.

    Returns:
        The level whose remaining rows are more work than that, or the number of levels where all is done.
    """
    if level == 0:
        start(program, state, low, high)
    for now in range(level, len(program.kinds)):
        open_level(program, taps, state, now)
        count = state.counts[1]
        if tighten and program.bounded[now] and not taps.shallow[now] and count > 0:
            before = scratch.work[0] + 4 * scratch.work[1]
            walked = min(count, LANES32)
            bound_rows(program, taps, state, scratch, now, 0, walked, intersect)
            state.counts[2] = walked
            blocks = (count - walked + LANES32 - 1) // LANES32
            if blocks > 1 and blocks * (scratch.work[0] + 4 * scratch.work[1] - before) > most:
                return now
            bound_rows(program, taps, state, scratch, now, walked, count, intersect)
        finish_level(program, taps, state, now)
    return len(program.kinds)


@numba.njit(cache=True, nogil=True)
def bound_functions(program: Program, taps: Taps, state: RowState, scratch: Scratch, matrix, first, chosen, out):  # type: ignore[no-untyped-def]
    """Lower bounds of rows of functions of the deviations of variables first, first + 1, ..., from float32(matrix).

    Only the rounding after the start is accounted for: the coefficients are taken as they are. -inf where there is no
    bound.
    """
    at = 0
    while at < len(chosen):
        if len(chosen) - at > LANES32:
            stop = min(at + 2 * LANES32, len(chosen))
            _functions_block(
                program, taps, state, scratch, scratch.coefficients, _WIDE, matrix, first, chosen[at:stop], out[at:stop]
            )
        else:
            stop = len(chosen)
            _functions_block(
                program, taps, state, scratch, scratch.narrow, _NARROW, matrix, first, chosen[at:stop], out[at:stop]
            )
        at = stop


@numba.njit(cache=True, nogil=True)
def _functions_block(  # type: ignore[no-untyped-def]
    program: Program, taps: Taps, state: RowState, scratch: Scratch, coefficients, vectors, matrix, first, chosen, out
):
    levels = len(program.kinds)
    for lane in range(coefficients.shape[1]):
        scratch.totals[lane] = 0.0
    for column in range(matrix.shape[1]):
        if state.r[first + column] != 0.0:
            for lane in range(len(chosen)):
                if matrix[chosen[lane], column] != 0.0:
                    coefficients[first + column, lane] = np.float32(matrix[chosen[lane], column])
                    scratch.flags[first + column] = 1
    _walk(program, taps, state, scratch, coefficients, vectors, levels)
    for lane in range(len(chosen)):
        out[lane] = below(scratch.totals[lane], state.tiny[levels])


@numba.njit(cache=True, nogil=True)
def bound_specification(  # type: ignore[no-untyped-def]
    program: Program, taps: Taps, state: RowState, scratch: Scratch, matrix, offsets, walk, intersect, out
):
    """Lower bounds of matrix @ outputs - offsets of an image whose levels are bounded; `out` is written, [rows]."""
    first = program.starts[len(program.kinds) - 1]
    intervals(program, state.y, state.r, state.merged, first, matrix, offsets, out)
    if walk:
        chosen = np.empty(len(out), dtype=np.int64)
        chosen = chosen[: choose(out, 2 * LANES32 if intersect else len(out), chosen)]
        walked = np.empty(len(chosen))
        bound_functions(program, taps, state, scratch, matrix, first, chosen, walked)
        conclude(state.y, state.r, first, matrix, offsets, walked, chosen, intersect, out)


@numba.njit(cache=True, nogil=True)
def bound_image(  # type: ignore[no-untyped-def]
    program: Program, taps: Taps, state: RowState, scratch: Scratch, low, high, matrix, offsets, tighten, walk,
    intersect,
    most, out,
):  # fmt: skip
    """`advance` from the first level on, and `bound_specification` if it comes to the end; returns the level."""
    level = advance(program, taps, state, scratch, low, high, 0, tighten, intersect, most)
    if level == len(program.kinds):
        bound_specification(program, taps, state, scratch, matrix, offsets, walk, intersect, out)
    return level
