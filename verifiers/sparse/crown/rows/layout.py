"""The second layout of a network: in the file's order, with convolutions as stripes.

A weight of a convolution multiplies a rectangle of one channel and adds to a rectangle of another. Where all rows of a
level are of that kind, which is found out from the matrices alone, intervals of a whole level are taken stripe by
stripe (`verifiers.sparse.llvm.conv_stripes`) and not row by row. `verifiers.sparse.crown.rows.walk` walks over this
layout without preparing it for an image: for interval bounds of any network, and for all bounds of networks with few
weights left.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numba
import numpy as np

from prunecert.verifiers.sparse.arrays import CONV_WIDTH, Float32Array, Float64Array, Int8Array, Int32Array, Int64Array
from prunecert.verifiers.sparse.crown.program import FUSED, INPUT, OVER, Layout, Program, lay_out, row_sizes
from prunecert.verifiers.sparse.llvm.conv_stripes import PADDING
from prunecert.verifiers.sparse.network import Network, Node, Term

_U53 = 2.0**-53
#: Neurons that a rectangle must have on average.
_LEAST = 4


class Taps(NamedTuple):
    """What the interval pass over a flat layout knows of a `Program`, never written.

    S is the number of variables, L that of levels, T that of taps, K that of channels.

    Args:
        tapped: Whether a level's rows are sums of taps, [L].
        channels: By level: its first channel, [L + 1]; levels that aren't tapped have none.
        begins: By channel: its first variable, [K]; channels of constants are left out.
        ends: By channel: the variable after its last, [K].
        taps: By channel: its first tap, [K + 1].
        weights: Float64 [T].
        places: By tap: first target, first source, rows, columns, pitch of targets, pitch of sources, step of
            sources, [T, 7].
        loss: By level: share of |y| that the rounding of a tapped row that reads it may lose, float64 [L].
        added: By channel: what its rows may lose otherwise, float64 [K].
        fixed: By level: the largest of these, float64 [L].
        scaled: By level: what is multiplied by the largest |y| that it reads to bound a row's loss, float64 [L].
        grow: By level: covers the rounding of sums of radii, float64 [L].
        gamma: By level: the largest γ of a variable that it reads, float64 [L].
        own: By level: the largest γ of its variables, float64 [L].
        sources: By level and level: whether it reads it, [L, L].
        listed: Whether a level that is not tapped reads the level's variables, [L].
        base: By level: largest reference of its constants, float64 [L].
        shallow: Whether a level reads nothing but the input, [L]: intervals are then CROWN's bounds.
    """

    tapped: Int64Array
    channels: Int64Array
    begins: Int64Array
    ends: Int64Array
    taps: Int64Array
    weights: Float64Array
    places: Int64Array
    loss: Float64Array
    added: Float64Array
    fixed: Float64Array
    scaled: Float64Array
    grow: Float64Array
    gamma: Float64Array
    own: Float64Array
    sources: Int64Array
    listed: Int64Array
    base: Float64Array
    shallow: Int64Array


class RowState(NamedTuple):
    """What is known of one image in the flat layout.

    Args:
        centers: z_c of each row, float64 [S + PADDING], as all of float64 but where it is said.
        radii: Sums of |w| q of tapped rows.
        lower: Bounds of each row's z.
        upper: Likewise.
        y: Reference of each variable.
        r: Radius of each variable; 0 where it is a constant or inactive.
        q: r + loss |y|.
        slack: v of rows that are not tapped.
        slopes: As in `units.state.UnitImage`, int8 [S].
        quantities: y, |y|, r and γ r of each variable of a listed level, [S, 4].
        peaks: By level: eight numbers the largest of which is the largest |y|, and eight the sum of which is that of
            the widths of all bounds, [L, 16].
        errors: By tapped level: bound of the rounding of its references, [L].
        tiny: By level: what underflow may cost a walk from there, [L + 1].
        planes: As in `units.state.UnitImage`, float32 [S, 4].
        columns: The rows without the variables that don't deviate, in the places of the program's rows, int32.
        weights: Likewise, float32.
        ends: Where each row ends there, [S].
        stamps: The image for which planes and row were made, [S].
        rows: Unstable rows of the level in work, [largest level].
        counts: The image's stamp; unstable rows of the level in work, and how many of them have been walked; unstable
            ReLUs of the finished levels; [4].
        merged: Scratch, zeros [S].
    """

    centers: Float64Array
    radii: Float64Array
    lower: Float64Array
    upper: Float64Array
    y: Float64Array
    r: Float64Array
    q: Float64Array
    slack: Float64Array
    slopes: Int8Array
    quantities: Float64Array
    peaks: Float64Array
    errors: Float64Array
    tiny: Float64Array
    planes: Float32Array
    columns: Int32Array
    weights: Float32Array
    ends: Int64Array
    stamps: Int64Array
    rows: Int64Array
    counts: Int64Array
    merged: Float64Array


def lay_flat(network: Network) -> tuple[Layout, Taps]:
    """Lays a network out in the file's order and finds its taps."""
    layout = lay_out(network, flat=True)
    program = layout.program
    levels = len(program.kinds)
    tapped = np.zeros(levels, dtype=np.int64)
    sources = np.zeros((levels, levels), dtype=np.int64)
    channels, begins, ends, taps = [0], [], [], [0]
    weights: list[Float64Array] = []
    places: list[Int64Array] = []
    for level in range(levels):
        first, last = int(program.starts[level]), int(program.starts[level + 1])
        read = program.columns[program.pointers[first] : program.pointers[last]]
        used = np.bincount(program.level[read], minlength=levels) > 0
        sources[level] = used
        node = network.nodes[layout.nodes[level]]
        parts = None
        if program.kinds[level] not in (INPUT, OVER) and not program.inexact[level] and len(node.shape) == 3:
            parts = _taps(node, network, first, layout)
        if parts is not None:
            tapped[level] = 1
            channel, weight, place = parts
            area = node.size // node.shape[0]
            loose = np.reshape(node.bias_error != 0, (node.shape[0], area)).any(axis=1)
            counts = np.bincount(channel, minlength=node.shape[0])
            for k in np.flatnonzero((counts > 0) | loose):
                begins.append(first + k * area)
                ends.append(first + (k + 1) * area)
                taps.append(taps[-1] + counts[k])
            weights.append(weight)
            places.append(place)
        channels.append(len(begins))
    lengths = np.diff(program.pointers)
    sizes = row_sizes(program.pointers, program.weights) * (1 + 1e-9)
    factor = np.where(lengths > 0, (lengths + 2) * _U53 * (1 + 1e-6), 0.0)
    fixed, scaled = factor * np.abs(program.bias) + program.bias_error * (1 + 1e-9), factor * sizes
    constants = np.where(program.kinds[program.level] >= FUSED, np.maximum(program.bias, 0.0), program.bias)
    constants[program.live] = 0.0
    base = np.array([np.abs(constants[a:b]).max(initial=0.0) for a, b in _pairs(program.starts)])
    longest = np.array([lengths[a:b].max(initial=0) for a, b in _pairs(program.starts)])
    gammas = np.array([program.gamma[a:b].max(initial=0.0) for a, b in _pairs(program.starts)])
    losses = np.where(tapped > 0, (longest + 2) * _U53 * (1 + 1e-6), 0.0)
    loss = np.array([losses[sources[:, k] > 0].max(initial=0.0) for k in range(levels)])
    listed = np.array([bool((sources[:, k] * (1 - tapped)).any()) for k in range(levels)])
    shallow = np.array([not sources[k, 1:].any() for k in range(levels)])
    return layout, Taps(
        tapped,
        np.array(channels, dtype=np.int64),
        np.array(begins, dtype=np.int64),
        np.array(ends, dtype=np.int64),
        np.array(taps, dtype=np.int64),
        np.concatenate([*weights, np.zeros(0)]),
        np.concatenate([*places, np.zeros((0, 7), dtype=np.int64)]),
        loss,
        np.array([fixed[a:b].max(initial=0.0) for a, b in zip(begins, ends, strict=True)]),
        np.array([fixed[a:b].max(initial=0.0) for a, b in _pairs(program.starts)]),
        np.array([scaled[a:b].max(initial=0.0) for a, b in _pairs(program.starts)]),
        1 + (longest + 8) * 2 * _U53,
        np.array([gammas[sources[k] > 0].max(initial=0.0) for k in range(levels)]),
        gammas,
        sources,
        listed.astype(np.int64),
        base,
        shallow.astype(np.int64),
    )


