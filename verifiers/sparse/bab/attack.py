"""Counterexamples: projected gradient descent on a network's sparse rows, confirmed on the original one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.arrays import LANES32, Float32Array, Float64Array, Int64Array
from prunecert.verifiers.sparse.bab.point_batch import Lanes, descend, pack, unpack
from prunecert.verifiers.sparse.network import Network

#: A point counts only if its margin is below 0 by so much of the outputs' scale: onnxruntime rounds otherwise. Nearer
#: to 0, float32 and float64 arithmetic must agree.
_MARGIN = 1e-6
#: From here on, sums in float32 may overflow.
_LARGEST = 1e36


class Attack:
    """PGD with signs and a shrinking step (Madry et al. 2018), 16 points side by side.

    Args:
        lanes: The network, its rows those of the specification.
        disjuncts: Rows (start, stop) of each disjunct, in order and without gaps.
        box: Centre and radius of the inputs; None if they are in [-1, 1] already.
        shift: What is added to each of the rows; None: nothing.
    """

    def __init__(
        self,
        lanes: Lanes,
        disjuncts: list[tuple[int, int]],
        box: tuple[Float32Array, Float32Array] | None = None,
        shift: Float64Array | None = None,
    ) -> None:
        self.lanes = lanes
        self._box = box
        self._shift = None if shift is None or not shift.any() else shift.astype(np.float32)[:, None]
        self._starts = np.array([start for start, _ in disjuncts], dtype=np.int64)
        row = np.arange(lanes.rows)
        self._member = np.array([(row >= start) & (row < stop) for start, stop in disjuncts])

    def descend(
        self, t: Float32Array, target: Int64Array, steps: int, first: float = 0.6, last: float = 0.05
    ) -> tuple[Float32Array, Float32Array]:
        """Lowers what is above 0 of the rows of each point's disjunct, until one point is unsafe.

        Args:
            t: Starts, [n, inputs] in [-1, 1], n > 0.
            target: [n] the disjunct that each point is to fall into.
            steps: Gradient steps.
            first: Size by which the first step is longer than the last, in half widths of the box.
            last: About the last step's size.

        Returns:
            The best points [n, inputs] and their margins [n]: least over all disjuncts of the largest row.
        """
        count = len(t)
        t = pack(t)
        member = pack(self._member[target].astype(np.float32)) > 0
        best, best_margin = np.empty_like(t), np.full((len(t), LANES32), np.inf, dtype=np.float32)
        for step in range(steps + 1):
            rows = self.lanes.values(self._enter(t))
            if self._shift is not None:
                rows = rows + self._shift
            margin = np.maximum.reduceat(rows, self._starts, axis=1).min(axis=1)
            better = margin < best_margin
            if better.all():
                best[:] = t
            else:
                np.copyto(best, t, where=better[:, None])
            np.copyto(best_margin, margin, where=better)
            if step == steps or best_margin.min() < 0:
                break
            # Of a conjunction all rows that are in the way: the largest alone is one and then another of them.
            weights = (member & (rows > 0)).astype(np.float32)
            size = np.float32(first * (1 - step / steps) + last)
            descend(t, self.lanes.gradient(weights), size)
        return unpack(best, count), best_margin.reshape(-1)[:count]

    def _enter(self, t: Float32Array) -> Float32Array:
        if self._box is None:
            return t
        x: Float32Array = self._box[0][:, None] + self._box[1][:, None] * t
        return x


Replay = Callable[[Float32Array], npt.NDArray[np.floating]]
#: What `Network.forward` computes.
Forward = Callable[[npt.NDArray[np.floating]], list[Float64Array]]


def confirm(
    network: Network,
    spec: OutputSpec,
    lower: Float32Array,
    upper: Float32Array,
    points: Float64Array,
    threads: int = 1,
    allowance: Sequence[float] = (),
    replay: Replay | None = None,
    forward: Forward | None = None,
) -> Float32Array | None:
    """Returns the first point that, rounded to float32 in the box, is unsafe for the original network.

    Args:
        network: The original.
        spec: The unsafe set.
        lower: Lower corner, flat float32.
        upper: Upper corner.
        points: Candidates [n, inputs].
        threads: For the network.
        allowance: As for `unsafe`.
        replay: As for `unsafe`.
        forward: As for `margins`.
    """
    for point in points:
        if not np.isfinite(point).all():
            # What the search's float32 arithmetic could not hold.
            continue
        x: Float32Array = np.clip(point.astype(np.float32), lower, upper)
        if unsafe(network, spec, x, *margins(network, spec, x, threads, forward), allowance, replay):
            return x
    return None


def margins(
    network: Network, spec: OutputSpec, x: Float32Array, threads: int = 1, forward: Forward | None = None
) -> tuple[list[float], float]:
    """Returns the largest row of each disjunct at a point, in float64, and the outputs' scale.

    The scale is infinite where float32 arithmetic can't hold a value on the way.

    Args:
        network: The original.
        spec: The unsafe set.
        x: The point.
        threads: For the network.
        forward: A faster way of computing what `Network.forward` does, but for float64's rounding; None: that.
    """
    with np.errstate(all="ignore"):
        values = network.forward(x[None], threads) if forward is None else forward(x[None])
        y = values[-1][0]
        scale = 1.0
        for a, b in spec.disjuncts:
            scale = max(scale, float((np.abs(a) @ np.abs(y) + np.abs(b)).max(initial=0.0)))
        if not all(np.abs(value).max(initial=0.0) < _LARGEST for value in values):
            scale = np.inf
        return [float((a @ y - b).max(initial=-np.inf)) for a, b in spec.disjuncts], scale


def unsafe(
    network: Network,
    spec: OutputSpec,
    x: Float32Array,
    values: list[float],
    scale: float,
    allowance: Sequence[float] = (),
    replay: Replay | None = None,
) -> bool:
    """Whether a point is unsafe for the original network in float32, by what `margins` says of it.

    Far enough below the threshold it is; near to it, or where values are too large to tell, float32 arithmetic decides;
    and everywhere where activations are rounded, of which this module knows nothing.

    Args:
        network: The original.
        spec: The unsafe set.
        x: The point.
        values: From `margins`.
        scale: Likewise.
        allowance: For each disjunct, how far float32 rounding may move its rows; empty: nothing is known.
        replay: The float32 arithmetic that decides in the end, x to outputs; None: one of this module's own.
    """
    if not min(values, default=np.inf) <= 0:
        return False
    if network.roundings:
        return replay is not None and spec.violated_by(replay(x))
    more = allowance or (0.0,) * len(values)
    if any(value < -max(_MARGIN * scale, allowed) for value, allowed in zip(values, more, strict=True)):
        return True
    return spec.violated_by(_single(network, x) if replay is None else replay(x))


def _single(network: Network, x: Float32Array) -> Float32Array:
    """Evaluates the network in float32."""
    values = [x]
    with np.errstate(all="ignore"):
        for node in network.nodes[1:]:
            total = node.bias.copy()
            for term in node.terms:
                value = values[term.source]
                total += term.matrix @ (np.maximum(value, 0) if term.activated else value)
            values.append(total)
    return values[-1]
