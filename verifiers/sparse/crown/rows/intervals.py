"""Intervals over the flat layout, level by level, by stripes where a level's rows are sums of taps.

`verifiers.sparse.crown.rounding` says how rounding is accounted for. It is the same here but for two coarser
terms, so that the pass keeps two sums a row and not four. The rounding of a reference, γ_n Σ |w y_c|, is part of the
second sum, which runs over q = r + γ_n |y_c| with the largest n of any level that reads the variable; where it is
wanted alone, it is bounded by γ_n Σ |w| and the largest |y_c| that the level reads. The walk's γ is the largest of the
variables that the level reads.
"""

from __future__ import annotations

import numba

from prunecert.verifiers.sparse.crown.program import FUSED, INPUT, OVER, Program
from prunecert.verifiers.sparse.crown.rounding import FLOOR, SMALLEST, U32, U53, enclose, magnitude, reference, set_box
from prunecert.verifiers.sparse.crown.rows.layout import RowState, Taps
from prunecert.verifiers.sparse.llvm.backward_unit import accumulate
from prunecert.verifiers.sparse.llvm.conv_stripes import settle_relus, settle_values, stripe1, stripe2


@numba.njit(cache=True, nogil=True)
def start(program: Program, state: RowState, low, high):  # type: ignore[no-untyped-def]
    """Sets the input box, float64 corners in the file's order."""
    state.counts[0] += 1
    state.counts[3] = 0
    state.tiny[0] = 0.0
    state.slopes[:] = -1
    set_box(state.lower, state.upper, state.centers, low[: program.starts[1]], high[: program.starts[1]])


@numba.njit(cache=True, nogil=True)
def _refer(program: Program, taps: Taps, state: RowState, level, rows):  # type: ignore[no-untyped-def]
    """Sets the references and radii of variables of a level from the bounds of their rows."""
    lower, upper, y, r, q, peaks = state.lower, state.upper, state.y, state.r, state.q, state.peaks[level]
    rectified, loss = program.kinds[level] >= FUSED, taps.loss[level]
    most = spread = 0.0
    for row in rows:
        y[row], r[row] = reference(rectified, lower[row], upper[row])
        q[row] = (r[row] + loss * abs(y[row])) * (1 + 4 * U53) + (FLOOR if y[row] != 0.0 or r[row] != 0.0 else 0.0)
        if abs(y[row]) > most:
            most = abs(y[row])
        spread += upper[row] - lower[row]
    peaks[0] = max(peaks[0], most)
    peaks[8] += spread
    if taps.listed[level]:
        _list(program, state, rows)


@numba.njit(cache=True, nogil=True)
def _list(program: Program, state: RowState, rows):  # type: ignore[no-untyped-def]
    """Puts variables into the table that levels without taps read."""
    quantities, y, r, gamma = state.quantities, state.y, state.r, program.gamma
    for row in rows:
        quantities[row, 0], quantities[row, 1], quantities[row, 2] = y[row], magnitude(y[row], r[row]), r[row]
        quantities[row, 3] = r[row] * gamma[row] * (1 + 4 * U53)


@numba.njit(cache=True, nogil=True)
def _sum_taps(program: Program, taps: Taps, state: RowState, level):  # type: ignore[no-untyped-def]
    """Bounds a level of taps by intervals."""
    places, weights = taps.places, taps.weights
    centers, radii, y, r, q = state.centers, state.radii, state.y, state.r, state.q
    for channel in range(taps.channels[level], taps.channels[level + 1]):
        begin, end = taps.begins[channel], taps.ends[channel]
        for row in range(begin, end):
            centers[row] = program.bias[row]
            radii[row] = 0.0
        for tap in range(taps.taps[channel], taps.taps[channel + 1]):
            weight, to, source = weights[tap], places[tap, 0], places[tap, 1]
            count, step = places[tap, 3], places[tap, 6]
            for _ in range(places[tap, 2]):
                if step == 1:
                    stripe1(centers, radii, y, q, weight, to, source, count)
                elif step == 2:
                    stripe2(centers, radii, y, q, weight, to, source, count)
                else:
                    for k in range(count):
                        centers[to + k] += weight * y[source + step * k]
                        radii[to + k] += abs(weight) * q[source + step * k]
                to += places[tap, 4]
                source += places[tap, 5]
        if program.kinds[level] >= FUSED:
            settle_relus(
                centers, radii, state.lower, state.upper, y, r, q, state.peaks[level], begin, end, taps.added[channel],
                taps.grow[level], taps.loss[level],
            )  # fmt: skip
        else:
            settle_values(
                centers, radii, state.lower, state.upper, y, r, q, state.peaks[level], begin, end, taps.added[channel],
                taps.grow[level], taps.loss[level],
            )  # fmt: skip
        if taps.listed[level]:
            _list(program, state, range(begin, end))


