"""The compiled passes: interval propagation, relaxation, the compact walk matrix of one image, and the backward walk.

Rounding. All bounds hold for the real-valued network; nothing here relies on a rounding mode. u = 2**-24 is float32's
unit roundoff and γ_n = n u / (1 - n u) (Higham, *Accuracy and Stability of Numerical Algorithms*, section 3.1); the
same with 2**-53 for float64. The technique, a float computation with an a-posteriori bound of its own error, is that of
Rump, *Verification methods* (Acta Numerica 2010).

Centred variables. Every variable y has a reference value y_c, any float64 number, and a radius r with |y - y_c| <= r. A
row z = Σ w y + b has the reference z_c = fl(Σ w y_c + b), and so z - z_c = Σ w (y - y_c) + ρ with |ρ| <= e, where e
bounds the rounding of z_c by γ_n Σ |w y_c| and what the stored numbers differ from the file's. The walk keeps a linear
function of deviations d = y - y_c, so what it rounds is charged to radii, which are small, and not to values.

The walk. Let Λ be the float32 coefficients of a row of the block on some variables; they are taken as exact from
the moment when they are computed. A relaxed step replaces λ d_y, y = relu(z), by λ (s d_z + t) with the lower plane of
the relaxation for λ > 0 and the upper plane for λ < 0, so that the result lies below. The product μ = fl(λ s) costs at
most u |λ s| r_z. Then d_z is replaced by Σ w d + ρ, and the coefficients fl(Σ μ w) differ from Σ μ w by at most
γ_n Σ |μ w|, n the longest chain of sums that ends in the variable. All of that is at most |μ| v with

    v = e + Σ |w| γ_n r,

a number of the row that doesn't depend on Λ. So the walk's constant for the variable, by the sign of λ, is

    for λ > 0:  t_lower - |s_lower| ((1 + u) v + u r_z),    for λ < 0:  t_upper + |s_upper| ((1 + u) v + u r_z),

widened by γ for the summation of the constants, rounded outwards to float32. At the input the constants are the box's
corners relative to its reference, and the slopes are 0. Rigour thus costs no operation in the walk, only the second
sum v in the interval pass. Underflow, at most 2**-126 an operation even where a library in the process has switched on
flushing to zero, is counted once for all (`Image.tiny`).

Planes are valid after rounding: s is a float32, and t is the larger of -s l and u - s u, so that the plane lies above
the convex ReLU at both ends of [l, u], and so between them; the lower plane is s z with s = 0 or 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from verifiers.sparse.network import WEIGHT_ERROR
from verifiers.sparse.program import FUSED, INPUT, OVER, Program
from verifiers.sparse.simd import accumulate, process1, process4, process8

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Rows a block: two vectors of 16.
LANES = 32
_VECTORS = (0, 0)
#: Neurons whose constants are summed in float32 before they go into a float64 sum.
_RUN = 64
_U32 = 2.0**-24
_U53 = 2.0**-53
#: γ of a run's sums, two operations a neuron and up to 8 neurons more, and of the float64 sums after it.
_RUN_GAMMA = 2 * (_RUN + 10) * _U32 * (1 + 2.0**-10)
#: Products of weights with normalisation factors may be subnormal; their error is that of the smallest normal number.
_SMALLEST = 2.0**-126


class Image(NamedTuple):
    """What is known of one image: bounds of all variables, and the walk's compact matrix.

    Args:
        quantities: y_c, |y_c|, r and γ r of each variable, float64 [S, 4].
        centers: z_c of each row, float64 [S].
        lower: Bounds of each row's z, float64 [S].
        upper: Likewise.
        slack: v of each row, float64 [S].
        slopes: Slopes of the lower planes to use, float32 [S]; NaN for the default (1 if u > -l, else 0).
        number: Each variable's place in the walk, -1 if nothing depends on it, int32 [S].
        planes: By place: slopes for λ > 0 and λ < 0, constants likewise, float32 [V, 4].
        first: By unit: its first place, [U].
        height: By unit: 1, 4 or 8, [U].
        entries: By unit: first entry, [U + 1].
        offsets: By unit: first weight, [U + 1].
        feeders: By unit: first of the units that it feeds, [U + 1].
        columns: By entry: place, int32 [E].
        weights: Float32 [W].
        fed: Units, int32 [F].
        unit: By place: its unit, int32 [V].
        begins: By level: first unit, [L + 1].
        mark: Scratch for building units: by place, the last unit of all images that had it as column, [V].
        spot: Likewise.
        used: Places, units, entries, weights and fed units so far, and units of all images, [6].
        tiny: By level: what underflow may cost a walk from there, [L + 1].
    """

    quantities: Float64Array
    centers: Float64Array
    lower: Float64Array
    upper: Float64Array
    slack: Float64Array
    slopes: Float32Array
    number: npt.NDArray[np.int32]
    planes: Float32Array
    first: IntArray
    height: IntArray
    entries: IntArray
    offsets: IntArray
    feeders: IntArray
    columns: npt.NDArray[np.int32]
    weights: Float32Array
    fed: npt.NDArray[np.int32]
    unit: npt.NDArray[np.int32]
    begins: IntArray
    mark: IntArray
    spot: IntArray
    used: IntArray
    tiny: Float64Array


class Scratch(NamedTuple):
    """What one thread needs for a walk; all zero between walks.

    Args:
        coefficients: Float32 [V, LANES].
        flags: Whether a unit has coefficients, uint8 [U].
        words: The flags, eight a number: a view, [U / 8].
        sums: Float32 [LANES].
        totals: Float64 [LANES].
        work: Columns of units of 1, 4 and 8 neurons that were taken since the start; for benchmarks, [3].
    """

    coefficients: Float32Array
    flags: npt.NDArray[np.uint8]
    words: npt.NDArray[np.uint64]
    sums: Float32Array
    totals: Float64Array
    work: IntArray


@numba.njit(cache=True, nogil=True)
def _down(value):  # type: ignore[no-untyped-def]
    """Rounds a float64 to float32 downwards."""
    nearest = np.float32(value)
    return np.nextafter(nearest, np.float32(-np.inf)) if nearest > value else nearest


@numba.njit(cache=True, nogil=True)
def _up(value):  # type: ignore[no-untyped-def]
    nearest = np.float32(value)
    return np.nextafter(nearest, np.float32(np.inf)) if nearest < value else nearest


@numba.njit(cache=True, nogil=True)
def propagate(program: Program, image: Image, rows):  # type: ignore[no-untyped-def]
    """Bounds these rows by intervals: fills their z_c, lower, upper and slack."""
    pointers, columns, weights = program.pointers, program.columns, program.weights
    quantities, centers = image.quantities, image.centers
    for row in rows:
        b, e = pointers[row], pointers[row + 1]
        value, size, radius, charge = accumulate(quantities, columns, weights, b, e, _SMALLEST)
        value += program.bias[row]
        size += abs(program.bias[row])
        # A row without weights rounds nothing: the neuron is a constant, and the walk leaves it out.
        operations = e - b + 2 if e > b else 0
        error = operations * _U53 * (1 + 1e-6) * size + program.bias_error[row]
        if program.inexact[program.level[row]]:
            error += 2 * WEIGHT_ERROR * (size + radius)
        grow = 1 + (e - b + 8) * 2 * _U53
        radius = (radius + error) * grow
        centers[row] = value
        # Two roundings, of the sum here and of those that make it.
        room = 2 * _U53 * (abs(value) + radius) if operations else radius * 2 * _U53
        image.lower[row] = value - radius - room
        image.upper[row] = value + radius + room
        image.slack[row] = (charge + error) * grow


@numba.njit(cache=True, nogil=True)
def take_over(program: Program, image: Image, begin, end):  # type: ignore[no-untyped-def]
    """`propagate` for ReLUs over raw variables: the row is that variable, with weight 1."""
    for row in range(begin, end):
        raw = program.columns[program.pointers[row]]
        image.lower[row], image.upper[row] = image.lower[raw], image.upper[raw]
        image.centers[row] = image.quantities[raw, 0]
        image.slack[row] = image.quantities[raw, 3]


@numba.njit(cache=True, nogil=True)
def start(program: Program, image: Image, low, high):  # type: ignore[no-untyped-def]
    """Sets the input box (float64 corners in the order of the variables) and empties the walk's matrix."""
    image.used[:5] = 0
    image.begins[0] = 0
    image.entries[0] = image.offsets[0] = image.feeders[0] = 0
    image.tiny[0] = 0.0
    for row in range(program.starts[1]):
        image.lower[row], image.upper[row] = low[row], high[row]
        image.centers[row] = low[row] * 0.5 + high[row] * 0.5
        image.slack[row] = 0.0


