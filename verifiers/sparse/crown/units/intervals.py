"""Intervals over the rows of one image, level by level; `verifiers.sparse.crown.rounding` accounts for rounding."""

from __future__ import annotations

import numba

from prunecert.verifiers.sparse.arrays import BLOCK_WIDTH
from prunecert.verifiers.sparse.crown.program import FUSED, INPUT, OVER, Program
from prunecert.verifiers.sparse.crown.rounding import (
    FLOOR,
    LEAST,
    SMALLEST,
    U53,
    enclose,
    magnitude,
    reference,
    set_box,
)
from prunecert.verifiers.sparse.crown.units.blocks import Blocks
from prunecert.verifiers.sparse.crown.units.state import UnitImage
from prunecert.verifiers.sparse.llvm.backward_unit import accumulate
from prunecert.verifiers.sparse.llvm.block_columns import add_columns


@numba.njit(cache=True, nogil=True)
def start(program: Program, image: UnitImage, low, high):  # type: ignore[no-untyped-def]
    """Sets the input box (float64 corners in the order of the variables) and empties the walk's matrix."""
    image.used[:5] = 0
    image.begins[0] = 0
    image.entries[0] = image.offsets[0] = image.feeders[0] = 0
    image.tiny[0] = 0.0
    image.slopes[:] = -1
    set_box(image.lower, image.upper, image.centers, low[: program.starts[1]], high[: program.starts[1]])
    image.slack[: program.starts[1]] = 0.0


@numba.njit(cache=True, nogil=True)
def propagate(program: Program, image: UnitImage, rows):  # type: ignore[no-untyped-def]
    """Bounds these rows by intervals: fills their z_c, lower, upper and slack."""
    pointers, columns, weights = program.pointers, program.columns, program.weights
    quantities = image.quantities
    for row in rows:
        b, e = pointers[row], pointers[row + 1]
        value, size, radius, charge = accumulate(quantities, columns, weights, b, e, SMALLEST)
        # A row without weights rounds nothing: the neuron is a constant, and the walk leaves it out.
        operations = e - b + 2 if e > b else 0
        inexact = program.inexact[program.level[row]]
        image.centers[row], image.lower[row], image.upper[row], image.slack[row] = enclose(
            value, size, radius, charge, program.bias[row], program.bias_error[row], inexact, e - b, operations
        )


@numba.njit(cache=True, nogil=True)
def list_values(program: Program, blocks: Blocks, image: UnitImage, level):  # type: ignore[no-untyped-def]
    """Lists, position by position, what is not 0 of a finished level, for the levels of blocks that read it."""
    quantities, values, channels = image.quantities, image.values, image.channels
    loss, group = blocks.loss[level], program.groups[level]
    peak = 0.0
    for start in range(program.starts[level], program.starts[level + 1], group):
        at = start
        for row in range(start, start + group):
            y, size, radius = quantities[row, 0], quantities[row, 1], quantities[row, 2]
            channels[at] = row - start
            values[at, 0] = y
            values[at, 1] = (radius + loss * size) * (1 + 4 * U53) + FLOOR
            # Not a number isn't 0, either.
            at += y != 0.0 or radius != 0.0
            peak = max(peak, size)
        image.counts[start] = at - start
    image.peaks[level] = peak


@numba.njit(cache=True, nogil=True)
def refer(program: Program, image: UnitImage, row, rectified):  # type: ignore[no-untyped-def]
    """Sets reference and radius of a variable from its final bounds, and returns the radius."""
    y, radius = reference(rectified, image.lower[row], image.upper[row])
    image.quantities[row, 0], image.quantities[row, 1], image.quantities[row, 2] = y, magnitude(y, radius), radius
    image.quantities[row, 3] = radius * program.gamma[row] * (1 + 4 * U53)
    return radius


@numba.njit(cache=True, nogil=True)
def settle_level(program: Program, blocks: Blocks, image: UnitImage, level):  # type: ignore[no-untyped-def]
    """Ends a level where nothing will be walked back."""
    rectified = program.kinds[level] >= FUSED
    for row in program.live[program.lives[level] : program.lives[level + 1]]:
        refer(program, image, row, rectified)
    if blocks.read[level]:
        list_values(program, blocks, image, level)


