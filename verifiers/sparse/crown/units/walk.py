"""The backward walk over an image's matrix; `crown.rounding` says how it rounds."""

from __future__ import annotations

import numba
import numpy as np

from prunecert.verifiers.sparse.arrays import LANES32, PAIRED_LANES32
from prunecert.verifiers.sparse.crown.program import Program
from prunecert.verifiers.sparse.crown.rounding import RUN, adopt, below, flush
from prunecert.verifiers.sparse.crown.scratch import Scratch
from prunecert.verifiers.sparse.crown.specification import choose, conclude, intervals
from prunecert.verifiers.sparse.crown.units.blocks import Blocks
from prunecert.verifiers.sparse.crown.units.intervals import open_level, settle_level, start, unstable_rows
from prunecert.verifiers.sparse.crown.units.matrix import finish_level
from prunecert.verifiers.sparse.crown.units.state import UnitImage
from prunecert.verifiers.sparse.llvm.backward_unit import process1, process4, process8

#: Blocks of 16 coefficients a neuron, and of 32: as many vectors as these are long.
_NARROW = (0,)
_WIDE = (0, 0)


@numba.njit(cache=True, nogil=True)
def _walk(image: UnitImage, scratch: Scratch, coefficients, vectors, levels):  # type: ignore[no-untyped-def]
    """Walks back from the touched units of the levels below `levels` to the input; leaves bounds in `totals`."""
    flags, words, sums, totals = scratch.flags, scratch.words, scratch.sums, scratch.totals
    begins, fed, feeders, first, heights = image.begins, image.fed, image.feeders, image.first, image.height
    entries, offsets, columns, weights, planes = (
        image.entries, image.offsets, image.columns, image.weights, image.planes,
    )  # fmt: skip
    work, lanes = scratch.work, coefficients.shape[1]
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
                work[height // 4] += (entries[unit + 1] - entries[unit]) * len(vectors)
                if height == 8:
                    process8(
                        coefficients, planes, first[unit], sums, columns, entries[unit], entries[unit + 1], weights,
                        offsets[unit], vectors,
                    )  # fmt: skip
                elif height == 4:
                    process4(
                        coefficients, planes, first[unit], sums, columns, entries[unit], entries[unit + 1], weights,
                        offsets[unit], vectors,
                    )  # fmt: skip
                else:
                    process1(
                        coefficients, planes, first[unit], sums, columns, entries[unit], entries[unit + 1], weights,
                        offsets[unit], vectors,
                    )  # fmt: skip
                run += height
                if run >= RUN:
                    run = 0
                    flush(sums, totals, lanes)
            words[word] = 0
    flush(sums, totals, lanes)


@numba.njit(cache=True, nogil=True)
def _bound_block(program: Program, image: UnitImage, scratch: Scratch, coefficients, vectors, level, rows, intersect):  # type: ignore[no-untyped-def]
    """Bounds at most lanes / 2 rows of a level by a walk with both signs."""
    half = coefficients.shape[1] // 2
    pointers, columns, weights, centers = program.pointers, program.columns, program.weights, image.centers
    number, unit_of, flags = image.number, image.unit, scratch.flags
    for lane in range(2 * half):
        scratch.totals[lane] = 0.0
    for lane in range(len(rows)):
        row = rows[lane]
        for k in range(pointers[row], pointers[row + 1]):
            place = number[columns[k]]
            if place >= 0:
                coefficients[place, lane] = weights[k]
                coefficients[place, lane + half] = -weights[k]
                flags[unit_of[place]] = 1
    _walk(image, scratch, coefficients, vectors, level)
    for lane in range(len(rows)):
        row = rows[lane]
        slack = image.slack[row] + image.tiny[level]
        down, up = scratch.totals[lane], -scratch.totals[lane + half]
        adopt(image.lower, image.upper, image.slopes, row, centers[row], slack, down, up, intersect)


@numba.njit(cache=True, nogil=True)
def bound_rows(program: Program, image: UnitImage, scratch: Scratch, level, rows, begin, end, intersect):  # type: ignore[no-untyped-def]
    """Tightens lower and upper of the rows rows[begin:end] of a level by the walk; without `intersect`, replaces them.

    A block is 16 rows with both signs, or 8 at the end: the upper bound of z is minus the lower bound of -z.
    """
    for at in range(begin, end, LANES32):
        stop = min(at + LANES32, end)
        if stop - at > LANES32 // 2:
            _bound_block(program, image, scratch, scratch.coefficients, _WIDE, level, rows[at:stop], intersect)
        else:
            _bound_block(program, image, scratch, scratch.narrow, _NARROW, level, rows[at:stop], intersect)


@numba.njit(cache=True, nogil=True)
def _functions_block(image: UnitImage, scratch: Scratch, coefficients, vectors, levels, matrix, first, chosen, out):  # type: ignore[no-untyped-def]
    """Bounds at most as many functions as there are lanes."""
    number, unit_of, flags = image.number, image.unit, scratch.flags
    for lane in range(coefficients.shape[1]):
        scratch.totals[lane] = 0.0
    for column in range(matrix.shape[1]):
        place = number[first + column]
        if place >= 0:
            for lane in range(len(chosen)):
                coefficients[place, lane] = np.float32(matrix[chosen[lane], column])
            flags[unit_of[place]] = 1
    _walk(image, scratch, coefficients, vectors, levels)
    for lane in range(len(chosen)):
        out[lane] = below(scratch.totals[lane], image.tiny[levels])


@numba.njit(cache=True, nogil=True)
def bound_functions(program: Program, image: UnitImage, scratch: Scratch, matrix, first, chosen, out):  # type: ignore[no-untyped-def]
    """Lower bounds of rows of functions of the deviations of variables first, first + 1, ..., from float32(matrix).

    Only the rounding after the start is accounted for: the coefficients are taken as they are. -inf where there is no
    bound.
    """
    levels = len(program.kinds)
    for at in range(0, len(chosen), PAIRED_LANES32):
        stop = min(at + PAIRED_LANES32, len(chosen))
        if stop - at > LANES32:
            _functions_block(
                image, scratch, scratch.coefficients, _WIDE, levels, matrix, first, chosen[at:stop], out[at:stop]
            )
        else:
            _functions_block(
                image, scratch, scratch.narrow, _NARROW, levels, matrix, first, chosen[at:stop], out[at:stop]
            )


@numba.njit(cache=True, nogil=True)
def advance(  # type: ignore[no-untyped-def]
    program: Program, blocks: Blocks, image: UnitImage, scratch: Scratch, low, high, level, tighten, walk, rows,
    intersect, most,
):  # fmt: skip
    """Bounds levels from `level` on, in one thread.

    Args:
        program: The network.
        blocks: Its levels of blocks.
        image: Filled here.
        scratch: For the walks.
        low: Lower corner of the box, float64, in the order of the variables.
        high: Upper corner.
        level: First level; 0 begins an image.
        tighten: Whether unstable rows are bounded by walks (CROWN), not by intervals alone.
        walk: Whether anything is walked back at all.
        rows: Scratch for row numbers, int64, as long as the largest level.
        intersect: Whether bounds by walks are combined with those by intervals.
        most: Columns of units, with 16 coefficients each, that a level's remaining blocks may take here, going by its
            first block.

    Returns:
        The level whose remaining rows are more work than that, or the number of levels where all is done, or -1 if
        the image's arrays are too small; how many unstable rows the level has, and how many of them are done.
    """
    if level == 0:
        start(program, image, low, high)
    for now in range(level, len(program.kinds)):
        open_level(program, blocks, image, now)
        # Of functions of the input alone the intervals are CROWN's bounds.
        if tighten and now > 1:
            count = unstable_rows(program, image, now, rows)
            before = scratch.work.sum()
            walked = min(count, LANES32)
            bound_rows(program, image, scratch, now, rows, 0, walked, intersect)
            left = (count - walked + LANES32 - 1) // LANES32
            if left > 1 and left * (scratch.work.sum() - before) > most:
                return now, count, walked
            bound_rows(program, image, scratch, now, rows, walked, count, intersect)
        if not walk:
            settle_level(program, blocks, image, now)
        elif not finish_level(program, blocks, image, now):
            return -1, 0, 0
    return len(program.kinds), 0, 0


@numba.njit(cache=True, nogil=True)
def bound_specification(  # type: ignore[no-untyped-def]
    program: Program, image: UnitImage, scratch: Scratch, merged, matrix, offsets, walk, intersect, out
):
    """Lower bounds of matrix @ outputs - offsets of an image whose levels are bounded.

    Args:
        program: The network.
        image: The image.
        scratch: For the walk.
        merged: Scratch, float64 [S], zeros before and after.
        matrix: Float64 [rows, outputs], in the order of the variables.
        offsets: Float64 [rows].
        walk: Whether the rows are walked back, and not bounded by intervals alone.
        intersect: Whether the better of walks and intervals counts.
        out: Written, [rows].
    """
    first = program.starts[len(program.kinds) - 1]
    y, r = image.quantities[:, 0], image.quantities[:, 2]
    intervals(program, y, r, merged, first, matrix, offsets, out)
    if not walk:
        return
    chosen = np.empty(len(out), dtype=np.int64)
    chosen = chosen[: choose(out, PAIRED_LANES32 if intersect else len(out), chosen)]
    walked = np.empty(len(chosen))
    bound_functions(program, image, scratch, matrix, first, chosen, walked)
    conclude(y, r, first, matrix, offsets, walked, chosen, intersect, out)
