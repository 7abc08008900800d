"""The compact walk matrix of one image: what is left of the weights once its bounds are known."""

from __future__ import annotations

import numba
import numpy as np

from prunecert.verifiers.sparse.crown.program import FUSED, Program
from prunecert.verifiers.sparse.crown.rounding import SMALLEST, U32, plane
from prunecert.verifiers.sparse.crown.units.blocks import Blocks
from prunecert.verifiers.sparse.crown.units.intervals import list_values, refer
from prunecert.verifiers.sparse.crown.units.state import UnitImage


@numba.njit(cache=True, nogil=True)
def _fill_from_rows(  # type: ignore[no-untyped-def]
    pointers, sources, values, number, columns, weights, mark, spot, stamp, rows, count, height, entry, weight
):
    """Writes columns and weights of a unit from its rows; returns the ends of both."""
    for r in range(count):
        for k in range(pointers[rows[r]], pointers[rows[r] + 1]):
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
    return entry, weight


@numba.njit(cache=True, nogil=True)
def _fill_from_blocks(  # type: ignore[no-untyped-def]
    pairs, sources, offsets, blocks, channels, counts, number, columns, weights, position, start, pitch, rows, count,
    height, entry, weight,
):  # fmt: skip
    """`_fill_from_rows` of neurons of a position whose weights are blocks."""
    for pair in range(pairs[position], pairs[position + 1]):
        source, base = sources[pair], offsets[pair] - start
        for k in range(source, source + counts[source]):
            column = number[source + channels[k]]
            if column < 0:
                continue
            at = base + channels[k] * pitch
            used = False
            for r in range(count):
                value = blocks[at + rows[r]]
                weights[weight + r] = value
                used |= value != np.float32(0.0)
            if used:
                for r in range(count, height):
                    weights[weight + r] = np.float32(0.0)
                columns[entry] = column
                entry += 1
                weight += height
    return entry, weight


@numba.njit(cache=True, nogil=True)
def finish_level(program: Program, blocks: Blocks, image: UnitImage, level):  # type: ignore[no-untyped-def]
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
                radius = refer(program, image, row, rectified)
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
            # A column that only zeros fill is written, too, and overwritten by the next one.
            or weight + (most + 1) * height > len(weights)
            or place + height > len(unit_of)
        ):
            return False
        begin = entry
        for r in range(count):
            number[rows[r]] = place + r
        if blocks.blocked[level]:
            entry, weight = _fill_from_blocks(
                blocks.pairs, blocks.sources, blocks.offsets, blocks.weights, image.channels, image.counts, number,
                columns, weights, blocks.first[level] + current, start + current * group, blocks.pitch[level], rows,
                count, height, entry, weight,
            )  # fmt: skip
        else:
            entry, weight = _fill_from_rows(
                pointers, sources, values, number, columns, weights, mark, spot, stamp, rows, count, height, entry,
                weight,
            )  # fmt: skip
        for r in range(count):
            kept = rows[r]
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
    if blocks.read[level]:
        list_values(program, blocks, image, level)
    return True
