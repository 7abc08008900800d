"""Drives the compiled passes over one network: what is kept for each thread, and where threads share the work.

    level by level, upwards:
        intervals     input ──> level 1 ──> level 2 ──> … ──> outputs         every row of the level
        walks (CROWN) input <── level 1 <── level 2's unstable rows           in blocks, which threads may share
        relaxed       level 2 joins the walks of the levels above
    at the end:
        specification input <── level 1 <── level 2 <── … <── outputs <── its rows

IBP takes the first of these alone, CROWN-IBP the first and the last.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from prunecert.verifiers.sparse.arrays import LANES32, Float64Array, Int64Array
from prunecert.verifiers.sparse.crown.program import lay_out
from prunecert.verifiers.sparse.crown.rows import walk as row_walk
from prunecert.verifiers.sparse.crown.rows.layout import RowState, lay_flat, make_state
from prunecert.verifiers.sparse.crown.scratch import Scratch, make_scratch
from prunecert.verifiers.sparse.crown.units import intervals
from prunecert.verifiers.sparse.crown.units.blocks import LEAST_DENSITY, find_blocks
from prunecert.verifiers.sparse.crown.units.matrix import finish_level
from prunecert.verifiers.sparse.crown.units.state import UnitImage, make_image
from prunecert.verifiers.sparse.crown.units.walk import advance, bound_rows, bound_specification
from prunecert.verifiers.sparse.network import Network

#: Corners of the box, rows of the specification and what is subtracted from them; contiguous float64.
QuestionArrays = tuple[Float64Array, Float64Array, Float64Array, Float64Array]

#: Blocks that a thread takes at once, while there are many.
_BLOCKS = 8
#: What is left to one thread, in the measures of `walk.advance` and `rows.walk.advance`: about 0.4 ms, several times
#: what handing over to another one takes.
_MOST_COLUMNS, _MOST_PRODUCTS = 400_000, 300_000


class Pass(ABC):
    """Bounds images of one network; a slot is what one thread works in.

    Args:
        threads: How many there are.
        each: Calls a function with each slot, one a thread, and waits.
        most: Work of a level that is left to one thread; None for what is worth handing over.
    """

    def __init__(self, threads: int, each: Callable[[Callable[[int], None]], None], most: int | None = None) -> None:
        self._threads, self._each, self._most = threads, each, most

    def _left_to_one(self, parallel: bool, worthwhile: int) -> int:
        """Returns the work of a level that threads do not share."""
        if not parallel:
            return int(np.iinfo(np.int64).max)
        return worthwhile if self._most is None else self._most

    @abstractmethod
    def reserve(self, slots: int) -> None:
        """Makes slots before threads use them."""

    @abstractmethod
    def bound(
        self, slot: int, question: QuestionArrays, tighten: bool, walk: bool, intersect: bool, parallel: bool
    ) -> tuple[Float64Array, int]:
        """Bounds an image.

        Args:
            slot: Where; with `parallel`, all are used.
            question: Corners of the box, rows and offsets.
            tighten: Whether unstable rows are bounded by walks.
            walk: Whether the specification's rows are.
            intersect: Whether the better of walks and intervals counts.
            parallel: Whether threads may share the walks of a level.

        Returns:
            Lower bounds of the specification's rows, NaN where there are none, and the number of unstable ReLUs.
        """

    @abstractmethod
    def hidden(self, slot: int, node: int) -> tuple[Float64Array, Float64Array]:
        """Returns lower and upper bounds of a node's values for the slot's last image, in the file's order."""

    @abstractmethod
    def multiplications(self) -> int:
        """Returns the products of a weight and a coefficient that were taken since the start."""

    def _share(self, work: Callable[[int, int, int], None], begin: int, count: int, half: int) -> None:
        """Calls work(slot, begin, end) for spans of blocks of `half` rows, by all threads."""
        blocks = -(-(count - begin) // half)
        step = half * max(1, min(_BLOCKS, blocks // (4 * self._threads)))
        starts = itertools.count(begin, step)

        def one(slot: int) -> None:
            while (at := next(starts)) < count:
                work(slot, at, min(at + step, count))

        self._each(one)


class RowPass(Pass):
    """Over the flat layout, which prepares nothing for an image but the rows that a walk passes."""

    def __init__(
        self,
        network: Network,
        threads: int,
        each: Callable[[Callable[[int], None]], None],
        most: int | None = None,
    ) -> None:
        super().__init__(threads, each, most)
        self._layout, self._taps = lay_flat(network)
        self._program = self._layout.program
        self._sizes = [node.size for node in network.nodes]
        self._states: list[RowState] = []
        self._scratches: list[Scratch] = []

    def reserve(self, slots: int) -> None:
        """Makes slots before threads use them."""
        while len(self._states) < slots:
            self._states.append(make_state(self._program, self._taps))
        self._help(slots)

    def _help(self, slots: int) -> None:
        """Makes what slots need that walk for another one's image."""
        variables = len(self._program.level)
        while len(self._scratches) < slots:
            self._scratches.append(make_scratch(variables, variables, True))

    def bound(
        self, slot: int, question: QuestionArrays, tighten: bool, walk: bool, intersect: bool, parallel: bool
    ) -> tuple[Float64Array, int]:
        """Bounds an image, see `Pass`."""
        self.reserve(slot + 1)
        program, taps, state, scratch = self._program, self._taps, self._states[slot], self._scratches[slot]
        low, high, matrix, offsets = question
        levels, most = len(program.kinds), self._left_to_one(parallel, _MOST_PRODUCTS)
        bounds = np.empty(len(offsets))
        level = row_walk.bound_image(
            program, taps, state, scratch, low, high, matrix, offsets, tighten, walk, intersect, most, bounds
        )
        if level == levels:
            return bounds, int(state.counts[3])
        self._help(self._threads)

        def rows(slot: int, begin: int, end: int) -> None:
            row_walk.bound_rows(program, taps, state, self._scratches[slot], level, begin, end, intersect)

        while level < levels:
            row_walk.build_all(program, taps, state, scratch, level)
            self._share(rows, int(state.counts[2]), int(state.counts[1]), LANES32)
            row_walk.close_level(program, taps, state, level)
            level = row_walk.advance(program, taps, state, scratch, low, high, level + 1, tighten, intersect, most)
        row_walk.bound_specification(program, taps, state, scratch, matrix, offsets, walk, intersect, bounds)
        return bounds, int(state.counts[3])

    def hidden(self, slot: int, node: int) -> tuple[Float64Array, Float64Array]:
        """Returns a node's bounds, see `Pass`."""
        first, state = self._layout.values[node], self._states[slot]
        span = slice(first, first + self._sizes[node])
        return state.lower[span].copy(), state.upper[span].copy()

    def multiplications(self) -> int:
        """Returns the products since the start."""
        return sum(int(scratch.work[0]) for scratch in self._scratches) * LANES32


class UnitPass(Pass):
    """Over the layout in units, with a walk matrix for each image where something is walked back."""

    def __init__(
        self,
        network: Network,
        threads: int,
        each: Callable[[Callable[[int], None]], None],
        most: int | None = None,
        least_density: float = LEAST_DENSITY,
    ) -> None:
        super().__init__(threads, each, most)
        self._layout = lay_out(network)
        self._program = self._layout.program
        self._blocks = find_blocks(self._program, least_density)
        self._weights = 2 * len(self._program.columns) + 16
        self._images: list[UnitImage] = []
        self._scratches: list[Scratch] = []
        self._buffers: list[Int64Array] = []
        self._merged: list[Float64Array] = []

    @property
    def block_share(self) -> float:
        """Share of the entries of all matrices that blocks hold."""
        program = self._program
        counts = program.pointers[program.starts[1:]] - program.pointers[program.starts[:-1]]
        return float(counts @ self._blocks.blocked / max(1, len(program.columns)))

    def reserve(self, slots: int) -> None:
        """Makes slots before threads use them."""
        program = self._program
        while len(self._images) < slots:
            self._images.append(make_image(program, self._weights))
            self._buffers.append(np.empty(int(np.diff(program.starts).max()), dtype=np.int64))
            self._merged.append(np.zeros(len(program.level)))
        self._help(slots)

    def _help(self, slots: int) -> None:
        """Makes what slots need that walk for another one's image."""
        places = 2 * len(self._program.level) + 16
        while len(self._scratches) < slots:
            self._scratches.append(make_scratch(places, places + 8 * len(self._program.kinds), False))

    def bound(
        self, slot: int, question: QuestionArrays, tighten: bool, walk: bool, intersect: bool, parallel: bool
    ) -> tuple[Float64Array, int]:
        """Bounds an image, see `Pass`."""
        self.reserve(slot + 1)
        self._help(self._threads if parallel else 0)
        while not self._levels(slot, question, tighten, walk, intersect, parallel):
            self._weights *= 2
            self._images[slot] = make_image(self._program, self._weights)
        _, _, matrix, offsets = question
        bounds = np.empty(len(offsets))
        image, order = self._images[slot], self._layout.orders[-1]
        bound_specification(
            self._program, image, self._scratches[slot], self._merged[slot], np.ascontiguousarray(matrix[:, order]),
            offsets, walk, intersect, bounds,
        )  # fmt: skip
        return bounds, int(intervals.count_unstable(self._program, image))

    def forward(self, slot: int, point: Float64Array) -> list[Float64Array]:
        """Computes the values of all nodes at a point [inputs], each [size], in the file's order."""
        self.reserve(slot + 1)
        image, values = self._images[slot], []
        with np.errstate(all="ignore"):
            intervals.evaluate(self._program, self._blocks, image, point[self._layout.orders[0]])
        for first, order in zip(self._layout.values, self._layout.orders, strict=True):
            value = np.empty(len(order))
            value[order] = image.centers[first : first + len(order)]
            values.append(value)
        return values

    def _levels(
        self, slot: int, question: QuestionArrays, tighten: bool, walk: bool, intersect: bool, parallel: bool
    ) -> bool:
        """Bounds all levels; returns whether the image's arrays were large enough."""
        program, blocks, image, scratch, rows = (
            self._program, self._blocks, self._images[slot], self._scratches[slot], self._buffers[slot],
        )  # fmt: skip
        order = self._layout.orders[0]
        low, high = question[0][order], question[1][order]
        most = self._left_to_one(parallel, _MOST_COLUMNS)
        level = 0

        def work(slot: int, begin: int, end: int) -> None:
            bound_rows(program, image, self._scratches[slot], level, rows, begin, end, intersect)

        while True:
            level, count, walked = advance(
                program, blocks, image, scratch, low, high, level, tighten, walk, rows, intersect, most
            )
            if level < 0 or level == len(program.kinds):
                return bool(level > 0)
            self._share(work, walked, count, LANES32)
            if not finish_level(program, blocks, image, level):
                return False
            level += 1

    def hidden(self, slot: int, node: int) -> tuple[Float64Array, Float64Array]:
        """Returns a node's bounds, see `Pass`."""
        first, order = self._layout.values[node], self._layout.orders[node]
        low, high = np.empty(len(order)), np.empty(len(order))
        low[order] = self._images[slot].lower[first : first + len(order)]
        high[order] = self._images[slot].upper[first : first + len(order)]
        return low, high

    def multiplications(self) -> int:
        """Returns the products since the start."""
        work = sum((scratch.work for scratch in self._scratches), np.zeros(3, dtype=np.int64))
        return int(work @ np.array([1, 4, 8])) * LANES32
