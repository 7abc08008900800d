"""The linear relaxation of a pair over a part of a box, as one programme, and what follows from its dual rigorously.

Variables are the input, and the values before and behind each ReLU in both networks. Constraints are the layers, the
triangle of each unstable ReLU, the range of each difference before and behind it, and its chord where both are
unstable. Where no ReLU is unstable any more the programme is exact, which makes branch and bound complete but for
rounding.

HiGHS solves it in floating point, and its answer is believed in nothing. From its multipliers π >= 0 for the
constraints G v <= h, any multipliers for equations, and weights w >= 0 for the rows A y <= b of the question, follows

    w (A y - b)  >=  Σ_j min(r_j l_j, r_j u_j) - π h - w b,    r = A^T w + G^T π,   l <= v <= u,

for whatever they are (Neumaier and Shcherbina 2004). The right-hand side is computed in float64 with all errors
charged; above 0, it contradicts that all rows hold. G and h hold for the real networks: weights are the files' own, or
their error is in h; slopes of triangles are any numbers, with an intercept that is rounded up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from scipy.optimize import linprog

from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array
from prunecert.verifiers.sparse.node_bounds import gamma
from prunecert.verifiers.sparse.pairs.network import Pair, PairTerm
from prunecert.verifiers.sparse.pairs.ranges import CHANGE, FIRST, SECOND, PairRanges, inexact, through_relu
from prunecert.verifiers.sparse.walks import TINY, UNIT

#: `scipy.optimize.linprog`'s code for a programme without a solution.
_OPTIMAL, _INFEASIBLE = 0, 2


@dataclass(frozen=True, eq=False)
class ProgrammeAnswer:
    """What a programme says.

    Args:
        proved: Whether it follows rigorously that the rows don't all hold anywhere.
        least: The solver's value of the largest row; -inf where it found none.
        point: The input at which it is, or None.
        gaps: For each node with a ReLU: by how much its triangles are missed there, [2, size].
    """

    proved: bool
    least: float
    point: Float64Array | None
    gaps: dict[int, Float64Array]


@dataclass(frozen=True, eq=False)
class _Block:
    """Constraints matrix @ v <= limit."""

    matrix: scipy.sparse.csr_array
    limit: Float64Array


class Programme:
    """A pair over a part of a box.

    Args:
        pair: The networks.
        ranges: Of all nodes over that part; one box.
    """

    def __init__(self, pair: Pair, ranges: Sequence[PairRanges]) -> None:
        self._pair, self._ranges = pair, ranges
        #: Without bounds of all values nothing follows.
        self._bounded = all(np.isfinite(item.lower).all() and np.isfinite(item.upper).all() for item in ranges)
        self._places: dict[tuple[int, int, bool], int] = {}
        low: list[Float64Array] = []
        high: list[Float64Array] = []
        self._width = 0
        for node, size in enumerate(pair.sizes):
            behind = through_relu(ranges[node])
            for network in (FIRST, SECOND) if node else (FIRST,):
                for activated in (False, True) if node in pair.activated else (False,):
                    self._places[node, network, activated] = self._width
                    node_ranges = behind if activated else ranges[node]
                    low.append(node_ranges.lower[network, :, 0])
                    high.append(node_ranges.upper[network, :, 0])
                    self._width += size
        self._places[0, SECOND, False] = self._places[0, FIRST, False]
        self._low, self._high = np.concatenate(low), np.concatenate(high)
        self._equations: list[_Block] = []
        self._limits: list[_Block] = []
        for node in range(1, pair.last + 1 if self._bounded else 1):
            for network in (FIRST, SECOND):
                self._layer(node, network)
        for node in pair.activated if self._bounded else ():
            for network in (FIRST, SECOND):
                self._triangles(node, network)
            self._differences(node)

    def _columns(
        self, node: int, network: int, activated: bool, index: Int64Array, factor: float = 1.0
    ) -> scipy.sparse.csr_array:
        """Returns the rows that pick some of a node's values, [len(index), width]."""
        first = self._places[node, network, activated]
        data = np.full(len(index), factor)
        return scipy.sparse.csr_array((data, (np.arange(len(index)), first + index)), shape=(len(index), self._width))

    def _spread(self, term: PairTerm, network: int) -> scipy.sparse.csr_array:
        matrix = (term.first if network == FIRST else term.second).matrix
        first = self._places[term.source, network, term.activated]
        entries = matrix.tocoo()
        return scipy.sparse.csr_array(
            (entries.data, (entries.coords[0], entries.coords[1] + first)), shape=(matrix.shape[0], self._width)
        )

    def _layer(self, node: int, network: int) -> None:
        shift = self._pair.shifts[node]
        error = shift.error[network].copy()
        matrix = self._columns(node, network, False, np.arange(self._pair.sizes[node]))
        for term in self._pair.terms[node]:
            matrix = matrix - self._spread(term, network)
            if not term.exact:
                before = through_relu(self._ranges[term.source]) if term.activated else self._ranges[term.source]
                error += inexact(term, before)[network, :, 0]
        matrix = scipy.sparse.csr_array(matrix)
        if error.any():
            around = error * (1 + 8 * UNIT)
            bias = shift.value[network]
            edge = 4 * UNIT * (np.abs(bias) + around)
            self._limits.append(_Block(matrix, bias + around + edge))
            self._limits.append(_Block(scipy.sparse.csr_array(-matrix), around - bias + edge))
        else:
            self._equations.append(_Block(matrix, shift.value[network]))

    def _triangles(self, node: int, network: int) -> None:
        low, high = self._ranges[node].lower[network, :, 0], self._ranges[node].upper[network, :, 0]
        on = np.flatnonzero(low >= 0)
        z, a = self._columns(node, network, False, on), self._columns(node, network, True, on)
        self._equations.append(_Block(a - z, np.zeros(len(on))))
        free = np.flatnonzero((low < 0) & (high > 0))
        z, a = self._columns(node, network, False, free), self._columns(node, network, True, free)
        self._limits.append(_Block(z - a, np.zeros(len(free))))
        self._below_chord(a, z, low[free], high[free])

    def _below_chord(
        self, behind: scipy.sparse.csr_array, before: scipy.sparse.csr_array, low: Float64Array, high: Float64Array
    ) -> None:
        """Adds behind <= the chord of max(0, before) over [low, high], which holds 0 inside."""
        slope = high / (high - low)
        # Whatever the slope is, the chord with this intercept is not below the ReLU at either end.
        intercept = np.maximum(-slope * low, high - slope * high)
        intercept += 8 * UNIT * (np.abs(slope * low) + np.abs(high) + np.abs(slope * high)) + TINY
        scaled = scipy.sparse.csr_array(scipy.sparse.diags_array(slope) @ before)
        self._limits.append(_Block(scipy.sparse.csr_array(behind - scaled), intercept))

    def _differences(self, node: int) -> None:
        ranges = self._ranges[node]
        everything = np.arange(self._pair.sizes[node])
        changes = []
        for node_ranges, activated in ((ranges, False), (through_relu(ranges), True)):
            first, second = (self._columns(node, network, activated, everything) for network in (FIRST, SECOND))
            change = scipy.sparse.csr_array(second - first)
            changes.append(change)
            self._limits.append(_Block(change, node_ranges.upper[CHANGE, :, 0]))
            self._limits.append(_Block(scipy.sparse.csr_array(-change), -node_ranges.lower[CHANGE, :, 0]))
        low, high = ranges.lower[CHANGE, :, 0], ranges.upper[CHANGE, :, 0]
        both = np.asarray(ranges.unstable()[:, :, 0].all(axis=0))
        free = np.flatnonzero(both & (low < 0) & (high > 0))
        before, behind = changes[0][free], changes[1][free]
        # max(0, d) above, and min(0, d) = -max(0, -d) below.
        self._below_chord(behind, before, low[free], high[free])
        self._below_chord(-behind, -before, -high[free], -low[free])
        for sign, some in ((1.0, np.flatnonzero(both & (low >= 0))), (-1.0, np.flatnonzero(both & (high <= 0)))):
            # 0 <= δ <= d, or d <= δ <= 0, of which the sides at 0 are in δ's range.
            self._limits.append(_Block(sign * (changes[1][some] - changes[0][some]), np.zeros(len(some))))

    def solve(self, rows: Float64Array, offsets: Float64Array, seconds: float = np.inf) -> ProgrammeAnswer:
        """Asks whether all rows of a disjunct, rows @ [y, y'] <= offsets, can hold.

        Args:
            rows: [rows, 2 outputs].
            offsets: [rows].
            seconds: Limit of each programme that is solved; one that is cut short proves nothing.
        """
        if not self._bounded:
            return ProgrammeAnswer(False, -np.inf, None, {})
        limits, equations = _stacked(self._limits, self._width), _stacked(self._equations, self._width)
        outputs = self._pair.outputs
        question = _Block(
            scipy.sparse.csr_array(
                rows[:, :outputs] @ self._columns(self._pair.last, FIRST, False, np.arange(outputs))
                + rows[:, outputs:] @ self._columns(self._pair.last, SECOND, False, np.arange(outputs))
            ),
            offsets,
        )
        with_t = scipy.sparse.vstack(
            [
                scipy.sparse.hstack([question.matrix, np.full((len(offsets), 1), -1.0)]),
                scipy.sparse.hstack([limits.matrix, np.zeros((len(limits.limit), 1))]),
            ]
        )
        result = linprog(
            np.append(np.zeros(self._width), 1.0),
            A_ub=with_t,
            b_ub=np.concatenate([offsets, limits.limit]),
            A_eq=scipy.sparse.hstack([equations.matrix, np.zeros((len(equations.limit), 1))]),
            b_eq=equations.limit,
            bounds=np.column_stack([np.append(self._low, -np.inf), np.append(self._high, np.inf)]),
            method="highs",
            options={"time_limit": seconds},
        )
        if result.status == _INFEASIBLE:
            return ProgrammeAnswer(self._infeasible(limits, equations, seconds), np.inf, None, {})
        if result.status != _OPTIMAL or result.x is None:
            return ProgrammeAnswer(False, -np.inf, None, {})
        multipliers = np.maximum(-result.ineqlin.marginals, 0.0)
        weights, others = multipliers[: len(offsets)], multipliers[len(offsets) :]
        bound = self._bound([(question, weights), (limits, others), (equations, -result.eqlin.marginals)])
        proved = bound > 0 and bool((weights > 0).any())
        inputs = self._pair.sizes[0]
        point = np.clip(result.x[:inputs], self._low[:inputs], self._high[:inputs])
        return ProgrammeAnswer(proved, float(result.fun), point, self._gaps(result.x))

    def _infeasible(self, limits: _Block, equations: _Block, seconds: float) -> bool:
        """Says whether it follows rigorously that the constraints alone have no solution."""
        both = scipy.sparse.vstack([limits.matrix, equations.matrix, -equations.matrix])
        result = linprog(
            np.append(np.zeros(self._width), 1.0),
            A_ub=scipy.sparse.hstack([both, np.full((both.shape[0], 1), -1.0)]),
            b_ub=np.concatenate([limits.limit, equations.limit, -equations.limit]),
            bounds=np.column_stack([np.append(self._low, 0.0), np.append(self._high, np.inf)]),
            method="highs",
            options={"time_limit": seconds},
        )
        if result.status != _OPTIMAL or result.x is None:
            return False
        multipliers = np.maximum(-result.ineqlin.marginals, 0.0)
        own, rest = multipliers[: len(limits.limit)], multipliers[len(limits.limit) :].reshape(2, -1)
        return self._bound([(limits, own), (equations, rest[0] - rest[1])]) > 0

    def _bound(self, weighted: Sequence[tuple[_Block, Float64Array]]) -> float:
        """Bounds the sum of multipliers times (matrix @ v - limit) from below over the variables' box, rounded down."""
        residual, magnitude, count = np.zeros(self._width), np.zeros(self._width), np.full(self._width, 4.0)
        total, reach, terms = 0.0, 0.0, 4.0
        for block, multipliers in weighted:
            factors = np.where(np.isfinite(multipliers), multipliers, 0.0)
            residual += block.matrix.T @ factors
            magnitude += abs(block.matrix).T @ np.abs(factors)
            count += np.bincount(block.matrix.indices, minlength=self._width)
            total -= float(factors @ block.limit)
            reach += float(np.abs(factors) @ np.abs(block.limit))
            terms += len(factors) + 1.0
        size = np.maximum(np.abs(self._low), np.abs(self._high))
        ends = np.where(residual > 0, residual * self._low, residual * self._high)
        total += float(ends.sum())
        reach += float(np.abs(ends).sum())
        error = float((gamma(count) * magnitude) @ size)
        slack = 1.01 * (float(gamma(terms + 2.0 * self._width)) * reach + error) + TINY
        bound = total - slack - 4 * UNIT * (abs(total) + slack)
        return bound if np.isfinite(bound) else -np.inf

    def _gaps(self, solution: Float64Array) -> dict[int, Float64Array]:
        gaps = {}
        for node in self._pair.activated:
            size = self._pair.sizes[node]
            values = []
            for network in (FIRST, SECOND):
                z, a = (self._places[node, network, activated] for activated in (False, True))
                values.append(np.abs(solution[a : a + size] - np.maximum(solution[z : z + size], 0.0)))
            gaps[node] = np.stack(values) * self._ranges[node].unstable()[:, :, 0]
        return gaps


def _stacked(blocks: Sequence[_Block], width: int) -> _Block:
    matrix = scipy.sparse.csr_array(
        scipy.sparse.vstack([block.matrix for block in blocks] or [scipy.sparse.csr_array((0, width))])
    )
    return _Block(matrix, np.concatenate([*(block.limit for block in blocks), np.zeros(0)]))
