"""Bounds of subdomains that share their lines: sums of the split neurons' rows, and what of it is below 0.

All loops run along a row's columns, a block at a time, so that a block's sums stay in the first cache while the rows of
the split neurons pass. A subdomain's split neurons are taken in the order of their rows: what an early one's row is
multiplied by depends on those of later layers.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from prunecert.verifiers.sparse.arrays import (
    LANES32,
    Float32Array,
    Float64Array,
    Int8Array,
    Int32Array,
    Int64Array,
)
from prunecert.verifiers.sparse.bab.ascent_state import AscentProblem
from prunecert.verifiers.sparse.llvm.row_gather import gather

#: Sums may be taken in any order; infinities and what is not a number stay what they are.
_FAST = {"nsz", "contract", "reassoc", "arcp"}
#: Columns of a block.
_BLOCK = 1024
#: Neurons whose children are bounded before one is chosen.
_CANDIDATES = 24


class LineProblem(NamedTuple):
    """N neurons that may be split as affine functions of W columns, see `shared_lines`; never written.

    The last hidden layer's are first, then earlier ones, those of later layers first.

    Args:
        rows: [N, W] coefficients.
        base: [W] those of the specification where no neuron is split.
        offsets: [N] constants that belong to the rows.
        constant: Likewise, to the base.
        columns: [N] of an earlier neuron's error; -1 for the last hidden layer's.
        heights: [N] the error's largest value; 1 for the last hidden layer's.
        slopes: [N] of an earlier neuron's line; 0 for the last hidden layer's.
        coefficients: [N] the specification's coefficients of the last hidden layer's neurons behind their ReLUs.
        whole: [N] coefficients of these neurons' values where they are not split.
        shifts: [N] constants of these neurons' chords, 0 where there is none.
        scale: [N] what a step of a multiplier is relative to.
    """

    rows: Float32Array
    base: Float32Array
    offsets: Float64Array
    constant: float
    columns: Int64Array
    heights: Float32Array
    slopes: Float32Array
    coefficients: Float32Array
    whole: Float32Array
    shifts: Float64Array
    scale: Float32Array


class Splits(NamedTuple):
    """D subdomains by their K or fewer split neurons.

    Args:
        counts: [D] how many.
        neurons: [D, K] rows of the problem, ascending.
        signs: [D, K] 1 active, -1 inactive.
        values: [D, K] the last hidden layer's coefficients of the neurons' values, earlier ones' multipliers;
            overwritten by the best.
    """

    counts: Int32Array
    neurons: Int32Array
    signs: Int8Array
    values: Float32Array


@numba.njit(cache=True, fastmath=_FAST)
def trace(
    problem: AscentProblem,
    slopes: Float32Array,
    weights: Float32Array,
    first: int,
    seeds: Int64Array,
    lam: Float32Array,
    pixels: Float32Array,
    totals: Float64Array,
) -> None:
    """Walks 16 rows back through a reduced network, every neuron along one line whatever the sign of its coefficient.

    Args:
        problem: The network.
        slopes: [U] of the lines.
        weights: [R] of the specification's rows.
        first: Of the neurons at which walks end: those of the last hidden layer.
        seeds: [16] the neuron whose value is a row; U: the weighted specification; -1: nothing.
        lam: [U, 16] coefficients behind the ReLUs; written.
        pixels: [P, 16] coefficients of the pixels; written.
        totals: [16] constants; written.
    """
    neurons = len(slopes)
    mu = np.zeros((neurons + len(weights)) * LANES32, dtype=np.float32)
    flat, ends = lam.reshape(-1), pixels.reshape(-1)
    seeded = np.zeros(neurons, dtype=np.bool_)
    totals[:] = 0.0
    for lane in range(LANES32):
        if seeds[lane] == neurons:
            for r in range(len(weights)):
                mu[(neurons + r) * LANES32 + lane] = weights[r]
                totals[lane] += weights[r] * problem.c[neurons + r]
        elif seeds[lane] >= 0:
            seeded[seeds[lane]] = True
    for i in range(neurons - 1, -1, -1):
        gather(mu, 0, problem.nt_rows, problem.nt_values, problem.nt_starts[i], problem.nt_starts[i + 1], flat, i * 16)
        for lane in range(LANES32):
            value = np.float32(0.0) if i >= first else slopes[i] * flat[i * LANES32 + lane]
            mu[i * LANES32 + lane] = value
            totals[lane] += value * problem.c[i]
        if seeded[i]:
            for lane in range(LANES32):
                if seeds[lane] == i:
                    mu[i * LANES32 + lane] = 1.0
                    totals[lane] += problem.c[i]
    for p in range(len(pixels)):
        gather(mu, 0, problem.mt_rows, problem.mt_values, problem.mt_starts[p], problem.mt_starts[p + 1], ends, p * 16)


@numba.njit(cache=True)
def _weigh(problem: LineProblem, splits: Splits, d: int, factors: Float32Array) -> float:
    """Sets what the rows of a subdomain's split neurons are multiplied by, and returns what no column adds."""
    total = problem.constant
    for k in range(splits.counts[d]):
        neuron, value = splits.neurons[d, k], splits.values[d, k]
        column = problem.columns[neuron]
        if column < 0:
            factor = value - problem.whole[neuron]
        else:
            lam = problem.base[column]
            for other in range(k):
                lam += factors[other] * problem.rows[splits.neurons[d, other], column]
            lam /= problem.heights[neuron]
            slope = problem.slopes[neuron]
            factor = lam * (np.float32(1.0) - slope) - value if splits.signs[d, k] > 0 else value - lam * slope
        factors[k] = factor
        total += float(factor) * problem.offsets[neuron] - problem.shifts[neuron]
    return total


