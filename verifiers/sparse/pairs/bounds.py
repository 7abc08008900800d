"""Bounds of a pair over one box: both networks' by CROWN, their differences by intervals and walks together.

values of each network     CROWN (`crown.engine`), neuron by neuron
differences                intervals, then walks for the neurons that are unstable in one of the networks
rows of the question       walks by all three choices of slopes, the best of which counts
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array
from prunecert.verifiers.sparse.crown.engine import CrownBounds, Engine, Question
from prunecert.verifiers.sparse.pairs.network import Pair
from prunecert.verifiers.sparse.pairs.ranges import CHANGE, FIRST, SECOND, PairRanges, affine, of_box
from prunecert.verifiers.sparse.pairs.relaxation import Choice
from prunecert.verifiers.sparse.pairs.specification import Candidates
from prunecert.verifiers.sparse.pairs.walk import PairWalker, Walked

#: Rows that are walked back together.
_TOGETHER = 256
CHOICES: tuple[Choice, ...] = ("apart", "together", "mixed")


@dataclass(frozen=True, eq=False)
class PairBounds:
    """Of all nodes of a pair over a box.

    Args:
        ranges: For each node; of one box.
        walker: For more rows over the box, or parts of it.
    """

    ranges: list[PairRanges]
    walker: PairWalker

    def unstable(self) -> tuple[int, int]:
        """Returns how many ReLUs are unstable in the first network, and in the second."""
        counts = sum(self.ranges[node].unstable().sum(axis=(1, 2)) for node in self.walker.pair.activated)
        first, second = np.asarray(counts, dtype=np.int64) if len(self.walker.pair.activated) else (0, 0)
        return int(first), int(second)


class Bounder:
    """Bounds boxes of one pair.

    Args:
        pair: The networks.
        engines: CROWN of the first and of the second, for `bound`.
        walks: Whether differences of hidden neurons are bounded by walks, too.
    """

    def __init__(self, pair: Pair, engines: tuple[Engine, ...] = (), walks: bool = True) -> None:
        self.pair, self._engines, self._walks = pair, engines, walks
        #: Places of an image in each node; 1 where it is none.
        self._places = [int(np.prod(node.shape[1:])) for node in pair.first.nodes]

    def bound(self, lower: Float64Array, upper: Float64Array) -> PairBounds:
        """Bounds all nodes over a box.

        Args:
            lower: Lower corner, flat float64.
            upper: Upper corner.
        """
        row = np.eye(1, self.pair.outputs), np.zeros(1)
        first, second = (engine.bound(Question(lower, upper, *row)) for engine in self._engines)
        return self.with_own(lower, upper, first, second)

    def with_own(self, lower: Float64Array, upper: Float64Array, first: CrownBounds, second: CrownBounds) -> PairBounds:
        """Bounds all nodes over a box from each network's own bounds, which hold in real arithmetic."""
        return self.from_input(of_box(lower, upper), first, second)

    def from_input(self, entry: PairRanges, first: CrownBounds, second: CrownBounds) -> PairBounds:
        """Bounds all nodes from the inputs' ranges, of one box, and each network's own bounds over them."""
        ranges = [entry]
        walker = PairWalker(self.pair, ranges)
        for node in range(1, self.pair.last + 1):
            node_ranges = affine(self.pair, node, ranges)
            own = [(node_ranges.lower[place], node_ranges.upper[place]) for place in (FIRST, SECOND)]
            for place, bounds in ((FIRST, first), (SECOND, second)):
                if node in bounds.lower:
                    own[place] = bounds.lower[node][:, None], bounds.upper[node][:, None]
            everywhere = np.full_like(node_ranges.lower[CHANGE], np.inf)
            crown = PairRanges(
                np.stack([own[FIRST][0], own[SECOND][0], -everywhere]),
                np.stack([own[FIRST][1], own[SECOND][1], everywhere]),
            )
            node_ranges = node_ranges.meet(crown).narrowed()
            ranges.append(node_ranges)
            if self._walks and node in self.pair.activated:
                ranges[node] = self._tightened(walker, node, ranges)
            walker.add(node, ranges)
        return PairBounds(ranges, walker)

    def _tightened(self, walker: PairWalker, node: int, ranges: list[PairRanges]) -> PairRanges:
        """Bounds the differences that matter by walks: of neurons that aren't stable in both networks."""
        node_ranges = ranges[node]
        differ = node_ranges.lower[CHANGE, :, 0] < node_ranges.upper[CHANGE, :, 0]
        neurons = np.flatnonzero(node_ranges.unstable().any(axis=(0, 2)) & differ)
        # Those of one place of an image side by side, since they see the same pixels.
        neurons = neurons[np.argsort(neurons % self._places[node], kind="stable")]
        # The walk starts at this node, whose own weights are charged, too.
        walker = walker.copy()
        walker.add(node, ranges)
        lower, upper = node_ranges.lower.copy(), node_ranges.upper.copy()
        for begin in range(0, len(neurons), _TOGETHER // 2):
            some = np.sort(neurons[begin : begin + _TOGETHER // 2])
            change = np.hstack([np.eye(len(some)), -np.eye(len(some))])
            least = walker.lower(node, np.zeros_like(change), change, ranges, index=some).lower
            lower[CHANGE, some, 0] = np.maximum(lower[CHANGE, some, 0], least[: len(some)])
            upper[CHANGE, some, 0] = np.minimum(upper[CHANGE, some, 0], -least[len(some) :])
        return PairRanges(lower, upper).narrowed()


def bound_rows(
    bounds: PairBounds,
    rows: Candidates,
    ranges: Sequence[PairRanges] | None = None,
    choices: Sequence[Choice] = CHOICES,
) -> tuple[Float64Array, Walked]:
    """Bounds rows of a question from below.

    Args:
        bounds: Over the whole box.
        rows: The rows.
        ranges: Of a box for each row, within the whole one; None: the whole box for all.
        choices: Of slopes; the best counts.

    Returns:
        Lower bounds [rows], and the walk of the last choice; over the whole box, rows that are equal are walked once.
    """
    if ranges is None:
        # Disjuncts about classes share nearly all of their rows.
        columns = np.vstack([rows.value, rows.change, rows.error, rows.constant])
        _, chosen, place = np.unique(columns, axis=1, return_index=True, return_inverse=True)
        rows = Candidates(
            rows.value[:, chosen], rows.change[:, chosen], rows.constant[chosen], rows.error[:, chosen],
            rows.disjunct[chosen],
        )  # fmt: skip
        lower, walk = bound_rows(bounds, rows, bounds.ranges, choices)
        return lower[place.reshape(-1)], walk
    pair, whole = bounds.walker.pair, bounds.ranges
    reach = np.maximum(np.abs(whole[-1].lower[FIRST]), np.abs(whole[-1].upper[FIRST])).max(axis=1)
    constant = rows.constant - 1.01 * (rows.error.T @ reach)
    walks = [bounds.walker.lower(pair.last, rows.value, rows.change, ranges, choice, constant) for choice in choices]
    return np.max([walk.lower for walk in walks], axis=0), walks[-1]


def best_of(rows: Candidates, lower: Float64Array, disjuncts: int) -> tuple[Float64Array, Int64Array]:
    """Returns each disjunct's best bound, and the row that has it; -inf and -1 where there is no row."""
    best, place = np.full(disjuncts, -np.inf), np.full(disjuncts, -1, dtype=np.int64)
    for row in np.argsort(lower, kind="stable"):
        best[rows.disjunct[row]], place[rows.disjunct[row]] = lower[row], row
    return best, place
