"""One question about an l2 ball: SDP-CROWN, an attack, optimised slopes, then branch and bound on ReLUs.

Every bound is rigorous (`walk`), so a leaf is a subdomain whose bound is above 0, and nothing is left to be checked. A
split makes one neuron's box smaller in the Lagrangian, in which its ReLU is exact; hidden bounds and balls stay those
of the whole set. The neuron that is split is the one at which the relaxed network is wrong by most: its output in the
dual's own forward pass against the ReLU of its input there, times the weight that the bound has on it.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array
from prunecert.verifiers.sparse.bab.attack import Replay
from prunecert.verifiers.sparse.bab.outcome import Limits, Outcome
from prunecert.verifiers.sparse.balls.ascent import Ascent, Climb
from prunecert.verifiers.sparse.balls.attack import BallAttack
from prunecert.verifiers.sparse.balls.ranges import find_ranges
from prunecert.verifiers.sparse.balls.walk import Ball, Boxes, Ranges, Slopes, Walker
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.walks import LateError

#: Subdomains split together where nothing else is said, and starts of the first attack.
_BATCH, _STARTS = 8, 3
#: Steps for a subdomain that has no ReLU left to be split, and how often.
_LAST_STEPS, _TRIES = 120, 6
#: Share of what a split is worth that the triangle's height has, against the error of the dual's forward pass.
_HEIGHT = 0.1
_UNIT = 2.0**-53


@dataclass(eq=False)
class _Part:
    """A subdomain that is open: its bound, its boxes, the slopes of its rows, and what to split next.

    Args:
        lower: The largest of its rows' bounds.
        low: By node, lower corner of the unstable neurons' box.
        high: Likewise.
        slopes: By node, of the disjunct's rows.
        split: Node and place among its unstable neurons; None: none is left.
        tries: How often its slopes were optimised after that.
    """

    lower: float
    low: dict[int, Float64Array]
    high: dict[int, Float64Array]
    slopes: dict[int, Slopes]
    split: tuple[int, int] | None
    tries: int = 0


class BallSearch:
    """One question to one network.

    Args:
        checker: Of the network.
        ball: The input set.
        spec: The unsafe set.
        contains: Whether a flat float32 point lies in the input set, in exact arithmetic.
        limits: How hard to search.
        deadline: `time.monotonic` at which to end.
        allowance: For each disjunct, how much more than `spec` is to be proved; empty: nothing.
        replay: The float32 network by which counterexamples near the threshold are judged, flat x to outputs.
    """

    def __init__(
        self,
        checker: Checker,
        ball: Ball,
        spec: OutputSpec,
        contains: Callable[[Float32Array], bool],
        limits: Limits,
        deadline: float,
        allowance: tuple[float, ...] = (),
        replay: Replay | None = None,
    ) -> None:
        self._checker, self._ball, self._spec = checker, ball, spec
        self._limits, self._deadline = limits, deadline
        self._allowance = allowance or (0.0,) * len(spec.disjuncts)
        self._attack = BallAttack(checker, ball, spec, contains, allowance, replay)
        self._out = Outcome()
        self._bounds = [-np.inf] * len(spec.disjuncts)

    def run(self) -> Outcome:
        """Answers the question."""
        begin = time.monotonic()
        self._root()
        out = self._out
        out.bound_s = time.monotonic() - begin
        if out.stage is None and self._limits.splits and out.status is not Status.TIMEOUT:
            self._split_all()
            out.search_s = time.monotonic() - begin - out.bound_s
        # What was proved of the larger unsafe set holds of the set itself with that margin; the sum rounds.
        pairs = zip(self._bounds, self._allowance, strict=True)
        out.bounds = tuple(math.nextafter(bound + allowed, -math.inf) if allowed else bound for bound, allowed in pairs)
        return out

    @property
    def _late(self) -> bool:
        return time.monotonic() > self._deadline

    def _rows(self, disjunct: int) -> tuple[sparse.csr_array, Float64Array]:
        a, b = self._spec.disjuncts[disjunct]
        return sparse.csr_array(np.atleast_2d(np.asarray(a, dtype=np.float64))), -_raised(b, self._allowance[disjunct])

    def _open(self) -> list[int]:
        return [disjunct for disjunct, bound in enumerate(self._bounds) if not bound > 0]

    def _root(self) -> None:
        out, limits = self._out, self._limits
        if not self._spec.disjuncts or any(not len(b) for _, b in self._spec.disjuncts):
            # No disjunct is met by no output, one without rows by every output: nothing is claimed of either.
            out.status, out.detail, out.stage = Status.UNKNOWN, "the property has no rows to be bounded", "incomplete"
            return
        try:
            ranges = find_ranges(self._checker, self._ball, deadline=self._deadline)
        except LateError:
            self._timeout()
            return
        out.unstable = ranges.count
        self._ranges: Ranges = ranges
        self._ascent = Ascent(Walker(self._checker, ranges), self._checker.last)
        self._climb(self._open(), 0)
        if self._proved():
            return
        if limits.attack_steps and not self._late:
            point = self._attack.from_center(limits.attack_steps, _STARTS, limits.seed, self._deadline)
            if point is not None:
                self._broken(point)
                return
        self._climb(self._open(), limits.root_steps)
        if not self._proved() and self._late:
            self._timeout()

    def _climb(self, disjuncts: list[int], steps: int) -> None:
        if not disjuncts:
            return
        pairs = [self._rows(disjunct) for disjunct in disjuncts]
        rows = sparse.csr_array(sparse.vstack([a for a, _ in pairs]))
        climb = self._ascent.climb(rows, np.concatenate([b for _, b in pairs]), steps, deadline=self._deadline)
        first = 0
        for disjunct, (_, constant) in zip(disjuncts, pairs, strict=True):
            best = float(climb.lower[first : first + len(constant)].max())
            self._bounds[disjunct] = max(self._bounds[disjunct], best)
            first += len(constant)

    def _proved(self) -> bool:
        if self._open():
            return False
        self._out.status, self._out.stage = Status.UNSAT, "incomplete"
        return True

    def _broken(self, point: Float32Array) -> None:
        self._out.status, self._out.stage, self._out.witness = Status.SAT, "attack", point

    def _timeout(self) -> None:
        left = len(self._open())
        self._out.status = Status.TIMEOUT
        self._out.detail = f"out of time with {left} of {len(self._bounds)} disjuncts open"

    def _split_all(self) -> None:
        """Splits until every disjunct is proved, one is broken, or time or memory is over."""
        out = self._out
        # The one that is nearest to its end first: what is found on the way breaks any.
        for disjunct in sorted(self._open(), key=lambda item: -self._bounds[item]):
            if not self._split(disjunct):
                return
        out.status, out.stage = Status.UNSAT, "bab"

    def _split(self, disjunct: int) -> bool:
        """Splits for one disjunct; returns whether it is proved now."""
        limits, out = self._limits, self._out
        rows, constant = self._rows(disjunct)
        whole = {node: self._ranges.bounds.lower[node][free] for node, free in self._ranges.unstable.items()}
        upper = {node: self._ranges.bounds.upper[node][free] for node, free in self._ranges.unstable.items()}
        room = max(16, int(limits.memory_mb * 2**20 / (16.0 * (1 + rows.shape[0]) * max(1, self._ranges.count))))
        numbers, leaves = itertools.count(), np.inf
        # At the top the optimiser has shifts, too.
        first = self._bound([_Part(-np.inf, whole, upper, {}, None)], rows, constant, limits.root_steps)
        parts: list[tuple[float, int, _Part]] = []
        leaves = min(leaves, _sort_in(first, parts, numbers))
        while parts:
            if self._late:
                self._timeout()
                return False
            if len(parts) > room:
                out.detail = f"{len(parts)} open subdomains need more than {limits.memory_mb:g} MiB"
                return False
            chosen = [heapq.heappop(parts)[2] for _ in range(min(limits.batch or _BATCH, len(parts)))]
            last = [part for part in chosen if part.split is None]
            if any(part.tries == _TRIES for part in last):
                out.detail = f"lowest bound {chosen[0].lower:.4g} where no ReLU is left to be split"
                return False
            # What is left of those is convex, and a matter of steps.
            again = self._bound(last, rows, constant, _LAST_STEPS, disjunct) if last else []
            leaves = min(leaves, _sort_in([replace(part, tries=part.tries + 1) for part in again], parts, numbers))
            children = [child for part in chosen if part.split is not None for child in _halves(part)]
            bounded = self._bound(children, rows, constant, limits.steps, disjunct) if children else []
            out.domains += len(children)
            out.rounds += 1
            if out.witness is not None:
                return False
            leaves = min(leaves, _sort_in(bounded, parts, numbers))
        self._bounds[disjunct] = leaves
        return True

    def _bound(
        self,
        parts: list[_Part],
        rows: sparse.csr_array,
        constant: Float64Array,
        steps: int,
        disjunct: int | None = None,
    ) -> list[_Part]:
        """Bounds subdomains together, attacks from where they are lowest, and says what to split in each."""
        each = rows.shape[0]
        stacked = sparse.csr_array(sparse.vstack([rows] * len(parts)))
        nodes = [node for node in self._ranges.unstable if len(self._ranges.unstable[node])]
        boxes = Boxes(
            np.repeat(np.arange(len(parts)), each),
            {node: np.stack([part.low[node] for part in parts]) for node in nodes},
            {node: np.stack([part.high[node] for part in parts]) for node in nodes},
        )
        slopes = {
            node: Slopes(
                np.concatenate([part.slopes[node].slope for part in parts]),
                np.concatenate([part.slopes[node].shift for part in parts]),
            )
            for node in nodes
            if all(node in part.slopes for part in parts)
        }
        climb = self._ascent.climb(
            stacked,
            np.tile(constant, len(parts)),
            steps,
            slopes=slopes,
            boxes=boxes,
            deadline=self._deadline,
        )
        lowers = climb.lower.reshape(len(parts), each).max(axis=1)
        if disjunct is not None and self._limits.attack_steps:
            points = climb.trace.inputs[climb.lower[climb.traced] <= 0][: _BATCH // 2]
            targets = np.full(len(points), disjunct)
            steps = -(-self._limits.attack_steps // 4)
            point = self._attack.descend(points, targets, steps, self._deadline, near=True)
            if point is not None:
                self._broken(point)
        splits = self._splits(climb, boxes, lowers, each)
        return [
            _Part(
                float(lower),
                part.low,
                part.high,
                {
                    node: Slopes(
                        own.slope[place * each : (place + 1) * each].copy(),
                        own.shift[place * each : (place + 1) * each].copy(),
                    )
                    for node, own in climb.slopes.items()
                },
                splits.get(place),
                part.tries,
            )
            for place, (part, lower) in enumerate(zip(parts, lowers, strict=True))
        ]

    def _splits(self, climb: Climb, boxes: Boxes, lowers: Float64Array, each: int) -> dict[int, tuple[int, int]]:
        """Returns node and place of the neuron to be split, by subdomain; none where none is free."""
        trace = climb.trace
        gaps = self._ascent.gradient(trace)
        best: dict[int, tuple[float, tuple[int, int]]] = {}
        domain = climb.traced // each
        for node, gap in gaps.items():
            z, slope, c = trace.points[node], trace.slopes[node].slope, np.abs(trace.coefficients[node])
            low, high = boxes.low[node][domain], boxes.high[node][domain]
            wrong = np.abs(np.maximum(z, 0.0) + slope * gap - np.maximum(z + gap, 0.0))
            free = (low < 0) & (high > 0)
            with np.errstate(all="ignore"):
                height = np.where(free, -low * high / (high - low), 0.0)
            scores = np.where(free, c * (np.minimum(wrong, height) + _HEIGHT * height), -1.0)
            places = scores.argmax(axis=1)
            for row, place in enumerate(places):
                part, score = int(domain[row]), float(scores[row, place])
                if not lowers[part] > 0 and score >= 0 and (part not in best or score > best[part][0]):
                    best[part] = score, (node, int(place))
        return {part: split for part, (_, split) in best.items()}


def _raised(offsets: Float64Array, allowed: float) -> Float64Array:
    """Returns what is subtracted from the rows, at least as large as the sum of both."""
    if not allowed:
        return np.asarray(offsets, dtype=np.float64)
    raised: Float64Array = offsets + allowed
    return np.asarray(raised + 4 * _UNIT * (np.abs(offsets) + allowed))


def _sort_in(bounded: list[_Part], parts: list[tuple[float, int, _Part]], numbers: Iterator[int]) -> float:
    """Adds what is open to a heap, the lowest first; returns the least bound of what isn't."""
    leaves = np.inf
    for part in bounded:
        if part.lower > 0:
            leaves = min(leaves, part.lower)
        else:
            heapq.heappush(parts, (part.lower, next(numbers), part))
    return leaves


def _halves(part: _Part) -> list[_Part]:
    """Splits a subdomain: the neuron active, and inactive; both begin with its slopes."""
    assert part.split is not None
    node, place = part.split
    active_low = {**part.low, node: part.low[node].copy()}
    active_low[node][place] = 0.0
    inactive_high = {**part.high, node: part.high[node].copy()}
    inactive_high[node][place] = 0.0
    return [
        _Part(part.lower, active_low, part.high, part.slopes, None),
        _Part(part.lower, part.low, inactive_high, part.slopes, None),
    ]
