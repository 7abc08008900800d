"""The specification's rows: by intervals of what feeds the outputs, and what the walk's bounds of them mean."""

from __future__ import annotations

import numba
import numpy as np

from prunecert.verifiers.sparse.crown.program import Program
from prunecert.verifiers.sparse.crown.rounding import LEAST, SMALLEST, U53
from prunecert.verifiers.sparse.network import WEIGHT_ERROR


@numba.njit(cache=True, nogil=True)
def intervals(program: Program, y, r, merged, first, matrix, offsets, out):  # type: ignore[no-untyped-def]
    """Lower bounds of matrix @ outputs - offsets by intervals of the variables that feed the outputs.

    Args:
        program: The network.
        y: References of the variables, float64 [S].
        r: Their radii.
        merged: Scratch, float64 [S], zeros before and after.
        first: The first output.
        matrix: Float64 [rows, outputs].
        offsets: Float64 [rows].
        out: Written, [rows].
    """
    pointers, columns, weights = program.pointers, program.columns, program.weights
    outputs = matrix.shape[1]
    inexact = program.inexact[len(program.kinds) - 1]
    # An inexact weight may be subnormal, and is then within this of the real number.
    least = SMALLEST if inexact else 0.0
    for k in range(len(matrix)):
        terms = 0
        center = size = error = 0.0
        for output in range(outputs):
            factor = matrix[k, output]
            if factor == 0.0:
                continue
            row = first + output
            if abs(factor) < LEAST / SMALLEST:
                # Its products may underflow.
                error = np.inf
            center += factor * program.bias[row]
            size += abs(factor * program.bias[row])
            error += abs(factor) * program.bias_error[row]
            terms += pointers[row + 1] - pointers[row] + 1
            for entry in range(pointers[row], pointers[row + 1]):
                merged[columns[entry]] += factor * weights[entry]
                weight = max(abs(np.float64(weights[entry])), least)
                size += abs(factor) * weight * (abs(y[columns[entry]]) + r[columns[entry]])
        radius = 0.0
        for output in range(outputs):
            if matrix[k, output] == 0.0:
                continue
            for entry in range(pointers[first + output], pointers[first + output + 1]):
                column = columns[entry]
                # What several outputs read is taken once.
                if merged[column] != 0.0:
                    center += merged[column] * y[column]
                    radius += abs(merged[column]) * r[column]
                    merged[column] = 0.0
        # Products of merged weights, and two sums.
        relative = 2 * (2 * terms + 32) * U53
        if inexact:
            relative += 2 * WEIGHT_ERROR
        size = size * relative * (1 + 2.0**-20) + error * (1 + 2.0**-40)
        bound = center - radius - size - offsets[k]
        out[k] = bound - 4 * U53 * (abs(bound) + abs(offsets[k])) - LEAST


@numba.njit(cache=True, nogil=True)
def choose(bounds, most, chosen):  # type: ignore[no-untyped-def]
    """Writes the rows to walk to `chosen`, and returns how many: those not above 0, or all where there are few."""
    count = 0
    for k in range(len(bounds)):
        if len(bounds) <= most or not bounds[k] > 0.0:
            chosen[count] = k
            count += 1
    return count


@numba.njit(cache=True, nogil=True)
def conclude(y, r, first, matrix, offsets, walked, chosen, intersect, out):  # type: ignore[no-untyped-def]
    """Turns bounds of the outputs' deviations into bounds of the rows.

    Args:
        y: References of the variables.
        r: Their radii.
        first: The first output.
        matrix: Float64 [rows, outputs].
        offsets: Float64 [rows].
        walked: Lower bounds of float32(matrix) @ deviations of the chosen rows.
        chosen: Numbers of rows.
        intersect: Whether the better of these and of what is in `out` counts.
        out: [rows].
    """
    outputs = matrix.shape[1]
    for k in range(len(chosen)):
        row = chosen[k]
        size = abs(offsets[row]) + abs(walked[k])
        value = lost = 0.0
        for output in range(outputs):
            factor = matrix[row, output]
            if factor != 0.0:
                value += factor * y[first + output]
                size += abs(factor * y[first + output])
                lost += abs(factor - np.float64(np.float32(factor))) * r[first + output]
        error = lost * (1 + 2.0**-40) + 2 * (outputs + 8) * U53 * size
        bound = value - offsets[row] + walked[k] - error
        # What isn't a number is no bound, and where there is an interval's, no better one.
        if not intersect or bound > out[row] or np.isnan(out[row]):
            out[row] = bound
