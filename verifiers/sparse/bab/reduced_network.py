"""The network that is left over one box: its unstable ReLUs, everything else composed away.

Over a box a ReLU whose input is never positive is 0, and one whose input is never negative is the identity. Composing
these with the affine maps leaves, for the unstable neurons u in topological order and the specification's rows s,

    z_u = M_u t + sum over earlier v of N_uv relu(z_v) + c_u,        s likewise,        t in [-1, 1]^pixels

where x = centre + radius * t, pixels of radius 0 being part of c. Skip connections become blocks of N. A bound of a
subdomain then costs a few dense products with matrices of (unstable) x (pixels), whatever the layers were. Where
activations are rounded (`Network.roundings`), what rounding adds to a neuron is a pixel more, which no input moves.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.sparse.arrays import LANES32, Float32Array, Float64Array, Int64Array
from prunecert.verifiers.sparse.certify import Checker, grouped
from prunecert.verifiers.sparse.live import LiveFactor
from prunecert.verifiers.sparse.llvm.row_scatter import back
from prunecert.verifiers.sparse.node_bounds import CheckedBounds
from prunecert.verifiers.sparse.threads import together

#: Groups of rows composed together: what this keeps in memory is `_GROUPS` * LANES32 floats for each neuron.
_GROUPS = 16


def _push(factor: LiveFactor, value: Float32Array, target: dict[int, Float32Array], threads: int) -> None:
    """Adds what coefficients of a node's value, [groups, kept, LANES32], make of a term's source."""
    if factor.source not in target:
        target[factor.source] = np.zeros((len(value), factor.width, LANES32), dtype=np.float32)
    out, rows = target[factor.source], value.shape[1]
    weights = factor.single
    tasks = [
        functools.partial(
            back,
            factor.starts,
            factor.columns,
            weights,
            0,
            rows,
            value[group].reshape(-1),
            0,
            out[group].reshape(-1),
            0,
        )
        for group in range(len(value))
    ]
    together(threads, tasks)


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

    @property
    def megabytes(self) -> float:
        """What its matrices take."""
        return (self.M.nbytes + self.N.nbytes) / 2**20

    def point(self, t: npt.ArrayLike) -> Float64Array:
        """Maps [..., P] in [-1, 1] to inputs [..., inputs]."""
        t = np.asarray(t, dtype=np.float64)
        x = np.broadcast_to(self.center, (*t.shape[:-1], len(self.center))).copy()
        pixels = self.pixels[self.pixels < len(self.center)]
        x[..., pixels] += self.radius[pixels] * t[..., : len(pixels)]
        return x


def reduce(
    checker: Checker,
    bounds: CheckedBounds,
    rows: Float64Array,
    offsets: Float64Array,
    deadline: float = math.inf,
    composition: Composition | None = None,
) -> Reduced:
    """Composes the stable neurons away.

    Args:
        checker: Of the network.
        bounds: Of all nodes over the box.
        rows: Of the specification, [R, outputs]; s = rows @ y - offsets.
        offsets: [R].
        deadline: Value of `time.monotonic` after which it gives up.
        composition: What is composed over these bounds already; the rest is added to it.

    Raises:
        TimeoutError: It has given up.
    """
    composition = composition or Composition(checker, bounds)
    for node in checker.activated:
        composition.add(node, deadline)
    return composition.reduced(rows, offsets)


class Composition:
    """A network over one box, composed node by node.

    Args:
        checker: Of the network.
        bounds: Of all nodes over the box. Those of nodes that are composed may be improved if `drop` is told, others at
            any time.
    """

    def __init__(self, checker: Checker, bounds: CheckedBounds) -> None:
        self._checker, self._bounds, self._live = checker, bounds, checker.live(bounds)
        low, high = bounds.lower[0], bounds.upper[0]
        self._center = 0.5 * low + 0.5 * high
        self._radius = np.maximum(high - self._center, self._center - low)
        self._pixels = np.flatnonzero(self._radius > 0)
        self._noise = _Noise(checker, bounds, self._live.kept)
        #: By node that is composed: its unstable neurons, and their rows of M, N and c.
        self._free: dict[int, Int64Array] = {}
        self._rows: dict[int, tuple[Float32Array, Float32Array, Float64Array]] = {}

    def __contains__(self, node: int) -> bool:
        return node in self._free

    def free(self, node: int) -> Int64Array:
        """Returns the unstable neurons of a node that is composed."""
        return self._free[node]

    def add(self, node: int, deadline: float = math.inf) -> None:
        """Composes a node's unstable neurons, all earlier nodes being composed; nothing where they are already.

        Raises:
            TimeoutError: The deadline has passed.
        """
        if node in self._free:
            return
        places = self._bounds.unstable(node)
        out = self._empty(len(places))
        if all(product.source == 0 for product in self._checker.products[node]):
            self._first(node, places, out)
        else:
            kept, step = self._live.kept[node], _GROUPS * LANES32
            number = np.searchsorted(kept, places)
            for begin in range(0, len(places), step):
                if time.monotonic() > deadline:
                    raise TimeoutError
                some = number[begin : begin + step]
                seeds = np.zeros((len(some), len(kept)), dtype=np.float32)
                seeds[np.arange(len(some)), some] = 1.0
                self._compose(node, seeds, out, begin)
        self._free[node], self._rows[node] = places, out

    def drop(self, node: int) -> None:
        """Leaves out what has become stable of the node that was composed last."""
        still = np.isin(self._free[node], self._bounds.unstable(node))
        M, N, c = self._rows[node]
        self._free[node], self._rows[node] = self._free[node][still], (M[still], N[still], c[still])

    def reduced(self, rows: Float64Array, offsets: Float64Array) -> Reduced:
        """Returns the network of the nodes that are composed, and of rows of the outputs.

        Args:
            rows: Of the specification, [R, outputs]; where R is above 0, all nodes are composed.
            offsets: [R].
        """
        spans, bounds = self._spans(), self._bounds
        count = sum(map(len, self._free.values()))
        last = self._empty(len(rows))
        if len(rows):
            self._compose(self._checker.last, rows, last, 0)
            last[2][:] -= offsets
        parts = [*self._rows.values(), last]
        N = np.zeros((count + len(rows), count), dtype=np.float32)
        for (start, stop), (_, part, _) in zip([*spans.values(), (count, len(N))], parts, strict=True):
            N[start:stop, : part.shape[1]] = part
        none = np.zeros(0, dtype=np.int64)
        return Reduced(
            nodes=np.concatenate([*(np.full(len(index), node) for node, index in self._free.items()), none]),
            indices=np.concatenate([*self._free.values(), none]),
            levels=tuple(span for span in spans.values() if span[1] > span[0]),
            lower=self._ends(bounds.lower),
            upper=self._ends(bounds.upper),
            M=np.concatenate([M for M, _, _ in parts]),
            N=N,
            c=np.concatenate([c for _, _, c in parts]).astype(np.float32),
            pixels=np.concatenate([self._pixels, len(self._center) + np.arange(self._noise.count)]),
            center=self._center,
            radius=self._radius,
        )

    def _ends(self, values: list[Float64Array]) -> Float32Array:
        ends = [values[node][index] for node, index in self._free.items()]
        return np.concatenate([*ends, np.zeros(0)]).astype(np.float32)

    def _spans(self) -> dict[int, tuple[int, int]]:
        """Returns where each composed node's neurons begin and end."""
        stops = np.cumsum([0, *map(len, self._free.values())]).tolist()
        return dict(zip(self._free, itertools.pairwise(stops), strict=True))

    def _empty(self, rows: int) -> tuple[Float32Array, Float32Array, Float64Array]:
        """Returns room for rows of M, N and c behind the nodes that are composed."""
        columns, width = sum(map(len, self._free.values())), len(self._pixels) + self._noise.count
        M, N = (np.zeros((rows, size), dtype=np.float32) for size in (width, columns))
        return M, N, np.zeros(rows)

    def _first(self, node: int, places: Int64Array, out: tuple[Float32Array, Float32Array, Float64Array]) -> None:
        """Writes the rows of neurons that read nothing but the input."""
        M, _, c = out
        pixels = self._pixels
        for product in self._checker.products[node]:
            matrix = product.matrix[places]
            M[:, : len(pixels)] += matrix[:, pixels].toarray() * self._radius[pixels]
            c[:] += matrix @ self._center
        c[:] += self._checker.network.nodes[node].bias[places]
        self._noise.own(node, places, M[:, len(pixels) :])

    def _compose(
        self,
        node: int,
        seeds: npt.NDArray[np.floating],
        out: tuple[Float32Array, Float32Array, Float64Array],
        begin: int,
    ) -> None:
        """Writes rows begin, begin + 1, … of M, N and c: rows `seeds` of a node's kept neurons, walked back."""
        M, N, c = out
        count, pixels, noise, spans = len(seeds), self._pixels, self._noise, self._spans()
        mine = slice(begin, begin + count)
        linear = {node: grouped(seeds.astype(np.float32), LANES32)}
        relu: dict[int, Float32Array] = {}
        groups, threads = len(linear[node]), self._checker.threads
        constant = np.zeros((groups, LANES32))
        for at in range(node, 0, -1):
            value, kept = linear.pop(at, None), self._live.kept[at]
            if at in relu:
                through = relu.pop(at)
                index, (first, last) = np.searchsorted(kept, self._free[at]), spans[at]
                N[mine, first:last] = _rows(through[:, index, :], count)
                through[:, self._bounds.lower[at][kept] < 0, :] = 0.0
                constant += noise.cut(at, through, count, M[mine, len(pixels) :])
                value = through if value is None else value + through
            if value is None:
                continue
            bias = self._checker.network.nodes[at].bias[kept].astype(np.float64)
            constant += np.einsum("gnk,n->gk", value, bias)
            noise.add(at, value, count, M[mine, len(pixels) :])
            for factor in self._live.factors(at):
                _push(factor, value, relu if factor.activated else linear, threads)
        if 0 not in linear:
            linear[0] = np.zeros((groups, len(self._center), LANES32), dtype=np.float32)
        inputs = linear[0]
        constant += np.einsum("gnk,n->gk", inputs, self._center)
        M[mine, : len(pixels)] = _rows(inputs[:, pixels, :], count) * self._radius[pixels]
        c[mine] = constant.reshape(-1)[:count]


