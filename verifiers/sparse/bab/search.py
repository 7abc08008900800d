"""Branch and bound on ReLUs: bounds in float32 on the reduced network, proofs in float64 on the original one.

The best subdomains of the search are those with the worst bounds; each round takes a batch of them, splits one ReLU of
each, ascends on the children's dual variables from their parents', and keeps the children that are still open. A child
whose bound is above 0 is a leaf; `verifiers.sparse.certify` bounds it anew with the dual variables that the search
found, and it goes back to the open ones if that fails.
"""

from __future__ import annotations

import functools
import itertools
import time

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.bab import branching, leaf_lp, transplant
from prunecert.verifiers.sparse.bab.attack import Replay
from prunecert.verifiers.sparse.bab.counterexamples import Hunt
from prunecert.verifiers.sparse.bab.dual import Batch, Dual, Indices
from prunecert.verifiers.sparse.bab.intermediate_bounds import Tightened, tighten
from prunecert.verifiers.sparse.bab.open_domains import Pool
from prunecert.verifiers.sparse.bab.outcome import Limits, Outcome, Tree
from prunecert.verifiers.sparse.bab.prover import TOGETHER, Prover, adopt_crown
from prunecert.verifiers.sparse.bab.reduced_network import Reduced, reduce
from prunecert.verifiers.sparse.bab.tree_transplant import Planted
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine, Question
from prunecert.verifiers.sparse.onnx.neuron_names import Names
from prunecert.verifiers.sparse.proofs.file import Proof
from prunecert.verifiers.sparse.proofs.store import Earlier

Array = npt.NDArray[np.float64]
Single = npt.NDArray[np.float32]

#: Gradient steps of an attack from open subdomains.
_STEPS = 6
#: Most leaves of an earlier tree that are certified before anything is composed.
_DIRECT = 16
#: A tree larger than this many times `tighten_after` says that hidden bounds are worth their time from the start.
_LARGE = 4


