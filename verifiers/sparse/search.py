"""Branch and bound on ReLUs: bounds in float32 on the reduced network, proofs in float64 on the original one.

The best subdomains of the search are those with the worst bounds; each round takes a batch of them, splits one ReLU of
each, ascends on the children's dual variables from their parents', and keeps the children that are still open. A child
whose bound is above 0 is a leaf; `verifiers.sparse.certify` bounds it anew with the dual variables that the search
found, and it goes back to the open ones if that fails.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from verifiers.base import OutputSpec, Status
from verifiers.sparse import attack, branching, corner
from verifiers.sparse.certify import Checker, Planes, adopt, gamma, grouped
from verifiers.sparse.crown import Engine, Question
from verifiers.sparse.dual import Batch, Dual, Indices
from verifiers.sparse.outcome import Limits, Outcome, Tree
from verifiers.sparse.pool import Pool
from verifiers.sparse.reduce import Reduced, reduce
from verifiers.sparse.replant import Planted, plant
from verifiers.sparse.reuse import Names, Proof, pack
from verifiers.sparse.tighten import tighten

Array = npt.NDArray[np.float64]
Single = npt.NDArray[np.float32]

#: Leaves that are certified together.
_CERTIFIED = 64
#: Gradient steps of the attack before anything is optimised.
_QUICK = 6


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
        proof: Of another network, for the same box and property, to start from.
        names: Of this network's neurons; needed with `proof`.
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
        proof: Proof | None = None,
        names: Names | None = None,
    ) -> None:
        self.engine = engine
        self.proof = proof
        self.names = names
        self.checker = checker
        self.outputs = checker.network.nodes[-1].size
        self.lower, self.upper = lower.reshape(-1), upper.reshape(-1)
        self.spec = spec
        self.limits = limits
        self.deadline = deadline
        self.outcome = Outcome()
        self.tree = Tree()
        self.leaves: list[Batch] = []
        self._pending: list[Batch] = []
        self._pool = Pool()
        self._stuck = 0
        self._tightened = False
        self._margin = 1e-6
        self._proved: npt.NDArray[np.float64] = np.full(len(spec.disjuncts), np.inf)

    def run(self) -> Outcome:
        """Answers the question."""
        begin = time.monotonic()
        out = self.outcome
        try:
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

    def _late(self) -> bool:
        return time.monotonic() > self.deadline

    def _root(self) -> bool:
        """Bounds and attacks the whole box; returns whether anything is left to split."""
        out, spec = self.outcome, self.spec
        if any(len(b) == 0 for _, b in spec.disjuncts):
            # Every output is in an intersection of no half-spaces.
            out.status, out.witness, out.stage = Status.SAT, self.lower.copy(), "attack"
            return False
        known = None if self.proof is None else self.proof.witness
        if known is not None and len(known) == len(self.lower):
            found = self._witness(known[None].astype(np.float64), "attack")
            if found:
                return False
        rows = np.concatenate([a for a, _ in spec.disjuncts]) if spec.disjuncts else np.zeros((0, self.outputs))
        offsets = np.concatenate([b for _, b in spec.disjuncts]) if spec.disjuncts else np.zeros(0)
        starts = np.cumsum([0, *(len(b) for _, b in spec.disjuncts)])
        root = self.engine.bound(Question(self.lower, self.upper, rows, offsets))
        out.unstable = root.unstable
        for k in range(len(spec.disjuncts)):
            self._proved[k] = root.rows[starts[k] : starts[k + 1]].max()
        open_ = np.flatnonzero(~(self._proved > 0))
        out.bounds = tuple(float(value) for value in self._proved)
        out.lowest = float(self._proved.min(initial=0.0))
        if not len(open_):
            out.status, out.stage = Status.UNSAT, "incomplete"
            return False
        if self._late():
            return self._timeout()
        inputs = len(self.lower)
        size = 4 * (root.unstable + len(rows)) * (root.unstable + inputs) / 2**20
        if size > self.limits.memory_mb:
            out.detail = (
                f"{root.unstable} unstable ReLUs leave a network of {size:.0f} MiB, more than the limit of "
                f"{self.limits.memory_mb:g} MiB; lowest bound {out.lowest:.4g}"
            )
            return False
        hidden = {node: (root.lower[node], root.upper[node]) for node in root.lower}
        self.bounds = adopt(self.checker, self.lower.astype(np.float64), self.upper.astype(np.float64), hidden)
        keep = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in open_])
        self.rows, self.offsets = rows[keep], offsets[keep]
        sizes = [len(spec.disjuncts[k][1]) for k in open_]
        ends = np.cumsum(sizes)
        self.disjuncts = [(int(end - size), int(end)) for end, size in zip(ends, sizes, strict=True)]
        self.open = open_
        root_crown = self._proved[open_]
        self._proved[open_] = np.inf
        many = self.proof is not None and len(self.proof.parent) > self.limits.tighten_after > 0
        if many:
            self._tighten()
        self._reduce()
        if not self.limits.splits:
            return self._slopes(root_crown)
        self._tightened = many
        if not self._first(self._replant()):
            return False
        if out.status is Status.SAT:
            return False
        if not len(self._pool) and not self._stuck:
            return self._end()
        return True

    def _reduce(self) -> None:
        """Composes what is stable away."""
        self.net: Reduced = reduce(self.checker, self.bounds, self.rows, self.offsets, self.deadline)
        self.dual = Dual(self.net, self.disjuncts, self.checker.threads)

    def _tighten(self) -> None:
        tighten(self.checker, self.bounds, self.limits.tighten_steps, self.deadline)

    def _slopes(self, crown: Array) -> bool:
        """α-CROWN: the better of CROWN's bounds and of certified ones with optimised slopes."""
        out = self.outcome
        batch = self.dual.start(np.arange(len(self.open)))
        batch = self.dual.optimise(batch, self.limits.root_steps, target=self._margin, deadline=self.deadline)
        self._proved[self.open] = np.maximum(self._certify(batch), crown)
        out.bounds = tuple(float(value) for value in self._proved)
        out.lowest = float(self._proved.min())
        if out.lowest > 0:
            out.status, out.stage = Status.UNSAT, "incomplete"
        else:
            out.detail = f"lowest bound {out.lowest:.4g}, {int((self._proved <= 0).sum())} disjuncts open"
        return False

    def _again(self) -> bool:
        """Starts over with better hidden bounds; returns whether anything is left to split."""
        self._tightened = True
        self._tighten()
        self._reduce()
        self.tree, self.leaves, self._pending, self._pool, self._stuck = Tree(), [], [], Pool(), 0
        self._proved[self.open] = np.inf
        if not self._first(None):
            return False
        return len(self._pool) > 0

    def _first(self, planted: Planted | None) -> bool:
        """Bounds the disjuncts, whole or by the leaves of an earlier tree; returns False after `sat`."""
        out, dual, steps = self.outcome, self.dual, self.limits.root_steps
        known = set() if planted is None else set(planted.disjunct.tolist())
        if planted is not None:
            self._accept(self._old_leaves(planted))
        fresh = dual.start([k for k in range(len(self.open)) if k not in known])
        if len(fresh):
            none = np.full(len(fresh), -1, dtype=np.int64)
            fresh.place[:] = self.tree.add(none, none, 0 * none, self.open[fresh.disjunct])
            out.domains += len(fresh)
            # Most counterexamples are found in a few steps, before any slope is worth its time.
            attacking = self.limits.attack_steps and not out.rounds
            if attacking and self._attack_root(fresh, min(_QUICK, self.limits.attack_steps)):
                return False
            fresh = dual.optimise(fresh, steps // 3, target=self._margin, deadline=self.deadline)
            if attacking and self._attack_root(fresh, self.limits.attack_steps):
                return False
            self._accept(dual.optimise(fresh, steps, target=self._margin, deadline=self.deadline))
        self._flush()
        return out.status is not Status.SAT

    def _replant(self) -> Planted | None:
        """Puts the stored tree onto this network."""
        proof, names, net = self.proof, self.names, self.net
        if proof is None or names is None or not len(proof.parent):
            return None
        place = np.full(len(proof.node), -1, dtype=np.int64)
        phase = np.ones(len(proof.node), dtype=np.int8)
        here = names.places(net.nodes, net.indices)
        for node in np.unique(proof.node):
            mine = np.flatnonzero(proof.node == node)
            if node >= len(names.layout):
                continue
            size, kept = names.layout[node], names.original[node]
            number, active = np.full(size, -1, dtype=np.int64), np.ones(size, dtype=bool)
            number[here[net.nodes == node]] = np.flatnonzero(net.nodes == node)
            active[np.arange(size) if kept is None else kept] = self.bounds.lower[node] >= 0
            mine = mine[proof.index[mine] < size]
            place[mine] = number[proof.index[mine]]
            phase[mine] = np.where(active[proof.index[mine]], 1, -1)
        crown = (net.upper >= -net.lower).astype(np.float32)
        return plant(proof, {int(k): i for i, k in enumerate(self.open)}, place, phase, crown)

    def _old_leaves(self, planted: Planted) -> Batch:
        """Bounds a tree's entries and returns the topmost proved ones and the leaves that are not, ascended."""
        count = len(planted.parent)
        start = self.dual.start(planted.disjunct)
        batch = Batch(
            planted.disjunct, planted.signs, planted.alpha, planted.beta, start.weights, start.bound, start.place
        )
        self.dual.bound(batch)
        self.outcome.domains += count
        proved = batch.bound > self._margin
        covered = np.zeros(count, dtype=bool)
        for entry, parent in enumerate(planted.parent.tolist()):
            if parent >= 0:
                covered[entry] = covered[parent] or proved[parent]
        kept = np.flatnonzero(~covered)
        new = np.full(count + 1, -1, dtype=np.int64)
        new[kept] = np.arange(len(kept))
        self.tree = Tree()
        batch.place[kept] = self.tree.add(
            new[planted.parent[kept]], planted.neuron[kept], planted.sign[kept], self.open[planted.disjunct[kept]]
        )
        top = batch.take(np.flatnonzero(~covered & proved))
        rest = batch.take(np.flatnonzero(~covered & ~proved & ~planted.inner))
        rest = self.dual.optimise(rest, self.limits.steps, target=self._margin, deadline=self.deadline)
        self.outcome.reused = len(top) + int((rest.bound > self._margin).sum())
        return Batch.join([top, rest])

    def pack(self, network: str, names: Names) -> Proof | None:
        """Returns what the next network's search can start from, None if there is nothing.

        Args:
            network: Hash of this network.
            names: Of this network.
        """
        out = self.outcome
        if not self.tree.parent and out.witness is None:
            return None
        leaves = [*self.leaves, *self._pending]
        if len(self._pool):
            leaves.append(self._pool.take(len(self._pool)))
        nothing = np.zeros(0, dtype=np.int64)
        empty = np.zeros((0, 0), dtype=np.float32)
        unstable, duals = (nothing, nothing), (nothing, empty, empty)
        if self.tree.parent:
            unstable = (self.net.nodes, self.net.indices)
            whole = Batch.join(leaves) if leaves else self.dual.start([])
            duals = (whole.place, whole.alpha, whole.beta)
        tree = (self.tree.parent, self.tree.neuron, self.tree.sign, self.tree.disjunct)
        return pack(network, names, str(out.status), out.witness, unstable, tree, duals)

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
        out.bounds, out.lowest = tuple(float(value) for value in self._proved), float(self._proved.min(initial=np.inf))
        return False

    def _accept(self, batch: Batch) -> None:
        """Sorts bounded subdomains: proved ones to certification, open ones to the pool."""
        proved = batch.bound > self._margin
        if proved.any():
            self._pending.append(batch.take(np.flatnonzero(proved)))
        rest = batch.take(np.flatnonzero(~proved))
        ended = (rest.sign != 0).all(axis=1)
        for d in np.flatnonzero(ended):
            self._settle(rest.take([d]))
        self._pool.put(rest.take(np.flatnonzero(~ended)))

    def _flush(self) -> None:
        """Certifies what is proved; what fails becomes open again."""
        if not self._pending:
            return
        batch = Batch.join(self._pending)
        self._pending = []
        certified = self._certify(batch)
        good = certified > 0
        self._record(batch.take(np.flatnonzero(good)), certified[good])
        if not good.all():
            bad = batch.take(np.flatnonzero(~good))
            self.outcome.refused += len(bad)
            # The search's own arithmetic is off by this much here.
            self._margin = min(1e-2, max(self._margin, 2 * float((bad.bound - certified[~good]).max())))
            bad.bound[:] = np.minimum(certified[~good], 0.0)
            self._accept(bad)

    def _record(self, leaves: Batch, certified: Array) -> None:
        self.outcome.certified += len(leaves)
        np.minimum.at(self._proved, self.open[leaves.disjunct], certified)
        self.leaves.append(leaves)

    def _certify(self, batch: Batch) -> Array:
        """Returns rigorous bounds of a batch's disjuncts, from its dual variables."""
        begin = time.monotonic()
        parts = []
        for start in range(0, len(batch), _CERTIFIED):
            part = batch.take(np.arange(start, min(start + _CERTIFIED, len(batch))))
            planes = {}
            for first, last in self.net.levels:
                span = slice(first, last)
                planes[int(self.net.nodes[first])] = Planes(
                    grouped(part.sign[:, span]),
                    grouped(part.alpha[:, span].astype(np.float64)),
                    grouped(part.beta[:, span].astype(np.float64)),
                )
            parts.append(self._certify_rows(part.weights.astype(np.float64), self.rows, self.offsets, planes))
        self.outcome.certify_s += time.monotonic() - begin
        return np.concatenate(parts) if parts else np.zeros(0)

    def _certify_rows(
        self, weights: Array, rows: Array, offsets: Array, planes: dict[int, Planes] | None = None
    ) -> Array:
        """Bounds non-negative combinations of rows, charging the rounding of the combination, too."""
        bounds, last = self.bounds, self.checker.last
        reach = np.maximum(np.abs(bounds.lower[last]), np.abs(bounds.upper[last]))
        error = gamma(len(rows)) * (np.abs(weights) @ (np.abs(rows) @ reach + np.abs(offsets))) * 1.01
        return self.checker.lower(last, weights @ rows, bounds, planes, constant=-(weights @ offsets) - error)

    def _attack_root(self, batch: Batch, steps: int) -> bool:
        """Attacks from the bounds' minimisers, the centre and random points."""
        rng = np.random.default_rng(self.limits.seed)
        pixels = len(self.net.pixels)
        look = self.dual.look(batch)
        count = self.limits.attack_points
        random = rng.uniform(-1, 1, (count, pixels)).astype(np.float32)
        random[::2] = np.sign(random[::2])
        starts = np.concatenate([look.t, np.zeros((len(batch), pixels), dtype=np.float32), random])
        target = np.concatenate([batch.disjunct, batch.disjunct, np.arange(count) % len(batch)])
        return self._attack(starts, target, steps, "attack")

    def _attack(self, starts: Single, target: Indices, steps: int, stage: str) -> bool:
        points, margins = attack.descend(self.net, self.disjuncts, starts, target, steps)
        hit = np.argsort(margins)[:4]
        return self._witness(self.net.point(points[hit[margins[hit] < 1e-5]]), stage)

    def _witness(self, points: Array, stage: str) -> bool:
        found = attack.confirm(self.checker.network, self.spec, self.lower, self.upper, points)
        if found is None:
            return False
        out = self.outcome
        out.status, out.witness, out.stage, out.bounds, out.detail = Status.SAT, found, stage, None, ""
        return True

    def _settle(self, leaf: Batch) -> None:
        """Decides a subdomain whose neurons are all split."""
        rows = self.disjuncts[int(leaf.disjunct[0])]
        answer = corner.settle(self.net, leaf, rows, self.deadline - time.monotonic())
        if answer is not None:
            beta, weights, t = answer
            leaf.beta[0], leaf.weights[0] = beta, weights
            certified = self._certify(leaf)
            if certified[0] > 0:
                self._record(leaf, certified)
                return
            if self._witness(self.net.point(t[None]), "bab"):
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
            if self._late():
                self._timeout()
                return
            if self._pool.megabytes > self.limits.memory_mb:
                out.status, out.lowest = Status.UNKNOWN, self._pool.lowest()
                out.detail = f"{len(self._pool)} open subdomains fill {self.limits.memory_mb:g} MiB"
                return
            if not self._tightened and 0 < self.limits.tighten_after < out.domains:
                if not self._again():
                    break
                continue
            out.rounds += 1
            parents = self._pool.take(size)
            look = self.dual.look(parents)
            if self.limits.attack_steps and (out.rounds <= 4 or out.rounds % 4 == 0):
                worst = np.argsort(parents.bound)[:16]
                if self._attack(look.t[worst], parents.disjunct[worst], 6, "bab"):
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
            if sum(len(part) for part in self._pending) >= _CERTIFIED or not len(self._pool):
                self._flush()
            if out.status is Status.SAT:
                return
        if out.status is not Status.SAT:
            self._end()
