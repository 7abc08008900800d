"""Intervals over a quantised network: exact through every rounding and clamp, which are monotone.

Each step keeps bounds of every number that a runtime may have there (`quantised.layers` says which runtimes). Between
roundings these are sums of real numbers with an allowance for the runtime's own; at a rounding they become the first
and the last whole number that the runtime may write. A neuron of which only one is left is a constant from there on.

The float64 arithmetic here errs by n 2**-53 of what is summed, where the allowance for float32 is (n + 8) 2**-24.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from prunecert.onnx.quantised import Grid, Step
from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array
from prunecert.verifiers.sparse.quantised.layers import TINY, UNIT, Linear, linear, windows

#: Of a quotient by a scale, relative and absolute: two float32 roundings, and room.
QUOTIENT, _LEAST = 4 * UNIT, 2.0**-40


@dataclass(frozen=True, eq=False)
class Interval:
    """Bounds of one step's numbers, flat.

    Args:
        lower: [size].
        upper: Likewise.
        inner_lower: Of a rounding, the bounds before it is clamped, which are multiples of the scale; else `lower`.
        inner_upper: Likewise.
    """

    lower: Float64Array
    upper: Float64Array
    inner_lower: Float64Array
    inner_upper: Float64Array

    @property
    def magnitude(self) -> Float64Array:
        """The largest absolute values."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))


def rounded(grid: Grid, lower: Float64Array, upper: Float64Array) -> Interval:
    """Returns what numbers of an interval are rounded to.

    Whatever a runtime divides by the scale is within `QUOTIENT` of the real quotient t, so that the whole number
    is at least t - 1/2 and at most t + 1/2 for such a t; on a tie either neighbour is allowed for. Sums of two values
    and averages are rounded after the zero point was added, in float32, which then has no room for the last digits; the
    zero point may be that of uint8 for int8 (`Grid.positive`).

    >>> interval = rounded(Grid(0.5, 0, 0, 255), np.array([-1.0, 0.3]), np.array([0.2, 200.0]))
    >>> interval.lower.tolist(), interval.upper.tolist()
    ([0.0, 0.5], [0.0, 127.5])
    """
    low, high = lower / grid.scale, upper / grid.scale
    span = grid.high - grid.low
    low = np.ceil(low - (QUOTIENT * (np.abs(low) + span) + _LEAST) - 0.5)
    high = np.floor(high + (QUOTIENT * (np.abs(high) + span) + _LEAST) + 0.5)
    least, most = grid.low - grid.zero, grid.high - grid.zero
    return Interval(
        np.clip(low, least, most) * grid.scale,
        np.clip(high, least, most) * grid.scale,
        low * grid.scale,
        high * grid.scale,
    )