@numba.njit(cache=True, nogil=True)
def propagate_blocks(program: Program, blocks: Blocks, image: UnitImage, level):  # type: ignore[no-untyped-def]
    """`propagate` for a level of blocks, with two sums a row and not four.

    As in `crown.rows.intervals`, the rounding of a reference, γ_n Σ |w y_c|, is part of the second sum, which runs over
    q = r + γ_n |y_c|; where it is wanted alone, it is bounded by γ_n Σ |w| and the largest |y_c| that the level reads;
    and the walk's γ is the largest of the variables that it reads.
    """
    pointers, bias, bias_error = program.pointers, program.bias, program.bias_error
    group, pitch, grow, gamma = program.groups[level], blocks.pitch[level], blocks.grow[level], blocks.gamma[level]
    sums, first = image.sums, program.starts[level]
    peak = 0.0
    for below in range(level):
        if blocks.sources_of[level, below]:
            peak = max(peak, blocks.base[below], image.peaks[below])
    error = blocks.scaled[level] * peak
    for position in range(blocks.first[level], blocks.first[level + 1]):
        for part in range(0, group, BLOCK_WIDTH):
            sums[:] = 0.0
            for pair in range(blocks.pairs[position], blocks.pairs[position + 1]):
                source = blocks.sources[pair]
                add_columns(
                    sums, image.channels, image.values, blocks.weights, source, source + image.counts[source],
                    blocks.offsets[pair] + part, pitch,
                )  # fmt: skip
            for place in range(min(BLOCK_WIDTH, group - part)):
                row = first + part + place
                entries = pointers[row + 1] - pointers[row]
                # Constants keep what `make_image` says of them.
                if entries == 0 and bias_error[row] == 0.0:
                    continue
                center, total = sums[0, place] + bias[row], sums[1, place]
                own = (entries + 2) * U53 * (1 + 1e-6) * abs(bias[row]) if entries else 0.0
                own += bias_error[row] * (1 + 4 * U53)
                # Products may have underflowed, unless all that the row reads is 0.
                if total != 0.0:
                    own += LEAST
                radius = (total + own) * grow
                room = 2 * U53 * (abs(center) + radius)
                image.centers[row], image.lower[row], image.upper[row] = (
                    center, center - radius - room, center + radius + room,
                )  # fmt: skip
                image.slack[row] = (gamma * total + error + own) * grow
        first += group


@numba.njit(cache=True, nogil=True)
def take_over(program: Program, image: UnitImage, begin, end):  # type: ignore[no-untyped-def]
    """`propagate` for ReLUs over raw variables: the row is that variable, with weight 1."""
    for row in range(begin, end):
        raw = program.columns[program.pointers[row]]
        image.lower[row], image.upper[row] = image.lower[raw], image.upper[raw]
        image.centers[row] = image.quantities[raw, 0]
        image.slack[row] = image.quantities[raw, 3]
        image.slopes[row] = image.slopes[raw]


@numba.njit(cache=True, nogil=True)
def open_level(program: Program, blocks: Blocks, image: UnitImage, level):  # type: ignore[no-untyped-def]
    """Bounds a level by intervals from the finished levels below."""
    kind = program.kinds[level]
    if kind == OVER:
        take_over(program, image, program.starts[level], program.starts[level + 1])
    elif blocks.blocked[level]:
        propagate_blocks(program, blocks, image, level)
    elif kind != INPUT:
        propagate(program, image, program.live[program.lives[level] : program.lives[level + 1]])


@numba.njit(cache=True, nogil=True)
def evaluate(program: Program, blocks: Blocks, image: UnitImage, x):  # type: ignore[no-untyped-def]
    """Computes all values at a point, float64 in the order of the variables, into `image.centers`.

    Not by intervals of the point, whose radii, however small at first, would take the place of the values after some
    layers: each variable's reference is its value, and all radii are 0.
    """
    start(program, image, x, x)
    image.centers[: program.starts[1]] = x[: program.starts[1]]
    for level in range(len(program.kinds)):
        open_level(program, blocks, image, level)
        rectified = program.kinds[level] >= FUSED
        for row in program.live[program.lives[level] : program.lives[level + 1]]:
            y = image.centers[row]
            if rectified and y < 0.0:
                y = 0.0
            image.quantities[row, 0], image.quantities[row, 1] = y, magnitude(y, 0.0)
            image.quantities[row, 2] = image.quantities[row, 3] = 0.0
        if blocks.read[level]:
            list_values(program, blocks, image, level)


@numba.njit(cache=True, nogil=True)
def unstable_rows(program: Program, image: UnitImage, level, out):  # type: ignore[no-untyped-def]
    """Writes the level's rows whose ReLU is unstable to `out`; returns how many there are."""
    count = 0
    if program.bounded[level]:
        for row in program.live[program.lives[level] : program.lives[level + 1]]:
            if image.lower[row] < 0.0 < image.upper[row]:
                out[count] = row
                count += 1
    return count


@numba.njit(cache=True, nogil=True)
def count_unstable(program: Program, image: UnitImage):  # type: ignore[no-untyped-def]
    """Counts ReLUs whose input may have either sign."""
    count = 0
    for level in range(len(program.kinds)):
        if program.kinds[level] >= FUSED:
            for row in program.live[program.lives[level] : program.lives[level + 1]]:
                count += image.lower[row] < 0.0 < image.upper[row]
    return count
