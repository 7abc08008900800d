"""One question to a pair of networks: differential bounds, an attack, then branch and bound.

What differential bounds over the whole box leave open is first given to the search on one network
(`verifiers.sparse.bab.search`), with both networks as one: it knows nothing of differences, but it optimises its slopes
and splits the ReLUs of both in one tree. Where the linear programmes of `branch_and_bound` beside this are small, it
has half of the time, and what is open then is split with differences carried along, to the end.

Of a pair that rounds (`pairs.rounded`), differential bounds are had where both networks have one form, and what they
leave open goes to the search on one network, to the end.
"""

from __future__ import annotations

import functools
import time

import numpy as np

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array, Int64Array
from prunecert.verifiers.sparse.bab.attack import Replay, confirm
from prunecert.verifiers.sparse.bab.counterexamples import Attackable, Hunt
from prunecert.verifiers.sparse.bab.outcome import Limits, Outcome
from prunecert.verifiers.sparse.bab.search import Search
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.pairs.bounds import Bounder, PairBounds, best_of, bound_rows
from prunecert.verifiers.sparse.pairs.branch_and_bound import Disjunct, PairTree
from prunecert.verifiers.sparse.pairs.network import split_merged
from prunecert.verifiers.sparse.pairs.rounded import Member, RoundedPair, Sharpener
from prunecert.verifiers.sparse.pairs.specification import candidates


class PairNetworks:
    """A merged network, taken apart and made ready.

    Args:
        merged: Both networks on one input; the outputs of the first, then those of the second.
        threads: For bounds.
    """

    def __init__(self, merged: Network, threads: int) -> None:
        self.merged, self._threads = merged, threads
        self.pair = split_merged(merged)
        self.bounder = Bounder(self.pair, (Engine(self.pair.first, threads), Engine(self.pair.second, threads)))

    def bounds(self, lower: Float32Array, upper: Float32Array) -> PairBounds | None:
        """Bounds values and differences over a box."""
        return self.bounder.bound(lower.astype(np.float64), upper.astype(np.float64))

    def sharpener(self, lower: Float32Array, upper: Float32Array) -> Sharpener | None:
        """Returns what is known of values over a box beyond `merged`: nothing."""
        return None

    def small(self, entries: int) -> bool:
        """Whether linear programmes of both have at most so many entries."""
        return self.pair.entries <= entries

    @functools.cached_property
    def checker(self) -> Checker:
        """Of both as one network."""
        return Checker(self.merged, self._threads)

    @functools.cached_property
    def engine(self) -> Engine:
        """Likewise."""
        return Engine(self.merged, self._threads)


class RoundedPairNetworks(PairNetworks):
    """Two networks of which one rounds, or both, made ready; `merged` is both as one, with bounded errors.

    Args:
        first: The first.
        second: The other.
        threads: For bounds.
    """

    def __init__(self, first: Member, second: Member, threads: int) -> None:
        self.rounded = RoundedPair(first, second, threads)
        self.merged, self._threads = self.rounded.joined, threads

    def bounds(self, lower: Float32Array, upper: Float32Array) -> PairBounds | None:
        """Bounds values and differences over a box; None if the two have no form in common."""
        return self.rounded.bound(lower, upper)

    def sharpener(self, lower: Float32Array, upper: Float32Array) -> Sharpener | None:
        """Returns what is known of values over a box; None if `merged` doesn't stand for the two there."""
        return self.rounded.sharpener(lower, upper)

    def small(self, entries: int) -> bool:
        """Programmes know nothing of rounding."""
        return False


