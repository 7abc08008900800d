"""Values and gradients of a ReLU network at 16 points side by side, through its sparse rows.

The points of a group keep each neuron's 16 values together, so that a weight is one multiply-add of a vector, forwards
and backwards; backwards, a neuron that none of the 16 has switched on costs nothing. No product of dense matrices is in
it, and so no library whose threads wait for one another where other work runs on the machine.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from prunecert.verifiers.sparse.arrays import LANES32, Float32Array, Float64Array, Int32Array, Int64Array
from prunecert.verifiers.sparse.bab.dual import Dual
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.llvm.row_gather import gather
from prunecert.verifiers.sparse.llvm.row_scatter import back
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.node_bounds import CheckedBounds
from prunecert.verifiers.sparse.threads import divide, together

#: Multiply-adds of 16 lanes that are worth handing to another thread.
_SHARED = 200_000


@numba.njit(cache=True, nogil=True)
def _ahead(
    starts: Int64Array,
    columns: Int32Array,
    weights: Float32Array,
    first: int,
    stop: int,
    values: Float32Array,
    base: int,
    out: Float32Array,
    place: int,
) -> None:
    """Adds rows first, first + 1, …, stop - 1 of a matrix times values at `base` to those at `place`."""
    room = np.empty(16, dtype=np.float32)
    for row in range(first, stop):
        gather(values, base, columns, weights, starts[row], starts[row + 1], room, 0)
        to = place + (row - first) * 16
        for lane in range(16):
            out[to + lane] += room[lane]


@numba.njit(cache=True)
def descend(t: Float32Array, gradient: Float32Array, size: float) -> None:
    """Moves [groups, inputs, LANES32] by a step against the gradient's signs, within [-1, 1]."""
    for group in range(t.shape[0]):
        for row in range(t.shape[1]):
            for lane in range(16):
                slope = gradient[group, row, lane]
                step = np.float32(0.0) if slope == 0 else (np.float32(size) if slope > 0 else -np.float32(size))
                t[group, row, lane] = min(max(t[group, row, lane] - step, np.float32(-1.0)), np.float32(1.0))


@dataclass(frozen=True, eq=False)
class BatchStep:
    """A summand of a span of neurons.

    Args:
        starts: Of a matrix's rows, int64.
        columns: int32.
        weights: Float32.
        first: The row that belongs to the span's first neuron.
        source: Neuron that column 0 stands for.
        activated: Whether the matrix takes the source's ReLU.
    """

    starts: Int64Array
    columns: Int32Array
    weights: Float32Array
    first: int
    source: int
    activated: bool

    def entries(self, count: int) -> int:
        """Returns how many weights the first `count` rows have."""
        return int(self.starts[self.first + count] - self.starts[self.first])