@numba.njit(cache=True, nogil=True)
def unstable_rows(program: Program, image: Image, level, out):  # type: ignore[no-untyped-def]
    """Writes the level's rows whose ReLU is unstable to `out`; returns how many there are."""
    count = 0
    if program.bounded[level]:
        for row in program.live[program.lives[level] : program.lives[level + 1]]:
            if image.lower[row] < 0.0 < image.upper[row]:
                out[count] = row
                count += 1
    return count


@numba.njit(cache=True, nogil=True)
def count_unstable(program: Program, image: Image):  # type: ignore[no-untyped-def]
    """Counts ReLUs whose input may have either sign."""
    count = 0
    for level in range(len(program.kinds)):
        if program.kinds[level] >= FUSED:
            for row in program.live[program.lives[level] : program.lives[level + 1]]:
                count += image.lower[row] < 0.0 < image.upper[row]
    return count


@numba.njit(cache=True, nogil=True)
def open_level(program: Program, image: Image, level):  # type: ignore[no-untyped-def]
    """Bounds a level by intervals from the finished levels below."""
    kind = program.kinds[level]
    if kind == OVER:
        take_over(program, image, program.starts[level], program.starts[level + 1])
    elif kind != INPUT:
        propagate(program, image, program.live[program.lives[level] : program.lives[level + 1]])


