"""Bounds of a network's values that hold in real arithmetic, and what intervals say of a node, in one float64 pass.

`certify` walks back through what is here; its docstring says what the terms are charged for.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numba
import numpy as np
import numpy.typing as npt
from scipy import sparse

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.live import Live
from prunecert.verifiers.sparse.network import WEIGHT_ERROR

Array = Float64Array
Flags = npt.NDArray[np.bool_]

_UNIT = 2.0**-53
#: What all products of a walk that underflow may lose.
TINY = 1e-200


@dataclass(frozen=True, eq=False)
class CheckedBounds:
    """Bounds of every node's value over a box that hold in real arithmetic.

    Args:
        lower: For each node, [size] float64; node 0 is the box itself.
        upper: Likewise.
        charges: For each node, what `Checker.charge` says.
        cuts: By node: the share of each neuron's ReLU, in [0, 1], that walks take for any number between its bounds,
            whatever it is made of: tighter where rounding makes that vague. Bounds hold for any numbers here.
        alive: Where `Checker.live` keeps its answer.
    """

    lower: list[Array]
    upper: list[Array]
    charges: list[Array]
    cuts: dict[int, Array] = field(default_factory=dict)
    alive: list[Live] = field(default_factory=list, repr=False)

    def unstable(self, node: int) -> npt.NDArray[np.int64]:
        """Returns the indices of the neurons of a node that may be on either side of 0."""
        return np.flatnonzero((self.lower[node] < 0) & (self.upper[node] > 0))


def gamma(terms: npt.ArrayLike) -> Array:
    """Bounds the relative error of a sum of so many products, doubled to cover its own evaluation."""
    count = np.asarray(terms, dtype=np.float64) + 4.0
    bound: Array = 2.0 * count * _UNIT / (1.0 - count * _UNIT)
    return bound


@numba.njit(cache=True, nogil=True)
def _reach(starts, columns, weights, values, live, sums, out):  # type: ignore[no-untyped-def]
    """Adds |W| values to rows that are live, and no less than that to others; `sums` are those of their weights."""
    most = 0.0
    for value in values:
        # What isn't a number is kept.
        if most == most and not value <= most:
            most = value
    for row in range(len(starts) - 1):
        if live[row]:
            total = 0.0
            for entry in range(starts[row], starts[row + 1]):
                total += abs(weights[entry]) * values[columns[entry]]
            out[row] += total
        elif starts[row + 1] > starts[row]:
            out[row] += sums[row] * most


@numba.njit(cache=True, nogil=True)
def _spread(starts, columns, weights, center, half, live, middle, radius, reached):  # type: ignore[no-untyped-def]
    """Adds W center, |W| half and |W| (|center| + half) of rows that are live."""
    for row in range(len(starts) - 1):
        if not live[row]:
            continue
        first = second = third = 0.0
        for entry in range(starts[row], starts[row + 1]):
            weight, column = weights[entry], columns[entry]
            size = abs(weight)
            first += weight * center[column]
            second += size * half[column]
            third += size * (abs(center[column]) + half[column])
        middle[row] += first
        radius[row] += second
        reached[row] += third


@dataclass(frozen=True, eq=False)
class Product:
    """A term of a node in float64.

    Args:
        source: Node whose value, or ReLU, is multiplied.
        activated: Whether it is the ReLU.
        matrix: [size, size of source].
        magnitude: Its absolute values.
        exact: Whether the weights are the file's; otherwise each is within a relative `WEIGHT_ERROR` (or 2**-149).
    """

    source: int
    activated: bool
    matrix: sparse.csr_array
    magnitude: sparse.csr_array
    exact: bool

    @functools.cached_property
    def sums(self) -> Array:
        """No less than the sum of each row's magnitudes, [size]."""
        total: Array = self.magnitude.sum(axis=1) * (1 + 1e-9)
        return total

    def reach(self, values: Array, live: Flags, out: Array) -> None:
        """Adds to each row what its magnitudes make of values, 0 or more; to rows that aren't live no less."""
        matrix = self.matrix
        _reach(matrix.indptr, matrix.indices, matrix.data, values, live, self.sums, out)


def weight_error(reach: Array, values: Array) -> Array:
    """Bounds what inexact weights change: `reach` is |W| times the values' magnitudes."""
    error: Array = 1.01 * WEIGHT_ERROR * reach + 2.0**-148 * float(values.sum())
    return error


def intervals(
    bias: npt.NDArray[np.floating],
    bias_error: npt.NDArray[np.floating],
    products: Sequence[Product],
    sources: Sequence[tuple[Array, Array]],
    live: Flags | None = None,
) -> tuple[Array, Array]:
    """Returns bounds of a node's values by those of what its terms multiply.

    Args:
        bias: Of the node, [size].
        bias_error: Of the node.
        products: Its terms.
        sources: Of each of them: lower and upper bounds of what it multiplies.
        live: Of which neurons; others' bounds are infinite. None: of all.
    """
    every = np.ones(len(bias), dtype=np.bool_) if live is None else live
    middle, size = bias.astype(np.float64), np.abs(bias.astype(np.float64))
    radius, terms = bias_error.astype(np.float64), np.ones(len(bias))
    for product, (low, high) in zip(products, sources, strict=True):
        center = 0.5 * low + 0.5 * high
        # At least the distance of either end from the computed centre.
        half = np.maximum(high - center, center - low) * (1.0 + 4 * _UNIT)
        matrix, reached = product.matrix, np.zeros(len(bias))
        _spread(matrix.indptr, matrix.indices, matrix.data, center, half, every, middle, radius, reached)
        size += reached
        if not product.exact:
            radius += weight_error(reached, np.abs(center) + half)
        terms += np.diff(matrix.indptr)
    slack = radius + 2.0 * gamma(2.0 * terms) * (size + TINY)
    least, most = middle - slack, middle + slack
    # The last two operations round, too.
    edge = 4 * _UNIT * (np.abs(middle) + slack)
    if live is None:
        return least - edge, most + edge
    return np.where(live, least - edge, -np.inf), np.where(live, most + edge, np.inf)
