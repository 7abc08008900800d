"""Products of a walk's rows with a layer's weights, and the sums beside them, with zeros skipped.

A walk over an l2 ball holds its rows densely, [rows, neurons], though rows of a hidden neuron have coefficients in that
neuron's field of view only, and rows of any have none of inactive neurons. Where they are few, each is multiplied with
its own weights; where they are many, groups of rows are, in the lanes of the engine's checker.
"""

from __future__ import annotations

import numba
import numpy as np
from scipy import sparse

from prunecert.verifiers.sparse.arrays import Float64Array, Int32Array, Int64Array
from prunecert.verifiers.sparse.certify import LANES64, Checker, back, grouped

#: Share of coefficients that are not 0 from which lanes are quicker.
_MANY = 0.2


@numba.njit(cache=True, nogil=True)
def _spread(indptr: Int64Array, indices: Int32Array, data: Float64Array, rows: Float64Array, out: Float64Array) -> None:
    """Adds rows @ matrix to out."""
    for row in range(rows.shape[0]):
        for neuron in range(rows.shape[1]):
            value = rows[row, neuron]
            if value != 0.0:
                for entry in range(indptr[neuron], indptr[neuron + 1]):
                    out[row, indices[entry]] += data[entry] * value


@numba.njit(cache=True, nogil=True)
def _sum(rows: Float64Array, bias: Float64Array, charge: Float64Array, sums: Float64Array) -> None:
    """Writes rows @ bias, |rows| @ |bias|, |rows| @ charge and the largest |rows| to sums, [4, rows]."""
    for row in range(rows.shape[0]):
        value = size = error = largest = 0.0
        for neuron in range(rows.shape[1]):
            coefficient = rows[row, neuron]
            # A charge that is infinite makes no number of a 0, which may be one by underflow.
            error += abs(coefficient) * charge[neuron]
            value += coefficient * bias[neuron]
            size += abs(coefficient * bias[neuron])
            # What is no number makes none of the sums, too.
            if abs(coefficient) > largest:
                largest = abs(coefficient)
        sums[0, row], sums[1, row], sums[2, row], sums[3, row] = value, size, error, largest


def weighed(rows: Float64Array | sparse.csr_array, bias: Float64Array, charge: Float64Array) -> Float64Array:
    """Returns rows @ bias, |rows| @ |bias|, |rows| @ charge, and the rows' largest magnitudes, [4, rows].

    Args:
        rows: [rows, n].
        bias: [n].
        charge: 0 or more, [n].
    """
    if isinstance(rows, np.ndarray):
        sums = np.empty((4, len(rows)))
        # In one order, so that there is one kernel.
        _sum(np.ascontiguousarray(rows), bias, charge, sums)
        return sums
    sizes = abs(rows)
    largest = sizes.max(axis=1).toarray().reshape(-1)
    return np.stack([rows @ bias, sizes @ np.abs(bias), sizes @ charge, largest])


def pull(
    checker: Checker,
    node: int,
    rows: Float64Array | sparse.csr_array,
    linear: dict[int, Float64Array],
    relu: dict[int, Float64Array],
) -> None:
    """Adds what rows of a node's value make of the values and ReLUs that it is computed from.

    Args:
        checker: Of the network.
        node: The node.
        rows: Its coefficients, [rows, size].
        linear: By node, coefficients of its value, [rows, size]; added to.
        relu: Likewise, of its ReLU.
    """
    dense = isinstance(rows, np.ndarray)
    lanes = grouped(rows) if dense and np.count_nonzero(rows) > _MANY * rows.size else None
    for product in checker.products[node]:
        target, matrix = relu if product.activated else linear, product.matrix
        if not dense:
            part = (rows @ matrix).toarray()
        elif lanes is None:
            part = np.zeros((len(rows), matrix.shape[1]))
            _spread(matrix.indptr, matrix.indices, matrix.data, np.ascontiguousarray(rows), part)
        else:
            numba.set_num_threads(checker.threads if len(lanes) > 1 else 1)
            out = np.zeros((len(lanes), matrix.shape[1], LANES64))
            back(matrix.indptr, matrix.indices, matrix.data, lanes, out)
            part = out.transpose(0, 2, 1).reshape(-1, matrix.shape[1])[: len(rows)]
        target[product.source] = target[product.source] + part if product.source in target else part