def _pairs(starts: Int64Array) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in itertools.pairwise(starts)]


def _taps(
    node: Node, network: Network, first: int, layout: Layout
) -> tuple[Int64Array, Float64Array, Int64Array] | None:
    """Returns channel, weight and place of each tap of a node, in the order of channels; None if it isn't made so."""
    parts = []
    for term in node.terms:
        shape = network.nodes[term.source].shape
        rectangles = _rectangles(term, node.shape, shape) if len(shape) == 3 else None
        if rectangles is None:
            return None
        channel, weight, place = rectangles
        place[:, 0] += first
        place[:, 1] += layout.places[term.source, term.activated]
        parts.append((channel, weight, place))
    channels, weights, places = (np.concatenate([part[k] for part in parts]) for k in range(3))
    order = np.argsort(channels, kind="stable")
    return channels[order], weights[order], places[order]


def _rectangles(
    term: Term, shape: tuple[int, ...], source: tuple[int, ...]
) -> tuple[Int64Array, Float64Array, Int64Array] | None:
    matrix = term.matrix
    pointers, indices = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
    best: tuple[Int64Array, Float64Array, Int64Array] | None = None
    # Rectangles of few neurons are no faster than rows.
    most = len(indices) // _LEAST
    for down, across in itertools.product(_steps(shape[1], source[1]), _steps(shape[2], source[2])):
        spans = _offsets(pointers, indices, shape[1], shape[2], source[1], source[2], down, across)
        height, width = spans[1] - spans[0] + 1, spans[3] - spans[2] + 1
        keys = shape[0] * source[0] * height * width
        if height < 1 or keys > 4 * len(indices) + 2**20:
            continue
        table = np.zeros((keys, 5), dtype=np.int64)
        weights = np.zeros(keys)
        if not _collect(
            pointers, indices, matrix.data, shape[1], shape[2], source[0], source[1], source[2], down, across,
            spans[0], spans[2], height, width, table, weights,
        ):  # fmt: skip
            continue
        kept = np.flatnonzero(table[:, 0])
        if len(kept) > most:
            continue
        most = len(kept) - 1
        _, y0, y1, x0, x1 = table[kept].T
        channel, rest = np.divmod(kept, source[0] * height * width)
        inner, rest = np.divmod(rest, height * width)
        dy, dx = rest // width + spans[0], rest % width + spans[2]
        place = np.empty((len(kept), 7), dtype=np.int64)
        place[:, 0] = (channel * shape[1] + y0) * shape[2] + x0
        place[:, 1] = (inner * source[1] + y0 * down + dy) * source[2] + x0 * across + dx
        place[:, 2], place[:, 3] = y1 - y0 + 1, x1 - x0 + 1
        place[:, 4], place[:, 5], place[:, 6] = shape[2], down * source[2], across
        _join(place)
        best = channel, weights[kept], place
        if 4 * len(indices) > len(kept) * shape[1] * shape[2]:
            break
    return best


