"""The backward walk over two networks: linear functions of their outputs, bounded from below over a box.

As CROWN (Zhang et al. 2018), but with two coefficients for each neuron, of its value in the first network and of the
difference. From a node with the coefficients μ of z and ν of d, a source's value in the first network gets
W^T μ + (W' - W)^T ν and its difference W'^T ν; `relaxation` takes both through the ReLUs. At the input the difference
is 0, whatever its coefficient, unless one of the networks rounds its input: then what is left is least at one of three
points for each input, as in `relaxation`.

Rounding is accounted for as in `verifiers.sparse.walks`: computed coefficients are taken as exact, and what they err
by, γ times the magnitudes that they are sums of, is charged to the constant, times the largest magnitude of what they
multiply. `Charges` are these sums for one unit of |μ| and of |ν|.

A row of one neuron reaches few neurons of the layers before a convolution, and most of these are inactive in both
networks; so only neurons that some row has a coefficient for are carried along (`_Part`). What has none adds nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from prunecert.verifiers.sparse.arrays import BoolArray, Float64Array, Int64Array
from prunecert.verifiers.sparse.pairs.network import Pair, PairTerm
from prunecert.verifiers.sparse.pairs.ranges import CHANGE, FIRST, SECOND, PairRanges, inexact, through_relu
from prunecert.verifiers.sparse.pairs.relaxation import Choice, relax, smallest
from prunecert.verifiers.sparse.walks import UNIT, RowSums

#: Values beyond this could underflow elsewhere by more than is covered.
_LARGEST = 1e100


@dataclass(frozen=True, eq=False)
class Walked:
    """What a walk found.

    Args:
        lower: Lower bounds, [rows]; -inf where nothing is node_ranges.
        input: Coefficients of the input that are left, [inputs, rows].
    """

    lower: Float64Array
    input: Float64Array

    def corners(self, box: PairRanges) -> Float64Array:
        """Returns the corners of a box at which what is left of the rows is least: [rows, inputs]."""
        corners: Float64Array = np.where(self.input > 0, box.lower[FIRST], box.upper[FIRST]).T
        return corners


@dataclass(frozen=True, eq=False)
class _Part:
    """Coefficients of some neurons of a node, or of their ReLUs; those of all others are 0.

    Args:
        index: The neurons, rising, [neurons].
        value: Of the first network's values, [neurons, rows].
        change: Of the differences, [neurons, rows].
    """

    index: Int64Array
    value: Float64Array
    change: Float64Array

    @classmethod
    def of(cls, index: Int64Array, value: Float64Array, change: Float64Array) -> _Part:
        """Returns the neurons that some row has a coefficient for; what is no number is one."""
        some = (value != 0).any(axis=1) | (change != 0).any(axis=1)
        return cls(index, value, change) if some.all() else cls(index[some], value[some], change[some])

    def plus(self, other: _Part) -> _Part:
        """Returns the sum."""
        if np.array_equal(self.index, other.index):
            return _Part(self.index, self.value + other.value, self.change + other.change)
        index = np.union1d(self.index, other.index)
        sums = [np.zeros((len(index), self.value.shape[1])) for _ in range(2)]
        for part in (self, other):
            place = np.searchsorted(index, part.index)
            sums[0][place] += part.value
            sums[1][place] += part.change
        return _Part(index, *sums)

    def dense(self, size: int) -> list[Float64Array]:
        """Returns both coefficients of all neurons, [size, rows] each."""
        whole = [np.zeros((size, self.value.shape[1])) for _ in range(2)]
        whole[0][self.index], whole[1][self.index] = self.value, self.change
        return whole


class PairWalker:
    """Walks back through a pair of networks over one box, or parts of it.

    Args:
        pair: The networks.
        ranges: Of all nodes over the whole box, which bound what rounding can do; nodes may be added later.
    """

    def __init__(self, pair: Pair, ranges: Sequence[PairRanges]) -> None:
        self.pair = pair
        self._sums = 4.0 * sum(pair.sizes)
        self._charges: list[Float64Array] = [np.zeros((2, pair.sizes[0]))]
        self._reach: list[Float64Array] = []
        #: Which neurons aren't inactive in both networks, over all of the box: behind ReLUs, the others are 0.
        self._live: list[BoolArray] = []
        self._entry_differs = bool(ranges) and bool(
            (ranges[0].lower[CHANGE] != 0).any() | (ranges[0].upper[CHANGE] != 0).any()
        )
        for node in range(len(ranges)):
            self.add(node, ranges)

    def copy(self) -> PairWalker:
        """Returns one that nodes can be added to while this one stays."""
        other = copy.copy(self)
        other._charges, other._reach, other._live = list(self._charges), list(self._reach), list(self._live)
        return other

    def add(self, node: int, ranges: Sequence[PairRanges]) -> None:
        """Takes in a node whose ranges, and those of all before it, are node_ranges."""
        self._reach.append(np.maximum(np.abs(ranges[node].lower), np.abs(ranges[node].upper)).max(axis=2))
        # What is no number is not known to be inactive.
        inactive = np.asarray((ranges[node].upper[[FIRST, SECOND]] <= 0).all(axis=(0, 2)))
        self._live.append(~inactive)
        if node:
            self._charges.append(self._charge(node, ranges))

    def _charge(self, node: int, ranges: Sequence[PairRanges]) -> Float64Array:
        """Returns what one unit of |μ|, and of |ν|, of each neuron of a node is charged: [2, size]."""
        errors = self.pair.shifts[node].error
        total = np.stack([errors[FIRST], errors[CHANGE]])
        for term in self.pair.terms[node]:
            before = through_relu(ranges[term.source]) if term.activated else ranges[term.source]
            size = np.maximum(np.abs(before.lower), np.abs(before.upper)).max(axis=2)
            if not size.max(initial=0.0) < _LARGEST:
                total[:] = np.inf
            weighted = self.pair.gammas[term.source, term.activated] * size[[FIRST, CHANGE]]
            total[0] += term.first.magnitude @ weighted[0]
            total[1] += term.change.magnitude @ weighted[0] + term.second.magnitude @ weighted[1]
            if not term.exact:
                loose = inexact(term, before).max(axis=2)
                total += loose[[FIRST, CHANGE]]
        return total * 1.01

    def lower(
        self, start: int, value: Float64Array, change: Float64Array, ranges: Sequence[PairRanges],
        choice: Choice = "mixed",
        constant: Float64Array | None = None, index: Int64Array | None = None,
    ) -> Walked:  # fmt: skip
        """Bounds value^T z + change^T d + constant of a node.

        Args:
            start: The node.
            value: Coefficients of the first network's values, taken as exact, [size, rows].
            change: Of the differences.
            ranges: Of all nodes before `start`, and of `start` where it doesn't begin; of one box, or one for each row.
            choice: Of slopes (`relaxation`).
            constant: What is added to each row, [rows].
            index: The neurons that `value` and `change` are of, rising; all by default.
        """
        rows = value.shape[1]
        neurons = np.arange(len(value)) if index is None else index
        linear: dict[int, _Part] = {start: _Part.of(neurons, value, change)}
        relu: dict[int, _Part] = {}
        sums = RowSums.of(np.zeros(rows) if constant is None else constant)
        with np.errstate(invalid="ignore", over="ignore"):
            for node in range(start, 0, -1):
                plain = linear.pop(node, None)
                if node in relu:
                    behind = relu.pop(node)
                    planes = relax(behind.value, behind.change, ranges[node].neurons(behind.index), choice)
                    sums.add(planes.constant.sum(axis=0), np.abs(planes.constant).sum(axis=0))
                    before = _Part.of(behind.index, planes.value, planes.change)
                    if plain is None:
                        plain = before
                    else:
                        # A sum of two: the error is charged on the node's own values.
                        plain = plain.plus(before)
                        for part, place in zip((plain.value, plain.change), (FIRST, CHANGE), strict=True):
                            sums.charge(2 * UNIT * (self._reach[node][place, plain.index] @ np.abs(part)))
                if plain is None:
                    continue
                shift = self.pair.shifts[node].value[[FIRST, CHANGE]]
                for part, own, charge in zip(
                    (plain.value, plain.change), shift[:, plain.index], self._charges[node][:, plain.index], strict=True
                ):
                    size = np.abs(part)
                    sums.add(own @ part, np.abs(own) @ size)
                    sums.charge(charge @ size)
                    sums.reach(size.max(axis=0, initial=0.0))
                for term in self.pair.terms[node]:
                    target = relu if term.activated else linear
                    source = _back(term, plain, self._entry_differs, self._live[term.source])
                    target[term.source] = target[term.source].plus(source) if term.source in target else source
            nothing = np.zeros((0, rows))
            left, moved = linear.get(0, _Part(np.arange(0), nothing, nothing)).dense(self.pair.sizes[0])
            ends, size = _ends(left, moved if self._entry_differs else None, ranges[0])
            sums.add(ends.sum(axis=0), size.sum(axis=0))
        return Walked(sums.lower(self._sums), left)


def _ends(left: Float64Array, moved: Float64Array | None, box: PairRanges) -> tuple[Float64Array, Float64Array]:
    """Returns what is left of rows at the input at least, and the magnitudes that it is made of, [inputs, rows] each.

    Args:
        left: Coefficients of the input.
        moved: Of the difference of the second network's input from it; None: there is none.
        box: Of the input.
    """
    if moved is None:
        ends = np.where(left > 0, left * box.lower[FIRST], left * box.upper[FIRST])
        return ends, np.abs(ends)
    size = np.maximum(np.abs(box.lower), np.abs(box.upper))
    values = np.maximum(size[FIRST], size[SECOND])
    # The points that are tried are rounded themselves, and what is least at them moves with them.
    return smallest(left, moved, box), np.abs(left) * values + np.abs(moved) * (2 * values + size[CHANGE])


def _back(term: PairTerm, plain: _Part, entry_differs: bool, live: BoolArray) -> _Part:
    """Returns what coefficients of a node make of a source."""
    index, (first, change, second) = _reached(term, plain.index, live)
    value = first.T @ plain.value
    if change.nnz:
        value = value + change.T @ plain.change
    # At the input nothing differs, but for rounding.
    differs = entry_differs or term.source or term.activated
    return _Part(index, value, second.T @ plain.change if differs else np.zeros_like(value))


def _reached(term: PairTerm, rows: Int64Array, live: BoolArray) -> tuple[Int64Array, list[scipy.sparse.csr_array]]:
    """Returns the source's live neurons that some of a node's neurons take, and the matrices from these to those."""
    matrices = [part.matrix for part in (term.first, term.change, term.second)]
    size, width = matrices[0].shape
    if len(rows) < size:
        matrices = [scipy.sparse.csr_array(matrix[rows]) for matrix in matrices]
    used = np.zeros(width, dtype=np.bool_)
    for matrix in matrices:
        used[matrix.indices] = True
    if term.activated:
        used &= live
    index = np.flatnonzero(used)
    return index, matrices if len(index) == width else [_columns(matrix, used) for matrix in matrices]


def _columns(matrix: scipy.sparse.csr_array, used: BoolArray) -> scipy.sparse.csr_array:
    """Returns some columns of a matrix; scipy's own way to do it takes longer."""
    kept = used[matrix.indices]
    ends = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr].astype(matrix.indptr.dtype)
    place = (np.cumsum(used) - 1).astype(matrix.indices.dtype)
    shape = matrix.shape[0], int(np.count_nonzero(used))
    return scipy.sparse.csr_array((matrix.data[kept], place[matrix.indices[kept]], ends), shape=shape)
