"""Second-order bounds for what a search on ReLUs has left open of a box."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.bab.composed import Composed
from prunecert.verifiers.sparse.bab.dual import Batch
from prunecert.verifiers.sparse.bab.lines import subtrees
from prunecert.verifiers.sparse.bab.open_domains import Pool
from prunecert.verifiers.sparse.bab.prover import Prover
from prunecert.verifiers.sparse.bab.quadratic.kept_tree import KeptProof, stored
from prunecert.verifiers.sparse.bab.quadratic.tree import QuadraticTree, Subject
from prunecert.verifiers.sparse.bab.root import Root, Standing, Task
from prunecert.verifiers.sparse.certify import Checker

#: Part of the time that is left that they may take before hidden bounds are improved.
_SHARE = 0.02
#: Most subdomains of a disjunct before hidden bounds are improved, and after it.
_MOST = (8, 100_000)
#: Seconds of a turn after it, and a turn's part of the time that linear bounds have had by then. Nobody knows
#: beforehand whether these, of which there are thousands a second, or those of second order will end sooner, so they
#: take turns.
_TURN, _PART = 0.5, 0.25
#: Time for second-order bounds over that for linear ones: on small networks, where these are cheap, and on others. So a
#: search takes 1.4 to 3 times what the better ones would take by themselves, and much less than the others.
_RATIOS = (0.5, 2.0)
#: Part of the best linear bound that the whole box's must be above, for it to be split.
_WORTH = 0.5
#: Most numbers of the last hidden layer's rows, of all disjuncts, and most of its neurons.
_NUMBERS, _NEURONS = 2e7, 512


@dataclass(frozen=True, eq=False)
class _Planted:
    """A disjunct's tree, and what it is of.

    Args:
        tree: It grows.
        subject: Of the whole box.
        whole: The whole box with its best dual variables.
        improved: Whether hidden bounds have been improved.
    """

    tree: QuadraticTree
    subject: Subject
    whole: Batch
    improved: bool


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
        self._asked = not task.checker.network.roundings and task.limits.second_order
        self._tried = False
        #: Over improved bounds: trees that may go on, when the first turn began, and the seconds of all turns.
        self._trees: dict[int, _Planted] | None = None
        self._began = self._spent = 0.0

    def prove(self, pool: Pool, composed: Composed, prover: Prover, improved: bool) -> list[int]:
        """Takes the disjuncts that are proved out of what is open, and returns them; or ends with a counterexample.

        To be called round by round: mostly it isn't these bounds' turn.

        Args:
            pool: What is open.
            composed: What is left of the network over the box.
            prover: Of the box.
            improved: Whether its hidden bounds have been improved.
        """
        task, now = self._task, time.monotonic()
        if not self._asked or task.earlier is not None or now > task.deadline or (self._tried and not improved):
            return []
        if not improved or self._trees is None:
            left = self._left(pool)
            if not left or not self._possible(composed, len(left)):
                # Of fewer disjuncts they may be possible.
                self._tried = True
                return []
            trees = self._plant(left, composed, prover, improved)
            if not improved:
                self._tried = True
                return self._grow(pool, trees, now + _SHARE * (task.deadline - now), last=True)
            self._began, self._trees = now, trees
        others = now - self._began - self._spent
        ratio = _RATIOS[subtrees.worth(composed.dual, task.limits.share_from)]
        if not self._trees or self._spent > ratio * others:
            return []
        left = self._left(pool)
        self._trees = {disjunct: planted for disjunct, planted in self._trees.items() if disjunct in left}
        closed = self._grow(pool, self._trees, now + max(_TURN, _PART * others))
        self._spent += time.monotonic() - now
        return closed

    def clear(self) -> None:
        """Forgets trees that might have gone on: the search is over."""
        self._trees = {}

    def restore(self) -> None:
        """Writes what is proved so where a search begins anew, over other bounds."""
        self.wholes = {}
        for disjunct, bound in self.closed.items():
            self._standing.proved[self._root.open[disjunct]] = bound

    def _left(self, pool: Pool) -> list[int]:
        return [disjunct for disjunct in pool.disjuncts().tolist() if disjunct in self.wholes]

    def _possible(self, composed: Composed, disjuncts: int) -> bool:
        """Whether there are such bounds: hidden ones are CROWN's alone, and the last layer isn't too large."""
        net, bounds = composed.net, self._root.bounds
        if not net.levels or bounds.cuts or self._task.sharpen is not None:
            return False
        first, last = net.levels[-1]
        width = first + int((bounds.lower[0] < bounds.upper[0]).sum())
        return last - first <= _NEURONS and disjuncts * (last - first + 1) * width <= _NUMBERS

    def _plant(
        self, disjuncts: Sequence[int], composed: Composed, prover: Prover, improved: bool
    ) -> dict[int, _Planted]:
        """Returns trees of disjuncts, by these, none of which has grown; fewer where the time is over."""
        task, trees = self._task, {}
        # Not a method of this object, which has the trees: they would lie in a circle.
        attack = functools.partial(_attacked, task, self._standing, self._root)
        for disjunct in disjuncts:
            if time.monotonic() > task.deadline:
                break
            whole = self.wholes[disjunct]
            subject = subject_of(task.checker, self._root, composed, prover, whole)
            worth = _WORTH * min(float(whole.bound[0]), 0.0)
            room_mb = task.limits.memory_mb / len(disjuncts)
            tree = QuadraticTree(subject, task.deadline, _MOST[improved], worth, room_mb, attack)
            trees[disjunct] = _Planted(tree, subject, whole, improved)
        return trees

    def _grow(self, pool: Pool, trees: dict[int, _Planted], until: float, last: bool = False) -> list[int]:
        """Lets trees grow in equal parts until a time, leaves in `trees` what may go on, and returns what is proved."""
        out, proved = self._standing.outcome, self._standing.proved
        closed: list[int] = []
        for after, (disjunct, planted) in zip(reversed(range(len(trees))), [*trees.items()], strict=True):
            tree, now = planted.tree, time.monotonic()
            domains, leaves = tree.outcome.domains, tree.outcome.leaves
            grown = tree.run(now + max(0.0, until - now) / (after + 1), last)
            out.domains += grown.domains - domains
            out.certified += grown.leaves - leaves
            if grown.won:
                break
            if not tree.paused:
                del trees[disjunct]
            if grown.proved is not None:
                place = self._root.open[disjunct]
                self.closed[disjunct] = proved[place] = min(proved[place], grown.proved)
                self._keep(disjunct, planted)
                pool.drop(disjunct)
                closed.append(disjunct)
        return closed

    def _keep(self, disjunct: int, planted: _Planted) -> None:
        """Keeps a proof for its certificate."""
        bounds, net = self._root.bounds, planted.subject.net
        first, last = self._root.disjuncts[disjunct]
        self.proofs[int(self._root.open[disjunct])] = KeptProof(
            tree=planted.tree.kept,
            slopes=planted.subject.slopes,
            nodes=net.nodes,
            indices=net.indices,
            weights=planted.whole.weights[0, first:last],
            varying=np.flatnonzero(bounds.lower[0] < bounds.upper[0]),
            inputs=len(bounds.lower[0]),
            improved=planted.improved,
        )


def _attacked(task: Task, standing: Standing, root: Root, w: Float64Array) -> bool:
    """Tries the input at a w; returns whether it is a counterexample."""
    if not task.limits.attack_steps or not np.isfinite(w).all():
        return False
    low, high = root.bounds.lower[0], root.bounds.upper[0]
    varying = np.flatnonzero(low < high)
    x = 0.5 * low + 0.5 * high
    x[varying] += 0.5 * (high - low)[varying] * np.clip(w[: len(varying)], -1.0, 1.0)
    return standing.won(task.hunt.confirm(x[None]), "bab")


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
