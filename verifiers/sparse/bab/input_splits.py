r"""Branch and bound on the inputs over one box, where few of them vary.

    the box of each open disjunct          a round: the worst open sub-boxes are halved along the input that does most
        /                  \               to their bound; all halves are bounded together (`box_bounds`), and what
   x2 <= 0.25          x2 >= 0.25          their linear bounds prove is cut off (`box_clipping`)
    /      \               |
  proved   clipped ──>   attacked at its centre and at the corner where its linear bound is least, then open

The halves share the number at which they are split, and clipping cuts off only what is proved, so that sub-boxes cover
all points of the box that aren't proved, in real arithmetic. A sub-box is proved when a row of its disjunct has a bound
above 0 there, with all rounding charged; nothing else counts. The sub-boxes of a proof aren't stored.

The estimate by which input splits are given up for ReLU splits (`promising`): each open sub-box has lost so many halves
of the box, and its bound is so much better than the box's own; at that rate it takes so many further halves until the
bound is above 0, and two to that power sub-boxes. Their sum, times the seconds that a sub-box has taken, must fit into
the time that is left; and of the sub-boxes since the last look but one a quarter at least must have been proved.
"""

from __future__ import annotations

import functools
import time

import numpy as np

from prunecert.verifiers.base import Status
from prunecert.verifiers.sparse.arrays import BoolArray, Float64Array, Int64Array
from prunecert.verifiers.sparse.bab.box_bounds import bound_boxes
from prunecert.verifiers.sparse.bab.box_clipping import KEPT, clip_boxes
from prunecert.verifiers.sparse.bab.box_program import lay_out, scratch
from prunecert.verifiers.sparse.bab.counterexamples import nearest
from prunecert.verifiers.sparse.bab.open_boxes import Boxes, OpenBoxes
from prunecert.verifiers.sparse.bab.root import Root, Standing, Task
from prunecert.verifiers.sparse.bab.row_combination import combine
from prunecert.verifiers.sparse.bab.scattered_attack import ScatteredAttack
from prunecert.verifiers.sparse.threads import divide, together

#: Most inputs that may vary for `auto` to try input splits.
FEW = 20
#: Most multiply-adds of a sub-box, for `auto`, and most numbers of forms, of all threads: as many ReLUs have symbols.
_WORK, _NUMBERS = 4e7, 2e7
#: Least ReLUs that must have symbols, or all that are unstable over the box.
_SYMBOLS = 32
#: Multiply-adds of a round; least and most sub-boxes of one; those of it that are attacked.
_ROUND, _LEAST, _MOST, _ATTACKED = 4e8, 16, 1024, 32
#: Sub-boxes after which the estimate is taken; again at each doubling.
_TRIAL = 2048
#: Part of the time that the attack on all of the box may take, and sub-boxes from whose centres it begins.
_ATTACKING, _CENTERS = 0.1, 512
#: Share of sub-boxes that must have been proved lately.
_PROVED = 0.25
#: Most halves that the estimate looks ahead.
_AHEAD = 60.0


