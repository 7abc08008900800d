"""The compact walk matrix of one image, and the backward walk over it; `crown.rounding` says how it rounds."""

from __future__ import annotations

import numba
import numpy as np

from prunecert.verifiers.sparse.arrays import PAIRED_LANES32
from prunecert.verifiers.sparse.crown.program import FUSED, Program
from prunecert.verifiers.sparse.crown.rounding import RUN, SMALLEST, U32, U53, adopt, below, flush, plane, reference
from prunecert.verifiers.sparse.crown.scratch import Scratch
from prunecert.verifiers.sparse.crown.specification import choose, conclude, intervals
from prunecert.verifiers.sparse.crown.units.intervals import open_level, start, unstable_rows
from prunecert.verifiers.sparse.crown.units.state import UnitImage
from prunecert.verifiers.sparse.llvm.backward_unit import process1, process4, process8

_VECTORS = (0, 0)


@numba.njit(cache=True, nogil=True)
def finish_level(program: Program, image: UnitImage, level):  # type: ignore[no-untyped-def]
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
                y, radius = reference(rectified, lower[row], upper[row])
                quantities[row, 0], quantities[row, 1], quantities[row, 2] = y, abs(y), radius
                quantities[row, 3] = radius * gamma[row] * (1 + 4 * U53)
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
            planes[place + r, 0], planes[place + r, 1], planes[place + r, 2], planes[place + r, 3] = plane(
                kind, lower[kept], upper[kept], centers[kept], quantities[kept, 0], slack[kept], slopes[kept]
            )
            # A unit multiplies and adds for each of its neurons, and the row's reference may lie outside of its bounds.
            width = max(upper[kept], centers[kept]) - min(lower[kept], centers[kept])
            tiny += width * (gamma[kept] / U32 + 8.0) * (size + 1) + 8.0
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
    image.tiny[level + 1] = image.tiny[level] + tiny * SMALLEST
    return True


@numba.njit(cache=True, nogil=True)
def _walk(program: Program, image: UnitImage, scratch: Scratch, levels):  # type: ignore[no-untyped-def]
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
                if run >= RUN:
                    run = 0
                    flush(sums, totals, PAIRED_LANES32)
            words[word] = 0
    flush(sums, totals, PAIRED_LANES32)


@numba.njit(cache=True, nogil=True)
def bound_rows(program: Program, image: UnitImage, scratch: Scratch, level, rows, begin, end, intersect):  # type: ignore[no-untyped-def]
    """Tightens lower and upper of the rows rows[begin:end] of a level by the walk; without `intersect`, replaces them.

    A block is 16 rows with both signs: the upper bound of z is minus the lower bound of -z.
    """
    half = PAIRED_LANES32 // 2
    pointers, columns, weights, centers = program.pointers, program.columns, program.weights, image.centers
    number, unit_of, flags, coefficients = image.number, image.unit, scratch.flags, scratch.coefficients
    for block in range(begin, end, half):
        count = min(half, end - block)
        for lane in range(PAIRED_LANES32):
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
            slack = image.slack[row] + image.tiny[level]
            down, up = scratch.totals[lane], -scratch.totals[lane + half]
            adopt(image.lower, image.upper, image.slopes, row, centers[row], slack, down, up, intersect)


@numba.njit(cache=True, nogil=True)
def bound_functions(program: Program, image: UnitImage, scratch: Scratch, matrix, first, chosen, out):  # type: ignore[no-untyped-def]
    """Lower bounds of rows of functions of the deviations of variables first, first + 1, ..., from float32(matrix).

    Only the rounding after the start is accounted for: the coefficients are taken as they are. -inf where there is no
    bound.
    """
    levels = len(program.kinds)
    number, unit_of, flags, coefficients = image.number, image.unit, scratch.flags, scratch.coefficients
    for block in range(0, len(chosen), PAIRED_LANES32):
        count = min(PAIRED_LANES32, len(chosen) - block)
        for lane in range(PAIRED_LANES32):
            scratch.totals[lane] = 0.0
        for column in range(matrix.shape[1]):
            place = number[first + column]
            if place >= 0:
                for lane in range(count):
                    coefficients[place, lane] = np.float32(matrix[chosen[block + lane], column])
                flags[unit_of[place]] = 1
        _walk(program, image, scratch, levels)
        for lane in range(count):
            out[block + lane] = below(scratch.totals[lane], image.tiny[levels])


@numba.njit(cache=True, nogil=True)
def advance(  # type: ignore[no-untyped-def]
    program: Program, image: UnitImage, scratch: Scratch, low, high, level, tighten, rows, intersect, most
):
    """Bounds levels from `level` on, in one thread.

    Args:
        program: The network.
        image: Filled here.
        scratch: For the walks.
        low: Lower corner of the box, float64, in the order of the variables.
        high: Upper corner.
        level: First level; 0 begins an image.
        tighten: Whether unstable rows are bounded by walks (CROWN), not by intervals alone.
        rows: Scratch for row numbers, int64, as long as the largest level.
        intersect: Whether bounds by walks are combined with those by intervals.
        most: Columns of units that a level's remaining blocks may take here, going by its first block.

    Returns:
        The level whose remaining rows are more work than that, or the number of levels where all is done, or -1 if
        the image's arrays are too small; how many unstable rows the level has, and how many of them are done.
    """
    half = PAIRED_LANES32 // 2
    if level == 0:
        start(program, image, low, high)
    for now in range(level, len(program.kinds)):
        open_level(program, image, now)
        # Of functions of the input alone the intervals are CROWN's bounds.
        if tighten and now > 1:
            count = unstable_rows(program, image, now, rows)
            before = scratch.work.sum()
            walked = min(count, half)
            bound_rows(program, image, scratch, now, rows, 0, walked, intersect)
            blocks = (count - walked + half - 1) // half
            if blocks > 1 and blocks * (scratch.work.sum() - before) > most:
                return now, count, walked
            bound_rows(program, image, scratch, now, rows, walked, count, intersect)
        if not finish_level(program, image, now):
            return -1, 0, 0
    return len(program.kinds), 0, 0


@numba.njit(cache=True, nogil=True)
def bound_specification(  # type: ignore[no-untyped-def]
    program: Program, image: UnitImage, scratch: Scratch, merged, matrix, offsets, intersect, out
):
    """Lower bounds of matrix @ outputs - offsets of an image whose levels are bounded.

    Args:
        program: The network.
        image: The image.
        scratch: For the walk.
        merged: Scratch, float64 [S], zeros before and after.
        matrix: Float64 [rows, outputs], in the order of the variables.
        offsets: Float64 [rows].
        intersect: Whether the better of walks and intervals counts.
        out: Written, [rows].
    """
    first = program.starts[len(program.kinds) - 1]
    y, r = image.quantities[:, 0], image.quantities[:, 2]
    intervals(program, y, r, merged, first, matrix, offsets, out)
    chosen = np.empty(len(out), dtype=np.int64)
    chosen = chosen[: choose(out, PAIRED_LANES32 if intersect else len(out), chosen)]
    walked = np.empty(len(chosen))
    bound_functions(program, image, scratch, matrix, first, chosen, walked)
    conclude(y, r, first, matrix, offsets, walked, chosen, intersect, out)
