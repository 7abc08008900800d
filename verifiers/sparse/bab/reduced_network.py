"""The network that is left over one box: its unstable ReLUs, everything else composed away.

Over a box a ReLU whose input is never positive is 0, and one whose input is never negative is the identity. Composing
these with the affine maps leaves, for the unstable neurons u in topological order and the specification's rows s,

    z_u = M_u t + sum over earlier v of N_uv relu(z_v) + c_u,        s likewise,        t in [-1, 1]^pixels

where x = centre + radius * t, pixels of radius 0 being part of c. Skip connections become blocks of N. A bound of a
subdomain then costs a few dense products with matrices of (unstable) x (pixels), whatever the layers were. Where
activations are rounded (`Network.roundings`), what rounding adds to a neuron is a pixel more, which no input moves.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array, Int64Array
from prunecert.verifiers.sparse.certify import LANES64, CheckedBounds, Checker, grouped

#: Groups of rows composed together: what this keeps in memory is `_GROUPS` * LANES64 doubles for each neuron.
_GROUPS = 16


@dataclass(frozen=True, eq=False)
class Reduced:
    """A network over one box, see the module. U unstable neurons, P pixels of positive radius, R specification rows.

    Args:
        nodes: [U] node of each unstable neuron, ascending.
        indices: [U] its place in the node.
        levels: Spans (start, stop) of neurons of one node, in order; empty ones left out.
        lower: [U] bounds of z, below 0.
        upper: [U] above 0.
        M: [U + R, P] float32; the last R rows are the specification's.
        N: [U + R, U] float32, 0 where the column is not of an earlier node.
        c: [U + R] float32.
        pixels: [P] places in the flat input; from the inputs' number on, roundings.
        center: [inputs] float64.
        radius: [inputs] float64.
    """

    nodes: Int64Array
    indices: Int64Array
    levels: tuple[tuple[int, int], ...]
    lower: Float32Array
    upper: Float32Array
    M: Float32Array
    N: Float32Array
    c: Float32Array
    pixels: Int64Array
    center: Float64Array
    radius: Float64Array

    @property
    def unstable(self) -> int:
        """U."""
        return len(self.nodes)

    def point(self, t: npt.ArrayLike) -> Float64Array:
        """Maps [..., P] in [-1, 1] to inputs [..., inputs]."""
        t = np.asarray(t, dtype=np.float64)
        x = np.broadcast_to(self.center, (*t.shape[:-1], len(self.center))).copy()
        pixels = self.pixels[self.pixels < len(self.center)]
        x[..., pixels] += self.radius[pixels] * t[..., : len(pixels)]
        return x


def reduce(
    checker: Checker, bounds: CheckedBounds, rows: Float64Array, offsets: Float64Array, deadline: float = math.inf
) -> Reduced:
    """Composes the stable neurons away.

    Args:
        checker: Of the network.
        bounds: Of all nodes over the box.
        rows: Of the specification, [R, outputs]; s = rows @ y - offsets.
        offsets: [R].
        deadline: Value of `time.monotonic` after which it gives up.

    Raises:
        TimeoutError: It has given up.
    """
    low, high = bounds.lower[0], bounds.upper[0]
    center = 0.5 * low + 0.5 * high
    radius = np.maximum(high - center, center - low)
    pixels = np.flatnonzero(radius > 0)
    noise = _Noise(checker, bounds)
    activated = {term.source for node in checker.network.nodes for term in node.terms if term.activated}
    free = {node: bounds.unstable(node) for node in sorted(activated)}
    nodes = np.concatenate([np.full(len(index), node) for node, index in free.items()] or [np.zeros(0)])
    places = np.concatenate([*free.values(), np.zeros(0, dtype=np.int64)]).astype(np.int64)
    count, total = len(places), len(places) + len(rows)
    spans: dict[int, tuple[int, int]] = {}
    start = 0
    for node, index in free.items():
        spans[node] = (start, start + len(index))
        start += len(index)
    M = np.zeros((total, len(pixels) + noise.count), dtype=np.float32)
    N = np.zeros((total, count), dtype=np.float32)
    c = np.zeros(total)
    step = _GROUPS * LANES64
    for node, (first, last) in spans.items():
        if all(product.source == 0 for product in checker.products[node]):
            for product in checker.products[node]:
                M[first:last, : len(pixels)] += product.matrix[places[first:last]][:, pixels].toarray() * radius[pixels]
                c[first:last] += product.matrix[places[first:last]] @ center
            c[first:last] += checker.network.nodes[node].bias[places[first:last]]
            noise.own(node, places[first:last], M[first:last, len(pixels) :])
            continue
        for begin in range(first, last, step):
            if time.monotonic() > deadline:
                raise TimeoutError
            stop = min(begin + step, last)
            seeds = np.zeros((stop - begin, checker.network.nodes[node].size))
            seeds[np.arange(stop - begin), places[begin:stop]] = 1.0
            _compose(checker, bounds, node, seeds, free, spans, center, radius, pixels, noise, (M, N, c), begin)
    if len(rows):
        _compose(checker, bounds, checker.last, rows, free, spans, center, radius, pixels, noise, (M, N, c), count)
        c[count:] -= offsets
    lower = np.concatenate([bounds.lower[node][index] for node, index in free.items()] or [np.zeros(0)])
    upper = np.concatenate([bounds.upper[node][index] for node, index in free.items()] or [np.zeros(0)])
    return Reduced(
        nodes=nodes.astype(np.int64),
        indices=places,
        levels=tuple(span for span in spans.values() if span[1] > span[0]),
        lower=lower.astype(np.float32),
        upper=upper.astype(np.float32),
        M=M,
        N=N,
        c=c.astype(np.float32),
        pixels=np.concatenate([pixels, len(center) + np.arange(noise.count)]),
        center=center,
        radius=radius,
    )


class _Noise:
    """The columns of M for what rounding adds to neurons that may be active.

    Args:
        checker: Of the network.
        bounds: Of all nodes over the box.
    """

    def __init__(self, checker: Checker, bounds: CheckedBounds) -> None:
        self.count, self._bounds = 0, bounds
        self._columns: dict[int, tuple[Int64Array, Float64Array, int]] = {}
        for node in checker.network.roundings:
            live = np.flatnonzero(bounds.upper[node] > 0)
            self._columns[node] = live, checker.network.nodes[node].bias_error[live].astype(np.float64), self.count
            self.count += len(live)

    def own(self, node: int, places: Int64Array, out: Float32Array) -> None:
        """Writes the columns of neurons' own values, [neurons, count]."""
        if node in self._columns:
            live, size, first = self._columns[node]
            column = np.searchsorted(live, places)
            out[np.arange(len(places)), first + column] = size[column]

    def add(self, node: int, value: Float64Array, count: int, out: Float32Array) -> None:
        """Writes the columns of `count` rows whose coefficients of a node's value are given in groups."""
        if node in self._columns:
            live, size, first = self._columns[node]
            out[:count, first : first + len(live)] += _rows(value[:, live, :], count) * size

    def cut(self, node: int, through: Float64Array, count: int, out: Float32Array) -> Float64Array:
        """Makes ReLUs that are cut (`CheckedBounds.cuts`) columns, and no longer functions of what is before them.

        Returns:
            What their middles add to the constants, in groups.
        """
        if node not in self._bounds.cuts:
            return np.zeros((through.shape[0], LANES64))
        live, _, first = self._columns[node]
        low, high = self._bounds.lower[node], self._bounds.upper[node]
        places = np.flatnonzero(self._bounds.cuts[node] & (low >= 0) & (high > 0))
        low, high = low[places], high[places]
        part = through[:, places, :]
        out[:count, first + np.searchsorted(live, places)] += _rows(part, count) * (0.5 * (high - low))
        through[:, places, :] = 0.0
        middle: Float64Array = np.einsum("gnk,n->gk", part, 0.5 * (low + high))
        return middle