class InputSplits:
    """Splits the inputs of one question.

    Args:
        task: The question.
        standing: What is proved; written when nothing is open, or a counterexample is there.
        root: The box.
    """

    def __init__(self, task: Task, standing: Standing, root: Root) -> None:
        self._task, self._standing, self._root = task, standing, root
        most = most_columns(task, forced=task.limits.split == "input")
        self._program = lay_out(task.checker.network, root.bounds, most)
        self._inputs = self._program.varying
        self._scratch = [scratch(self._program) for _ in range(task.checker.threads)]
        self._point = root.bounds.lower[0].copy()
        self._scattered = ScatteredAttack(task, root) if task.limits.attack_steps else None
        self._attacked, self._attack_s = 0, 0.0
        self._spans = np.array(root.disjuncts, dtype=np.int64).reshape(-1, 2)
        self._proved = np.full(len(root.open), np.inf)
        self._whole = np.full(len(root.open), -np.inf)
        self.pool = OpenBoxes(len(self._inputs))
        #: Sub-boxes bounded, those proved or cut off to nothing, rounds, and seconds that they took.
        self.domains, self.leaves, self.rounds, self.seconds = 0, 0, 0, 0.0
        self._stuck = 0
        #: Sub-boxes bounded and proved at the last look but one, and at the last.
        self._looks = ((0, 0), (0, 0))
        work = max(1, task.checker.network.nonzeros * self._scratch[0].table.shape[1])
        self._size = int(np.clip(_ROUND / work, _LEAST, _MOST))

    def run(self, pause: float = np.inf, looks: bool = False) -> bool:
        """Splits until there is an answer; returns whether there is one. A later call goes on.

        Args:
            pause: Value of `time.monotonic` at which to return without an answer; from the deadline on there is no
                pause, and the answer is a timeout then.
            looks: Whether to return earlier if the estimate says so.
        """
        begin, before, next_look = time.monotonic(), self.seconds, max(_TRIAL, 2 * self.domains)
        to_the_end = pause >= self._task.deadline
        if not self.domains:
            if self._scattered is not None and self._standing.won(self._scattered.quick(), "attack"):
                return True
            low, high = (corner[0][self._inputs] for corner in (self._root.bounds.lower, self._root.bounds.upper))
            count = len(self._root.open)
            if self._bound(np.tile(low, (count, 1)), np.tile(high, (count, 1)), np.arange(count)):
                return True
        while len(self.pool):
            if time.monotonic() > self._task.deadline:
                return self._timeout()
            # Where ReLUs are split in turns, their subdomains need room, too.
            if self.pool.megabytes > self._task.limits.memory_mb * (1.0 if to_the_end else 0.5):
                if not to_the_end:
                    return False
                out = self._standing.outcome
                out.status, out.lowest = Status.UNKNOWN, self.pool.lowest()
                out.detail = f"{len(self.pool)} open sub-boxes fill {self._task.limits.memory_mb:g} MiB"
                return True
            self.rounds += 1
            if self._bound(*halves(self.pool.worst(self._size))):
                return True
            now = time.monotonic()
            self.seconds = before + now - begin
            if self._attack_all():
                return True
            if not to_the_end and now > pause:
                return False
            if looks and not to_the_end and self.domains >= next_look:
                next_look = 2 * self.domains
                good = self.promising()
                self._looks = (self._looks[1], (self.domains, self.leaves))
                if not good:
                    return False
        return self._end(to_the_end)

    def promising(self) -> bool:
        """Whether what is open will be proved in time at the rate at which bounds have become better."""
        boxes = self.pool.open()
        width = (self._root.bounds.upper[0] - self._root.bounds.lower[0])[self._inputs]
        with np.errstate(all="ignore"):
            halved = -np.log2(np.maximum((boxes.high - boxes.low) / width, 2.0**-_AHEAD)).sum(axis=1)
            gain = (boxes.bound - self._whole[boxes.disjunct]) / halved
            ahead = np.where(gain > 0, -boxes.bound / gain, _AHEAD)
            total = float(np.exp2(np.clip(np.nan_to_num(ahead, nan=_AHEAD), 0, _AHEAD)).sum())
        domains, leaves = (now - then for now, then in zip((self.domains, self.leaves), self._looks[0], strict=True))
        fits = total * self.seconds / max(self.domains, 1) < self._task.deadline - time.monotonic()
        return fits and leaves >= _PROVED * domains

    def _bound(self, low: Float64Array, high: Float64Array, disjunct: Int64Array) -> bool:
        """Bounds, clips and attacks sub-boxes, whose corners are written, and opens the rest; returns whether `sat`."""
        count, inputs = low.shape
        spans = self._spans[disjunct]
        rows = np.diff(spans)[:, 0]
        lines = np.zeros((count, int(rows.max(initial=1)), inputs + 2))
        bounds, scores, empty = np.zeros(count), np.zeros((count, 2, inputs)), np.zeros(count, dtype=np.bool_)
        old = high - low

        def work(slot: int, begin: int, end: int) -> None:
            bound_boxes(
                self._program, self._scratch[slot], self._root.rows, self._root.offsets, spans, low, high, begin, end,
                lines, bounds, scores,
            )  # fmt: skip

        def clip(begin: int, end: int) -> None:
            clip_boxes(cuts, counts, low, high, begin, end, empty)

        parts = divide(count, min(len(self._scratch), count))
        together(len(parts), [functools.partial(work, slot, *part) for slot, part in enumerate(parts)])
        cuts, counts = (lines, rows) if lines.shape[1] == 1 else (combine(lines, rows), rows + 1)
        together(len(parts), [functools.partial(clip, *part) for part in parts])
        self.domains += count
        if not self.rounds:
            self._whole[disjunct] = bounds
        self._leave(disjunct, bounds, empty)
        left = np.flatnonzero(~(bounds > 0) & ~empty)
        if self._attack(low[left], high[left], disjunct[left], lines[left], bounds[left]):
            return True
        self._open(low[left], high[left], old[left], disjunct[left], bounds[left], scores[left].sum(axis=1))
        return False

    def _leave(self, disjunct: Int64Array, bounds: Float64Array, empty: BoolArray) -> None:
        """Counts in what is proved; in what is cut off, here or by the way, a row is above `KEPT`."""
        proved = bounds > 0
        self.leaves += int((proved | empty).sum())
        np.minimum.at(self._proved, disjunct, np.where(proved, bounds, KEPT))

    def _open(
        self,
        low: Float64Array,
        high: Float64Array,
        old: Float64Array,
        disjunct: Int64Array,
        bounds: Float64Array,
        scores: Float64Array,
    ) -> None:
        """Puts sub-boxes into the pool, with the input to split, but for those that have no number between corners."""
        width = high - low
        with np.errstate(all="ignore"):
            share = np.where(old > 0, width / old, 1.0)
        middle = 0.5 * low + 0.5 * high
        splittable = (low < middle) & (middle < high)
        # What is not a number is split like what does nothing.
        worth = np.where(splittable, np.nan_to_num(scores * share, nan=0.0, posinf=1e300), -1.0)
        # What is clipped to half or less is bounded again first.
        axis = np.where(share.prod(axis=1) < 0.5, -1, worth.argmax(axis=1))
        ended = ~splittable.any(axis=1) & (axis >= 0)
        self._stuck += int(ended.sum())
        keep = np.flatnonzero(~ended)
        self.pool.put(Boxes(low, high, disjunct, bounds, axis).take(keep))

    def _attack(
        self, low: Float64Array, high: Float64Array, disjunct: Int64Array, lines: Float64Array, bounds: Float64Array
    ) -> bool:
        """Tries centres and corners of the worst sub-boxes; returns whether one is a counterexample."""
        if not self._task.limits.attack_steps or not len(low):
            return False
        worst = np.argsort(bounds, kind="stable")[:_ATTACKED]
        low, high, lines, disjunct = low[worst], high[worst], lines[worst], disjunct[worst]
        # The row whose linear bound at the centre is largest stands in the way most.
        number = np.where(
            np.arange(lines.shape[1]) < np.diff(self._spans[disjunct]), lines[:, :, 0] - lines[:, :, -1], -np.inf
        ).argmax(axis=1)
        slopes = lines[np.arange(len(lines)), number, 1:-1]
        points = np.tile(self._point, (2 * len(low), 1))
        points[: len(low), self._inputs] = 0.5 * low + 0.5 * high
        points[len(low) :, self._inputs] = np.where(slopes > 0, low, high)
        with np.errstate(all="ignore"):
            values = self._task.checker.network.evaluate(points) @ self._root.rows.T
            values += self._root.shift - self._root.offsets
            margins = np.min([values[:, first:last].max(axis=1) for first, last in self._spans], axis=0)
        return self._standing.won(self._task.hunt.confirm(points[nearest(margins)]), "bab")

    def _attack_all(self) -> bool:
        """Attacks all of the box anew, once for each doubling of the sub-boxes; returns whether that was enough."""
        late = self._attack_s > _ATTACKING * self.seconds
        if self._scattered is None or self.domains < max(_TRIAL, 2 * self._attacked) or late or not len(self.pool):
            return False
        begin, self._attacked = time.monotonic(), self.domains
        boxes = self.pool.open()
        boxes = boxes.take(np.argsort(boxes.bound, kind="stable")[:_CENTERS])
        points = np.tile(self._point, (len(boxes), 1))
        points[:, self._inputs] = 0.5 * boxes.low + 0.5 * boxes.high
        won = self._standing.won(self._scattered.thorough(points), "bab")
        self._attack_s += time.monotonic() - begin
        return won

    def _timeout(self) -> bool:
        out = self._standing.outcome
        out.status, out.lowest = Status.TIMEOUT, self.pool.lowest()
        out.detail = f"global lower bound {out.lowest:.4g}, {len(self.pool)} sub-boxes open"
        return True

    def _end(self, to_the_end: bool) -> bool:
        """Says that nothing is open; what is stuck may still be decided by ReLU splits."""
        out = self._standing.outcome
        if self._stuck:
            if to_the_end:
                out.status, out.stuck = Status.UNKNOWN, self._stuck
                out.detail = f"{self._stuck} sub-boxes that can't be split lie within rounding of the threshold"
            return to_the_end
        self._standing.proved[self._root.open] = self._proved
        out.status, out.stage = Status.UNSAT, "bab"
        out.bounds, out.lowest = self._standing.reported(), float(self._standing.proved.min(initial=np.inf))
        return True


