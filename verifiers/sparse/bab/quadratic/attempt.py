"""Second-order bounds for what a search on ReLUs has left open of a box."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.bab.composed import Composed
from prunecert.verifiers.sparse.bab.dual import Batch
from prunecert.verifiers.sparse.bab.prover import Prover
from prunecert.verifiers.sparse.bab.quadratic.tree import QuadraticTree, Subject, TreeOutcome
from prunecert.verifiers.sparse.bab.root import Root, Standing, Task

#: Most numbers of the last hidden layer's rows, and most of its neurons.
_NUMBERS, _NEURONS = 2e7, 512


@dataclass(frozen=True, eq=False)
class Attempt:
    """What is tried, over one box with its bounds as they are now.

    Args:
        task: The question.
        standing: Where a counterexample is written.
        root: The box.
        composed: What is left of the network over it.
        prover: Of the box.
    """

    task: Task
    standing: Standing
    root: Root
    composed: Composed
    prover: Prover

    def possible(self) -> bool:
        """Whether there are bounds of this kind: of a network without roundings, its last layer not too large."""
        net, bounds = self.composed.net, self.root.bounds
        if not net.levels or self.task.checker.network.roundings or bounds.cuts or self.task.sharpen is not None:
            return False
        first, last = net.levels[-1]
        width = first + int((bounds.lower[0] < bounds.upper[0]).sum())
        return last - first <= _NEURONS and (last - first + 1) * width <= _NUMBERS

    def run(self, whole: Batch, seconds: float) -> TreeOutcome:
        """Tries to prove a disjunct.

        Args:
            whole: The whole box, with the disjunct's best dual variables; one subdomain.
            seconds: How long.
        """
        composed = self.composed
        look = composed.dual.look(whole)
        slopes = np.where(look.lam[0] < 0, composed.dual.slope, whole.alpha[0]).astype(np.float64)
        rows, constants = self.prover.combined(whole)
        subject = Subject(self.task.checker, self.root.bounds, composed.net, rows[0], float(constants[0]), slopes)
        deadline = min(time.monotonic() + seconds, self.task.deadline)
        return QuadraticTree(subject, deadline, self._attacked).run()

    def _attacked(self, w: Float64Array) -> bool:
        """Tries the input at a w; returns whether it is a counterexample."""
        if not self.task.limits.attack_steps or not np.isfinite(w).all():
            return False
        low, high = self.root.bounds.lower[0], self.root.bounds.upper[0]
        varying = np.flatnonzero(low < high)
        x = 0.5 * low + 0.5 * high
        x[varying] += 0.5 * (high - low)[varying] * np.clip(w[: len(varying)], -1.0, 1.0)
        return self.standing.won(self.task.hunt.confirm(x[None]), "bab")