class Lanes:
    """A network as spans of neurons, numbered through; the first are its inputs, the last span's are its rows.

    Args:
        inputs: How many inputs.
        spans: (start, stop, bias, steps) of each span, in an order in which sources come first.
        threads: For groups of points, and for the rows of large matrices.
    """

    def __init__(
        self, inputs: int, spans: Sequence[tuple[int, int, Float32Array, list[BatchStep]]], threads: int = 1
    ) -> None:
        self.inputs = inputs
        self.spans = list(spans)
        self.size = self.spans[-1][1]
        self.rows = self.spans[-1][1] - self.spans[-1][0]
        self.threads = threads
        self._raw: Float32Array = np.empty((0, 0, LANES32), dtype=np.float32)

    def _room(self, groups: int) -> None:
        if len(self._raw) != groups:
            shape = (groups, self.size, LANES32)
            # Values, their ReLUs, derivatives by the values and by the ReLUs.
            self._raw, self._relu, self._by_raw, self._by_relu = (np.zeros(shape, dtype=np.float32) for _ in range(4))

    def _each(self, tasks: list[tuple[Any, ...]], run: Callable[..., None], entries: int) -> None:
        """Runs tasks that don't touch one another, side by side if that is worth it.

        Threads of the kernels' own would meet after every matrix, and spin there while other work holds their core.
        """
        together(self.threads if entries >= _SHARED else 1, [functools.partial(run, *task) for task in tasks])

    def values(self, x: Float32Array) -> Float32Array:
        """Evaluates the rows.

        Args:
            x: Points [groups, inputs, LANES32].

        Returns:
            [groups, rows, LANES32]; a view that the next call overwrites.
        """
        groups = len(x)
        self._room(groups)
        raw, relu = self._raw, self._relu
        raw[:, : self.inputs] = x
        for start, stop, bias, steps in self.spans:
            raw[:, start:stop] = bias[:, None]
            for step in steps:
                entries = groups * step.entries(stop - start)
                parts = -(-self.threads // groups) if entries >= _SHARED else 1
                source = relu if step.activated else raw
                tasks = [
                    (
                        *(step.starts, step.columns, step.weights, step.first + low, step.first + high),
                        *(source[group].reshape(-1), step.source * LANES32),
                        *(raw[group].reshape(-1), (start + low) * LANES32),
                    )
                    for group in range(groups)
                    for low, high in divide(stop - start, parts)
                ]
                self._each(tasks, _ahead, entries)
            np.maximum(raw[:, start:stop], 0, out=relu[:, start:stop])
        return raw[:, self.size - self.rows :]

    def gradient(self, weights: Float32Array) -> Float32Array:
        """Returns the gradient of weighted rows at the points of the last call of `values`.

        Args:
            weights: [groups, rows, LANES32].

        Returns:
            [groups, inputs, LANES32]; a view that the next call overwrites.
        """
        groups = len(weights)
        by_raw, by_relu = self._by_raw, self._by_relu
        by_raw[:] = 0
        by_relu[:] = 0
        by_raw[:, self.size - self.rows :] = weights
        for start, stop, _, steps in reversed(self.spans):
            by_raw[:, start:stop] += by_relu[:, start:stop] * (self._raw[:, start:stop] > 0)
            for step in steps:
                target = by_relu if step.activated else by_raw
                tasks = [
                    (
                        *(step.starts, step.columns, step.weights, step.first, step.first + stop - start),
                        *(by_raw[group].reshape(-1), start * LANES32),
                        *(target[group].reshape(-1), step.source * LANES32),
                    )
                    for group in range(groups)
                ]
                self._each(tasks, back, groups * step.entries(stop - start))
        return by_raw[:, : self.inputs]


#: Work space of the network that was attacked last.
_LATEST: weakref.WeakKeyDictionary[Network, Lanes] = weakref.WeakKeyDictionary()


def of_network(network: Network, rows: Float64Array, offsets: Float64Array, threads: int = 1) -> Lanes:
    """Returns a network with rows @ outputs - offsets behind it; its matrices are shared, not copied.

    What was returned for the same network before, and as many rows, is overwritten.
    """
    first = np.cumsum([0, *(node.size for node in network.nodes)])
    lanes = _LATEST.get(network)
    if lanes is None or lanes.rows != len(rows) or lanes.threads != threads:
        spans = []
        for index, node in enumerate(network.nodes[1:], 1):
            steps = [
                BatchStep(
                    term.matrix.indptr.astype(np.int64),
                    term.matrix.indices,
                    term.matrix.data,
                    0,
                    int(first[term.source]),
                    term.activated,
                )
                for term in node.terms
            ]
            spans.append((int(first[index]), int(first[index + 1]), node.bias, steps))
        end = int(first[-1])
        spans.append((end, end + len(rows), np.zeros(len(rows), dtype=np.float32), []))
        lanes = Lanes(network.nodes[0].size, spans, threads)
        _LATEST[network] = lanes
    lanes.spans[-1] = (*lanes.spans[-1][:2], -offsets.astype(np.float32), [_last_step(rows, int(first[-2]))])
    return lanes


def _last_step(rows: Float64Array, outputs: int) -> BatchStep:
    """Returns the step of a specification's rows, the outputs beginning there."""
    place, column = np.nonzero(rows)
    starts = np.searchsorted(place, np.arange(len(rows) + 1))
    return BatchStep(starts, column.astype(np.int32), rows[place, column].astype(np.float32), 0, outputs, False)


def of_live(checker: Checker, bounds: CheckedBounds, rows: Float64Array, offsets: Float64Array) -> Lanes:
    """`of_network` without the neurons that are 0 behind their ReLUs over a box: for points of it, they are the same.

    Args:
        checker: Of the network.
        bounds: Of all nodes over the box.
        rows: Of the specification, [rows, outputs].
        offsets: [rows].
    """
    live = checker.live(bounds)
    first = np.cumsum([0, *map(len, live.kept)])
    spans = []
    for number, node in enumerate(checker.network.nodes[1:], 1):
        steps = [
            BatchStep(factor.starts, factor.columns, factor.single, 0, int(first[factor.source]), factor.activated)
            for factor in live.factors(number)
        ]
        spans.append((int(first[number]), int(first[number + 1]), node.bias[live.kept[number]], steps))
    end = int(first[-1])
    last = end, end + len(rows), -offsets.astype(np.float32), [_last_step(rows, int(first[-2]))]
    return Lanes(len(live.kept[0]), [*spans, last], checker.threads)


def of_reduced(dual: Dual) -> Lanes:
    """Returns what is left of a network over a box; its inputs are t in [-1, 1]."""
    net, pixels = dual.net, len(dual.net.pixels)
    (m, n), spans = dual.matrices, []
    for start, stop in (*net.levels, (net.unstable, len(net.c))):
        steps = [BatchStep(*m, start, 0, False)]
        if start:
            steps.append(BatchStep(*n, start, pixels, True))
        spans.append((pixels + start, pixels + stop, net.c[start:stop], steps))
    return Lanes(pixels, spans, dual.threads)


def pack(points: Float32Array) -> Float32Array:
    """Returns points [n, inputs] as [groups, inputs, LANES32]; the last one fills the last group up."""
    groups = -(-len(points) // LANES32)
    lanes = np.empty((groups, points.shape[1], LANES32), dtype=points.dtype)
    for lane in range(LANES32):
        for group in range(groups):
            lanes[group, :, lane] = points[min(group * LANES32 + lane, len(points) - 1)]
    return lanes


def unpack(lanes: Float32Array, count: int) -> Float32Array:
    """Returns [groups, width, LANES32] as [count, width]."""
    # A point box leaves no input, so that the number of points can't be told from the size.
    flat: Float32Array = lanes.transpose(0, 2, 1).reshape(len(lanes) * LANES32, lanes.shape[1])[:count]
    return flat