@numba.njit(cache=True, nogil=True)
def _reference(rectified, low, high):  # type: ignore[no-untyped-def]
    """Returns a variable's reference and radius from the bounds of its row."""
    if rectified:
        low, high = max(low, 0.0), max(high, 0.0)
    y = 0.5 * low + 0.5 * high
    return y, max(high - y, y - low) * (1 + 4 * _U53)


@numba.njit(cache=True, nogil=True)
def _plane(kind, low, high, z, y, slack, given):  # type: ignore[no-untyped-def]
    """Returns the slopes and constants of the relaxation of a variable that the walk keeps.

    Args:
        kind: Of its level.
        low: Bounds of its row.
        high: Likewise.
        z: The row's reference.
        y: The variable's reference.
        slack: The row's v.
        given: The lower plane's slope, NaN for the default.
    """
    spread = max(high - z, z - low) * (1 + 4 * _U53)
    lower_slope = upper_slope = np.float32(1.0)
    upper_shift = 0.0
    if kind == INPUT:
        positive, negative = low - y, high - y
        lower_slope = upper_slope = np.float32(0.0)
    else:
        if (kind >= FUSED) and low < 0.0:
            upper_slope = np.float32(high / (high - low))
            upper_shift = max(-upper_slope * low, high - upper_slope * high)
            # More than these operations lose.
            upper_shift += 4 * _U53 * (abs(upper_shift) + high)
            lower_slope = given if given == given else np.float32(1.0 if high > -low else 0.0)
        charge = (1 + 2 * _U32) * slack + (_U32 + 2 * _U53) * spread
        room = 2.0**-49
        positive = lower_slope * z - y
        positive -= room * (abs(lower_slope * z) + abs(y)) + lower_slope * charge
        negative = upper_slope * z + upper_shift - y
        negative += room * (abs(upper_slope * z) + abs(upper_shift) + abs(y)) + upper_slope * charge
    return (
        lower_slope,
        upper_slope,
        _down(positive - _RUN_GAMMA * abs(positive) - _SMALLEST),
        _up(negative + _RUN_GAMMA * abs(negative) + _SMALLEST),
    )