@numba.njit(cache=True, nogil=True)
def _sum_rows(program: Program, taps: Taps, state: RowState, level):  # type: ignore[no-untyped-def]
    """Bounds a level by intervals, row by row: `units.intervals.propagate` for this layout."""
    pointers, columns, weights, quantities = program.pointers, program.columns, program.weights, state.quantities
    bias, bias_error, inexact = program.bias, program.bias_error, program.inexact[level]
    lower, upper, centers, slack = state.lower, state.upper, state.centers, state.slack
    live = program.live[program.lives[level] : program.lives[level + 1]]
    for row in live:
        b, e = pointers[row], pointers[row + 1]
        value, size, radius, charge = accumulate(quantities, columns, weights, b, e, SMALLEST)
        centers[row], lower[row], upper[row], slack[row] = enclose(
            value, size, radius, charge, bias[row], bias_error[row], inexact, e - b, e - b + 2
        )
    _refer(program, taps, state, level, live)


@numba.njit(cache=True, nogil=True)
def open_level(program: Program, taps: Taps, state: RowState, level):  # type: ignore[no-untyped-def]
    """Bounds a level by intervals from the finished levels below, and lists its unstable ReLUs."""
    kind, first, last = program.kinds[level], program.starts[level], program.starts[level + 1]
    state.peaks[level, :] = 0.0
    top = 0.0
    for below in range(level):
        if taps.sources[level, below]:
            top = max(top, taps.base[below])
            for k in range(8):
                top = max(top, state.peaks[below, k])
    state.errors[level] = taps.scaled[level] * top + taps.fixed[level]
    lower, upper, y, r = state.lower, state.upper, state.y, state.r
    if kind == INPUT:
        _refer(program, taps, state, level, range(first, last))
    elif kind == OVER:
        for row in range(first, last):
            raw = program.columns[program.pointers[row]]
            lower[row], upper[row] = lower[raw], upper[raw]
            state.centers[row] = y[raw]
            state.slack[row] = r[raw] * program.gamma[raw] * (1 + 4 * U53)
            state.slopes[row] = state.slopes[raw]
        _refer(program, taps, state, level, range(first, last))
    elif taps.tapped[level]:
        _sum_taps(program, taps, state, level)
    else:
        _sum_rows(program, taps, state, level)
    count = 0
    if kind >= FUSED or program.bounded[level]:
        if taps.tapped[level]:
            for channel in range(taps.channels[level], taps.channels[level + 1]):
                for row in range(taps.begins[channel], taps.ends[channel]):
                    if lower[row] < 0.0 < upper[row]:
                        state.rows[count] = row
                        count += 1
        else:
            for row in program.live[program.lives[level] : program.lives[level + 1]]:
                if lower[row] < 0.0 < upper[row]:
                    state.rows[count] = row
                    count += 1
    state.counts[1], state.counts[2] = count, 0


@numba.njit(cache=True, nogil=True)
def finish_level(program: Program, taps: Taps, state: RowState, level):  # type: ignore[no-untyped-def]
    """Takes tightened rows over, and counts."""
    count, walked = state.counts[1], state.counts[2]
    unstable = 0
    if walked > 0:
        _refer(program, taps, state, level, state.rows[:count])
    for k in range(count):
        row = state.rows[k]
        unstable += state.lower[row] < 0.0 < state.upper[row]
    if program.kinds[level] >= FUSED:
        state.counts[3] += unstable
    width = 0.0
    for k in range(8, 16):
        width += state.peaks[level, k]
    size = program.starts[level + 1] - program.starts[level]
    tiny = 2 * width * (taps.own[level] / U32 + 8.0) + 8.0 * size
    state.tiny[level + 1] = state.tiny[level] + tiny * SMALLEST