def _join(place: Int64Array) -> None:
    """Makes one stripe of rows that follow one another in both channels."""
    whole = (place[:, 3] == place[:, 4]) & (place[:, 5] == place[:, 3] * place[:, 6])
    place[whole, 3] *= place[whole, 2]
    place[whole, 2] = 1


def _steps(outputs: int, inputs: int) -> list[int]:
    """Returns strides that may make so many outputs of so many inputs, the likeliest first."""
    ratio = inputs / max(1, outputs)
    candidates = [round(ratio), int(ratio), int(ratio) - 1, int(ratio) + 1]
    return list(dict.fromkeys(step for step in candidates if step >= 1))


@numba.njit(cache=True, nogil=True)
def _offsets(pointers, indices, rows, columns, height, width, down, across):  # type: ignore[no-untyped-def]
    """Returns the smallest and largest distance of sources from stride times target, down and across."""
    least_y, most_y, least_x, most_x = np.int64(1), np.int64(0), np.int64(1), np.int64(0)
    empty = True
    for row in range(len(pointers) - 1):
        y, x = row // columns % rows * down, row % columns * across
        for k in range(pointers[row], pointers[row + 1]):
            dy, dx = np.int64(indices[k]) // width % height - y, np.int64(indices[k]) % width - x
            if empty:
                least_y, most_y, least_x, most_x = dy, dy, dx, dx
                empty = False
            least_y, most_y = min(least_y, dy), max(most_y, dy)
            least_x, most_x = min(least_x, dx), max(most_x, dx)
    return least_y, most_y, least_x, most_x