@numba.njit(cache=True, nogil=True)
def finish_level(program: Program, image: Image, level):  # type: ignore[no-untyped-def]
    """Relaxes a level whose bounds are final and adds its units to the walk; returns whether there was room."""
    kind, start, live = program.kinds[level], program.starts[level], program.live
    size, group = program.heights[level], program.groups[level]
    pointers, sources, values, gamma = program.pointers, program.columns, program.weights, program.gamma
    lower, upper, centers, slack, slopes = image.lower, image.upper, image.centers, image.slack, image.slopes
    quantities = image.quantities
    number, planes, first, heights, unit_of = image.number, image.planes, image.first, image.height, image.unit
    entries, offsets, feeders = image.entries, image.offsets, image.feeders
    columns, weights, fed, mark, spot = image.columns, image.weights, image.fed, image.mark, image.spot
    place, unit, entry, weight, feeder = image.used[0], image.used[1], image.used[2], image.used[3], image.used[4]
    stamp = image.used[5]
    rows = np.empty(8, dtype=np.int64)
    rectified = kind >= FUSED
    tiny = 0.0
    count = most = current = 0
    at, end = program.lives[level], program.lives[level + 1]
    while at < end or count > 0:
        if at < end:
            row = live[at]
            position = (row - start) // group
            # A unit holds neurons of one position.
            if count == 0 or position == current:
                at += 1
                current = position
                y, radius = _reference(rectified, lower[row], upper[row])
                quantities[row, 0], quantities[row, 1], quantities[row, 2] = y, abs(y), radius
                quantities[row, 3] = radius * gamma[row] * (1 + 4 * _U53)
                number[row] = -1
                # Nothing depends on it, or it is inactive: its deviation from the reference is 0.
                if gamma[row] == 0.0 or radius <= 0.0:
                    continue
                rows[count] = row
                most += pointers[row + 1] - pointers[row]
                count += 1
                if count < size:
                    continue
        height = 8 if count > 4 else (4 if count > 1 else 1)
        if (
            entry + most > len(columns)
            or feeder + most > len(fed)
            or weight + most * height > len(weights)
            or place + height > len(unit_of)
        ):
            return False
        begin = entry
        for r in range(count):
            kept = rows[r]
            number[kept] = place + r
            for k in range(pointers[kept], pointers[kept + 1]):
                column = number[sources[k]]
                if column < 0:
                    continue
                if height == 1:
                    columns[entry] = column
                    weights[weight] = values[k]
                    entry += 1
                    weight += 1
                    continue
                if mark[column] != stamp:
                    mark[column] = stamp
                    spot[column] = weight
                    columns[entry] = column
                    for i in range(height):
                        weights[weight + i] = np.float32(0.0)
                    entry += 1
                    weight += height
                weights[spot[column] + r] = values[k]
            planes[place + r, 0], planes[place + r, 1], planes[place + r, 2], planes[place + r, 3] = _plane(
                kind, lower[kept], upper[kept], centers[kept], quantities[kept, 0], slack[kept], slopes[kept]
            )
            tiny += (upper[kept] - lower[kept]) * (gamma[kept] / _U32 + 8.0) + 8.0
        for r in range(count, height):
            for i in range(4):
                planes[place + r, i] = np.float32(0.0)
        for r in range(height):
            unit_of[place + r] = unit
        latest = -1
        for k in range(begin, entry):
            source = unit_of[columns[k]]
            # Neighbours mostly share their unit; repetitions that remain do no harm.
            if source != latest:
                fed[feeder] = source
                feeder += 1
                latest = source
        first[unit], heights[unit] = place, height
        place += height
        unit += 1
        stamp += 1
        entries[unit], offsets[unit], feeders[unit] = entry, weight, feeder
        count = most = 0
    # The next level starts with a word of flags of its own.
    while unit % 8:
        first[unit], heights[unit] = place, 1
        unit += 1
        entries[unit], offsets[unit], feeders[unit] = entry, weight, feeder
    image.used[0], image.used[1], image.used[2], image.used[3], image.used[4] = place, unit, entry, weight, feeder
    image.used[5] = stamp
    image.begins[level + 1] = unit
    image.tiny[level + 1] = image.tiny[level] + tiny * _SMALLEST
    return True


