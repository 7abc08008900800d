"""Counterexamples of a smooth network: projected gradient descent in float64 (Madry et al. 2018)."""

from __future__ import annotations

import time

import numpy as np

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array, Int64Array
from prunecert.verifiers.sparse.bab.attack import Replay
from prunecert.verifiers.sparse.smooth.curves import derivative
from prunecert.verifiers.sparse.smooth.walk import SmoothChecker

#: First and last step, of the box's radius.
_FIRST, _LAST = 0.6, 0.01
#: Points of a step that are tried in float32.
_TRIED = 4


class SmoothAttack:
    """Looks for counterexamples to one question.

    Args:
        checker: Of the network.
        lower: Lower corner, flat float32.
        upper: Upper corner.
        spec: The unsafe set.
        replay: The float32 network, flat x to outputs, that decides of each point.
    """

    def __init__(
        self, checker: SmoothChecker, lower: Float32Array, upper: Float32Array, spec: OutputSpec, replay: Replay
    ) -> None:
        self._checker, self._spec, self._replay = checker, spec, replay
        self._lower, self._upper = lower, upper
        self._radius = 0.5 * (upper.astype(np.float64) - lower.astype(np.float64))

    def from_center(
        self, disjuncts: Int64Array, count: int, steps: int, seed: int, deadline: float
    ) -> Float32Array | None:
        """Descends towards each of some disjuncts from the centre, random corners and random points.

        Args:
            disjuncts: Which.
            count: Random starts, together.
            steps: Gradient steps.
            seed: Of the random starts.
            deadline: `time.monotonic` after which no further step begins.
        """
        if not len(disjuncts):
            return None
        rng = np.random.default_rng(seed)
        shares = rng.random((count, len(self._lower)))
        shares[::2] = np.round(shares[::2])
        shares = np.concatenate([np.full((len(disjuncts), len(self._lower)), 0.5), shares])
        targets = np.concatenate([disjuncts, np.resize(disjuncts, count)])
        return self.descend(self._lower + 2 * shares * self._radius, targets, steps, deadline)

    def descend(self, points: Float64Array, targets: Int64Array, steps: int, deadline: float) -> Float32Array | None:
        """Lowers the largest row of each point's disjunct, and returns the first point that is confirmed.

        Args:
            points: [n, inputs] in the box.
            targets: Disjunct of each, [n].
            steps: Gradient steps.
            deadline: `time.monotonic` after which no further step begins.
        """
        low, high = self._lower.astype(np.float64), self._upper.astype(np.float64)
        with np.errstate(all="ignore"):
            for step in range(steps + 1):
                points = np.clip(points, low, high)
                values = self._checker.smooth.forward(points)
                margins = np.stack(
                    [(values[-1] @ a.T - b).max(axis=1, initial=-np.inf) for a, b in self._spec.disjuncts], axis=1
                ).min(axis=1)
                for place in np.argsort(margins)[:_TRIED]:
                    point = self._confirmed(points[place]) if margins[place] <= 0 else None
                    if point is not None:
                        return point
                if step == steps or time.monotonic() > deadline:
                    return None
                share = _FIRST * (_LAST / _FIRST) ** (step / max(steps, 1))
                points = points - share * self._radius * np.sign(self.gradient(values, targets))
        return None

    def gradient(self, values: list[Float64Array], targets: Int64Array) -> Float64Array:
        """Returns the gradients by the input of the largest rows of the points' disjuncts, [n, inputs].

        Args:
            values: Of all nodes, as `SmoothNetwork.forward` returns them.
            targets: Disjunct of each point, [n].
        """
        checker, outputs = self._checker, values[-1]
        rows = np.zeros_like(outputs)
        for place, target in enumerate(targets):
            a, b = self._spec.disjuncts[target]
            rows[place] = a[int((a @ outputs[place] - b).argmax())]
        linear: dict[int, Float64Array] = {checker.last: rows}
        curved: dict[int, Float64Array] = {}
        for node in range(checker.last, 0, -1):
            own, through = linear.pop(node, None), curved.pop(node, None)
            if through is not None:
                through = through * derivative(checker.smooth.curves[node], values[node])
                own = through if own is None else own + through
            if own is None:
                continue
            for product in checker.products[node]:
                target_rows = curved if product.activated else linear
                part = np.asarray(own @ product.matrix)
                before = target_rows.get(product.source)
                target_rows[product.source] = part if before is None else before + part
        return linear.get(0, np.zeros_like(values[0]))

    def _confirmed(self, point: Float64Array) -> Float32Array | None:
        if not np.isfinite(point).all():
            return None
        x: Float32Array = np.clip(point.astype(np.float32), self._lower, self._upper)
        return x if self._spec.violated_by(self._replay(x)) else None
