"""Two networks of one architecture side by side: their weights, and the changes from the first to the second.

For a node with the value z in the first network and z' in the second, d = z' - z is the sum of W' δ + (W' - W) a over
its terms, plus b' - b, where a is what the first network multiplies, a' the second, and δ = a' - a. The same holds of
W δ + (W' - W) a'. Changes of weights are differences of two float32 numbers in float64, each within 2^-53 of itself.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from prunecert.errors import UserError
from prunecert.verifiers.base import UnsupportedError
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array
from prunecert.verifiers.sparse.network import WEIGHT_ERROR, Network, Node, Term
from prunecert.verifiers.sparse.node_bounds import gamma
from prunecert.verifiers.sparse.walks import UNIT

_JOINED = "sparse-pair compares two networks, of which bench.verify --with names the second"


@dataclass(frozen=True, eq=False)
class ReachMatrix:
    """A matrix in float64 with its absolute values.

    Args:
        matrix: [size, size of source].
        magnitude: Its absolute values.
    """

    matrix: scipy.sparse.csr_array
    magnitude: scipy.sparse.csr_array

    @classmethod
    def of(cls, matrix: scipy.sparse.csr_array) -> ReachMatrix:
        """Returns it without stored zeros."""
        wide = scipy.sparse.csr_array(matrix.astype(np.float64))
        wide.eliminate_zeros()
        return cls(wide, abs(wide))


@dataclass(frozen=True, eq=False)
class PairTerm:
    """One summand of a node in both networks.

    Args:
        source: Index of an earlier node.
        activated: Whether its ReLU is taken, or the value itself.
        first: Weights of the first network.
        second: Weights of the second.
        change: The second's minus the first's.
        exact: Whether the weights of both are the files' own numbers.
    """

    source: int
    activated: bool
    first: ReachMatrix
    second: ReachMatrix
    change: ReachMatrix
    exact: bool


@dataclass(frozen=True, eq=False)
class Shift:
    """The constant of a node: in the first network, in the second, and the difference.

    Args:
        value: [3, size].
        error: How far each may be from the real number that it stands for, [3, size].
    """

    value: Float64Array
    error: Float64Array


class Pair:
    """Two networks whose nodes correspond.

    Args:
        first: The network that is compared with, e.g. the dense one.
        second: The other, e.g. a pruned one.

    Raises:
        UserError: They have different architectures or inputs; the node is named.
        UnsupportedError: A ReLU is taken of the input itself, or a layer takes one value twice.
    """

    def __init__(self, first: Network, second: Network) -> None:
        check_alike(first, second)
        self.first, self.second = first, second
        self.last = len(first.nodes) - 1
        self.activated = first.activated()
        if 0 in self.activated:
            raise UnsupportedError(f"{first.name}: a ReLU on the input itself isn't taken")
        for node in first.nodes:
            if len({(term.source, term.activated) for term in node.terms}) < len(node.terms):
                raise UnsupportedError(f"{first.name}: the layer {node.name!r:.80} takes one value twice")
        self.sizes = tuple(node.size for node in first.nodes)
        self.terms = [
            [_pair_term(a, b) for a, b in zip(left.terms, right.terms, strict=True)]
            for left, right in zip(first.nodes, second.nodes, strict=True)
        ]
        self.shifts = [_shift(left, right) for left, right in zip(first.nodes, second.nodes, strict=True)]

    @functools.cached_property
    def gammas(self) -> dict[tuple[int, bool], Float64Array]:
        """Bounds the relative error of a source's coefficients in a backward walk, by source and whether activated.

        They are sums over all nodes that use the source so, [size of source].
        """
        counts: dict[tuple[int, bool], Float64Array] = {}
        for terms in self.terms:
            for term in terms:
                key = (term.source, term.activated)
                own = np.zeros(self.sizes[term.source])
                for factor in (term.first, term.change, term.second):
                    own += np.bincount(factor.matrix.indices, minlength=len(own))
                # Sums of several terms round once more for each.
                counts[key] = counts.get(key, np.zeros_like(own)) + own + 2.0
        return {key: gamma(count) for key, count in counts.items()}

    def shifted(self, shifts: Sequence[Shift]) -> Pair:
        """Returns the pair with other constants; weights, and what is counted of them, are shared."""
        # What is copied is known then.
        assert self.gammas is not None
        other = copy.copy(self)
        other.shifts = list(shifts)
        return other

    @property
    def outputs(self) -> int:
        """Outputs of either network."""
        return self.sizes[-1]

    @property
    def entries(self) -> int:
        """Entries of all matrices of both networks."""
        return self.first.nonzeros + self.second.nonzeros


def _pair_term(left: Term, right: Term) -> PairTerm:
    first, second = ReachMatrix.of(left.matrix), ReachMatrix.of(right.matrix)
    change = ReachMatrix.of(second.matrix - first.matrix)
    return PairTerm(left.source, left.activated, first, second, change, left.exact and right.exact)


def _shift(left: Node, right: Node) -> Shift:
    return shift_of(*((node.bias.astype(np.float64), node.bias_error.astype(np.float64)) for node in (left, right)))


def shift_of(left: tuple[Float64Array, Float64Array], right: tuple[Float64Array, Float64Array]) -> Shift:
    """Returns constants from those of either network, each with how far it may be from the real number."""
    (one, other), errors = (left[0], right[0]), (left[1], right[1])
    change = other - one
    # The difference of two numbers is rounded, too.
    error = (errors[0] + errors[1]) * (1 + 4 * UNIT) + UNIT * np.abs(change)
    return Shift(np.stack([one, other, change]), np.stack([*errors, error]))


def check_alike(first: Network, second: Network) -> None:
    """Says where two networks differ in more than numbers.

    Raises:
        UserError: They do.
    """
    names = f"{first.name} and {second.name}"
    if first.input_shape != second.input_shape:
        raise UserError(
            f"{names} can't be compared because they take inputs of the shapes {first.input_shape} and "
            f"{second.input_shape}; allowed are two networks of one architecture."
        )
    if len(first.nodes) != len(second.nodes):
        raise UserError(
            f"{names} can't be compared because they have {len(first.nodes) - 1} and {len(second.nodes) - 1} layers; "
            "allowed are two networks of one architecture, so export both without removing dead units."
        )
    for left, right in zip(first.nodes, second.nodes, strict=True):
        alike = left.shape == right.shape and len(left.terms) == len(right.terms)
        if not alike or any(
            (a.source, a.activated) != (b.source, b.activated) for a, b in zip(left.terms, right.terms, strict=True)
        ):
            raise UserError(
                f"{names} can't be compared because the layer {left.name!r:.80} of the first, of shape {left.shape}, "
                f"has another shape or other inputs in the second, where it is {right.name!r:.80}, {right.shape}; "
                "allowed are two networks of one architecture, so export both without removing dead units."
            )


def split_merged(network: Network) -> Pair:
    """Takes a network apart whose outputs are those of one network and then those of another, on the same input.

    Args:
        network: As `prunecert.onnx.merge` joins two files, or anybody's of that form: half of the outputs depend on
            nodes that the other half doesn't depend on, but for the input.

    Raises:
        UnsupportedError: It isn't of that form, or its halves have different architectures.
    """
    last = network.nodes[-1]
    if last.size % 2:
        raise UnsupportedError(
            f"{network.name} has {last.size} outputs; a pair of networks has an even number: {_JOINED}"
        )
    half = last.size // 2
    halves = [_half(network, slice(0, half), "first"), _half(network, slice(half, last.size), "second")]
    shared = halves[0][1] & halves[1][1] - {0}
    if shared:
        raise UnsupportedError(
            f"{network.name} is no pair of networks: both halves of its outputs depend on "
            f"{network.nodes[min(shared)].name!r:.80}; {_JOINED}"
        )
    try:
        return Pair(halves[0][0], halves[1][0])
    except UserError as error:
        raise UnsupportedError(str(error)) from error


def _half(network: Network, rows: slice, word: str) -> tuple[Network, set[int]]:
    """Returns the network that computes some of the outputs, and the nodes that it consists of."""
    last = network.nodes[-1]
    terms = tuple(_taken(term, rows) for term in last.terms)
    terms = tuple(term for term in terms if term.matrix.nnz)
    needed, waiting = {0}, [term.source for term in terms]
    while waiting:
        index = waiting.pop()
        if index not in needed:
            needed.add(index)
            waiting += [term.source for term in network.nodes[index].terms]
    order = sorted(needed)
    place = {old: new for new, old in enumerate(order)}
    nodes = [
        Node(node.name, node.size, node.shape, _moved(node.terms, place), node.bias, node.bias_error)
        for node in (network.nodes[index] for index in order)
    ]
    bias, error = last.bias[rows], last.bias_error[rows]
    nodes.append(Node(last.name, len(bias), (len(bias),), _moved(terms, place), bias, error))
    return _without_copy(Network(f"the {word} of {network.name}", network.input_shape, tuple(nodes))), needed


def _taken(term: Term, rows: slice) -> Term:
    matrix = scipy.sparse.csr_array(term.matrix[rows])
    matrix.eliminate_zeros()
    return Term(term.source, term.activated, matrix, term.exact)


def _moved(terms: tuple[Term, ...], place: dict[int, int]) -> tuple[Term, ...]:
    return tuple(Term(place[term.source], term.activated, term.matrix, term.exact) for term in terms)


def _without_copy(network: Network) -> Network:
    """Leaves out a last node that only hands another one on, as the end of a merged file does."""
    last = network.nodes[-1]
    if len(last.terms) != 1 or last.terms[0].activated or last.terms[0].source != len(network.nodes) - 2:
        return network
    matrix, before = last.terms[0].matrix, network.nodes[-2]
    # Numbers that were rounded to 1 are none.
    same = (
        last.terms[0].exact
        and matrix.shape[0] == matrix.shape[1] == matrix.nnz
        and bool(
            np.array_equal(matrix.indptr, np.arange(matrix.nnz + 1))
            and np.array_equal(matrix.indices, np.arange(matrix.nnz))
            and np.all(matrix.data == 1)
        )
    )
    used = any(term.source == len(network.nodes) - 2 for node in network.nodes[:-1] for term in node.terms)
    if not same or used or last.bias.any() or last.bias_error.any() or not before.terms:
        return network
    return Network(network.name, network.input_shape, network.nodes[:-1])


def joined(first: Network, second: Network) -> Network:
    """Returns one network on the same input with the outputs of the first and then those of the second.

    Args:
        first: A network.
        second: Another, of the same input shape.
    """
    count = len(first.nodes)
    place = {index: index + count - 1 if index else 0 for index in range(len(second.nodes))}
    nodes = list(first.nodes)
    nodes += [
        Node(node.name, node.size, node.shape, _moved(node.terms, place), node.bias, node.bias_error)
        for node in second.nodes[1:]
    ]
    outputs = first.nodes[-1].size, second.nodes[-1].size
    terms = (
        Term(count - 1, False, _placed(outputs[0], 0, sum(outputs))),
        Term(len(nodes) - 1, False, _placed(outputs[1], outputs[0], sum(outputs))),
    )
    zeros = np.zeros(sum(outputs), dtype=np.float32)
    nodes.append(Node("outputs of both", sum(outputs), (sum(outputs),), terms, zeros, zeros))
    roundings = (*first.roundings, *(place[node] for node in second.roundings))
    return Network(f"{first.name} with {second.name}", first.input_shape, tuple(nodes), roundings)


def _placed(size: int, first_row: int, rows: int) -> scipy.sparse.csr_array:
    data: Float32Array = np.ones(size, dtype=np.float32)
    place = np.arange(size)
    matrix = scipy.sparse.csr_array((data, (place + first_row, place)), shape=(rows, size))
    matrix.indptr, matrix.indices = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
    return matrix


def weight_error(reach: Float64Array, values: Float64Array) -> Float64Array:
    """Bounds what weights that aren't exact change.

    Args:
        reach: |W| times the values' magnitudes, [size, boxes].
        values: The magnitudes, [size of source, boxes].
    """
    error: Float64Array = 1.01 * WEIGHT_ERROR * reach + 2.0**-148 * values.sum(axis=0)
    return error