@numba.njit(cache=True, fastmath=_FAST)
def _add(sums: Float32Array, row: Float32Array, factor: np.float32) -> None:
    for w in range(len(sums)):
        sums[w] += factor * row[w]


@numba.njit(cache=True)
def _sum_up(
    problem: LineProblem, splits: Splits, d: int, factors: Float32Array, begin: int, sums: Float32Array
) -> None:
    """Sets the sums of a subdomain's rows from a column on; 0 where a split neuron has no error any more."""
    end = begin + len(sums)
    sums[:] = problem.base[begin:end]
    for k in range(splits.counts[d]):
        _add(sums, problem.rows[splits.neurons[d, k], begin:end], factors[k])
    for k in range(splits.counts[d]):
        column = problem.columns[splits.neurons[d, k]]
        if begin <= column < end:
            sums[column - begin] = 0.0


@numba.njit(cache=True, fastmath=_FAST)
def _below(sums: Float32Array) -> np.float32:
    """Returns the sum of what is below 0."""
    total = np.float32(0.0)
    for w in range(len(sums)):
        total += min(sums[w], np.float32(0.0))
    return total


@numba.njit(cache=True, fastmath=_FAST)
def _where_below(sums: Float32Array, row: Float32Array) -> np.float32:
    """Returns the sum of a row's numbers where the sums are below 0."""
    total = np.float32(0.0)
    for w in range(len(sums)):
        total += row[w] if sums[w] < 0 else np.float32(0.0)
    return total


@numba.njit(cache=True)
def _finish_gradient(
    problem: LineProblem, splits: Splits, d: int, gradient: Float64Array, through: Float64Array
) -> None:
    """Makes derivatives by the values of what is the sum of each row's numbers below 0.

    Args:
        problem: The neurons.
        splits: The subdomains.
        d: Which.
        gradient: [K]; overwritten.
        through: [K] room: derivatives by the columns of neurons that are split.
    """
    count = splits.counts[d]
    for k in range(count - 1, -1, -1):
        neuron = splits.neurons[d, k]
        # The value of the neuron at the minimiser.
        value = problem.offsets[neuron] + gradient[k]
        for other in range(k + 1, count):
            column = problem.columns[splits.neurons[d, other]]
            if column >= 0:
                value += through[other] * problem.rows[neuron, column]
        if problem.columns[neuron] < 0:
            gradient[k] = value
        elif splits.signs[d, k] > 0:
            through[k] = (1.0 - problem.slopes[neuron]) * value / problem.heights[neuron]
            gradient[k] = -value
        else:
            through[k] = -problem.slopes[neuron] * value / problem.heights[neuron]
            gradient[k] = value


@numba.njit(cache=True)
def _step(
    problem: LineProblem,
    splits: Splits,
    d: int,
    step: int,
    rate: float,
    gradient: Float64Array,
    first: Float64Array,
    second: Float64Array,
) -> None:
    """Moves a subdomain's values: Adam (Kingma and Ba 2015) with projection, as in `ascent`."""
    for k in range(splits.counts[d]):
        neuron = splits.neurons[d, k]
        scale = problem.scale[neuron]
        first[k] = 0.9 * first[k] + 0.1 * gradient[k] * scale
        second[k] = 0.99 * second[k] + 0.01 * (gradient[k] * scale) ** 2
        move = first[k] / (1.0 - 0.9 ** (step + 1)) / (np.sqrt(second[k] / (1.0 - 0.99 ** (step + 1))) + 1e-12)
        value = splits.values[d, k] + rate * scale * move
        if problem.columns[neuron] < 0 and splits.signs[d, k] > 0:
            value = min(value, problem.coefficients[neuron])
        else:
            value = max(value, 0.0)
        splits.values[d, k] = value


