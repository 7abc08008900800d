"""One question to a smooth network: bounds and attack over the whole box, then branch and bound.

Every bound is rigorous (`walk`, `regions`), so that a leaf is a region whose bound is above 0, or in which no input is.
Where few inputs vary they are split, and all of the network is bounded anew over each half: such a search ends, since
bounds of small boxes are as good as one likes. Elsewhere the value of a neuron before its activation is split at a
point, ReLUs at 0; what comes after the neuron is bounded anew, and what comes before is told by multipliers, in some
steps of ascent. There is no leaf that ends such a search by itself: it splits on until a limit.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.arrays import BoolArray, Float32Array, Float64Array
from prunecert.verifiers.sparse.bab.attack import Replay
from prunecert.verifiers.sparse.bab.outcome import Limits, Outcome
from prunecert.verifiers.sparse.smooth import curves
from prunecert.verifiers.sparse.smooth.attack import SmoothAttack
from prunecert.verifiers.sparse.smooth.regions import EmptyError, find_region
from prunecert.verifiers.sparse.smooth.walk import Region, SmoothChecker, Walk, follow, walk
from prunecert.verifiers.sparse.walks import LateError

#: Inputs that may vary for them to be split.
_FEW = 20
#: Share of the time after which hidden bounds of the whole box are left to intervals.
_ROOT = 0.5
#: Width, relative to the ends, below which an interval is not split.
_NARROW = 1e-7
#: Share of the largest error of a neuron's lines that counts beside its error where the bound is lowest.
_SPREAD = 0.2
_RATE, _DECAY = 0.5, 0.9
#: Steps of an attack from where a region's bound is lowest, and every how many regions.
_STEPS, _EVERY = 3, 8
_UNIT = 2.0**-53

#: What a region is split by: an input, or a neuron of a node, and at which value.
_Split = tuple[int, int, float]


@dataclass(eq=False)
class _Part:
    """A region that is open.

    Args:
        region: What holds in it.
        cut: By node, what its splits say: bounds of the node's values.
        multipliers: By node, of the disjunct's rows.
        lower: The largest of their bounds.
        split: What to split next; node 0: an input; None: nothing is left.
        point: Where the bound is lowest.
    """

    region: Region
    cut: dict[int, tuple[Float64Array, Float64Array]] = field(default_factory=dict)
    multipliers: dict[int, Float64Array] = field(default_factory=dict)
    lower: float = -np.inf
    split: _Split | None = None
    point: Float64Array | None = None


class SmoothSearch:
    """One question to one network.

    Args:
        checker: Of the network.
        lower: Lower corner of the box, flat float32.
        upper: Upper corner.
        spec: The unsafe set.
        limits: How hard to search.
        deadline: `time.monotonic` at which to end.
        replay: The float32 network, flat x to outputs, that decides of each counterexample.
        allowance: For each disjunct, how much more than `spec` is to be proved; empty: nothing.
    """

    def __init__(
        self,
        checker: SmoothChecker,
        lower: Float32Array,
        upper: Float32Array,
        spec: OutputSpec,
        limits: Limits,
        deadline: float,
        replay: Replay,
        allowance: tuple[float, ...] = (),
    ) -> None:
        self._checker, self._spec, self._limits, self._deadline = checker, spec, limits, deadline
        self._low, self._high = (corner.reshape(-1).astype(np.float64) for corner in (lower, upper))
        self._allowance = allowance or (0.0,) * len(spec.disjuncts)
        self._attack = SmoothAttack(checker, lower.reshape(-1), upper.reshape(-1), spec, replay)
        self._out = Outcome()
        self._bounds = [-np.inf] * len(spec.disjuncts)
        few = int((self._low < self._high).sum()) <= _FEW
        self._by: Literal["input", "neuron"] = (
            "input" if limits.split == "input" or (limits.split == "auto" and few) else "neuron"
        )

    def run(self) -> Outcome:
        """Answers the question."""
        begin, out = time.monotonic(), self._out
        try:
            root = self._root(begin)
            out.bound_s = time.monotonic() - begin
            if root is not None and self._limits.splits:
                self._split_all(root)
        except LateError:
            out.status = Status.TIMEOUT
            out.detail = f"out of time with {len(self._open())} of {len(self._bounds)} disjuncts open"
        out.bound_s = out.bound_s or time.monotonic() - begin
        out.search_s = time.monotonic() - begin - out.bound_s
        if out.status is not Status.SAT:
            # What was proved of the larger unsafe set holds of the set itself with that margin; the sum rounds.
            pairs = zip(self._bounds, self._allowance, strict=True)
            out.bounds = tuple(math.nextafter(bound + more, -math.inf) if more else bound for bound, more in pairs)
        return out

    def _open(self) -> list[int]:
        return [disjunct for disjunct, bound in enumerate(self._bounds) if not bound > 0]

    def _root(self, begin: float) -> Region | None:
        """Bounds and attacks the whole box; returns what holds there if there is something left to prove."""
        out, limits = self._out, self._limits
        if not self._spec.disjuncts or any(not len(b) for _, b in self._spec.disjuncts):
            # No disjunct is met by no output, one without rows by every output: nothing is claimed of either.
            out.detail = "the property has no rows to be bounded"
            return None
        everything = np.arange(len(self._bounds))
        if limits.attack_steps and limits.splits:
            point = self._attack.from_center(everything, 0, 2, limits.seed, self._deadline)
            if self._won(point, "attack"):
                return None
        until = begin + _ROOT * (self._deadline - begin)
        region = find_region(self._checker, self._low, self._high, deadline=self._deadline, walks_until=until)
        out.unstable = _unstable(self._checker, region)
        for disjunct in everything:
            part = _Part(region)
            self._bound(part, int(disjunct), 0)
            self._bounds[disjunct] = part.lower
        out.lowest = min(self._bounds)
        if out.lowest > 0:
            out.status, out.stage = Status.UNSAT, "incomplete"
            return None
        if limits.attack_steps and limits.splits:
            still = np.array(self._open())
            point = self._attack.from_center(
                still, limits.attack_points, limits.attack_steps, limits.seed, self._deadline
            )
            if self._won(point, "attack"):
                return None
        if not limits.splits:
            out.detail = f"lowest bound {out.lowest:.4g}, {len(self._open())} disjuncts open"
        return region

    def _won(self, point: Float32Array | None, stage: str) -> bool:
        if point is None:
            return False
        out = self._out
        out.status, out.witness, out.stage, out.bounds, out.detail = Status.SAT, point, stage, None, ""
        return True

    def _rows(self, disjunct: int) -> tuple[Float64Array, Float64Array]:
        a, b = self._spec.disjuncts[disjunct]
        offsets, more = np.asarray(b, dtype=np.float64), self._allowance[disjunct]
        if more:
            offsets = offsets + more + 4 * _UNIT * (np.abs(offsets) + more)
        return np.atleast_2d(np.asarray(a, dtype=np.float64)), -offsets

    def _bound(self, part: _Part, disjunct: int, steps: int) -> None:
        """Bounds a region, in so many steps of the multipliers, and says where it is lowest and what to split."""
        rows, constant = self._rows(disjunct)
        checker, region = self._checker, part.region
        low, high = region.bounds.lower[0], region.bounds.upper[0]
        v = {
            node: part.multipliers.get(node, np.zeros((len(rows), checker.network.nodes[node].size)))
            for node in part.cut
        }
        best = walk(checker, checker.last, rows, constant, region, v)
        kept, current, rate = v, best, _RATE
        for _ in range(steps if v else 0):
            if best.lower.max() > 0 or time.monotonic() > self._deadline:
                break
            v = self._climbed(part, current, v, rate)
            rate *= _DECAY
            current = walk(checker, checker.last, rows, constant, region, v)
            better = current.lower > best.lower
            kept = {node: np.where(better[:, None], v[node], kept[node]) for node in v}
            if better.any():
                best = _merged(best, current, better)
        part.multipliers, part.lower = kept, float(best.lower.max())
        if not part.lower > 0:
            row = int(best.lower.argmax())
            alone = Walk(best.lower[row : row + 1], best.inputs[row : row + 1],
                         {node: c[row : row + 1] for node, c in best.coefficients.items()})  # fmt: skip
            point = np.where(alone.inputs > 0, low, high)
            part.point = point[0]
            part.split = self._choose(part, alone, point)

    def _climbed(self, part: _Part, current: Walk, v: dict[int, Float64Array], rate: float) -> dict[int, Float64Array]:
        """Returns multipliers after a step along the gradient, which is by how far a value is beyond its bounds."""
        bounds = part.region.bounds
        points = np.where(current.inputs > 0, bounds.lower[0], bounds.upper[0])
        values = follow(self._checker, part.region, current, points)
        moved = {}
        for node, old in v.items():
            moved[node] = old
            if node not in values:
                continue
            z, low, high = values[node], bounds.lower[node], bounds.upper[node]
            beyond = np.maximum(z - high, 0.0) + np.minimum(z - low, 0.0)
            rise = np.where(old > 0, z - high, np.where(old < 0, z - low, beyond))
            near = np.clip(rise / np.maximum(high - low, 1e-12), -1.0, 1.0)
            lam = np.abs(current.coefficients[node])
            scale = np.maximum(lam, 0.1 * lam.mean(axis=1, keepdims=True))
            cut_low, cut_high = part.cut[node]
            new = old + rate * scale * near
            # Only splits have multipliers, and a step does not go through 0.
            split = np.isfinite(cut_low) | np.isfinite(cut_high)
            moved[node] = np.where(split & np.isfinite(new), np.where(new * old < 0, 0.0, new), 0.0)
        return moved

    def _choose(self, part: _Part, current: Walk, points: Float64Array) -> _Split | None:
        bounds = part.region.bounds
        if self._by == "input":
            low, high = bounds.lower[0], bounds.upper[0]
            slope = np.abs(current.inputs[0])
            scores = np.where(_wide(low, high), (slope + _SPREAD * slope.mean()) * (high - low), -1.0)
            place = int(scores.argmax())
            return (0, place, 0.5 * low[place] + 0.5 * high[place]) if scores[place] >= 0 else None
        values = follow(self._checker, part.region, current, points)
        best, split = 0.0, None
        for node, z in values.items():
            curve, lam = self._checker.smooth.curves[node], current.coefficients[node][0]
            low, high = bounds.lower[node], bounds.upper[node]
            lines = part.region.lines[node]
            inner = np.clip(z[0], low, high)
            with np.errstate(all="ignore"):
                slope = np.where(lam > 0, lines.lower_slope, lines.upper_slope)
                shift = np.where(lam > 0, lines.lower_shift, lines.upper_shift)
                wrong = np.abs(slope * inner + shift - curves.value(curve, inner))
                middle = 0.5 * low + 0.5 * high
                spread = (lines.upper_slope - lines.lower_slope) * middle + lines.upper_shift - lines.lower_shift
                scores = np.abs(lam) * (wrong + _SPREAD * np.abs(spread))
            free = (low < 0) & (high > 0) if curve == "Relu" else np.isfinite(low) & np.isfinite(high)
            scores = np.where(free & _wide(low, high) & np.isfinite(scores), scores, 0.0)
            place = int(scores.argmax())
            if scores[place] > best:
                best, split = float(scores[place]), (node, place, _cut(curve, low[place], high[place], inner[place]))
        return split

    def _split_all(self, root: Region) -> None:
        """Splits until every disjunct is proved, one is broken, or a limit is reached."""
        if self._out.status is Status.SAT:
            return
        # The one that is nearest to its end first: what is found on the way breaks any.
        for disjunct in sorted(self._open(), key=lambda item: -self._bounds[item]):
            if not self._split(root, disjunct):
                return
        self._out.status, self._out.stage = Status.UNSAT, "bab"

    def _split(self, root: Region, disjunct: int) -> bool:
        """Splits for one disjunct; returns whether it is proved now."""
        out, limits, leaves = self._out, self._limits, np.inf
        out.inputs = self._by == "input"
        # Multipliers tell of splits of neurons.
        steps = limits.steps if self._by == "neuron" else 0
        each = 8.0 * (7 + len(self._rows(disjunct)[1])) * sum(node.size for node in self._checker.network.nodes)
        room = max(1, int(limits.memory_mb * 2**20 / each))
        whole = _Part(root)
        self._bound(whole, disjunct, 0)
        numbers = itertools.count()
        parts = [(whole.lower, next(numbers), whole)]
        while parts:
            if time.monotonic() > self._deadline:
                raise LateError
            if len(parts) > room:
                out.detail = f"{len(parts)} open regions need more than {limits.memory_mb:g} MiB"
                return False
            _, _, part = heapq.heappop(parts)
            if part.split is None:
                out.detail = f"lowest bound {part.lower:.4g} where nothing is left to be split"
                return False
            if limits.attack_steps and out.rounds % _EVERY == 0 and part.point is not None:
                point = self._attack.descend(part.point[None], np.array([disjunct]), _STEPS, self._deadline)
                if self._won(point, "bab"):
                    return False
            out.rounds += 1
            for child in self._halves(part):
                out.domains += 1
                if child is None:
                    continue
                self._bound(child, disjunct, steps)
                if child.lower > 0:
                    leaves = min(leaves, child.lower)
                else:
                    heapq.heappush(parts, (child.lower, next(numbers), child))
        # Where all regions are empty there is no input, which a box has.
        self._bounds[disjunct] = leaves if np.isfinite(leaves) else -np.inf
        return bool(np.isfinite(leaves))

    def _halves(self, part: _Part) -> list[_Part | None]:
        """Bounds both parts of a region; None for one that is empty."""
        assert part.split is not None
        node, place, value = part.split
        halves: list[_Part | None] = []
        for upper in (False, True):
            low, high, cut = part.region.bounds.lower[0], part.region.bounds.upper[0], dict(part.cut)
            if node == 0:
                low, high = low.copy(), high.copy()
                (low if upper else high)[place] = value
            else:
                size = self._checker.network.nodes[node].size
                ends = cut.get(node, (np.full(size, -np.inf), np.full(size, np.inf)))
                cut[node] = ends[0].copy(), ends[1].copy()
                cut[node][0 if upper else 1][place] = value
            try:
                region = find_region(
                    self._checker, low, high, around=part.region, cut={node: cut[node]} if node else cut,
                    deadline=self._deadline,
                )  # fmt: skip
            except EmptyError:
                halves.append(None)
                continue
            halves.append(_Part(region, cut, part.multipliers))
        return halves


def _wide(low: Float64Array, high: Float64Array) -> BoolArray:
    wide: BoolArray = high - low > _NARROW * (1.0 + np.abs(low) + np.abs(high))
    return wide


def _cut(curve: curves.Curve, low: float, high: float, z: float) -> float:
    """Returns where to split: a ReLU at 0, others near to where the bound is lowest, if that is not too near an end."""
    if curve == "Relu":
        return 0.0
    return float(np.clip(z, 0.75 * low + 0.25 * high, 0.25 * low + 0.75 * high))


def _unstable(checker: SmoothChecker, region: Region) -> int:
    """Returns how many ReLUs are unstable."""
    relus = [node for node, curve in checker.smooth.curves.items() if curve == "Relu"]
    return sum(len(region.bounds.unstable(node)) for node in relus)


def _merged(first: Walk, second: Walk, better: BoolArray) -> Walk:
    """Returns the second walk's rows where it is better."""
    column = better[:, None]
    return Walk(
        np.where(better, second.lower, first.lower),
        np.where(column, second.inputs, first.inputs),
        {node: np.where(column, second.coefficients[node], c) for node, c in first.coefficients.items()},
    )
