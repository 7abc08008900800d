"""Counterexamples in an l2 ball: projected gradient descent in float64 on the sparse rows (Madry et al. 2018)."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array, Int64Array
from prunecert.verifiers.sparse.bab.attack import Replay, margins, unsafe
from prunecert.verifiers.sparse.balls.walk import Ball
from prunecert.verifiers.sparse.certify import Checker

#: Of the radius, and of the way from the centre: rounding to float32 must not carry a point out of the ball.
_INSIDE = 1 - 1e-6
#: Lengths of the first and the last step, of the radius; and of the first one from where a bound is lowest.
_FIRST, _LAST, _NEAR = 0.6, 0.005, 0.1


class BallAttack:
    """Looks for counterexamples to one question.

    Args:
        checker: Of the network.
        ball: The input set.
        spec: The unsafe set.
        contains: Whether a flat float32 point lies in the input set, in exact arithmetic.
        allowance: For each disjunct, how far float32 rounding may move its rows; empty: nothing is known.
        replay: The float32 network that decides near the threshold, flat x to outputs.
    """

    def __init__(
        self,
        checker: Checker,
        ball: Ball,
        spec: OutputSpec,
        contains: Callable[[Float32Array], bool],
        allowance: tuple[float, ...] = (),
        replay: Replay | None = None,
    ) -> None:
        self._checker, self._network = checker, checker.network
        self._ball, self._spec, self._contains = ball, spec, contains
        self._allowance, self._replay = allowance, replay

    def from_center(self, steps: int, count: int, seed: int, deadline: float) -> Float32Array | None:
        """Attacks each disjunct from the centre, and from random points, until one is broken or time is up.

        Args:
            steps: Gradient steps.
            count: Starts of each disjunct, the centre among them.
            seed: Of the random ones.
            deadline: `time.monotonic` after which no further step begins.
        """
        rng = np.random.default_rng(seed)
        center, size = self._ball.center, len(self._ball.center)
        for start in range(count):
            points = np.tile(center, (len(self._spec.disjuncts), 1))
            if start:
                away = rng.standard_normal(points.shape)
                lengths = np.linalg.norm(away, axis=1, keepdims=True)
                shares = rng.random((len(points), 1)) ** (1 / size)
                points = self._inside(center + away / np.maximum(lengths, 1e-300) * shares * self._ball.radius)
            point = self.descend(points, np.arange(len(points)), steps, deadline)
            if point is not None:
                return point
        return None

    def descend(
        self, points: Float64Array, targets: Int64Array, steps: int, deadline: float, *, near: bool = False
    ) -> Float32Array | None:
        """Lowers the largest row of each point's disjunct, and returns the first point that is confirmed.

        Args:
            points: [n, inputs] in the ball.
            targets: Disjunct of each, [n].
            steps: Gradient steps.
            deadline: `time.monotonic` after which no further step begins.
            near: Whether they are thought to be near to a counterexample, so that steps are short.
        """
        first = _NEAR if near else _FIRST
        if not len(points):
            return None
        with np.errstate(all="ignore"):
            for step in range(steps + 1):
                values = self._network.forward(points)
                worst = np.array(
                    [
                        [(a @ y - b).max(initial=-np.inf) for a, b in self._spec.disjuncts]
                        for y in values[-1]
                    ]
                ).reshape(len(points), -1)  # fmt: skip
                for place in np.flatnonzero(worst.min(axis=1, initial=np.inf) <= 0):
                    point = self._confirmed(points[place])
                    if point is not None:
                        return point
                if step == steps or time.monotonic() > deadline:
                    return None
                slope = self._gradient(values, targets)
                lengths = np.linalg.norm(slope, axis=1, keepdims=True)
                stride = self._ball.radius * first * (_LAST / first) ** (step / steps)
                points = self._inside(points - stride * slope / np.maximum(lengths, 1e-300))
        return None

    def _inside(self, points: Float64Array) -> Float64Array:
        """Moves points into the ball and the box: towards the centre, which is in both, and then to the box's faces."""
        ball = self._ball
        away = points - ball.center
        lengths = np.linalg.norm(away, axis=1, keepdims=True)
        shares = np.minimum(1.0, ball.radius / np.maximum(lengths, 1e-300))
        inside: Float64Array = np.clip(ball.center + away * shares, ball.low, ball.high)
        return inside

    def _gradient(self, values: list[Float64Array], targets: Int64Array) -> Float64Array:
        """Returns the gradients of the largest rows of the points' disjuncts."""
        outputs = values[-1]
        rows = np.zeros_like(outputs)
        for place, target in enumerate(targets):
            a, b = self._spec.disjuncts[target]
            if len(b):
                rows[place] = a[int((a @ outputs[place] - b).argmax())]
        linear: dict[int, Float64Array] = {self._checker.last: rows}
        relu: dict[int, Float64Array] = {}
        for node in range(self._checker.last, 0, -1):
            own = linear.pop(node, None)
            through = relu.pop(node, None)
            if through is not None:
                through = through * (values[node] > 0)
                own = through if own is None else own + through
            if own is None:
                continue
            for product in self._checker.products[node]:
                target_rows = relu if product.activated else linear
                part = own @ product.matrix
                before = target_rows.get(product.source)
                target_rows[product.source] = part if before is None else before + part
        return linear.get(0, np.zeros_like(values[0]))

    def _confirmed(self, point: Float64Array) -> Float32Array | None:
        """Returns the point in float32, within the ball and unsafe there; None where it is not."""
        ball = self._ball
        inner = ball.center + _INSIDE * (point - ball.center)
        x: Float32Array = inner.astype(np.float32)
        if not self._contains(x):
            return None
        values, scale = margins(self._network, self._spec, x)
        return x if unsafe(self._network, self._spec, x, values, scale, self._allowance, self._replay) else None
