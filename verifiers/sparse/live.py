"""Matrices of a network without the neurons whose ReLUs are 0 over a box: all that a walk back needs.

Of a certified network most neurons are inactive over a small box (three quarters and more of the shipped ones), and a
coefficient that reaches such a neuron is multiplied by 0 there. Leaving it out before it is summed up changes no other
number, not even in the last bit: each of the others is a sum of the same products in the same order.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numba
import numpy as np
import numpy.typing as npt
from scipy import sparse

from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array, Int32Array, Int64Array


class _Factor(Protocol):
    """A term of a node, see `certify.Product`."""

    @property
    def source(self) -> int:
        """Node whose value, or ReLU, is multiplied."""

    @property
    def activated(self) -> bool:
        """Whether it is the ReLU."""

    @property
    def matrix(self) -> sparse.csr_array:
        """Weights, [size, size of source], float64."""


@dataclass(frozen=True, eq=False)
class LiveFactor:
    """A term between the neurons that are kept.

    Args:
        source: Node whose value, or ReLU, is multiplied.
        activated: Whether it is the ReLU.
        starts: Where each row's entries begin, and their number.
        columns: By place among the source's kept neurons.
        weights: Float64.
        width: Kept neurons of the source.
    """

    source: int
    activated: bool
    starts: Int64Array
    columns: Int32Array
    weights: Float64Array
    width: int

    @functools.cached_property
    def single(self) -> Float32Array:
        """The weights in float32, which they are the numbers of."""
        return self.weights.astype(np.float32)


@numba.njit(cache=True, nogil=True)
def pick(
    starts: Int64Array,
    columns: Int32Array,
    weights: Float64Array,
    rows: Int64Array,
    number: Int64Array,
    out_starts: Int64Array,
    out_columns: Int32Array,
    out_weights: Float64Array,
) -> int:
    """Copies rows of a sparse matrix without the columns whose `number` is below 0; returns how many entries there are.

    Args:
        starts: Of the matrix, as of a CSR matrix.
        columns: Likewise.
        weights: Likewise.
        rows: Which rows.
        number: Each column's new number.
        out_starts: Written, [rows + 1].
        out_columns: Written; room for all entries of these rows and one more.
        out_weights: Likewise.
    """
    at = 0
    out_starts[0] = 0
    for place in range(len(rows)):
        for entry in range(starts[rows[place]], starts[rows[place] + 1]):
            to = number[columns[entry]]
            # Written always, and overwritten if it is left out: a branch would be mispredicted.
            out_columns[at], out_weights[at] = to, weights[entry]
            at += to >= 0
        out_starts[place + 1] = at
    return at


class Live:
    """The part of a network that matters over a box.

    Args:
        products: By node: its terms.
        raw: Nodes whose values are used without ReLU, the input and the last one among them: all neurons are kept.
        upper: By node: upper bounds of its values, [size].
    """

    def __init__(
        self, products: Sequence[Sequence[_Factor]], raw: frozenset[int], upper: Sequence[npt.NDArray[np.float64]]
    ) -> None:
        self._products, self._raw = products, raw
        #: By node: the neurons that are kept, ascending; what is between walks is numbered by their places here.
        self.kept: list[Int64Array] = []
        self._active: list[npt.NDArray[np.bool_]] = []
        self._factors: dict[int, list[LiveFactor]] = {}
        for node, high in enumerate(upper):
            self._active.append(high > 0)
            self.kept.append(np.arange(len(high)) if node in raw else np.flatnonzero(high > 0))

    def holds(self, products: object, upper: Sequence[npt.NDArray[np.float64]]) -> bool:
        """Whether what is left out is left out of walks through the same products over a box of such bounds, too."""
        return self._products is products and all(
            not (high > 0)[~active].any() for high, active in zip(upper, self._active, strict=True)
        )

    def factors(self, node: int) -> list[LiveFactor]:
        """Returns a node's terms between kept neurons."""
        if node not in self._factors:
            self._factors[node] = [self._cut(node, product) for product in self._products[node]]
        return self._factors[node]

    def _cut(self, node: int, product: _Factor) -> LiveFactor:
        rows, matrix, source = self.kept[node], product.matrix, product.source
        number = np.full(matrix.shape[1], -1, dtype=np.int64)
        number[self.kept[source]] = np.arange(len(self.kept[source]))
        if product.activated:
            # Of a node that is used without its ReLU, too, all are kept.
            number[~self._active[source]] = -1
        size = int((matrix.indptr[rows + 1] - matrix.indptr[rows]).sum())
        starts = np.empty(len(rows) + 1, dtype=np.int64)
        columns, weights = np.empty(size + 1, dtype=np.int32), np.empty(size + 1)
        count = pick(matrix.indptr, matrix.indices, matrix.data, rows, number, starts, columns, weights)
        width = len(self.kept[source])
        return LiveFactor(source, product.activated, starts, columns[:count].copy(), weights[:count].copy(), width)