@numba.njit(cache=True, nogil=True)
def relax_level(program: Program, image: Image, level):  # type: ignore[no-untyped-def]
    """Sets references and radii of a level without adding it to the walk: all that intervals need."""
    rectified = program.kinds[level] >= FUSED
    quantities = image.quantities
    for row in program.live[program.lives[level] : program.lives[level + 1]]:
        y, radius = _reference(rectified, image.lower[row], image.upper[row])
        quantities[row, 0], quantities[row, 1], quantities[row, 2] = y, abs(y), radius
        quantities[row, 3] = radius * program.gamma[row] * (1 + 4 * _U53)


@numba.njit(cache=True, nogil=True)
def _walk(program: Program, image: Image, scratch: Scratch, levels):  # type: ignore[no-untyped-def]
    """Walks back from the touched units of the levels below `levels` to the input; leaves bounds in `totals`."""
    flags, words, sums, totals = scratch.flags, scratch.words, scratch.sums, scratch.totals
    begins, fed, feeders, first, heights = image.begins, image.fed, image.feeders, image.first, image.height
    entries, offsets, columns, weights, planes = (
        image.entries, image.offsets, image.columns, image.weights, image.planes,
    )  # fmt: skip
    coefficients, work = scratch.coefficients, scratch.work
    run = 0
    for level in range(levels - 1, -1, -1):
        # Eight units at a time, as most of a large level is untouched where rows see a part of it.
        for word in range(begins[level] // 8, (begins[level + 1] + 7) // 8):
            if words[word] == 0:
                continue
            for unit in range(8 * word, 8 * word + 8):
                if flags[unit] == 0:
                    continue
                for k in range(feeders[unit], feeders[unit + 1]):
                    flags[fed[k]] = 1
                height = heights[unit]
                work[height // 4] += entries[unit + 1] - entries[unit]
                if height == 8:
                    process8(
                        coefficients, planes, first[unit], sums, columns, entries[unit], entries[unit + 1], weights,
                        offsets[unit], _VECTORS,
                    )  # fmt: skip
                elif height == 4:
                    process4(
                        coefficients, planes, first[unit], sums, columns, entries[unit], entries[unit + 1], weights,
                        offsets[unit], _VECTORS,
                    )  # fmt: skip
                else:
                    process1(
                        coefficients, planes, first[unit], sums, columns, entries[unit], entries[unit + 1], weights,
                        offsets[unit], _VECTORS,
                    )  # fmt: skip
                run += height
                if run >= _RUN:
                    run = 0
                    for lane in range(LANES):
                        totals[lane] += np.float64(sums[lane])
                        sums[lane] = np.float32(0.0)
            words[word] = 0
    for lane in range(LANES):
        totals[lane] += np.float64(sums[lane])
        sums[lane] = np.float32(0.0)


@numba.njit(cache=True, nogil=True)
def bound_rows(program: Program, image: Image, scratch: Scratch, level, rows, begin, end, intersect):  # type: ignore[no-untyped-def]
    """Tightens lower and upper of the rows rows[begin:end] of a level by the walk; without `intersect`, replaces them.

    A block is 16 rows with both signs: the upper bound of z is minus the lower bound of -z.
    """
    half = LANES // 2
    pointers, columns, weights, centers = program.pointers, program.columns, program.weights, image.centers
    number, unit_of, flags, coefficients = image.number, image.unit, scratch.flags, scratch.coefficients
    for block in range(begin, end, half):
        count = min(half, end - block)
        for lane in range(LANES):
            scratch.totals[lane] = 0.0
        for lane in range(count):
            row = rows[block + lane]
            for k in range(pointers[row], pointers[row + 1]):
                place = number[columns[k]]
                if place >= 0:
                    coefficients[place, lane] = weights[k]
                    coefficients[place, lane + half] = -weights[k]
                    flags[unit_of[place]] = 1
        _walk(program, image, scratch, level)
        for lane in range(count):
            row = rows[block + lane]
            z, slack = centers[row], image.slack[row] + image.tiny[level]
            down, up = scratch.totals[lane], -scratch.totals[lane + half]
            down = z + (down - slack) - 4 * _U53 * (abs(z) + abs(down) + slack)
            up = z + (up + slack) + 4 * _U53 * (abs(z) + abs(up) + slack)
            # Written so that NaN changes nothing.
            if down > image.lower[row] or (not intersect and np.isfinite(down)):
                image.lower[row] = down
            if up < image.upper[row] or (not intersect and np.isfinite(up)):
                image.upper[row] = up


@numba.njit(cache=True, nogil=True)
def bound_functions(program: Program, image: Image, scratch: Scratch, pointers, columns, values, begin, end, out):  # type: ignore[no-untyped-def]
    """Lower bounds of linear functions of deviations of variables, as a CSR matrix; -inf where there is none.

    Only the rounding after the start is accounted for: the coefficients are taken as they are.
    """
    levels = len(program.kinds)
    number, unit_of, flags, coefficients = image.number, image.unit, scratch.flags, scratch.coefficients
    for block in range(begin, end, LANES):
        count = min(LANES, end - block)
        for lane in range(LANES):
            scratch.totals[lane] = 0.0
        for lane in range(count):
            for k in range(pointers[block + lane], pointers[block + lane + 1]):
                place = number[columns[k]]
                if place >= 0:
                    coefficients[place, lane] += values[k]
                    flags[unit_of[place]] = 1
        _walk(program, image, scratch, levels)
        for lane in range(count):
            total = scratch.totals[lane]
            found = total - image.tiny[levels] - 4 * _U53 * abs(total)
            out[block + lane] = found if np.isfinite(found) else -np.inf


@numba.njit(cache=True, nogil=True)
def bound_network(program: Program, image: Image, scratch: Scratch, low, high, tighten, walk, rows, intersect):  # type: ignore[no-untyped-def]
    """Bounds all levels for an input box, in one thread.

    Args:
        program: The network.
        image: Filled here.
        scratch: For the walks.
        low: Lower corner of the box, float64, in the order of the variables.
        high: Upper corner.
        tighten: Whether unstable rows are bounded by walks (CROWN), not by intervals alone.
        walk: Whether the walk's matrix is wanted.
        rows: Scratch for row numbers, int64, as long as the largest level.
        intersect: Whether bounds by walks are combined with those by intervals.

    Returns:
        Unstable ReLUs, or -1 if the image's arrays are too small.
    """
    start(program, image, low, high)
    for level in range(len(program.kinds)):
        open_level(program, image, level)
        if tighten:
            count = unstable_rows(program, image, level, rows)
            bound_rows(program, image, scratch, level, rows, 0, count, intersect)
        if walk:
            if not finish_level(program, image, level):
                return -1
        else:
            relax_level(program, image, level)
    return count_unstable(program, image)