@numba.njit(cache=True, nogil=True)
def _collect(  # type: ignore[no-untyped-def]
    pointers, indices, data, rows, columns, channels, height, width, down, across, top, left, tall, wide, table, weights
):
    """Files entries by channels and distance; returns whether each file is one weight over a whole rectangle.

    A row of `table` is: entries, first and last row, first and last column.
    """
    for row in range(len(pointers) - 1):
        channel, y, x = row // (rows * columns), row // columns % rows, row % columns
        for k in range(pointers[row], pointers[row + 1]):
            column = np.int64(indices[k])
            dy, dx = column // width % height - y * down - top, column % width - x * across - left
            key = ((channel * channels + column // (height * width)) * tall + dy) * wide + dx
            if table[key, 0] == 0:
                weights[key] = data[k]
                table[key, 1], table[key, 2], table[key, 3], table[key, 4] = y, y, x, x
            elif weights[key] != data[k]:
                return False
            table[key, 0] += 1
            table[key, 1], table[key, 2] = min(table[key, 1], y), max(table[key, 2], y)
            table[key, 3], table[key, 4] = min(table[key, 3], x), max(table[key, 4], x)
    for key in range(len(table)):
        area = (table[key, 2] - table[key, 1] + 1) * (table[key, 4] - table[key, 3] + 1)
        if table[key, 0] != 0 and table[key, 0] != area:
            return False
    return True


def make_state(program: Program, taps: Taps) -> RowState:
    """Returns the arrays for one image; constants keep what is set here for every image."""
    variables, levels = len(program.level), len(program.kinds)
    bias = np.append(program.bias, np.zeros(PADDING))
    y = bias.copy()
    y[:variables][program.kinds[program.level] >= FUSED] = np.maximum(
        program.bias[program.kinds[program.level] >= FUSED], 0.0
    )
    quantities = np.zeros((variables, 4))
    quantities[:, 0], quantities[:, 1] = y[:variables], np.abs(y[:variables])
    long = np.zeros(variables + PADDING)
    return RowState(
        centers=bias.copy(),
        radii=long.copy(),
        lower=bias.copy(),
        upper=bias.copy(),
        y=y,
        r=long.copy(),
        q=np.append(np.abs(y[:variables]) * taps.loss[program.level], np.zeros(PADDING)),
        slack=long.copy(),
        slopes=np.full(variables, -1, dtype=np.int8),
        quantities=quantities,
        peaks=np.zeros((levels, 2 * CONV_WIDTH)),
        errors=np.zeros(levels),
        tiny=np.zeros(levels + 1),
        planes=np.zeros((variables, 4), dtype=np.float32),
        columns=np.zeros(len(program.columns), dtype=np.int32),
        weights=np.zeros(len(program.columns), dtype=np.float32),
        ends=np.zeros(variables, dtype=np.int64),
        stamps=np.zeros(variables, dtype=np.int64),
        rows=np.zeros(int(np.diff(program.starts).max()), dtype=np.int64),
        counts=np.zeros(4, dtype=np.int64),
        merged=np.zeros(variables),
    )