def _compose(
    checker: Checker,
    bounds: CheckedBounds,
    node: int,
    seeds: Float64Array,
    free: dict[int, Int64Array],
    spans: dict[int, tuple[int, int]],
    center: Float64Array,
    radius: Float64Array,
    pixels: Int64Array,
    noise: _Noise,
    out: tuple[Float32Array, Float32Array, Float64Array],
    begin: int,
) -> None:
    """Writes rows begin, begin + 1, … of M, N and c: rows `seeds` of a node's value, walked back."""
    M, N, c = out
    count = len(seeds)
    linear = {node: grouped(seeds)}
    relu: dict[int, Float64Array] = {}
    groups = linear[node].shape[0]
    constant = np.zeros((groups, LANES64))
    for at in range(node, 0, -1):
        value = linear.pop(at, None)
        if at in relu:
            through = relu.pop(at)
            index, (first, last) = free[at], spans[at]
            N[begin : begin + count, first:last] = _rows(through[:, index, :], count)
            through[:, bounds.lower[at] < 0, :] = 0.0
            constant += noise.cut(at, through, count, M[begin : begin + count, len(pixels) :])
            value = through if value is None else value + through
        if value is None:
            continue
        constant += np.einsum("gnk,n->gk", value, checker.network.nodes[at].bias.astype(np.float64))
        noise.add(at, value, count, M[begin : begin + count, len(pixels) :])
        for product in checker.products[at]:
            product.back(value, relu if product.activated else linear)
    if 0 not in linear:
        linear[0] = np.zeros((groups, len(center), LANES64))
    inputs = linear[0]
    constant += np.einsum("gnk,n->gk", inputs, center)
    M[begin : begin + count, : len(pixels)] = _rows(inputs[:, pixels, :], count) * radius[pixels]
    c[begin : begin + count] = constant.reshape(-1)[:count]


def _rows(groups: Float64Array, count: int) -> Float64Array:
    rows: Float64Array = groups.transpose(0, 2, 1).reshape(groups.shape[0] * LANES64, groups.shape[1])[:count]
    return rows
