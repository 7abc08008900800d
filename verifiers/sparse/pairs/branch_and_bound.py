"""Branch and bound over a pair: one tree whose splits are shared by both networks.

A part of the box is told by signs of ReLUs in either network. Each part's values and differences are carried through
the layers anew, with these signs; it is done with when nothing is left of it, when a walk bounds one of a disjunct's
rows above 0, or when the linear programme says so. Else it is split at the neuron whose triangles the programme misses
most, in all networks in which that neuron is unstable: a difference that is small leaves two of the four quadrants
empty. A part without unstable ReLUs is decided by its programme, but for rounding.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from prunecert.verifiers.base import Status
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array
from prunecert.verifiers.sparse.pairs.bounds import PairBounds, bound_rows
from prunecert.verifiers.sparse.pairs.programme import Programme
from prunecert.verifiers.sparse.pairs.ranges import FIRST, SECOND, PairRanges, affine
from prunecert.verifiers.sparse.pairs.specification import Candidates

#: Returns the first of points [n, inputs] that is a counterexample, as the original files see it, or None.
Confirm = Callable[[Float64Array], Float32Array | None]


class Sign(NamedTuple):
    """A split: a neuron of one of the networks is active, or it is not."""

    node: int
    neuron: int
    network: int
    active: bool


@dataclass(frozen=True, eq=False)
class Disjunct:
    """What is to be excluded: rows @ [y, y'] <= offsets, all at once.

    Args:
        rows: [rows, 2 outputs].
        offsets: [rows], what is to be proved beyond the property included.
        candidates: Rows that a walk tries.
    """

    rows: Float64Array
    offsets: Float64Array
    candidates: Candidates


@dataclass(eq=False)
class PairOutcome:
    """What a search over a pair has come to.

    Args:
        status: `unsat`, `sat`, `unknown` or `timeout`.
        witness: Flat float32 counterexample.
        detail: Why nothing was decided.
        domains: Parts of the box that were bounded.
        programmes: Linear programmes that were solved.
        leaves: Parts that were proved.
    """

    status: Status = Status.UNKNOWN
    witness: Float32Array | None = None
    detail: str = ""
    domains: int = 0
    programmes: int = 0
    leaves: int = 0


@dataclass(order=True)
class _Part:
    """A part of the box that is still open; the one that looks worst comes first."""

    least: float
    number: int
    signs: tuple[Sign, ...] = field(compare=False)
    ranges: list[PairRanges] = field(compare=False)


class PairTree:
    """Splits one box for one disjunct at a time.

    Args:
        bounds: Of the whole box.
        confirm: Judges counterexamples.
        deadline: `time.monotonic` at which to end.
        most: Parts after which a disjunct is left open.
    """

    def __init__(self, bounds: PairBounds, confirm: Confirm, deadline: float, most: int = 20_000) -> None:
        self._bounds, self._confirm = bounds, confirm
        self._pair = bounds.walker.pair
        self._deadline, self._most = deadline, most
        self.outcome = PairOutcome()

    def run(self, disjuncts: Sequence[Disjunct]) -> PairOutcome:
        """Tries to exclude each of the disjuncts.

        Args:
            disjuncts: All that are open.
        """
        out = self.outcome
        open_ = 0
        for disjunct in disjuncts:
            status = self._exclude(disjunct)
            if status in (Status.SAT, Status.TIMEOUT):
                out.status = status
                return out
            open_ += status is not Status.UNSAT
        out.status = Status.UNKNOWN if open_ else Status.UNSAT
        if open_:
            out.detail = f"{open_} disjuncts are within rounding of the threshold, or take more than {self._most} parts"
        return out

    def _exclude(self, disjunct: Disjunct) -> Status:
        """Excludes one disjunct over the whole box."""
        numbers = itertools.count()
        heap = [_Part(-np.inf, next(numbers), (), self._bounds.ranges)]
        stuck, begin = False, self.outcome.domains
        while heap:
            if time.monotonic() > self._deadline:
                self.outcome.detail = f"{len(heap)} parts of the box are open"
                return Status.TIMEOUT
            if self.outcome.domains - begin > self._most:
                return Status.UNKNOWN
            part = heapq.heappop(heap)
            seconds = max(self._deadline - time.monotonic(), 0.01)
            answer = Programme(self._pair, part.ranges).solve(disjunct.rows, disjunct.offsets, seconds)
            self.outcome.programmes += 1
            if answer.proved:
                self.outcome.leaves += 1
                continue
            if answer.point is not None and self._won(answer.point[None]):
                return Status.SAT
            split = _widest(answer.gaps, part.ranges, self._pair.activated)
            if split is None:
                # The programme was exact: its threshold is met, or missed by less than rounding.
                stuck = True
                continue
            children = _children(part.signs, split, part.ranges)
            least, ranges, corners = self._bound(children, disjunct.candidates)
            if self._won(corners):
                return Status.SAT
            for place, signs in enumerate(children):
                if least[place] > 0:
                    self.outcome.leaves += 1
                else:
                    own = [node_ranges.columns(np.array([place])) for node_ranges in ranges]
                    heapq.heappush(heap, _Part(float(least[place]), next(numbers), signs, own))
        return Status.UNKNOWN if stuck else Status.UNSAT

    def _won(self, points: Float64Array) -> bool:
        witness = self._confirm(points)
        if witness is not None:
            self.outcome.witness = witness
        return witness is not None

    def _bound(
        self, children: Sequence[tuple[Sign, ...]], rows: Candidates
    ) -> tuple[Float64Array, list[PairRanges], Float64Array]:
        """Bounds parts by intervals and walks.

        Returns:
            For each the best bound of a row, infinite if nothing is left of it; their ranges; points to try.
        """
        self.outcome.domains += len(children)
        ranges, empty = propagated(self._bounds, children)
        count = len(rows.constant)
        each = np.repeat(np.arange(len(children)), count)
        spread = [node_ranges.columns(each) for node_ranges in ranges]
        tiled = Candidates(
            np.tile(rows.value, len(children)),
            np.tile(rows.change, len(children)),
            np.tile(rows.constant, len(children)),
            np.tile(rows.error, len(children)),
            np.tile(rows.disjunct, len(children)),
        )
        lower, walk = bound_rows(self._bounds, tiled, spread, ("mixed",))
        best = lower.reshape(len(children), count)
        corners = walk.corners(self._bounds.ranges[0]).reshape(len(children), count, -1)
        chosen = corners[np.arange(len(children)), best.argmax(axis=1)]
        return np.where(empty, np.inf, best.max(axis=1)), ranges, chosen


def propagated(bounds: PairBounds, parts: Sequence[tuple[Sign, ...]]) -> tuple[list[PairRanges], Float64Array]:
    """Carries values and differences through the layers for parts of a box.

    Args:
        bounds: Of the whole box.
        parts: Their signs.

    Returns:
        Ranges of all nodes, a box for each part; and which of them are empty, [parts].
    """
    pair = bounds.walker.pair
    count = len(parts)
    box = bounds.ranges[0]
    ranges = [PairRanges(np.repeat(box.lower, count, axis=2), np.repeat(box.upper, count, axis=2))]
    empty = np.zeros(count, dtype=bool)
    places: dict[int, list[tuple[int, Sign]]] = {}
    for place, signs in enumerate(parts):
        for sign in signs:
            places.setdefault(sign.node, []).append((place, sign))
    for node in range(1, pair.last + 1):
        node_ranges = affine(pair, node, ranges).meet(bounds.ranges[node])
        for place, sign in places.get(node, ()):
            at = sign.network, sign.neuron, place
            if sign.active:
                node_ranges.lower[at] = max(node_ranges.lower[at], 0.0)
            else:
                node_ranges.upper[at] = min(node_ranges.upper[at], 0.0)
        node_ranges = node_ranges.narrowed()
        gone = node_ranges.empty()
        empty |= gone
        # What is empty is proved; the numbers that stand for it only have to be in order.
        upper = np.where(gone, np.maximum(node_ranges.lower, node_ranges.upper), node_ranges.upper)
        ranges.append(PairRanges(node_ranges.lower, upper))
    return ranges, empty


def _widest(
    gaps: dict[int, Float64Array], ranges: Sequence[PairRanges], activated: Sequence[int]
) -> tuple[int, int] | None:
    """Returns the neuron to split, or None if every ReLU is stable."""
    best, chosen = -1.0, None
    for node in activated:
        low, high = ranges[node].lower[:, :, 0], ranges[node].upper[:, :, 0]
        free = ranges[node].unstable()[:, :, 0]
        # Where the programme misses nothing, or gave no answer, the widest triangle.
        area = np.where(free, np.minimum(high, -low)[: SECOND + 1], 0.0)
        score = (gaps[node] if node in gaps else np.zeros_like(area)) * 1e6 + np.minimum(area, 1e3) * 1e-6
        total = np.where(free, score, 0.0).sum(axis=0) + np.where(free.any(axis=0), 0.0, -2.0)
        neuron = int(total.argmax())
        if total[neuron] > best:
            best, chosen = float(total[neuron]), (node, neuron)
    return chosen


def _children(signs: tuple[Sign, ...], split: tuple[int, int], ranges: Sequence[PairRanges]) -> list[tuple[Sign, ...]]:
    """Returns the parts that a part falls into: by the neuron's sign in every network where it is unstable."""
    node, neuron = split
    free = ranges[node].unstable()[:, neuron, 0]
    networks = [network for network in (FIRST, SECOND) if free[network]]
    return [
        (*signs, *(Sign(node, neuron, network, active) for network, active in zip(networks, pattern, strict=True)))
        for pattern in itertools.product((True, False), repeat=len(networks))
    ]