def halves(boxes: Boxes) -> tuple[Float64Array, Float64Array, Int64Array]:
    """Returns lower and upper corners and disjuncts of the halves, and of those that aren't to be split."""
    whole, split = boxes.take(np.flatnonzero(boxes.axis < 0)), boxes.take(np.flatnonzero(boxes.axis >= 0))
    place = np.arange(len(split)), split.axis
    middle = 0.5 * split.low[place] + 0.5 * split.high[place]
    left, right = split.high.copy(), split.low.copy()
    left[place], right[place] = middle, middle
    return (
        np.concatenate([whole.low, split.low, right]),
        np.concatenate([whole.high, left, split.high]),
        np.concatenate([whole.disjunct, split.disjunct, split.disjunct]),
    )


def most_columns(task: Task, forced: bool) -> int:
    """Returns how many columns forms may have by memory, and by time unless forced.

    Args:
        task: The question.
        forced: Whether the setting says so.
    """
    network = task.checker.network
    most = _NUMBERS / (2.0 * sum(node.size for node in network.nodes) * task.checker.threads)
    return int(most if forced else min(most, _WORK / max(network.nonzeros, 1)))


def possible(task: Task, root: Root, forced: bool) -> bool:
    """Whether inputs can be split: some vary, and forms fit into memory; unless forced, also few, and cheap ones.

    Args:
        task: The question.
        root: The box.
        forced: Whether the setting says so.
    """
    bounds = root.bounds
    inputs = int((bounds.lower[0] < bounds.upper[0]).sum())
    # Centres and radii must be finite.
    if not inputs or not all(np.isfinite(corner[0]).all() for corner in (bounds.lower, bounds.upper)):
        return False
    unstable = sum(len(bounds.unstable(node)) for node in task.checker.activated)
    if most_columns(task, forced) < 1 + inputs + min(unstable, _SYMBOLS):
        return False
    return forced or inputs <= FEW
