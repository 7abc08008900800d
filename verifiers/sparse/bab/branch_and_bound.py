r"""Branch and bound on ReLUs over one box: the tree of subdomains, its open leaves and its proofs.

         the whole box               a round: the worst open subdomains are taken out, one ReLU of each is split,
          /         \                and the children's dual variables ascend from their parents'
      z5 >= 0     z5 <= 0
      /     \        |                     ┌── bound > margin ──> pending ──> certified ──> leaves (proofs)
  z2 >= 0  z2 <= 0  leaf           child ──┤                          │ fails: margin grows
    |         |                            ├── else ──────────────> pool (open domains) <──┘
   leaf     open                           └── no ReLU left ──────> a linear programme: leaf, `sat` or stuck

A child whose bound is above the margin is certified by `verifiers.sparse.certify` with the dual variables that it has;
it goes back to the open ones if that fails.
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import replace

import numpy as np

from prunecert.verifiers.base import Status
from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array
from prunecert.verifiers.sparse.bab import branching, leaf_lp, transplant
from prunecert.verifiers.sparse.bab.composed import Composed, compose
from prunecert.verifiers.sparse.bab.cuts import cut
from prunecert.verifiers.sparse.bab.dual import Batch, Look
from prunecert.verifiers.sparse.bab.intermediate_bounds import Tightened, tighten
from prunecert.verifiers.sparse.bab.lines import subtrees
from prunecert.verifiers.sparse.bab.lines.subtrees import SHARING, Growth
from prunecert.verifiers.sparse.bab.open_domains import Pool, timeout
from prunecert.verifiers.sparse.bab.outcome import Tree
from prunecert.verifiers.sparse.bab.prover import TOGETHER, Prover
from prunecert.verifiers.sparse.bab.quadratic.attempt import SecondOrder
from prunecert.verifiers.sparse.bab.reduced_network import Composition
from prunecert.verifiers.sparse.bab.root import Root, Standing, Task
from prunecert.verifiers.sparse.bab.tree_transplant import Planted
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.onnx.neuron_names import Names
from prunecert.verifiers.sparse.proofs.file import Proof

#: Gradient steps of an attack from open subdomains.
_STEPS = 6
#: Of children, whose slopes are their parents' and all but there, while the multiplier of the new split begins at 0:
#: step sizes of α and of β, and what is left of them after a step.
_RATES, _DECAY = (0.1, 1.0), 0.85
#: Most leaves of an earlier tree that are certified before anything is composed.
DIRECT = 16


class BranchAndBound:
    """Splits the box of one question.

    Args:
        task: The question.
        standing: What is proved; written.
        root: The box.
    """

    def __init__(self, task: Task, standing: Standing, root: Root) -> None:
        self._task, self._standing, self._root = task, standing, root
        self._outcome, self._limits = standing.outcome, task.limits
        self._prover = Prover(task.checker, root.bounds, root.rows, root.offsets, root.disjuncts, standing.outcome)
        self._composed: Composed | None = None
        self._postponed = root.postponed
        self.tree = Tree()
        #: The subdomains that are proved, with their dual variables.
        self.leaves: list[Batch] = []
        #: Whether there are more of these than there is room for, so that none is kept.
        self.forgotten, self._kept_mb = False, 0.0
        #: How hidden bounds were improved, if they were.
        self.tightened: list[Tightened] = []
        self.pool = Pool()
        self._pending: list[Batch] = []
        #: Disjuncts of subdomains that nothing decides.
        self._stuck: list[int] = []
        self._tightened, self._margin = False, 1e-6
        self.second_order = SecondOrder(task, standing, root)
        #: Whether the earlier tree, as it is, was the proof.
        self._same = False

    @property
    def megabytes(self) -> float:
        """What its leaves take, and what is left of the network, if that was needed."""
        return sum(part.megabytes for part in (*self.leaves, self._composed) if part is not None)

    @property
    def composed(self) -> Composed:
        """What is left of the network; not needed before it is asked for where an earlier tree's leaves are a proof."""
        if self._composed is None:
            self._composed = compose(replace(self._task, deadline=math.inf), self._root)
        return self._composed

    @property
    def prover(self) -> Prover:
        """Certifies this box's subdomains."""
        return self._prover

    @property
    def checker(self) -> Checker:
        """Of the network."""
        return self._task.checker

    @property
    def disjuncts(self) -> list[tuple[int, int]]:
        """Rows (start, stop) of each disjunct that is split."""
        return self._root.disjuncts

    @property
    def _places(self) -> transplant.Places:
        return self._prover.nodes, self._prover.indices

    def start(self, again: bool) -> bool:
        """Bounds all of the box, by an earlier tree's entries where there is one; returns whether to split.

        Args:
            again: Whether the hidden bounds are to be improved first.
        """
        task, root = self._task, self._root
        self._tightened = again
        composition = Composition(task.checker, root.bounds)
        if again:
            self.tightened = []
            steps = self._limits.tighten_steps
            tighten(task.checker, root.bounds, steps, task.deadline, self.tightened, composition, task.sharpen)
            if task.sharpen is not None:
                # Other shares are best for narrower ranges.
                cut(task.checker, root.bounds, root.rows, root.offsets, task.deadline)
                composition = Composition(task.checker, root.bounds)
        self.tree, self.leaves, self._pending, self.pool, self._stuck = Tree(), [], [], Pool(), []
        self.forgotten, self._kept_mb = False, 0.0
        self._standing.proved[root.open] = np.inf
        self._prover = Prover(task.checker, root.bounds, root.rows, root.offsets, root.disjuncts, self._outcome)
        earlier = None if self._outcome.rounds else task.earlier
        most = self._limits.memory_mb
        planted = transplant.transplant(earlier, task.names, root.bounds, self._places, root.open, most)
        planned = set() if planted is None else set(planted.disjunct.tolist())
        self.second_order.restore()
        planned |= set(self.second_order.closed)
        todo = self._whole(np.array([k for k in range(len(root.open)) if k not in planned], dtype=np.int64))
        if planted is not None and int((~planted.inner).sum()) <= DIRECT:
            todo = Batch.join([todo, self._leaves(planted)])
            planted = None
            if not len(todo):
                self._same = True
                return self._end()
        if self._postponed is not None:
            if self._standing.won(task.hunt.quick(root.open, self._postponed, root.bounds), "attack"):
                return False
            self._postponed = None
        self._composed = composed = compose(task, root, composition)
        if not all(np.isfinite(array).all() for array in (composed.net.M, composed.net.N, composed.net.c)):
            self._outcome.detail = "weights times inputs are larger than float32 holds, in which the search is done"
            return False
        if planted is not None:
            few = 0 if again else self._limits.tighten_after
            batch = self._descend(planted, few or len(planted.parent))
            if batch is None:
                return self.start(again=True)
            self._accept(batch)
        if not self._first(todo):
            return False
        return bool(len(self.pool) or self._stuck) or self._end()

    def _whole(self, disjuncts: Int64Array) -> Batch:
        """Returns the whole box for each disjunct, as roots of the tree."""
        batch = transplant.whole(self._root.bounds, self._places, self._root.disjuncts, disjuncts)
        none = np.full(len(batch), -1, dtype=np.int64)
        batch.place[:] = self.tree.add(none, none, 0 * none, self._root.open[batch.disjunct])
        self._outcome.domains += len(batch)
        return batch

    def _first(self, batch: Batch) -> bool:
        """Ascends on the first subdomains, and attacks; returns False after `sat`."""
        out, dual, steps = self._outcome, self.composed.dual, self._limits.root_steps
        if len(batch):
            batch = dual.optimise(batch, steps // 3, target=self._margin, deadline=self._task.deadline)
            hard = batch.take(np.flatnonzero(~(batch.bound > self._margin)))
            if len(hard):
                if not out.rounds and self._standing.won(self.composed.hunt.root(hard), "attack"):
                    return False
                self._accept(batch.take(np.flatnonzero(batch.bound > self._margin)))
                batch = self._climb(hard, steps)
                self.second_order.wholes = {int(k): batch.take([place]) for place, k in enumerate(batch.disjunct)}
            self._accept(batch)
        self._flush()
        return out.status is not Status.SAT

    def _climb(self, batch: Batch, steps: int) -> Batch:
        """Ascends on the whole box, the second half only where the gain of the first would do again.

        Gains shrink from step to step; where they don't lead to a proof, a split brings more for its time.
        """
        dual, target, deadline, half = self.composed.dual, self._margin, self._task.deadline, steps // 2
        best = dual.optimise(batch, half, target=target, deadline=deadline)
        near = np.flatnonzero(~(best.bound > target) & (best.bound + (best.bound - batch.bound) > target))
        if len(near):
            # What `Dual.optimise` has come to after the first half.
            rate = 0.2 * 0.95**half
            part = dual.optimise(best.take(near), steps - half, (rate, rate), target=target, deadline=deadline)
            best.put(near, part)
        return best

    def _ascend(self, batch: Batch, steps: int = 0) -> Batch:
        """Ascends on children, from their parents' dual variables; a pair shares the steps that it has."""
        steps, deadline = steps or max(1, self._limits.steps // 2), self._task.deadline
        return self.composed.dual.optimise(batch, steps, _RATES, _DECAY, target=self._margin, deadline=deadline)

    def _leaves(self, planted: Planted) -> Batch:
        """Certifies an earlier tree's leaves as they are and returns those for which that fails."""
        batch = transplant.subdomains(planted, self._root.disjuncts)
        transplant.grow(self.tree, planted, np.arange(len(batch)), batch, self._root.open)
        batch = batch.take(np.flatnonzero(~planted.inner))
        self._outcome.domains += len(batch)
        left, _ = self._certify(batch)
        self._outcome.reused += len(batch) - len(left)
        return left

    def _descend(self, planted: Planted, most: int) -> Batch | None:
        """Returns a tree's topmost proved entries, and the leaves that are not; None if it takes too many entries."""
        batch = transplant.subdomains(planted, self._root.disjuncts)
        steps, deadline = self._limits.steps, self._task.deadline
        ascend = functools.partial(self.composed.dual.optimise, steps=steps, target=self._margin, deadline=deadline)
        frontier = transplant.topmost(self.composed.dual, planted, batch, self._margin, ascend, most)
        if frontier is None:
            return None
        transplant.grow(self.tree, planted, frontier.bounded, batch, self._root.open)
        self._outcome.domains += len(frontier.bounded)
        self._outcome.reused += len(frontier.proved)
        return batch.take(np.concatenate([frontier.proved, frontier.left]))

    def pack(self, network: str, names: Names) -> Proof | None:
        """Returns the tree that the search on the next network, after the one of this hash, can start from, or None."""
        leaves, earlier = [*self.leaves, *self._pending], self._task.earlier
        if len(self.pool):
            leaves.append(self.pool.take(len(self.pool)))
        old = self._same and earlier is not None and earlier.latest
        if not leaves or self.forgotten or self.second_order.closed or old:
            return None
        bounds = (self._standing.crown, self._standing.proved)
        return transplant.keep(network, names, earlier, self._outcome, bounds, self.tree, leaves, self._places)

    def _end(self) -> bool:
        out = self._outcome
        if self._stuck:
            out.status, out.stuck = Status.UNKNOWN, len(self._stuck)
            out.detail = f"{out.stuck} subdomains with every ReLU fixed lie within rounding of the threshold"
            return False
        out.status, out.stage = Status.UNSAT, "bab" if out.rounds else "incomplete"
        out.bounds, out.lowest = self._standing.reported(), float(self._standing.proved.min(initial=np.inf))
        return False

    def _accept(self, batch: Batch) -> None:
        """Sorts bounded subdomains: proved ones to certification, open ones to the pool."""
        proved = batch.bound > self._margin
        if proved.any():
            self._pending.append(batch.take(np.flatnonzero(proved)))
        rest = batch.take(np.flatnonzero(~proved))
        ended = (rest.sign != 0).all(axis=1)
        self.pool.put(rest.take(np.flatnonzero(~ended)))
        places = np.flatnonzero(ended)
        for number, d in enumerate(places):
            if self._outcome.status is Status.SAT:
                break
            if time.monotonic() > self._task.deadline:
                # Each takes a linear programme. They stay open.
                self.pool.put(rest.take(places[number:]))
                raise TimeoutError
            self._settle(rest.take([d]))

    def _flush(self) -> None:
        """Certifies what is proved; what fails becomes open again."""
        if not self._pending:
            return
        batch = Batch.join(self._pending)
        self._pending = []
        bad, bounds = self._certify(batch)
        if len(bad):
            self._outcome.refused += len(bad)
            # The search's own arithmetic is off by this much here; by how much, nobody knows where a bound is infinite.
            off = (bad.bound - bounds)[np.isfinite(bounds)].max(initial=0.0)
            self._margin = min(1e-2, max(self._margin, 2 * float(off)))
            bad.bound[:] = np.minimum(bounds, 0.0)
            self._accept(bad)

    def _certify(self, batch: Batch) -> tuple[Batch, Float64Array]:
        """Keeps the subdomains that are proved as leaves; returns the others, and their certified bounds."""
        certified = self._prover.certify(batch)
        good = certified > 0
        leaves = batch.take(np.flatnonzero(good))
        self._outcome.certified += len(leaves)
        np.minimum.at(self._standing.proved, self._root.open[leaves.disjunct], certified[good])
        self._keep(leaves)
        return batch.take(np.flatnonzero(~good)), certified[~good]

    def _keep(self, leaves: Batch) -> None:
        """Keeps leaves with their dual variables as long as there is room for all, beside what is open."""
        self._kept_mb += leaves.megabytes
        if self._kept_mb + self.pool.megabytes > self._limits.memory_mb:
            self.forgotten = True
            self.leaves.clear()
        elif len(leaves):
            self.leaves.append(leaves)

    def _settle(self, leaf: Batch) -> None:
        """Decides a subdomain whose neurons are all split."""
        rows = self._root.disjuncts[int(leaf.disjunct[0])]
        answer = leaf_lp.settle(self.composed.net, leaf, rows, self._task.deadline - time.monotonic())
        if answer is not None:
            beta, weights, t = answer
            leaf.beta[0], leaf.weights[0] = beta, weights
            if not len(self._certify(leaf)[0]):
                return
            if self._standing.won(self._task.hunt.confirm(self.composed.net.point(t[None])), "bab"):
                return
        self._stuck.append(int(leaf.disjunct[0]))

    def _batch(self) -> int:
        """Returns how many subdomains a round takes."""
        if self._limits.batch:
            return self._limits.batch
        net = self.composed.net
        work = max(net.unstable, 1) * max(len(net.pixels), 1)
        return int(np.clip(6e7 / work, 8, 256))

    def _share(self) -> bool:
        """Says whether subtrees are to share lines: in large trees, where walks through all layers cost more."""
        large = self._tightened or not self._limits.tighten_after
        return large and subtrees.worth(self.composed.dual, self._limits.share_from)

    def _below(self, parents: Batch, look: Look) -> Batch:
        """Grows subtrees below some open subdomains, and returns what of them is bounded and not yet proved."""
        steps = max(1, self._limits.steps // 2)
        growth = Growth(steps, _RATES[1], _DECAY, self._margin, self._task.deadline)
        branch = functools.partial(self.tree.branch, self._root.open)
        grown = subtrees.grow(self.composed.dual, parents, look, growth, branch)
        self._outcome.domains += grown.domains
        if len(grown.proved):
            self._pending.append(grown.proved)
        # Those that are nearly proved end together.
        left = grown.left.take(np.argsort(-grown.left.bound))
        left = self._ascend(left, max(1, steps // 2))
        return Batch.join([left, self._split(grown.stuck, look.take(grown.places))]) if len(grown.stuck) else left

    def _split(self, parents: Batch, look: Look) -> Batch:
        """Splits one neuron of each of some open subdomains, and returns the children."""
        neuron = branching.choose(self.composed.dual, parents, look, self._limits.candidates)
        both = branching.children(parents, neuron)
        places = np.tile(parents.place, 2), np.tile(neuron, 2), np.repeat([1, -1], len(parents))
        both.place[:] = self.tree.add(*places, self._root.open[both.disjunct])
        self._outcome.domains += len(both)
        return self._ascend(both)

    def _close(self) -> bool:
        """Takes what second-order bounds prove out of the search; returns whether that ends it."""
        closed = self.second_order.prove(self.pool, self.composed, self._prover, self._tightened)
        if not closed:
            return False
        self._stuck = [disjunct for disjunct in self._stuck if disjunct not in closed]
        self._pending = [batch.take(np.flatnonzero(~np.isin(batch.disjunct, closed))) for batch in self._pending]
        self._flush()
        return not len(self.pool) and (self._outcome.status is Status.SAT or not self._end())

    def branch(self) -> None:
        """Splits until nothing is open, or until the deadline."""
        out = self._outcome
        size = self._batch()
        while len(self.pool):
            if time.monotonic() > self._task.deadline:
                timeout(out, self.pool)
                return
            if self.pool.megabytes > self._limits.memory_mb:
                out.status, out.lowest = Status.UNKNOWN, self.pool.lowest()
                out.detail = f"{len(self.pool)} open subdomains fill {self._limits.memory_mb:g} MiB"
                return
            large = 0 < self._limits.tighten_after < out.domains
            if large and (self._close() or out.status is Status.SAT):
                return
            if large and not self._tightened:
                if not self.start(again=True):
                    return
                continue
            out.rounds += 1
            share = self._share()
            parents = self.pool.take(SHARING if share else size)
            look = self.composed.dual.look(parents)
            if self._limits.attack_steps and (out.rounds <= 4 or out.rounds % 4 == 0):
                worst = np.argsort(parents.bound)[:16]
                points = self.composed.hunt.descend(look.t[worst], parents.disjunct[worst], _STEPS)
                if self._standing.won(points, "bab"):
                    return
            self._accept(self._below(parents, look) if share else self._split(parents, look))
            if sum(len(part) for part in self._pending) >= TOGETHER or not len(self.pool):
                self._flush()
            if out.status is Status.SAT:
                return
        if out.status is not Status.SAT:
            self._end()
