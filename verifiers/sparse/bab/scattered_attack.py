"""Counterexamples where few inputs vary: points scattered over the box, and descent from the best of them.

A set of a few inputs is small enough to be sampled, and what is unsafe of it often lies in a corner of the network to
which no descent from the centre leads.
"""

from __future__ import annotations

import numpy as np

from prunecert.verifiers.sparse.arrays import LANES32, Float32Array, Float64Array, Int64Array
from prunecert.verifiers.sparse.bab import point_batch
from prunecert.verifiers.sparse.bab.attack import Attack
from prunecert.verifiers.sparse.bab.counterexamples import nearest
from prunecert.verifiers.sparse.bab.root import Root, Task

#: Points that are scattered, and those of them from which a descent begins, with its steps.
_SCATTERED, _BEST, _FEW = 1024, 128, 20
#: Steps of a thorough descent, from all points.
_MANY = 50
#: Sizes of the first steps, from centres of sub-boxes, and of the last ones, in half widths of the box.
_FIRST, _NEARBY, _LAST = 0.1, 0.02, 0.002
#: Most multiply-adds of evaluating the points that are scattered, and those from which a thorough descent begins.
_WORK, _LESS = 2e8, 1e7


class ScatteredAttack:
    """Attacks the whole box of a question.

    Args:
        task: The question.
        root: The box.
    """

    def __init__(self, task: Task, root: Root) -> None:
        lower, upper = root.bounds.lower[0], root.bounds.upper[0]
        self._hunt = task.hunt
        self._center = 0.5 * lower + 0.5 * upper
        self._radius = np.maximum(upper - self._center, self._center - lower)
        box = (self._center.astype(np.float32), self._radius.astype(np.float32))
        lanes = point_batch.of_live(task.checker, root.bounds, root.rows, root.offsets)
        self._attack = Attack(lanes, root.disjuncts, box, root.shift)
        self._disjuncts = len(root.disjuncts)
        self._rng = np.random.default_rng(task.limits.seed)
        nonzeros = max(task.checker.network.nonzeros, 1)
        self._count = int(np.clip(_WORK / nonzeros, LANES32, _SCATTERED))
        self._half = int(np.clip(_LESS / nonzeros, LANES32, _SCATTERED // 2))

    def quick(self) -> Float32Array | None:
        """Descends a little from the best of the points that are scattered; returns a counterexample, or None."""
        points = self._scattered(self._count)
        points, margins = self._attack.descend(points, self._targets(len(points)), 0)
        witness = self._confirmed(points, margins)
        if witness is not None:
            return witness
        points = points[np.argsort(margins, kind="stable")[:_BEST]]
        return self._confirmed(*self._attack.descend(points, self._targets(len(points)), _FEW, _FIRST, _LAST))

    def thorough(self, centers: Float64Array) -> Float32Array | None:
        """Descends from centres of sub-boxes, and from new points.

        Args:
            centers: [n, inputs].

        Returns:
            A counterexample, or None.
        """
        inside = np.divide(centers - self._center, self._radius, out=np.zeros(centers.shape), where=self._radius > 0)
        near = np.clip(inside[: self._half], -1, 1).astype(np.float32)
        witness = self._confirmed(*self._attack.descend(near, self._targets(len(near)), _MANY, _NEARBY, _LAST))
        if witness is not None:
            return witness
        points = self._scattered(self._half)
        return self._confirmed(*self._attack.descend(points, self._targets(len(points)), _MANY, _FIRST, _LAST))

    def _scattered(self, count: int) -> Float32Array:
        return self._rng.uniform(-1, 1, (count, len(self._center))).astype(np.float32)

    def _targets(self, count: int) -> Int64Array:
        return np.arange(count, dtype=np.int64) % self._disjuncts

    def _confirmed(self, points: Float32Array, margins: Float32Array) -> Float32Array | None:
        return self._hunt.confirm(self._center + self._radius * points[nearest(margins)].astype(np.float64))
