"""Second-order bounds for what a search on ReLUs has left open of a box."""

from __future__ import annotations

import time

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.bab.composed import Composed
from prunecert.verifiers.sparse.bab.dual import Batch
from prunecert.verifiers.sparse.bab.open_domains import Pool
from prunecert.verifiers.sparse.bab.prover import Prover
from prunecert.verifiers.sparse.bab.quadratic.kept_tree import KeptProof, stored
from prunecert.verifiers.sparse.bab.quadratic.tree import QuadraticTree, Subject, TreeOutcome
from prunecert.verifiers.sparse.bab.root import Root, Standing, Task
from prunecert.verifiers.sparse.certify import Checker

#: Parts of the time that is left that they may take before hidden bounds are improved, and after it.
_SHARES = (0.02, 0.7)
#: Most subdomains of a disjunct, likewise.
_MOST = (8, 100_000)
#: Part of the best linear bound that the whole box's must be above, for it to be split.
_WORTH = 0.5
#: Most numbers of the last hidden layer's rows, and most of its neurons.
_NUMBERS, _NEURONS = 2e7, 512


class SecondOrder:
    """Tries second-order bounds on the disjuncts of one box, over its first bounds and over improved ones.

    Args:
        task: The question.
        standing: What is proved; written.
        root: The box.
    """

    def __init__(self, task: Task, standing: Standing, root: Root) -> None:
        self._task, self._standing, self._root = task, standing, root
        #: The whole box with its best dual variables over the bounds as they are now, by disjunct.
        self.wholes: dict[int, Batch] = {}
        #: Bounds of the disjuncts that are proved so, and proofs of these by their numbers in the property.
        self.closed: dict[int, float] = {}
        self.proofs: dict[int, KeptProof] = {}
        self._tried = [False, False]
        self._asked = not task.checker.network.roundings and task.limits.second_order

    def prove(self, pool: Pool, composed: Composed, prover: Prover, improved: bool) -> list[int]:
        """Takes the disjuncts that are proved out of what is open, and returns them; or ends with a counterexample.

        Args:
            pool: What is open.
            composed: What is left of the network over the box.
            prover: Of the box.
            improved: Whether its hidden bounds have been improved.
        """
        task, tried = self._task, int(improved)
        if self._tried[tried] or not self._asked or task.earlier is not None:
            return []
        self._tried[tried] = True
        left = [k for k in pool.disjuncts().tolist() if k in self.wholes]
        excluded: list[int] = []
        if not left or not self._possible(composed):
            return excluded
        out, proved = self._standing.outcome, self._standing.proved
        seconds = _SHARES[tried] * (task.deadline - time.monotonic()) / len(left)
        for disjunct in left:
            grown = self._run(disjunct, composed, prover, seconds, improved)
            out.domains += grown.domains
            out.certified += grown.leaves
            if grown.won:
                break
            if grown.proved is not None:
                place = self._root.open[disjunct]
                self.closed[disjunct] = proved[place] = min(proved[place], grown.proved)
                pool.drop(disjunct)
                excluded.append(disjunct)
        return excluded

    def restore(self) -> None:
        """Writes what is proved so where a search begins anew, over other bounds."""
        self.wholes = {}
        for disjunct, bound in self.closed.items():
            self._standing.proved[self._root.open[disjunct]] = bound

    def _possible(self, composed: Composed) -> bool:
        """Whether there are such bounds: hidden ones are CROWN's alone, and the last layer isn't too large."""
        net, bounds = composed.net, self._root.bounds
        if not net.levels or bounds.cuts or self._task.sharpen is not None:
            return False
        first, last = net.levels[-1]
        width = first + int((bounds.lower[0] < bounds.upper[0]).sum())
        return last - first <= _NEURONS and (last - first + 1) * width <= _NUMBERS

    def _run(self, disjunct: int, composed: Composed, prover: Prover, seconds: float, improved: bool) -> TreeOutcome:
        """Tries to prove a disjunct, and keeps the proof."""
        whole, bounds = self.wholes[disjunct], self._root.bounds
        subject = subject_of(self._task.checker, self._root, composed, prover, whole)
        deadline = min(time.monotonic() + seconds, self._task.deadline)
        worth = _WORTH * min(float(whole.bound[0]), 0.0)
        memory_mb = self._task.limits.memory_mb
        tree = QuadraticTree(subject, deadline, _MOST[improved], worth, memory_mb, self._attacked)
        grown = tree.run()
        if grown.proved is not None:
            first, last = self._root.disjuncts[disjunct]
            varying = np.flatnonzero(bounds.lower[0] < bounds.upper[0])
            self.proofs[int(self._root.open[disjunct])] = KeptProof(
                tree=tree.kept,
                slopes=subject.slopes,
                nodes=composed.net.nodes,
                indices=composed.net.indices,
                weights=whole.weights[0, first:last],
                varying=varying,
                inputs=len(bounds.lower[0]),
                improved=improved,
            )
        return grown

    def _attacked(self, w: Float64Array) -> bool:
        """Tries the input at a w; returns whether it is a counterexample."""
        if not self._task.limits.attack_steps or not np.isfinite(w).all():
            return False
        low, high = self._root.bounds.lower[0], self._root.bounds.upper[0]
        varying = np.flatnonzero(low < high)
        x = 0.5 * low + 0.5 * high
        x[varying] += 0.5 * (high - low)[varying] * np.clip(w[: len(varying)], -1.0, 1.0)
        return self._standing.won(self._task.hunt.confirm(x[None]), "bab")


def subject_of(checker: Checker, root: Root, composed: Composed, prover: Prover, whole: Batch) -> Subject:
    """Returns what second-order bounds are taken of: a disjunct over the whole box.

    Args:
        checker: Of the network.
        root: The box.
        composed: What is left of the network over it.
        prover: Of the box.
        whole: The whole box with the disjunct's best dual variables; one subdomain.
    """
    look = composed.dual.look(whole)
    # Where a coefficient is below 0 the chord, elsewhere what the search has found.
    slopes = np.where(look.lam[0] < 0, composed.dual.slope, whole.alpha[0]).astype(np.float64)
    slopes = stored(slopes)
    rows, constants = prover.combined(whole)
    return Subject(checker, root.bounds, composed.net, rows[0], float(constants[0]), slopes)