class PairSearch:
    """One question.

    Args:
        networks: The pair.
        lower: Lower corner of the box, float32.
        upper: Upper corner.
        spec: The unsafe outputs of both networks.
        deadline: `time.monotonic` at which to end.
        allowance: For each disjunct, how much more than `spec` is to be proved; empty: nothing.
        replay: The float32 networks by which counterexamples near the threshold are judged.
        entries: Most entries of both networks for which linear programmes are solved.
        seed: Of the attack's random starts.
    """

    def __init__(
        self,
        networks: PairNetworks,
        lower: Float32Array,
        upper: Float32Array,
        spec: OutputSpec,
        deadline: float,
        allowance: tuple[float, ...] = (),
        replay: Replay | None = None,
        entries: int = 20_000,
        seed: int = 0,
    ) -> None:
        self._networks, self._spec, self._deadline = networks, spec, deadline
        self._lower, self._upper = lower.reshape(-1), upper.reshape(-1)
        self._allowance, self._replay = allowance, replay
        self._entries, self._limits = entries, Limits(seed=seed)

    def run(self) -> Outcome:
        """Answers it."""
        begin = time.monotonic()
        out = Outcome()
        with np.errstate(all="ignore"):
            self._answer(out, begin)
        total = time.monotonic() - begin
        out.bound_s = out.bound_s or total
        out.search_s = total - out.bound_s
        return out

    def _answer(self, out: Outcome, begin: float) -> None:
        spec, networks = self._spec, self._networks
        count = len(spec.disjuncts)
        if not count:
            out.status, out.stage, out.bounds = Status.UNSAT, "incomplete", ()
            return
        if any(len(limits) == 0 for _, limits in spec.disjuncts):
            # Every output is in an intersection of no half-spaces.
            self._settle(out, self._lower.copy())
            return
        more = np.array(self._allowance) if self._allowance else np.zeros(count)
        bounds = networks.bounds(self._lower, self._upper)
        rows = candidates(spec, more)
        open_, witness = np.arange(count), None
        if bounds is not None:
            out.unstable = sum(bounds.unstable())
            lower, walk = bound_rows(bounds, rows)
            proved, _ = best_of(rows, lower, count)
            out.bounds = tuple(np.nextafter(proved + more, -np.inf).tolist())
            out.lowest = float(proved.min(initial=0.0))
            open_ = np.flatnonzero(~(proved > 0))
            out.bound_s = time.monotonic() - begin
            if not len(open_):
                out.status, out.stage = Status.UNSAT, "incomplete"
                return
            witness = self._confirm(walk.corners(bounds.ranges[0]))
        witness = self._attacked(open_) if witness is None else witness
        if witness is not None:
            self._settle(out, witness)
            return
        out.bounds = None
        small = networks.small(self._entries)
        left = self._deadline - time.monotonic()
        self._as_one(out, open_, self._deadline - 0.5 * left if small else self._deadline)
        if bounds is None or out.status.decided or not small or time.monotonic() > self._deadline:
            return
        tree = PairTree(bounds, self._confirm, self._deadline)
        parts = [Disjunct(spec.disjuncts[k][0], spec.disjuncts[k][1] + more[k], rows.of(np.array([k]))) for k in open_]
        result = tree.run(parts)
        out.status, out.detail, out.witness = result.status, result.detail, result.witness
        out.domains += result.domains
        out.rounds += result.programmes
        out.certified += result.leaves
        out.stage = "bab" if result.status.decided else None

    @staticmethod
    def _settle(out: Outcome, witness: Float32Array) -> None:
        out.status, out.stage, out.witness, out.bounds = Status.SAT, "attack", witness, None

    def _confirm(self, points: Float64Array) -> Float32Array | None:
        """Returns the first of [n, inputs] that is a counterexample."""
        box = self._lower, self._upper
        return confirm(self._networks.merged, self._spec, *box, points, 1, self._allowance, self._replay)

    def _attacked(self, open_: Int64Array) -> Float32Array | None:
        checker = self._networks.checker
        hunt = Hunt(
            checker, self._spec, self._lower, self._upper, self._limits, None, self._allowance, self._replay
        )  # fmt: skip
        matrices, offsets = zip(*self._spec.disjuncts, strict=True)
        starts = np.cumsum([0, *(len(limits) for limits in offsets)])
        return hunt.quick(open_, Attackable(np.concatenate(matrices), np.concatenate(offsets), starts))

    def _as_one(self, out: Outcome, open_: Int64Array, deadline: float) -> None:
        """Hands what is open to the search on one network, until a deadline."""
        spec = self._spec
        limits = tuple(spec.limits[k] for k in open_) if spec.limits else ()
        left = OutputSpec(tuple(spec.disjuncts[k] for k in open_), limits)
        allowance = tuple(self._allowance[k] for k in open_) if self._allowance else ()
        networks = self._networks
        sharpen = networks.sharpener(self._lower, self._upper)
        if networks.merged.roundings and sharpen is None:
            out.detail = "points of the box are beyond an end of the first rounding's grid, and nothing is split there"
            return
        search = Search(
            networks.engine, networks.checker, self._lower, self._upper, left, self._limits, deadline,
            allowance=allowance, replay=self._replay, sharpen=sharpen,
        )  # fmt: skip
        result = search.run()
        out.status, out.detail, out.witness = result.status, result.detail, result.witness
        out.domains, out.rounds, out.certified = result.domains, result.rounds, result.certified
        out.refused = result.refused
        # A proof of the rest is one of all: what isn't in it was proved by differential bounds.
        out.stage = "bab" if result.status is Status.UNSAT else result.stage
