"""Slopes that raise a bound over an l2 ball: gradient steps on the Lagrangian dual that `walk` evaluates.

With the minimisers z of all parts held, the dual's derivative by a neuron's μ is how far its z is from what the layers
before it make of theirs: y - z, where y is the layer's value at their outputs. As μ = a + s c + t hangs on what comes
behind through c and a, an output is relu(z) + s (y - z), and the derivatives by s and t are c (y - z) and y - z. Every
step is a rigorous bound, so the best one counts. Steps are Adam's (Kingma and Ba 2015), as in α-CROWN (Xu et al. 2021).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from prunecert.verifiers.sparse.arrays import BoolArray, Float64Array, Int64Array
from prunecert.verifiers.sparse.balls.walk import Boxes, Slopes, Trace, Walker

_RATE, _DECAY = 0.1, 0.96
_FIRST, _SECOND = 0.9, 0.99


@dataclass(eq=False)
class Climb:
    """Where an ascent has ended.

    Args:
        lower: The best bounds, [rows].
        slopes: Those that gave them, by node.
        trace: Of some row's last walk, for who splits; the rows' numbers in it are `traced`.
        traced: See there.
        steps: Gradient steps.
    """

    lower: Float64Array
    slopes: dict[int, Slopes]
    trace: Trace
    traced: Int64Array
    steps: int = 0


class Ascent:
    """Raises the bounds of rows over one ball.

    Args:
        walker: Of the ball.
        start: The node whose rows are bounded.
    """

    def __init__(self, walker: Walker, start: int) -> None:
        self._walker, self._start = walker, start
        self._nodes = walker.checker.network.nodes

    def climb(
        self,
        rows: sparse.csr_array,
        constant: Float64Array,
        steps: int,
        *,
        slopes: dict[int, Slopes] | None = None,
        boxes: Boxes | None = None,
        goal: float = 0.0,
        deadline: float = np.inf,
    ) -> Climb:
        """Bounds rows, and raises the bounds of those that are not above a goal.

        Args:
            rows: Coefficients of the node's value, [rows, size].
            constant: Added to each, [rows].
            steps: Gradient steps at most.
            slopes: To begin with; None: CROWN's.
            boxes: Of subdomains.
            goal: Bounds above it are high enough.
            deadline: `time.monotonic` after which no further step begins.
        """
        alive = np.arange(rows.shape[0])
        trace = Trace()
        lower = self._walker.lower(self._start, rows, constant, slopes, boxes, trace)
        climb = Climb(lower, dict(trace.slopes), trace, alive)
        current = dict(trace.slopes)
        moments = {node: [np.zeros_like(own.slope) for _ in range(4)] for node, own in current.items()}
        rate = _RATE
        for step in range(1, steps + 1):
            keep = climb.lower[alive] <= goal
            if not keep.any() or time.monotonic() > deadline:
                break
            if not keep.all():
                alive, rows, constant = alive[keep], rows[np.flatnonzero(keep)], constant[keep]
                boxes = None if boxes is None else replace(boxes, domain=boxes.domain[keep])
                current = {node: Slopes(own.slope[keep], own.shift[keep]) for node, own in current.items()}
                moments = {node: [item[keep] for item in own] for node, own in moments.items()}
                trace = _kept(trace, keep)
            gradient = self.gradient(trace)
            for node, own in current.items():
                c, gap = trace.coefficients[node], gradient[node]
                first, second, first_shift, second_shift = moments[node]
                slope = own.slope + rate * _adam(first, second, c * gap, step)
                shift = own.shift
                if boxes is not None:
                    scale = np.abs(c).mean(axis=1, keepdims=True)
                    shift = shift + rate * scale * _adam(first_shift, second_shift, gap, step)
                current[node] = Slopes(np.clip(slope, 0.0, 1.0), shift)
            rate *= _DECAY
            trace = Trace()
            lower = self._walker.lower(self._start, rows, constant, current, boxes, trace)
            better = lower > climb.lower[alive]
            climb.lower[alive[better]] = lower[better]
            for node, own in current.items():
                kept = climb.slopes[node]
                kept.slope[alive[better]] = own.slope[better]
                kept.shift[alive[better]] = own.shift[better]
            climb.trace, climb.traced, climb.steps = trace, alive, step
        return climb

    def gradient(self, trace: Trace) -> dict[int, Float64Array]:
        """Returns y - z of each node's unstable neurons after a walk, [rows, neurons]."""
        walker, gaps = self._walker, {}
        raw: dict[int, Float64Array] = {0: trace.inputs}
        after: dict[int, Float64Array] = {}
        for node in range(1, self._start):
            value = np.tile(self._nodes[node].bias.astype(np.float64), (len(trace.inputs), 1))
            for product in walker.checker.products[node]:
                value += (after if product.activated else raw)[product.source] @ product.matrix.T
            raw[node] = value
            if node in walker.ranges.unstable:
                free = walker.ranges.unstable[node]
                output = value * (walker.ranges.bounds.upper[node] > 0)
                if node in trace.points and len(free):
                    z = trace.points[node]
                    gaps[node] = value[:, free] - z
                    output[:, free] = np.maximum(z, 0.0) + trace.slopes[node].slope * gaps[node]
                else:
                    output = np.maximum(value, 0.0)
                after[node] = output
        return gaps


def _adam(first: Float64Array, second: Float64Array, gradient: Float64Array, step: int) -> Float64Array:
    """Moves the moments in place, and returns the direction."""
    first *= _FIRST
    first += (1 - _FIRST) * gradient
    second *= _SECOND
    second += (1 - _SECOND) * gradient * gradient
    direction: Float64Array = (first / (1 - _FIRST**step)) / (np.sqrt(second / (1 - _SECOND**step)) + 1e-12)
    return direction


def _kept(trace: Trace, keep: BoolArray) -> Trace:
    return Trace(
        {node: own[keep] for node, own in trace.coefficients.items()},
        {node: Slopes(own.slope[keep], own.shift[keep]) for node, own in trace.slopes.items()},
        {node: own[keep] for node, own in trace.points.items()},
        trace.inputs[keep],
    )
