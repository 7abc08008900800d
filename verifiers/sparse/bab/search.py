"""One question to one network: CROWN and attack over the whole box, then α-CROWN, or branch and bound.

Bounds of subdomains are taken in float32 on the reduced network, proofs in float64 on the original one.
`branch_and_bound` beside this has what follows where CROWN and the attack leave the question open, `input_splits` what
comes before that where few inputs vary: inputs are split until the estimate there says that it won't do, or for a
sixteenth of the time; then ReLUs for an eighth; then inputs again, whatever the estimate says, as it is often wrong so
early; and for the last quarter what the estimate is for.
"""

from __future__ import annotations

import functools
import itertools
import time
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array
from prunecert.verifiers.sparse.bab.attack import Replay
from prunecert.verifiers.sparse.bab.branch_and_bound import DIRECT, BranchAndBound
from prunecert.verifiers.sparse.bab.composed import compose
from prunecert.verifiers.sparse.bab.counterexamples import Attackable, Hunt
from prunecert.verifiers.sparse.bab.cuts import cut
from prunecert.verifiers.sparse.bab.dual import Batch
from prunecert.verifiers.sparse.bab.input_splits import InputSplits, possible
from prunecert.verifiers.sparse.bab.open_domains import Pool, timeout
from prunecert.verifiers.sparse.bab.outcome import Limits, Outcome
from prunecert.verifiers.sparse.bab.prover import Prover, Sharpen, adopt_crown, sharpened
from prunecert.verifiers.sparse.bab.root import Root, Standing, Task
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine, Question
from prunecert.verifiers.sparse.onnx.neuron_names import Names
from prunecert.verifiers.sparse.proofs.file import Proof
from prunecert.verifiers.sparse.proofs.store import Earlier