@numba.njit(cache=True)
def _ascend(
    problem: LineProblem, splits: Splits, d: int, steps: int, rate: float, decay: float, target: float
) -> float:
    """Ascends in one subdomain and returns its best bound."""
    count, columns = splits.counts[d], len(problem.base)
    room = np.empty(_BLOCK, dtype=np.float32)
    first, second, gradient, through = np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count)
    factors = np.empty(count, dtype=np.float32)
    best = splits.values[d, :count].copy()
    top = -np.inf
    for step in range(steps + 1):
        bound = _weigh(problem, splits, d, factors)
        gradient[:] = 0.0
        for begin in range(0, columns, _BLOCK):
            sums = room[: min(_BLOCK, columns - begin)]
            _sum_up(problem, splits, d, factors, begin, sums)
            bound += _below(sums)
            if step < steps:
                for k in range(count):
                    row = problem.rows[splits.neurons[d, k], begin : begin + len(sums)]
                    gradient[k] += _where_below(sums, row)
        if bound > top:
            top = bound
            best[:] = splits.values[d, :count]
        if step == steps or top > target:
            break
        _finish_gradient(problem, splits, d, gradient, through)
        _step(problem, splits, d, step, rate * decay**step, gradient, first, second)
    splits.values[d, :count] = best
    return top


@numba.njit(cache=True, parallel=True)
def ascend(
    problem: LineProblem,
    splits: Splits,
    steps: int,
    rate: float,
    decay: float,
    target: float,
    bounds: Float64Array,
) -> None:
    """Ascends in all subdomains.

    Args:
        problem: The neurons.
        splits: Where to start; its values are overwritten by the best.
        steps: Gradient steps; a subdomain ends when its bound exceeds `target`.
        rate: First step size, relative to the neurons' scales.
        decay: Of it, a step.
        target: See `steps`.
        bounds: [D] the best bounds; written.
    """
    for d in numba.prange(len(bounds)):
        bounds[d] = _ascend(problem, splits, np.int64(d), steps, rate, decay, target)


@numba.njit(cache=True, fastmath=_FAST)
def _both(sums: Float32Array, row: Float32Array, up: np.float32, down: np.float32) -> tuple[np.float32, np.float32]:
    """Returns the sums of what is below 0 where a row is added so many times: once for each child."""
    active, inactive = np.float32(0.0), np.float32(0.0)
    for w in range(len(sums)):
        active += min(sums[w] + up * row[w], np.float32(0.0))
        inactive += min(sums[w] + down * row[w], np.float32(0.0))
    return active, inactive


@numba.njit(cache=True)
def _score(problem: LineProblem, sums: Float32Array, neuron: int) -> float:
    """Returns about what a neuron's line costs."""
    column = problem.columns[neuron]
    if column < 0:
        return -float(problem.shifts[neuron])
    value = float(sums[column])
    return -value if value < 0 else 0.5 * value


@numba.njit(cache=True)
def _choose(problem: LineProblem, splits: Splits, d: int) -> int:
    """Returns the neuron to split in one subdomain, -1 where none has a line that costs anything."""
    size, count = len(problem.rows), splits.counts[d]
    factors = np.empty(count, dtype=np.float32)
    sums = np.empty(len(problem.base), dtype=np.float32)
    constant = _weigh(problem, splits, d, factors)
    _sum_up(problem, splits, d, factors, 0, sums)
    here = constant + _below(sums)
    scores = np.empty(size)
    for j in range(size):
        scores[j] = _score(problem, sums, j)
    for k in range(count):
        scores[splits.neurons[d, k]] = 0.0
    chosen, most = -1, 0.0
    for j in np.argsort(-scores)[:_CANDIDATES]:
        if not scores[j] > 0:
            break
        column = problem.columns[j]
        if column < 0:
            up, down, gain = problem.coefficients[j] - problem.whole[j], -problem.whole[j], -problem.shifts[j]
        else:
            lam = sums[column] / problem.heights[j]
            up, down, gain = lam * (np.float32(1.0) - problem.slopes[j]), -lam * problem.slopes[j], 0.0
            gain -= min(sums[column], np.float32(0.0))
        active, inactive = _both(sums, problem.rows[j], up, down)
        better = min(constant + up * problem.offsets[j] + gain + active, 0.0) - here
        worse = min(constant + down * problem.offsets[j] + gain + inactive, 0.0) - here
        # The weaker child decides; the stronger one breaks ties.
        value = min(better, worse) + 0.1 * max(better, worse)
        if chosen < 0 or value > most:
            chosen, most = j, value
    return chosen


@numba.njit(cache=True, parallel=True)
def choose(problem: LineProblem, splits: Splits, chosen: Int32Array) -> None:
    """Writes for each subdomain the neuron whose children have the best bounds, [D]; -1 where none is left.

    Those whose lines cost most are tried, with the new split's multiplier at 0.
    """
    for d in numba.prange(len(chosen)):
        chosen[d] = _choose(problem, splits, np.int64(d))
