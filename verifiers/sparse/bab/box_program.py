"""A network laid out for linear bounds over sub-boxes (`box_bounds`), and the room that a thread works in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from prunecert.verifiers.sparse.arrays import BoolArray, Float64Array, Int64Array
from prunecert.verifiers.sparse.network import WEIGHT_ERROR, Network
from prunecert.verifiers.sparse.node_bounds import CheckedBounds, gamma

#: Columns that are summed together: one AVX-512 register of float64.
PIECE = 8


class BoxProgram(NamedTuple):
    """A network laid out for forms: V values, of which node 0 has the first; slot v is value v, slot V + v its ReLU.

    Args:
        starts: First value of each node, and V.
        activated: Whether a node's ReLU is taken somewhere.
        pointers: Where each value's weights begin, [V + 1].
        slots: Slots that they multiply.
        alike: Whether a value multiplies the same slots as the one before it, [V].
        weights: In float64.
        bias: [V].
        constant: Bound on the error of each bias, [V].
        loose: Relative error of a value's weights, [V]; 0 where they are the file's.
        gamma: γ of each value's sums, [V].
        lower: Bounds that hold over the whole box, [V].
        upper: Likewise.
        varying: Inputs that vary, [d].
        most: Columns that forms have at most, with the constant's and the inputs'.
    """

    starts: Int64Array
    activated: BoolArray
    pointers: Int64Array
    slots: Int64Array
    alike: BoolArray
    weights: Float64Array
    bias: Float64Array
    constant: Float64Array
    loose: Float64Array
    gamma: Float64Array
    lower: Float64Array
    upper: Float64Array
    varying: Int64Array
    most: int


def lay_out(network: Network, bounds: CheckedBounds, most: int = 2**31) -> BoxProgram:
    """Lays a network out.

    Args:
        network: The network.
        bounds: Of all its nodes over the whole box.
        most: Columns that forms may have.
    """
    nodes = network.nodes
    starts = np.cumsum([0, *(node.size for node in nodes)])
    total = int(starts[-1])
    counts, loose = np.zeros(total, dtype=np.int64), np.zeros(total)
    rows, slots, weights = [], [], []
    for number, node in enumerate(nodes):
        span = slice(starts[number], starts[number + 1])
        for term in node.terms:
            entries = np.diff(term.matrix.indptr)
            counts[span] += entries
            rows.append(np.repeat(np.arange(starts[number], starts[number + 1]), entries))
            slots.append(term.matrix.indices + (total * int(term.activated) + int(starts[term.source])))
            weights.append(term.matrix.data.astype(np.float64))
            if not term.exact:
                loose[span] = 1.01 * WEIGHT_ERROR
    order = np.argsort(np.concatenate(rows), kind="stable")
    sources = np.concatenate(slots)[order].astype(np.int64)
    pointers = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    alike = np.zeros(total, dtype=np.bool_)
    for v in range(int(starts[1]) + 1, total):
        before, after = sources[pointers[v - 1] : pointers[v]], sources[pointers[v] : pointers[v + 1]]
        alike[v] = v not in starts and np.array_equal(before, after)
    varying = np.flatnonzero(bounds.lower[0] < bounds.upper[0])
    return BoxProgram(
        starts=starts.astype(np.int64),
        activated=np.isin(np.arange(len(nodes)), network.activated()),
        pointers=pointers,
        slots=sources,
        alike=alike,
        weights=np.concatenate(weights)[order],
        bias=np.concatenate([node.bias for node in nodes]).astype(np.float64),
        constant=np.concatenate([node.bias_error for node in nodes]).astype(np.float64),
        loose=loose,
        gamma=gamma(counts + 1),
        # What is not a number says nothing.
        lower=np.nan_to_num(np.concatenate(bounds.lower), nan=-np.inf, posinf=np.inf, neginf=-np.inf),
        upper=np.nan_to_num(np.concatenate(bounds.upper), nan=np.inf, posinf=np.inf, neginf=-np.inf),
        varying=varying.astype(np.int64),
        most=max(most, 1 + len(varying)),
    )


class BoxScratch(NamedTuple):
    """What one thread works in, S = 2 V slots.

    Args:
        table: Coefficients of each slot: constant, inputs, symbols, [S, columns].
        columns: How many of them are set, [S].
        size: S_k of `box_bounds`, [S].
        error: e_j of `box_bounds`, [S].
        symbol: Column of the symbol that relaxing a slot brought in, or -1 where none; [S].
        radius: Its coefficient, [S].
        live: Whether a slot is not 0, [S].
        neuron: Value that each column's symbol belongs to, [columns].
        picked: Slots that a row multiplies, [S + 1].
        places: Which of its weights are theirs.
        marked: Which of them have symbols.
        factors: Their weights.
    """

    table: Float64Array
    columns: Int64Array
    size: Float64Array
    error: Float64Array
    symbol: Int64Array
    radius: Float64Array
    live: BoolArray
    neuron: Int64Array
    picked: Int64Array
    places: Int64Array
    marked: Int64Array
    factors: Float64Array


def columns(program: BoxProgram) -> int:
    """Returns how many columns forms can have: the constant, inputs that vary, ReLUs that are unstable over the box."""
    stable = (program.lower >= 0) | (program.upper <= 0)
    unstable = int((np.repeat(program.activated, np.diff(program.starts)) & ~stable).sum())
    return min(1 + len(program.varying) + unstable, program.most)


def scratch(program: BoxProgram) -> BoxScratch:
    """Makes room for one thread."""
    slots, width = 2 * len(program.bias), -(-columns(program) // PIECE) * PIECE
    return BoxScratch(
        table=np.zeros((slots, width)),
        columns=np.zeros(slots, dtype=np.int64),
        size=np.zeros(slots),
        error=np.zeros(slots),
        symbol=np.zeros(slots, dtype=np.int64),
        radius=np.zeros(slots),
        live=np.zeros(slots, dtype=np.bool_),
        neuron=np.zeros(width, dtype=np.int64),
        picked=np.zeros(slots + 1, dtype=np.int64),
        places=np.zeros(slots + 1, dtype=np.int64),
        marked=np.zeros(slots + 1, dtype=np.int64),
        factors=np.zeros(slots + 1),
    )