class Intervals:
    """Bounds a quantised network by intervals.

    Args:
        steps: What `prunecert.onnx.quantised.read_steps` returned.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = tuple(steps)
        shapes = [step.shape for step in steps]
        self.linear: dict[int, Linear] = {}
        self.windows: dict[int, Int64Array] = {}
        for number, step in enumerate(steps):
            if step.operator in ("Conv", "Gemm", "AveragePool"):
                self.linear[number] = linear(step, shapes[step.inputs[0]])
            elif step.operator == "MaxPool":
                self.windows[number] = windows(step, shapes[step.inputs[0]])

    def bound(self, lower: Float64Array, upper: Float64Array) -> list[Interval]:
        """Bounds all steps over a box, flat float64 corners; those of the last are the outputs' as runtimes give them.

        Args:
            lower: Lower corner, flat.
            upper: Upper corner.
        """
        intervals: list[Interval] = []
        for number, step in enumerate(self.steps):
            intervals.append(self._step(number, step, [intervals[k] for k in step.inputs], lower, upper))
        last = intervals[-1]
        # What is read from whole numbers is rounded once; before a clamp it is what it was.
        room = 2 * UNIT * last.magnitude + TINY
        intervals[-1] = replace(last, lower=last.lower - room, upper=last.upper + room)
        return intervals

    def rows(self, intervals: Sequence[Interval], matrix: Float64Array, offsets: Float64Array) -> Float64Array:
        """Bounds rows of the outputs from below: matrix @ y - offsets.

        Where the last step is linear, rows are multiplied with its weights first, so that what two outputs share
        doesn't count twice.

        Args:
            intervals: What `bound` returned.
            matrix: [rows, outputs].
            offsets: [rows].
        """
        last = self.linear.get(len(self.steps) - 1)
        if last is None:
            return _combined(matrix, intervals[-1], offsets, np.zeros(len(offsets)))
        source = intervals[self.steps[-1].inputs[0]]
        # What runtimes may differ by is a property of each output, and so is the room for their last rounding.
        size = reach(source, self._grid(self.steps[-1].inputs[0]))
        loose = last.drift(size) + 2 * UNIT * intervals[-1].magnitude + TINY
        product = (last.matrix.T @ matrix.T).T
        constant = matrix @ last.bias
        size = np.abs(matrix) @ (last.magnitude @ source.magnitude + np.abs(last.bias))
        error = np.abs(matrix) @ loose + 2.0**-40 * size
        return _combined(np.asarray(product), source, offsets - constant, error)

    def _step(
        self, number: int, step: Step, sources: list[Interval], lower: Float64Array, upper: Float64Array
    ) -> Interval:
        match step.operator:
            case "Input":
                return plain(lower, upper)
            case "Round":
                assert step.grid is not None
                return rounded(step.grid, sources[0].lower, sources[0].upper)
            case "Reshape":
                return sources[0]
            case "Relu":
                return plain(np.maximum(sources[0].lower, 0.0), np.maximum(sources[0].upper, 0.0))
            case "MaxPool":
                places = self.windows[number]
                return plain(sources[0].lower[places].max(axis=1), sources[0].upper[places].max(axis=1))
            case "Add":
                one, other = sources
                room = 16 * UNIT * (reach(one, self._grid(step.inputs[0])) + reach(other, self._grid(step.inputs[1])))
                return plain(one.lower + other.lower - room - TINY, one.upper + other.upper + room + TINY)
            case "Shift":
                assert step.bias is not None
                assert step.bias_error is not None
                size = reach(sources[0], self._grid(step.inputs[0])) + np.abs(step.bias)
                room = 16 * UNIT * size + step.bias_error + TINY
                return plain(sources[0].lower + step.bias - room, sources[0].upper + step.bias + room)
            case _:
                return self._linear(self.linear[number], sources[0], self._grid(step.inputs[0]))

    def _linear(self, layer: Linear, source: Interval, grid: Grid | None) -> Interval:
        center, radius = 0.5 * source.lower + 0.5 * source.upper, 0.5 * source.upper - 0.5 * source.lower
        middle = layer.matrix @ center + layer.bias
        room = layer.magnitude @ radius + layer.drift(reach(source, grid))
        return plain(middle - room, middle + room)

    def _grid(self, number: int) -> Grid | None:
        """Returns the grid on which a step's values lie."""
        while self.steps[number].operator in ("Reshape", "MaxPool"):
            number = self.steps[number].inputs[0]
        return self.steps[number].grid


def reach(source: Interval, grid: Grid | None) -> Float64Array:
    """Returns how large the terms of a sum may be on the way: kernels may add whole numbers before their zero point."""
    return source.magnitude if grid is None or grid.positive else np.maximum(source.magnitude, grid.width)


def plain(lower: Float64Array, upper: Float64Array) -> Interval:
    """Returns bounds of what isn't rounded."""
    return Interval(lower, upper, lower, upper)


def _combined(matrix: Float64Array, source: Interval, offsets: Float64Array, error: Float64Array) -> Float64Array:
    positive, negative = np.maximum(matrix, 0.0), np.minimum(matrix, 0.0)
    bound = positive @ source.lower + negative @ source.upper - offsets
    size = np.abs(matrix) @ source.magnitude + np.abs(offsets)
    bound = bound - error - 2.0**-40 * size - TINY
    result: Float64Array = np.where(np.isfinite(bound), bound, -np.inf)
    return result