#: What a bound in float32 must exceed to be certified.
_MARGIN = 1e-6
#: A tree larger than this many times `tighten_after` says that hidden bounds are worth their time from the start.
_LARGE = 4
#: Shares of the time: when inputs pause for the first time, how long ReLUs are split then, and when inputs pause again.
_TURNS = (1 / 16, 1 / 8, 3 / 4)


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
        sharpen: What is known of nodes' values over the box beyond the network's bounds, see `sharpened`.
    """

    def __init__(
        self,
        engine: Engine,
        checker: Checker,
        lower: Float32Array,
        upper: Float32Array,
        spec: OutputSpec,
        limits: Limits,
        deadline: float,
        earlier: Earlier | None = None,
        names: Names | None = None,
        allowance: tuple[float, ...] = (),
        replay: Replay | None = None,
        sharpen: Sharpen | None = None,
    ) -> None:
        self.engine = engine
        self.earlier = earlier
        self.outputs = checker.network.nodes[-1].size
        self.lower, self.upper = lower.reshape(-1), upper.reshape(-1)
        self.spec = spec
        witness = None if earlier is None else earlier.witness
        # Of the parts, not of the search: in a circle, all that a search has grown would stay until it is looked for.
        forward = functools.partial(_forward, engine, checker, limits)
        hunt = Hunt(checker, spec, self.lower, self.upper, limits, witness, allowance, replay, forward)
        self._task = Task(checker, hunt, limits, deadline, earlier, names, sharpen)
        self._standing = Standing(spec, allowance)
        self._bab: BranchAndBound | None = None
        self._by_inputs = False

    @property
    def outcome(self) -> Outcome:
        """What the search has come to."""
        return self._standing.outcome

    @property
    def leaves(self) -> list[Batch]:
        """The subdomains that are proved, with their dual variables."""
        return [] if self.branched is None else self.branched.leaves

    @property
    def megabytes(self) -> float:
        """What is kept of an answered question takes, for its certificate."""
        bab = self.branched
        if bab is None:
            return 0.0
        return bab.megabytes + sum(proof.tree.megabytes for proof in bab.second_order.proofs.values())

    @property
    def by_inputs(self) -> bool:
        """Whether the answer is that of input splits, of which no tree is kept."""
        return self._by_inputs

    @property
    def branched(self) -> BranchAndBound | None:
        """What split ReLUs, if anything did and the answer isn't that of input splits, of which no tree is kept."""
        return None if self._by_inputs else self._bab

    def run(self) -> Outcome:
        """Answers the question."""
        begin = time.monotonic()
        out = self.outcome
        try:
            # What float32 can't hold becomes infinite, or no number, in the search, whose arithmetic decides nothing:
            # such a bound is not above 0, and proofs and counterexamples are looked at anew.
            with np.errstate(all="ignore"):
                root = self._bound()
                if root is not None and not self._task.limits.splits:
                    self._slopes(root)
                elif root is not None and (inputs := self._inputs(root)) is not None:
                    out.bound_s = time.monotonic() - begin
                    self._split(root, inputs)
                elif root is not None:
                    self._branch(self._task, root, begin)
        except TimeoutError:
            timeout(out, Pool() if self._bab is None else self._bab.pool)
        finally:
            total = time.monotonic() - begin
            out.bound_s = out.bound_s or total
            out.search_s = total - out.bound_s
            out.inputs = self._by_inputs and self._bab is None
        return out

    def _bound(self) -> Root | None:
        """Bounds and attacks the whole box; returns what is left to prove, None where nothing can follow."""
        out, spec, task, standing = self.outcome, self.spec, self._task, self._standing
        if any(len(b) == 0 for _, b in spec.disjuncts):
            # Every output is in an intersection of no half-spaces.
            standing.won(self.lower.copy(), "attack")
            return None
        rows = np.concatenate([a for a, _ in spec.disjuncts]) if spec.disjuncts else np.zeros((0, self.outputs))
        offsets = np.concatenate([b for _, b in spec.disjuncts]) if spec.disjuncts else np.zeros(0)
        starts = np.cumsum([0, *(len(b) for _, b in spec.disjuncts)])
        more = np.repeat(standing.more, np.diff(starts))
        everything = Attackable(rows, offsets, starts)
        if standing.won(task.hunt.replay(), "attack"):
            return None
        # Where the neighbour was broken last, this network most likely falls, too, if not to the same point.
        fragile = self.earlier is not None and self.earlier.broken
        fits = self.engine.fit(task.limits.memory_mb)
        # An attack needs no walk.
        early = fragile or not fits
        if early and standing.won(task.hunt.quick(np.arange(len(spec.disjuncts)), everything), "attack"):
            return None
        if not fits:
            out.detail = (
                f"CROWN's walks over the network take {self.engine.walk_mb:.4g} MiB, more than the limit of "
                f"{task.limits.memory_mb:g} MiB; a larger memory_mb allows them"
            )
            return None
        crown = self.engine.bound(Question(self.lower, self.upper, rows, offsets + more))
        low, high = self.lower.astype(np.float64), self.upper.astype(np.float64)
        bounds = None
        if task.sharpen is not None:
            bounds = adopt_crown(task.checker, low, high, crown)
            sharpened(task.checker, bounds, task.sharpen)
            np.maximum(crown.rows, cut(task.checker, bounds, rows, offsets + more, task.deadline), out=crown.rows)
        out.unstable = crown.unstable
        for k in range(len(spec.disjuncts)):
            standing.proved[k] = crown.rows[starts[k] : starts[k + 1]].max()
        standing.crown = standing.proved.copy()
        open_ = np.flatnonzero(~(standing.proved > 0) | task.limits.every)
        out.bounds = standing.reported()
        out.lowest = float(standing.proved.min(initial=0.0))
        if not len(open_):
            out.status, out.stage = Status.UNSAT, "incomplete"
            return None
        if time.monotonic() > task.deadline:
            timeout(out, Pool())
            return None
        nodes = task.checker.network.nodes
        rounded = sum(
            # CROWN doesn't bound what no ReLU follows, as a first rounding to numbers of both signs.
            int((crown.upper[node] > 0).sum()) if node in crown.upper else nodes[node].size
            for node in task.checker.network.roundings
        )
        size = 4 * (crown.unstable + len(rows)) * (crown.unstable + len(self.lower) + rounded) / 2**20
        if size > task.limits.memory_mb:
            out.detail = (
                f"{crown.unstable} unstable ReLUs leave a network of {size:.0f} MiB, more than the limit of "
                f"{task.limits.memory_mb:g} MiB; lowest bound {out.lowest:.4g}"
            )
            return None
        # What the neighbour did not find is not looked for first, if its proof is soon tried.
        held = self.earlier is not None and self.earlier.promises(standing.crown, open_, DIRECT)
        if bounds is None:
            bounds = adopt_crown(task.checker, low, high, crown)
        if not (held or fragile) and standing.won(task.hunt.quick(open_, everything, bounds), "attack"):
            return None
        keep = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in open_])
        ends = np.cumsum([0, *(len(spec.disjuncts[k][1]) for k in open_)]).tolist()
        return Root(
            open=open_,
            rows=rows[keep],
            offsets=(offsets + more)[keep],
            shift=more[keep],
            disjuncts=list(itertools.pairwise(ends)),
            bounds=bounds,
            postponed=everything if held else None,
        )

    def _inputs(self, root: Root) -> InputSplits | None:
        """Returns branch and bound on the inputs if that is to be tried."""
        split = self._task.limits.split
        # Of what is proved so nothing is kept for the next network.
        if split == "relu" or (split == "auto" and self.earlier is not None):
            return None
        if not possible(self._task, root, forced=split == "input"):
            return None
        return InputSplits(self._task, self._standing, root)

    def _branch(self, task: Task, root: Root, begin: float) -> None:
        """Splits ReLUs.

        Raises:
            TimeoutError: The task's deadline passed before the first split.
        """
        out = self.outcome
        bab = self._bab = BranchAndBound(task, self._standing, root)
        entries = 0 if self.earlier is None else self.earlier.entries
        try:
            if bab.start(again=entries > _LARGE * task.limits.tighten_after > 0):
                out.bound_s = out.bound_s or time.monotonic() - begin
                bab.branch()
        finally:
            # However it ended: another turn is to have this one's memory.
            bab.second_order.clear()

    def _split(self, root: Root, inputs: InputSplits) -> None:
        """Splits inputs and ReLUs in turns; at last what the estimate is for."""
        out, begin, end = self.outcome, time.monotonic(), self._task.deadline
        try:
            if self._task.limits.split == "input":
                self._by_inputs = inputs.run()
                return
            first, second, third = (share * (end - begin) for share in _TURNS)
            if inputs.run(begin + first, looks=True):
                self._by_inputs = True
                return
            if self._turn(replace(self._task, deadline=time.monotonic() + second), root):
                return
            out.status, out.detail = Status.UNKNOWN, ""
            self._by_inputs = inputs.run(begin + third)
            if self._by_inputs:
                return
            if len(inputs.pool) and inputs.promising():
                self._by_inputs = inputs.run()
            else:
                self._turn(self._task, root)
        finally:
            out.domains += inputs.domains
            out.rounds += inputs.rounds
            out.certified += inputs.leaves

    def _turn(self, task: Task, root: Root) -> bool:
        """Splits ReLUs, from the start, until a task's deadline; returns whether that was long enough for an answer.

        An `unknown` is one, too: what is within rounding of the threshold stays so.
        """
        try:
            self._branch(task, root, time.monotonic())
        except TimeoutError:
            timeout(self.outcome, Pool() if self._bab is None else self._bab.pool)
        return self.outcome.status is not Status.TIMEOUT

    def _slopes(self, root: Root) -> None:
        """α-CROWN: the better of CROWN's bounds and of certified ones with optimised slopes."""
        out, task, standing = self.outcome, self._task, self._standing
        prover = Prover(task.checker, root.bounds, root.rows, root.offsets, root.disjuncts, out)
        dual = compose(task, root).dual
        batch = dual.start(np.arange(len(root.open)))
        batch = dual.optimise(batch, task.limits.root_steps, target=_MARGIN, deadline=task.deadline)
        standing.proved[root.open] = np.maximum(prover.certify(batch), standing.proved[root.open])
        out.bounds = standing.reported()
        out.lowest = float(standing.proved.min())
        if out.lowest > 0:
            out.status, out.stage = Status.UNSAT, "incomplete"
        else:
            out.detail = f"lowest bound {out.lowest:.4g}, {int((standing.proved <= 0).sum())} disjuncts open"

    def pack(self, network: str, names: Names) -> Proof | None:
        """Returns the tree that the search on the next network, after the one of this hash, can start from, or None."""
        return None if self.branched is None else self.branched.pack(network, names)


def _forward(engine: Engine, checker: Checker, limits: Limits, x: npt.NDArray[np.floating]) -> list[Float64Array]:
    """Computes the values of all nodes, in the engine where that has room for its walks."""
    if engine.fit(limits.memory_mb):
        return engine.forward(x)
    return checker.network.forward(x, checker.threads)
