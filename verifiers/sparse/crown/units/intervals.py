"""Intervals over the rows of one image, level by level; `verifiers.sparse.crown.rounding` accounts for rounding."""

from __future__ import annotations

import numba

from prunecert.verifiers.sparse.crown.program import FUSED, INPUT, OVER, Program
from prunecert.verifiers.sparse.crown.rounding import SMALLEST, enclose, set_box
from prunecert.verifiers.sparse.crown.units.state import UnitImage
from prunecert.verifiers.sparse.llvm.backward_unit import accumulate


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
def take_over(program: Program, image: UnitImage, begin, end):  # type: ignore[no-untyped-def]
    """`propagate` for ReLUs over raw variables: the row is that variable, with weight 1."""
    for row in range(begin, end):
        raw = program.columns[program.pointers[row]]
        image.lower[row], image.upper[row] = image.lower[raw], image.upper[raw]
        image.centers[row] = image.quantities[raw, 0]
        image.slack[row] = image.quantities[raw, 3]
        image.slopes[row] = image.slopes[raw]


@numba.njit(cache=True, nogil=True)
def open_level(program: Program, image: UnitImage, level):  # type: ignore[no-untyped-def]
    """Bounds a level by intervals from the finished levels below."""
    kind = program.kinds[level]
    if kind == OVER:
        take_over(program, image, program.starts[level], program.starts[level + 1])
    elif kind != INPUT:
        propagate(program, image, program.live[program.lives[level] : program.lives[level + 1]])


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
