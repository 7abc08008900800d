"""A network laid out for the kernels: one numbered list of variables, level by level.

A level holds the variables of one node: its values (raw), its ReLUs (fused: the walk goes from the ReLU over the
relaxation through the node's weights at once), or, where a residual connection uses both, first the values and then the
ReLUs over them. A variable's number is also the number of its row of weights, whose columns are lower variables.

Neurons of an image-like node are sorted by position first and channel last, so that neighbours in the list share their
receptive field.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array, Int32Array, Int64Array
from prunecert.verifiers.sparse.network import Network, Node

#: Kinds of levels; those of ReLUs are the last two.
INPUT, RAW, FUSED, OVER = 0, 1, 2, 3
#: Nanoseconds for one column of a unit of 1, 4 and 8 neurons, with 32 rows a block, from
#: ``python -m bench.engine.kernels kernel``. Only their ratios count.
COLUMN_COST = {1: 1.4, 4: 1.45, 8: 2.4}


class Program(NamedTuple):
    """The kernels' view of a network; arrays only, shared by all threads and never written.

    S is the number of variables, L that of levels.

    Args:
        starts: First variable of each level, [L + 1].
        kinds: `INPUT`, `RAW`, `FUSED` or `OVER`, [L].
        bounded: Whether a ReLU needs bounds of the level's rows, [L].
        heights: Neurons a unit, [L].
        groups: Neurons of one position, [L].
        inexact: Whether weights of the level carry `network.WEIGHT_ERROR`, [L].
        pointers: Rows of weights, as of a CSR matrix [S, S], [S + 1].
        columns: int32.
        weights: Float32.
        bias: Float64 [S].
        bias_error: Float64 [S].
        gamma: γ_n of float32 for the longest chain of sums that ends in a coefficient of the variable, [S]; 0 for
            variables that no row uses.
        level: Level of each variable, int32 [S].
        live: Variables that are no constants, in order: rows without weights are exact once and for all.
        lives: By level: its first place in `live`, [L + 1].
    """

    starts: Int64Array
    kinds: Int64Array
    bounded: Int64Array
    heights: Int64Array
    groups: Int64Array
    inexact: Int64Array
    pointers: Int64Array
    columns: Int32Array
    weights: Float32Array
    bias: Float64Array
    bias_error: Float64Array
    gamma: Float64Array
    level: Int32Array
    live: Int64Array
    lives: Int64Array


class Layout(NamedTuple):
    """Where a network's neurons are in a `Program`.

    Args:
        program: The program.
        orders: For each node, its neurons (flat index) in the order of the variables.
        values: For each node, the first variable of its rows of weights (its raw or fused level).
        nodes: For each level, its node.
        places: By node and whether it is the ReLU: the first variable.
    """

    program: Program
    orders: tuple[Int64Array, ...]
    values: tuple[int, ...]
    nodes: tuple[int, ...]
    places: dict[tuple[int, bool], int]


def lay_out(network: Network, flat: bool = False) -> Layout:
    """Orders neurons, chooses units and counts roundings.

    Args:
        network: The network.
        flat: Keeps the file's order, and makes units of single neurons.

    Raises:
        ValueError: A node has two terms of the same values.
    """
    raw = {0, len(network.nodes) - 1, *network.raw()}
    activated = set(network.activated())
    place: dict[tuple[int, bool], int] = {}
    levels: list[tuple[Node, int, bool]] = []
    orders, values, starts = [], [], [0]
    for index, node in enumerate(network.nodes):
        orders.append(np.arange(node.size) if flat else _order(node.shape))
        values.append(starts[-1])
        kinds = [INPUT if index == 0 else RAW] if index in raw else []
        kinds += ([OVER] if kinds else [FUSED]) if index in activated else []
        for kind in kinds:
            place[index, kind in (FUSED, OVER)] = starts[-1]
            # The box itself bounds the input.
            levels.append((node, kind, kind == FUSED or (kind == RAW and index in activated)))
            starts.append(starts[-1] + node.size)
    ranks = [np.argsort(order) for order in orders]
    pointers, columns, weights, biases, errors, inexact, heights, groups = [], [], [], [], [], [], [], []
    index_of = {id(node): index for index, node in enumerate(network.nodes)}
    for node, kind, _ in levels:
        index = index_of[id(node)]
        group = node.shape[0] if len(node.shape) == 3 and not flat else node.size
        if kind in (RAW, FUSED):
            parts = [
                (term.matrix, (ranks[term.source] + place[term.source, term.activated]).astype(np.int32))
                for term in node.terms
            ]
            lengths, column, weight = _rows(orders[index], parts)
            height = 1 if flat else _height(lengths, column, group, starts[-1])
        else:
            width = node.size if kind == OVER else 0
            lengths = np.full(node.size, int(kind == OVER), dtype=np.int64)
            column = np.arange(place[index, False], place[index, False] + width, dtype=np.int32)
            weight, height = np.ones(width, dtype=np.float32), 8 if kind == INPUT else 1
        affine = kind in (RAW, FUSED)
        pointers.append(lengths)
        columns.append(column)
        weights.append(weight)
        biases.append(node.bias[orders[index]].astype(np.float64) if affine else np.zeros(node.size))
        errors.append(node.bias_error[orders[index]].astype(np.float64) if affine else np.zeros(node.size))
        inexact.append(int(affine and not all(term.exact for term in node.terms)))
        heights.append(height)
        groups.append(group)
    chains = np.zeros(starts[-1])
    for (node, _, _), column, lengths, height, group in zip(levels, columns, pointers, heights, groups, strict=True):
        del node
        _count_chains(np.concatenate([[0], np.cumsum(lengths)]), column, height, group, chains)
    unit = 2.0**-24
    # A product, the sum within a unit, and the sums of units.
    longest = np.where(chains > 0, chains + 12, 0)
    longest[starts[-2] :] = 12
    constant = (np.concatenate(pointers) == 0) & (np.concatenate(errors) == 0)
    constant[: starts[1]] = False
    live = np.flatnonzero(~constant)
    program = Program(
        np.array(starts, dtype=np.int64),
        np.array([kind for _, kind, _ in levels], dtype=np.int64),
        np.array([bounded for _, _, bounded in levels], dtype=np.int64),
        np.array(heights, dtype=np.int64),
        np.array(groups, dtype=np.int64),
        np.array(inexact, dtype=np.int64),
        np.concatenate([[0], np.cumsum(np.concatenate(pointers))]).astype(np.int64),
        np.concatenate(columns),
        np.concatenate(weights),
        np.concatenate(biases),
        np.concatenate(errors),
        longest * unit / (1 - longest * unit) * (1 + 2.0**-40),
        np.repeat(np.arange(len(levels), dtype=np.int32), np.diff(starts)),
        live,
        np.searchsorted(live, starts),
    )
    nodes = tuple(index_of[id(node)] for node, _, _ in levels)
    return Layout(program, tuple(orders), tuple(values), nodes, place)


def _order(shape: tuple[int, ...]) -> Int64Array:
    size = int(np.prod(shape))
    if len(shape) != 3:
        return np.arange(size)
    return np.arange(size).reshape(shape).transpose(1, 2, 0).reshape(-1)


def _rows(order: Int64Array, parts: list[tuple[object, Int32Array]]) -> tuple[Int64Array, Int32Array, Float32Array]:
    """Returns lengths, columns and weights of the rows in order, each row sorted by column.

    Raises:
        ValueError: A column stands twice in a row.
    """
    lengths = np.zeros(len(order), dtype=np.int64)
    for matrix, _ in parts:
        lengths += np.diff(matrix.indptr)[order]  # type: ignore[attr-defined]
    ends = np.cumsum(lengths)
    columns = np.empty(ends[-1] if len(ends) else 0, dtype=np.int32)
    weights = np.empty(len(columns), dtype=np.float32)
    filled = ends - lengths
    for matrix, number in parts:
        indptr, indices, data = matrix.indptr, matrix.indices, matrix.data  # type: ignore[attr-defined]
        _copy_rows(order, indptr.astype(np.int64), indices.astype(np.int32), data, number, filled, columns, weights)
    if not _sort_rows(ends - lengths, ends, columns, weights):
        raise ValueError("two terms of a node read the same values; they must be one term")
    return lengths, columns, weights


@numba.njit(cache=True, nogil=True)
def _copy_rows(order, pointers, indices, data, number, filled, columns, weights):  # type: ignore[no-untyped-def]
    for place in range(len(order)):
        row = order[place]
        to = filled[place]
        for k in range(pointers[row], pointers[row + 1]):
            columns[to] = number[indices[k]]
            weights[to] = data[k]
            to += 1
        filled[place] = to


@numba.njit(cache=True, nogil=True)
def _sort_rows(begins, ends, columns, weights):  # type: ignore[no-untyped-def]
    """Sorts each row by column; returns whether no column stands twice in a row, which walks would take once."""
    for row in range(len(begins)):
        b, e = begins[row], ends[row]
        increasing = True
        for k in range(b + 1, e):
            if columns[k] < columns[k - 1]:
                increasing = False
                break
        if not increasing:
            # Stable, so that the result doesn't depend on how the sort breaks ties.
            by = np.argsort(columns[b:e], kind="mergesort")
            columns[b:e] = columns[b:e][by]
            weights[b:e] = weights[b:e][by]
        for k in range(b + 1, e):
            if columns[k] == columns[k - 1]:
                return False
    return True


def _height(lengths: Int64Array, columns: Int32Array, group: int, variables: int) -> int:
    """Chooses how many neurons a unit holds, by the time that its columns take."""
    pointers = np.concatenate([[0], np.cumsum(lengths)])
    costs = {1: COLUMN_COST[1] * len(columns)}
    for height in (4, 8):
        costs[height] = COLUMN_COST[height] * _count_columns(pointers, columns, height, group, variables)
    return min(costs, key=lambda height: costs[height])


@numba.njit(cache=True, nogil=True)
def _count_columns(pointers, columns, height, group, variables):  # type: ignore[no-untyped-def]
    """Counts the columns of all units, when every `height` neurons of a position form one."""
    last_used = np.full(variables, -1, dtype=np.int64)
    rows = len(pointers) - 1
    total = 0
    for row in range(rows):
        unit = (row // group) * (group // height + 1) + (row % group) // height
        for k in range(pointers[row], pointers[row + 1]):
            if last_used[columns[k]] != unit:
                last_used[columns[k]] = unit
                total += 1
    return total


@numba.njit(cache=True, nogil=True)
def _count_chains(pointers, columns, height, group, chains):  # type: ignore[no-untyped-def]
    """Adds, for every column, an upper bound of the number of units that add to its coefficient.

    Which neurons of a position are left out as inactive is not known here: a position of m neurons makes at most
    m // height + 1 units, and at most as many as rows that have the column.
    """
    most = group // height + 1 if height > 1 else group
    last_used = np.full(len(chains), -1, dtype=np.int64)
    here = np.zeros(len(chains), dtype=np.int64)
    for row in range(len(pointers) - 1):
        position = row // group
        for k in range(pointers[row], pointers[row + 1]):
            column = columns[k]
            if last_used[column] != position:
                last_used[column] = position
                here[column] = 0
            if here[column] < most:
                here[column] += 1
                chains[column] += 1


@numba.njit(cache=True, nogil=True)
def row_sizes(pointers, weights):  # type: ignore[no-untyped-def]
    """Sums the magnitudes of each row's weights in float64."""
    sums = np.zeros(len(pointers) - 1)
    for row in range(len(sums)):
        for k in range(pointers[row], pointers[row + 1]):
            sums[row] += abs(np.float64(weights[k]))
    return sums