class _Noise:
    """The columns of M for what rounding adds to neurons that may be active, or that no ReLU follows.

    Args:
        checker: Of the network.
        bounds: Of all nodes over the box.
        kept: By node: the neurons that walks know, `Live.kept`.
    """

    def __init__(self, checker: Checker, bounds: CheckedBounds, kept: list[Int64Array]) -> None:
        self.count, self._bounds, self._kept = 0, bounds, kept
        self._columns: dict[int, tuple[Int64Array, Float64Array, int]] = {}
        for node in checker.network.roundings:
            # Of a node that no ReLU follows all count. What else reads a node's own value subtracts what is beyond its
            # upper end, and nothing is there of a neuron that is never above 0.
            live = np.flatnonzero((bounds.upper[node] > 0) | (node not in checker.activated))
            self._columns[node] = live, checker.network.nodes[node].bias_error[live].astype(np.float64), self.count
            self.count += len(live)

    def own(self, node: int, places: Int64Array, out: Float32Array) -> None:
        """Writes the columns of neurons' own values, [neurons, count]."""
        if node in self._columns:
            live, size, first = self._columns[node]
            column = np.searchsorted(live, places)
            out[np.arange(len(places)), first + column] = size[column]

    def add(self, node: int, value: Float32Array, count: int, out: Float32Array) -> None:
        """Writes the columns of `count` rows whose coefficients of a node's value are given in groups."""
        if node in self._columns:
            live, size, first = self._columns[node]
            value = value[:, np.searchsorted(self._kept[node], live), :]
            out[:count, first : first + len(live)] += _rows(value, count) * size

    def cut(self, node: int, through: Float32Array, count: int, out: Float32Array) -> Float64Array:
        """Makes ReLUs, as far as they are cut (`CheckedBounds.cuts`), columns, and leaves the rest of them.

        Returns:
            What their middles add to the constants, in groups.
        """
        if node not in self._bounds.cuts:
            return np.zeros((through.shape[0], LANES32))
        live, _, first = self._columns[node]
        low, high = self._bounds.lower[node], self._bounds.upper[node]
        share = self._bounds.cuts[node]
        places = np.flatnonzero((share > 0) & (low >= 0) & (high > 0))
        low, high, number = low[places], high[places], np.searchsorted(self._kept[node], places)
        rest = through[:, number, :] * (1.0 - share[places])[:, None]
        part = through[:, number, :] - rest
        out[:count, first + np.searchsorted(live, places)] += _rows(part, count) * (0.5 * (high - low))
        through[:, number, :] = rest
        middle: Float64Array = np.einsum("gnk,n->gk", part, 0.5 * (low + high))
        return middle


def _rows(groups: npt.NDArray[np.floating], count: int) -> npt.NDArray[np.floating]:
    return groups.transpose(0, 2, 1).reshape(groups.shape[0] * LANES32, groups.shape[1])[:count]
