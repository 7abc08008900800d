"""The backward walk over two networks: linear functions of their outputs, bounded from below over a box.

As CROWN (Zhang et al. 2018), but with two coefficients for each neuron, of its value in the first network and of the
difference. From a node with the coefficients μ of z and ν of d, a source's value in the first network gets
W^T μ + (W' - W)^T ν and its difference W'^T ν; `relaxation` takes both through the ReLUs. At the input the difference
is 0, whatever its coefficient, unless one of the networks rounds its input: then what is left is least at one of three
points for each input, as in `relaxation`.

Rounding is accounted for as in `verifiers.sparse.walks`: computed coefficients are taken as exact, and what they err
by, γ times the magnitudes that they are sums of, is charged to the constant, times the largest magnitude of what they
multiply. `Charges` are these sums for one unit of |μ| and of |ν|.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array
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
        losses: For each node with a ReLU: what its neurons cost, 0 or more, [size, rows].
    """

    lower: Float64Array
    input: Float64Array
    losses: dict[int, Float64Array]

    def corners(self, box: PairRanges) -> Float64Array:
        """Returns the corners of a box at which what is left of the rows is least: [rows, inputs]."""
        corners: Float64Array = np.where(self.input > 0, box.lower[FIRST], box.upper[FIRST]).T
        return corners


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
        self._entry_differs = bool(ranges) and bool(
            (ranges[0].lower[CHANGE] != 0).any() | (ranges[0].upper[CHANGE] != 0).any()
        )
        for node in range(len(ranges)):
            self.add(node, ranges)

    def copy(self) -> PairWalker:
        """Returns one that nodes can be added to while this one stays."""
        other = copy.copy(self)
        other._charges, other._reach = list(self._charges), list(self._reach)
        return other

    def add(self, node: int, ranges: Sequence[PairRanges]) -> None:
        """Takes in a node whose ranges, and those of all before it, are node_ranges."""
        self._reach.append(np.maximum(np.abs(ranges[node].lower), np.abs(ranges[node].upper)).max(axis=2))
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
        constant: Float64Array | None = None,
    ) -> Walked:  # fmt: skip
        """Bounds value^T z + change^T d + constant of a node.

        Args:
            start: The node.
            value: Coefficients of the first network's values, taken as exact, [size, rows].
            change: Of the differences.
            ranges: Of all nodes before `start`, and of `start` where it doesn't begin; of one box, or one for each row.
            choice: Of slopes (`relaxation`).
            constant: What is added to each row, [rows].
        """
        rows = value.shape[1]
        linear: dict[int, list[Float64Array]] = {start: [value, change]}
        relu: dict[int, list[Float64Array]] = {}
        sums = RowSums.of(np.zeros(rows) if constant is None else constant)
        losses: dict[int, Float64Array] = {}
        with np.errstate(invalid="ignore", over="ignore"):
            for node in range(start, 0, -1):
                plain = linear.pop(node, None)
                if node in relu:
                    lam, kappa = relu.pop(node)
                    planes = relax(lam, kappa, ranges[node], choice)
                    sums.add(planes.constant.sum(axis=0), np.abs(planes.constant).sum(axis=0))
                    losses[node] = np.zeros((self.pair.sizes[node], rows))
                    losses[node][planes.index] = np.maximum(-planes.constant, 0.0)
                    if plain is None:
                        plain = [planes.value, planes.change]
                    else:
                        # A sum of two: the error is charged on the node's own values.
                        plain = [plain[0] + planes.value, plain[1] + planes.change]
                        for part, place in zip(plain, (FIRST, CHANGE), strict=True):
                            sums.charge(2 * UNIT * (self._reach[node][place] @ np.abs(part)))
                if plain is None:
                    continue
                shift = self.pair.shifts[node].value[[FIRST, CHANGE]]
                for part, own, charge in zip(plain, shift, self._charges[node], strict=True):
                    size = np.abs(part)
                    sums.add(own @ part, np.abs(own) @ size)
                    sums.charge(charge @ size)
                    sums.reach(size.max(axis=0, initial=0.0))
                for term in self.pair.terms[node]:
                    _back(term, plain, relu if term.activated else linear, self._entry_differs)
            left, moved = linear.get(0, [np.zeros((self.pair.sizes[0], rows))] * 2)
            ends, size = _ends(left, moved if self._entry_differs else None, ranges[0])
            sums.add(ends.sum(axis=0), size.sum(axis=0))
        return Walked(sums.lower(self._sums), left, losses)


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


def _back(
    term: PairTerm, plain: list[Float64Array], target: dict[int, list[Float64Array]], entry_differs: bool
) -> None:
    """Adds what coefficients of a node make of a source."""
    value = term.first.matrix.T @ plain[0]
    if term.change.matrix.nnz:
        value = value + term.change.matrix.T @ plain[1]
    # At the input nothing differs, but for rounding.
    differs = entry_differs or term.source or term.activated
    change = term.second.matrix.T @ plain[1] if differs else np.zeros_like(value)
    if term.source in target:
        held = target[term.source]
        target[term.source] = [held[0] + value, held[1] + change]
    else:
        target[term.source] = [value, change]