class Search:
    """One question to one network.

    Args:
        engine: CROWN of the network.
        checker: Of the network.
        lower: Lower corner of the box, flat float32.
        upper: Upper corner.
        spec: The unsafe set.
        limits: How hard to search.
        deadline: `time.monotonic` at which to end.
        earlier: What searches on other networks left for the same box and property, to start from.
        names: Of this network's neurons; needed with `earlier`.
        allowance: For each disjunct, how much more than `spec` is to be proved (`verifiers.rounding.guard`); empty:
            nothing. Counterexamples are sought to `spec` itself.
        replay: The float32 network by which counterexamples near the threshold are judged, flat x to outputs.
    """

    def __init__(
        self,
        engine: Engine,
        checker: Checker,
        lower: Single,
        upper: Single,
        spec: OutputSpec,
        limits: Limits,
        deadline: float,
        earlier: Earlier | None = None,
        names: Names | None = None,
        allowance: tuple[float, ...] = (),
        replay: Replay | None = None,
    ) -> None:
        self.engine = engine
        self.earlier = earlier
        self.names = names
        self.checker = checker
        self.outputs = checker.network.nodes[-1].size
        self.lower, self.upper = lower.reshape(-1), upper.reshape(-1)
        self.spec = spec
        #: A little more, so that what is proved by it stays more than the allowance when offsets are rounded.
        self._more = (1 + 2.0**-10) * np.array(allowance or np.zeros(len(spec.disjuncts)))
        self.limits = limits
        self.deadline = deadline
        self.outcome = Outcome()
        known = None if earlier is None else earlier.witness
        self.hunt = Hunt(checker, spec, self.lower, self.upper, limits, known, allowance, replay)
        self.tree = Tree()
        self.leaves: list[Batch] = []
        #: How hidden bounds were improved, if they were.
        self.tightened: list[Tightened] = []
        self._pending: list[Batch] = []
        self._pool = Pool()
        self._stuck = 0
        self._tightened = False
        self._margin = 1e-6
        #: Of an attack that is put off: rows, offsets and first rows of all disjuncts.
        self._question: tuple[Array, Array, Indices] | None = None
        self._proved: Array = np.full(len(spec.disjuncts), np.inf)
        self._crown = self._proved
        #: Whether the earlier tree, as it is, was the proof.
        self._same = False

    def run(self) -> Outcome:
        """Answers the question."""
        begin = time.monotonic()
        out = self.outcome
        try:
            # What float32 can't hold becomes infinite, or no number, in the search, whose arithmetic decides nothing:
            # such a bound is not above 0, and proofs and counterexamples are looked at anew.
            with np.errstate(all="ignore"):
                if self._root():
                    out.bound_s = time.monotonic() - begin
                    self._branch()
        except TimeoutError:
            self._timeout()
        finally:
            total = time.monotonic() - begin
            out.bound_s = out.bound_s or total
            out.search_s = total - out.bound_s
        return out

    def _root(self) -> bool:
        """Bounds and attacks the whole box; returns whether anything is left to split."""
        out, spec = self.outcome, self.spec
        if any(len(b) == 0 for _, b in spec.disjuncts):
            # Every output is in an intersection of no half-spaces.
            return not self._won(self.lower.copy(), "attack")
        rows = np.concatenate([a for a, _ in spec.disjuncts]) if spec.disjuncts else np.zeros((0, self.outputs))
        offsets = np.concatenate([b for _, b in spec.disjuncts]) if spec.disjuncts else np.zeros(0)
        starts = np.cumsum([0, *(len(b) for _, b in spec.disjuncts)])
        more = np.repeat(self._more, np.diff(starts))
        wanted = offsets + more
        if self._won(self.hunt.replay(), "attack"):
            return False
        # Where the neighbour was broken last, this network most likely falls, too, if not to the same point.
        fragile = self.earlier is not None and self.earlier.broken
        if fragile and self._won(self.hunt.quick(np.arange(len(spec.disjuncts)), rows, offsets, starts), "attack"):
            return False
        root = self.engine.bound(Question(self.lower, self.upper, rows, wanted))
        out.unstable = root.unstable
        for k in range(len(spec.disjuncts)):
            self._proved[k] = root.rows[starts[k] : starts[k + 1]].max()
        self._crown = self._proved.copy()
        self.open = np.flatnonzero(~(self._proved > 0))
        out.bounds = self._reported()
        out.lowest = float(self._proved.min(initial=0.0))
        if not len(self.open):
            out.status, out.stage = Status.UNSAT, "incomplete"
            return False
        if time.monotonic() > self.deadline:
            return self._timeout()
        size = 4 * (root.unstable + len(rows)) * (root.unstable + len(self.lower)) / 2**20
        if size > self.limits.memory_mb:
            out.detail = (
                f"{root.unstable} unstable ReLUs leave a network of {size:.0f} MiB, more than the limit of "
                f"{self.limits.memory_mb:g} MiB; lowest bound {out.lowest:.4g}"
            )
            return False
        # What the neighbour did not find is not looked for first, if its proof is soon tried.
        held = self.earlier is not None and self.earlier.promises(self._crown, self.open, _DIRECT)
        if not (held or fragile) and self._won(self.hunt.quick(self.open, rows, offsets, starts), "attack"):
            return False
        low, high = self.lower.astype(np.float64), self.upper.astype(np.float64)
        self.bounds = adopt_crown(self.checker, low, high, root)
        keep = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in self.open])
        self.rows, self.offsets, self._shift = rows[keep], wanted[keep], more[keep]
        ends = np.cumsum([0, *(len(spec.disjuncts[k][1]) for k in self.open)]).tolist()
        self.disjuncts = list(itertools.pairwise(ends))
        if not self.limits.splits:
            self.prover = Prover(self.checker, self.bounds, self.rows, self.offsets, self.outcome)
            self._reduce()
            return self._slopes(self._proved[self.open])
        self._proved[self.open] = np.inf
        self._question = (rows, offsets, starts) if held else None
        entries = 0 if self.earlier is None else self.earlier.entries
        return self._start(again=entries > _LARGE * self.limits.tighten_after > 0)

    def _start(self, again: bool) -> bool:
        """Bounds all of the box, by an earlier tree's entries where there is one; returns whether to split.

        Args:
            again: Whether the hidden bounds are to be improved first.
        """
        self._tightened = again
        if again:
            self.tightened = []
            tighten(self.checker, self.bounds, self.limits.tighten_steps, self.deadline, self.tightened)
        self.tree, self.leaves, self._pending, self._pool, self._stuck = Tree(), [], [], Pool(), 0
        self._proved[self.open] = np.inf
        self.prover = Prover(self.checker, self.bounds, self.rows, self.offsets, self.outcome)
        earlier = None if self.outcome.rounds else self.earlier
        places = (self.prover.nodes, self.prover.indices)
        most = self.limits.memory_mb
        planted = transplant.transplant(earlier, self.names, self.bounds, places, self.open, most)
        planned = set() if planted is None else set(planted.disjunct.tolist())
        todo = self._whole(np.array([k for k in range(len(self.open)) if k not in planned], dtype=np.int64))
        if planted is not None and int((~planted.inner).sum()) <= _DIRECT:
            todo = Batch.join([todo, self._leaves(planted)])
            planted = None
            if not len(todo):
                self._same = True
                return self._end()
        if self._question is not None:
            if self._won(self.hunt.quick(self.open, *self._question), "attack"):
                return False
            self._question = None
        self._reduce()
        if not all(np.isfinite(array).all() for array in (self.net.M, self.net.N, self.net.c)):
            self.outcome.detail = "weights times inputs are larger than float32 holds, in which the search is done"
            return False
        if planted is not None:
            few = 0 if again else self.limits.tighten_after
            batch = self._descend(planted, few or len(planted.parent))
            if batch is None:
                return self._start(again=True)
            self._accept(batch)
        if not self._first(todo):
            return False
        return bool(len(self._pool) or self._stuck) or self._end()

    def _reduce(self) -> None:
        """Composes what is stable away."""
        self.net: Reduced = reduce(self.checker, self.bounds, self.rows, self.offsets, self.deadline)
        self.dual = Dual(self.net, self.disjuncts, self.checker.threads)
        self.hunt.compose(self.dual, self._shift)

    def _slopes(self, crown: Array) -> bool:
        """α-CROWN: the better of CROWN's bounds and of certified ones with optimised slopes."""
        out = self.outcome
        batch = self.dual.start(np.arange(len(self.open)))
        batch = self.dual.optimise(batch, self.limits.root_steps, target=self._margin, deadline=self.deadline)
        self._proved[self.open] = np.maximum(self.prover.certify(batch), crown)
        out.bounds = self._reported()
        out.lowest = float(self._proved.min())
        if out.lowest > 0:
            out.status, out.stage = Status.UNSAT, "incomplete"
        else:
            out.detail = f"lowest bound {out.lowest:.4g}, {int((self._proved <= 0).sum())} disjuncts open"
        return False

    def _whole(self, disjuncts: Indices) -> Batch:
        """Returns the whole box for each disjunct, as roots of the tree."""
        batch = transplant.whole(self.bounds, (self.prover.nodes, self.prover.indices), self.disjuncts, disjuncts)
        none = np.full(len(batch), -1, dtype=np.int64)
        batch.place[:] = self.tree.add(none, none, 0 * none, self.open[batch.disjunct])
        self.outcome.domains += len(batch)
        return batch

    def _first(self, batch: Batch) -> bool:
        """Ascends on the first subdomains, and attacks; returns False after `sat`."""
        out, dual, steps = self.outcome, self.dual, self.limits.root_steps
        if len(batch):
            batch = dual.optimise(batch, steps // 3, target=self._margin, deadline=self.deadline)
            hard = batch.take(np.flatnonzero(~(batch.bound > self._margin)))
            if len(hard):
                if not out.rounds and self._won(self.hunt.root(hard), "attack"):
                    return False
                self._accept(batch.take(np.flatnonzero(batch.bound > self._margin)))
                batch = dual.optimise(hard, steps, target=self._margin, deadline=self.deadline)
            self._accept(batch)
        self._flush()
        return out.status is not Status.SAT

    def _leaves(self, planted: Planted) -> Batch:
        """Certifies an earlier tree's leaves as they are and returns those for which that fails."""
        batch = transplant.subdomains(planted, self.disjuncts)
        transplant.grow(self.tree, planted, np.arange(len(batch)), batch, self.open)
        batch = batch.take(np.flatnonzero(~planted.inner))
        self.outcome.domains += len(batch)
        left, _ = self._certify(batch)
        self.outcome.reused += len(batch) - len(left)
        return left

    def _descend(self, planted: Planted, most: int) -> Batch | None:
        """Returns a tree's topmost proved entries, and the leaves that are not; None if it takes too many entries."""
        batch = transplant.subdomains(planted, self.disjuncts)
        ascend = functools.partial(
            self.dual.optimise, steps=self.limits.steps, target=self._margin, deadline=self.deadline
        )
        found = transplant.topmost(self.dual, planted, batch, self._margin, ascend, most)
        if found is None:
            return None
        transplant.grow(self.tree, planted, found.seen, batch, self.open)
        self.outcome.domains += len(found.seen)
        self.outcome.reused += len(found.proved)
        return batch.take(np.concatenate([found.proved, found.left]))

    def pack(self, network: str, names: Names) -> Proof | None:
        """Returns the tree that the search on the next network, after the one of this hash, can start from, or None."""
        leaves = [*self.leaves, *self._pending]
        if len(self._pool):
            leaves.append(self._pool.take(len(self._pool)))
        if not leaves or (self._same and self.earlier is not None and self.earlier.latest):
            return None
        places, bounds = (self.prover.nodes, self.prover.indices), (self._crown, self._proved)
        return transplant.keep(network, names, self.earlier, self.outcome, bounds, self.tree, leaves, places)

    def _reported(self) -> tuple[float, ...]:
        """Returns what is proved of each disjunct as bounds of its own rows.

        A bound of a y - (b + s) is one of a y - b when s is added; that, and the offset's own rounding, err by some
        units in the last place.
        """
        sizes = [float(np.abs(b).max(initial=0.0)) for _, b in self.spec.disjuncts]
        error = 2.0**-50 * (np.array(sizes) + self._more + np.abs(self._proved)) * (self._more > 0)
        return tuple(float(value) for value in self._proved + self._more - error)

    def _timeout(self) -> bool:
        out = self.outcome
        out.status = Status.TIMEOUT
        if len(self._pool):
            out.lowest = self._pool.lowest()
        out.detail = f"global lower bound {out.lowest:.4g}, {len(self._pool)} subdomains open"
        return False

    def _end(self) -> bool:
        out = self.outcome
        if self._stuck:
            out.status = Status.UNKNOWN
            out.detail = f"{self._stuck} subdomains with every ReLU fixed lie within rounding of the threshold"
            return False
        out.status, out.stage = Status.UNSAT, "bab" if out.rounds else "incomplete"
        out.bounds, out.lowest = self._reported(), float(self._proved.min(initial=np.inf))
        return False

    def _accept(self, batch: Batch) -> None:
        """Sorts bounded subdomains: proved ones to certification, open ones to the pool."""
        proved = batch.bound > self._margin
        if proved.any():
            self._pending.append(batch.take(np.flatnonzero(proved)))
        rest = batch.take(np.flatnonzero(~proved))
        ended = (rest.sign != 0).all(axis=1)
        self._pool.put(rest.take(np.flatnonzero(~ended)))
        places = np.flatnonzero(ended)
        for number, d in enumerate(places):
            if self.outcome.status is Status.SAT:
                break
            if time.monotonic() > self.deadline:
                # Each takes a linear programme. They stay open.
                self._pool.put(rest.take(places[number:]))
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
            self.outcome.refused += len(bad)
            # The search's own arithmetic is off by this much here; by how much, nobody knows where a bound is infinite.
            off = (bad.bound - bounds)[np.isfinite(bounds)].max(initial=0.0)
            self._margin = min(1e-2, max(self._margin, 2 * float(off)))
            bad.bound[:] = np.minimum(bounds, 0.0)
            self._accept(bad)

    def _certify(self, batch: Batch) -> tuple[Batch, Array]:
        """Keeps the subdomains that are proved as leaves; returns the others, and their certified bounds."""
        certified = self.prover.certify(batch)
        good = certified > 0
        leaves = batch.take(np.flatnonzero(good))
        self.outcome.certified += len(leaves)
        np.minimum.at(self._proved, self.open[leaves.disjunct], certified[good])
        if len(leaves):
            self.leaves.append(leaves)
        return batch.take(np.flatnonzero(~good)), certified[~good]

    def _won(self, witness: Single | None, stage: str) -> bool:
        """Ends the search if there is a counterexample."""
        if witness is None:
            return False
        out = self.outcome
        out.status, out.witness, out.stage, out.bounds, out.detail = Status.SAT, witness, stage, None, ""
        return True

    def _settle(self, leaf: Batch) -> None:
        """Decides a subdomain whose neurons are all split."""
        rows = self.disjuncts[int(leaf.disjunct[0])]
        answer = leaf_lp.settle(self.net, leaf, rows, self.deadline - time.monotonic())
        if answer is not None:
            beta, weights, t = answer
            leaf.beta[0], leaf.weights[0] = beta, weights
            if not len(self._certify(leaf)[0]):
                return
            if self._won(self.hunt.confirm(self.net.point(t[None])), "bab"):
                return
        self._stuck += 1

    def _batch(self) -> int:
        if self.limits.batch:
            return self.limits.batch
        work = max(self.net.unstable, 1) * max(len(self.net.pixels), 1)
        return int(np.clip(6e7 / work, 8, 256))

    def _branch(self) -> None:
        out = self.outcome
        size = self._batch()
        while len(self._pool):
            if time.monotonic() > self.deadline:
                self._timeout()
                return
            if self._pool.megabytes > self.limits.memory_mb:
                out.status, out.lowest = Status.UNKNOWN, self._pool.lowest()
                out.detail = f"{len(self._pool)} open subdomains fill {self.limits.memory_mb:g} MiB"
                return
            if not self._tightened and 0 < self.limits.tighten_after < out.domains:
                if not self._start(again=True):
                    return
                continue
            out.rounds += 1
            parents = self._pool.take(size)
            look = self.dual.look(parents)
            if self.limits.attack_steps and (out.rounds <= 4 or out.rounds % 4 == 0):
                worst = np.argsort(parents.bound)[:16]
                if self._won(self.hunt.descend(look.t[worst], parents.disjunct[worst], _STEPS), "bab"):
                    return
            neuron = branching.choose(self.dual, parents, look, self.limits.candidates)
            both = branching.children(parents, neuron)
            both.place[:] = self.tree.add(
                np.tile(parents.place, 2),
                np.tile(neuron, 2),
                np.repeat([1, -1], len(parents)),
                self.open[both.disjunct],
            )
            both = self.dual.optimise(both, self.limits.steps, target=self._margin, deadline=self.deadline)
            out.domains += len(both)
            self._accept(both)
            if sum(len(part) for part in self._pending) >= TOGETHER or not len(self._pool):
                self._flush()
            if out.status is Status.SAT:
                return
        if out.status is not Status.SAT:
            self._end()
