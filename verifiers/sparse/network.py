"""A feed-forward ReLU network as sparse affine maps, and what is made of them when an ONNX file is read.

Each node is z = sum of terms + bias, a term being a sparse matrix times an earlier node's value or times its ReLU.
So residual connections are terms of one node, and Flatten, Reshape and Identity are no nodes at all. Batch
normalisation, input normalisation and additions are multiplied into their neighbours where that changes no number of
non-zeros, and stay nodes of their own where it would.

What the file says and what is here differ by at most one rounding to float32 a number: weights that are the file's own
are exact; products of weights with normalisation factors, and 1 / n of averages, are within a relative error of
`WEIGHT_ERROR` of the real number (or 2**-149 if they underflow), and biases within `Node.bias_error`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
import scipy.sparse

from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array, Int32Array
from prunecert.verifiers.sparse.threads import divide, together

#: Relative error of a stored weight against the real number that it stands for: one rounding to float32, after some
#: in float64, as in `prunecert.onnx.rounding`.
WEIGHT_ERROR = 2.0**-24 * (1 + 2.0**-20)
#: Multiply-adds that are worth handing to another thread.
_SHARED = 500_000


@numba.njit(cache=True, nogil=True)
def _product(
    starts: Int32Array,
    columns: Int32Array,
    weights: Float32Array,
    x: Float64Array,
    out: Float64Array,
    low: int,
    high: int,
) -> None:
    """Adds rows low, …, high - 1 of a sparse matrix times [n, columns] to [n, rows], in float64."""
    for point in range(len(x)):
        for row in range(low, high):
            begin, end = starts[row], starts[row + 1]
            whole = end - (end - begin) % 4
            # Four sums that don't wait for each other.
            first = second = third = fourth = 0.0
            for entry in range(begin, whole, 4):
                first += np.float64(weights[entry]) * x[point, columns[entry]]
                second += np.float64(weights[entry + 1]) * x[point, columns[entry + 1]]
                third += np.float64(weights[entry + 2]) * x[point, columns[entry + 2]]
                fourth += np.float64(weights[entry + 3]) * x[point, columns[entry + 3]]
            for entry in range(whole, end):
                first += np.float64(weights[entry]) * x[point, columns[entry]]
            out[point, row] += (first + second) + (third + fourth)


@dataclass(frozen=True, eq=False)
class Term:
    """One summand of an affine node.

    Args:
        source: Index of an earlier node; node 0 is the flattened input.
        activated: Whether it takes relu(value of source), or the value itself.
        matrix: Float32 weights [size, size of source] with sorted int32 indices; zeros are not stored.
        exact: Whether the weights are the file's own numbers; otherwise they are within `WEIGHT_ERROR`.
    """

    source: int
    activated: bool
    matrix: scipy.sparse.csr_array
    exact: bool = True


@dataclass(frozen=True, eq=False)
class Node:
    """An affine node: z = sum of terms + bias.

    Args:
        name: The ONNX node that computes it (the last one that was folded into it), or the input's name.
        size: Number of neurons.
        shape: Of one sample, e.g. (C, H, W); the flat vector is its C-order.
        terms: Summands; none for the input.
        bias: [size].
        bias_error: Bound on |bias - the real number that it stands for|, [size]; 0 where it is the file's own.
    """

    name: str
    size: int
    shape: tuple[int, ...]
    terms: tuple[Term, ...]
    bias: Float32Array
    bias_error: Float32Array


@dataclass(frozen=True, eq=False)
class Network:
    """A network; `nodes[0]` is the input and `nodes[-1]` the output, which no ReLU follows.

    Args:
        name: Of the file.
        input_shape: Shape of one sample.
        nodes: In an order in which every source comes first.
        roundings: Nodes whose `Node.bias_error` is what rounding of activations adds (`verifiers.sparse.quantised`), so
            that it is far from small: the network stands for all those whose biases are in these intervals, for each
            input others.
    """

    name: str
    input_shape: tuple[int, ...]
    nodes: tuple[Node, ...]
    roundings: tuple[int, ...] = ()

    @property
    def nonzeros(self) -> int:
        """Entries of all matrices; a convolution's weight counts once for each place where it is applied."""
        return sum(term.matrix.nnz for node in self.nodes for term in node.terms)

    def activated(self) -> tuple[int, ...]:
        """Returns the nodes whose ReLU is taken somewhere, in order."""
        return tuple(sorted({term.source for node in self.nodes for term in node.terms if term.activated}))

    def raw(self) -> tuple[int, ...]:
        """Returns the nodes whose value without ReLU is taken somewhere, in order; the output isn't among them."""
        return tuple(sorted({term.source for node in self.nodes for term in node.terms if not term.activated}))

    def forward(self, x: npt.ArrayLike, threads: int = 1) -> list[Float64Array]:
        """Computes the values of all nodes in float64, before their ReLUs.

        Args:
            x: Inputs [n, ...], each of the input's size.
            threads: Among which large matrices are divided.

        Returns:
            For each node [n, size].
        """
        array = np.asarray(x, dtype=np.float64)
        values: list[Float64Array] = [array.reshape(len(array), self.nodes[0].size)]
        for node in self.nodes[1:]:
            total = np.tile(node.bias.astype(np.float64), (len(array), 1))
            for term in node.terms:
                value, matrix = values[term.source], term.matrix
                inputs = np.ascontiguousarray(np.maximum(value, 0.0) if term.activated else value)
                # SciPy would make a copy of the weights in float64 for each product.
                factors = matrix.indptr, matrix.indices, matrix.data, inputs, total
                shared = threads if matrix.nnz >= _SHARED else 1
                together(shared, [functools.partial(_product, *factors, *span) for span in divide(node.size, shared)])
            values.append(total)
        return values

    def evaluate(self, x: npt.ArrayLike, threads: int = 1) -> Float64Array:
        """Computes the outputs in float64: [n, ...] to [n, outputs]."""
        return self.forward(x, threads)[-1]
