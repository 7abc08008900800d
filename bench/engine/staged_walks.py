"""CROWN of one image, stage by stage and in one thread, so that each stage of each layer has a time and a count.

The engine goes through a network in one call of a kernel (`verifiers.sparse.crown`); here its kernels are called one by
one, in the same order on the same arrays, so that the bounds are the same bit for bit.

The products of a weight and a coefficient that are counted as *possible* are those of walks that leave nothing out: of
all rows of a level that aren't constant, with both signs, through all weights of the levels below. What is left out are
rows that intervals have settled, weights of neurons that are inactive over the box, and what a row doesn't see.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import LANES32, Float64Array, Int64Array
from prunecert.verifiers.sparse.crown import program as layouts
from prunecert.verifiers.sparse.crown.engine import Question
from prunecert.verifiers.sparse.crown.rows import intervals as row_intervals
from prunecert.verifiers.sparse.crown.rows import walk as row_walk
from prunecert.verifiers.sparse.crown.rows.layout import lay_flat, make_state
from prunecert.verifiers.sparse.crown.scratch import make_scratch
from prunecert.verifiers.sparse.crown.units import intervals as unit_intervals
from prunecert.verifiers.sparse.crown.units import walk as unit_walk
from prunecert.verifiers.sparse.crown.units.blocks import find_blocks
from prunecert.verifiers.sparse.crown.units.matrix import finish_level
from prunecert.verifiers.sparse.crown.units.state import make_image
from prunecert.verifiers.sparse.network import Network

Clock = Callable[[], float]


@dataclass(frozen=True)
class StagedLevel:
    """One level of the layout, which is a node's values or its ReLUs.

    Args:
        name: Of the node.
        neurons: Of it.
        interval_s: Seconds for the intervals of all rows.
        walk_s: Seconds for the walks of rows that these leave unstable.
        relax_s: Seconds for relaxing the level and making it ready for the walks of the levels above.
        walked: Rows that are walked back.
        rows: Rows that a ReLU needs bounds of.
        products: Products of a weight and a coefficient in the walks; lanes that no row fills are counted.
        possible: Such products in walks of all rows through all weights below.
    """

    name: str
    neurons: int
    interval_s: float
    walk_s: float
    relax_s: float
    walked: int
    rows: int
    products: int
    possible: int


@dataclass(frozen=True, eq=False)
class StagedBounds:
    """What CROWN has found for one image, and where the time went.

    Args:
        levels: From the first behind the input on.
        last_s: Seconds for the rows of the specification.
        last_products: Products in their walks.
        last_possible: Products in walks of all of them through all weights.
        rows: Lower bounds of them.
    """

    levels: tuple[StagedLevel, ...]
    last_s: float
    last_products: int
    last_possible: int
    rows: Float64Array


class Staged(ABC):
    """A network laid out for one of the two engines.

    Args:
        network: The network.
        layout: Where its neurons are.
    """

    def __init__(self, network: Network, layout: layouts.Layout) -> None:
        self._network, self._layout, self._program = network, layout, layout.program

    def bound(self, question: Question, clock: Clock) -> StagedBounds:
        """Bounds an image.

        Args:
            question: About it.
            clock: What is measured, seconds.
        """
        low, high = (np.asarray(end, dtype=np.float64).reshape(-1) for end in (question.lower, question.upper))
        matrix = np.ascontiguousarray(question.matrix, dtype=np.float64)
        offsets, rows = np.ascontiguousarray(question.offsets, dtype=np.float64), np.empty(len(question.offsets))
        while (levels := self._levels(low, high, clock)) is None:
            self._grow()
        before, begin = self._products(), clock()
        self._specification(matrix, offsets, rows)
        seconds = clock() - begin
        rows[np.isnan(rows)] = -np.inf
        return StagedBounds(
            tuple(levels), seconds, self._products() - before, len(rows) * int(self._program.pointers[-1]), rows
        )

    def _levels(self, low: Float64Array, high: Float64Array, clock: Clock) -> list[StagedLevel] | None:
        """Goes through all levels; None where the arrays turn out too small."""
        program = self._program
        self._start(low, high)
        levels: list[StagedLevel] = []
        for level in range(len(program.kinds)):
            before, times = self._products(), [clock()]
            self._intervals(level)
            times.append(clock())
            walked = self._walk(level)
            times.append(clock())
            if not self._finish(level):
                return None
            times.append(clock())
            if level == 0:
                continue
            node = self._network.nodes[self._layout.nodes[level]]
            rows = int(program.lives[level + 1] - program.lives[level]) if program.bounded[level] else 0
            below = int(program.pointers[program.starts[level]])
            interval_s, walk_s, relax_s = (float(value) for value in np.diff(times))
            levels.append(
                StagedLevel(
                    name=node.name,
                    neurons=node.size,
                    interval_s=interval_s,
                    walk_s=walk_s,
                    relax_s=relax_s,
                    walked=walked,
                    rows=rows,
                    products=self._products() - before,
                    possible=2 * rows * below,
                )
            )
        return levels

    def _grow(self) -> None:
        """Makes the arrays larger."""
        raise NotImplementedError

    @abstractmethod
    def _products(self) -> int: ...

    @abstractmethod
    def _start(self, low: Float64Array, high: Float64Array) -> None: ...

    @abstractmethod
    def _intervals(self, level: int) -> None: ...

    @abstractmethod
    def _walk(self, level: int) -> int: ...

    @abstractmethod
    def _finish(self, level: int) -> bool: ...

    @abstractmethod
    def _specification(self, matrix: Float64Array, offsets: Float64Array, out: Float64Array) -> None: ...


class StagedRows(Staged):
    """Row by row, as networks with few weights are walked.

    Args:
        network: The network.
    """

    def __init__(self, network: Network) -> None:
        layout, self._taps = lay_flat(network)
        super().__init__(network, layout)
        count = len(self._program.level)
        self._state, self._scratch = make_state(self._program, self._taps), make_scratch(count, count, True)

    def _products(self) -> int:
        return int(self._scratch.work[0]) * LANES32

    def _start(self, low: Float64Array, high: Float64Array) -> None:
        row_intervals.start(self._program, self._state, low, high)

    def _intervals(self, level: int) -> None:
        row_intervals.open_level(self._program, self._taps, self._state, level)

    def _walk(self, level: int) -> int:
        count = int(self._state.counts[1])
        if not self._program.bounded[level] or self._taps.shallow[level] or not count:
            return 0
        row_walk.bound_rows(self._program, self._taps, self._state, self._scratch, level, 0, count, True)
        self._state.counts[2] = count
        return count

    def _finish(self, level: int) -> bool:
        row_intervals.finish_level(self._program, self._taps, self._state, level)
        return True

    def _specification(self, matrix: Float64Array, offsets: Float64Array, out: Float64Array) -> None:
        row_walk.bound_specification(
            self._program, self._taps, self._state, self._scratch, matrix, offsets, True, True, out
        )


class StagedUnits(Staged):
    """In units of neurons.

    Args:
        network: The network.
    """

    def __init__(self, network: Network) -> None:
        super().__init__(network, layouts.lay_out(network))
        program, places = self._program, 2 * len(self._program.level) + 16
        self._weights = 2 * len(program.columns) + 16
        self._blocks = find_blocks(program)
        self._image = make_image(program, self._weights)
        self._scratch = make_scratch(places, places + 8 * len(program.kinds), False)
        self._rows: Int64Array = np.empty(int(np.diff(program.starts).max()), dtype=np.int64)
        self._merged = np.zeros(len(program.level))

    def _grow(self) -> None:
        self._weights *= 2
        self._image = make_image(self._program, self._weights)

    def _products(self) -> int:
        return int(self._scratch.work @ np.array([1, 4, 8])) * LANES32

    def _start(self, low: Float64Array, high: Float64Array) -> None:
        order = self._layout.orders[0]
        unit_intervals.start(self._program, self._image, low[order], high[order])

    def _intervals(self, level: int) -> None:
        unit_intervals.open_level(self._program, self._blocks, self._image, level)

    def _walk(self, level: int) -> int:
        if level < 2:
            return 0
        count = int(unit_intervals.unstable_rows(self._program, self._image, level, self._rows))
        unit_walk.bound_rows(self._program, self._image, self._scratch, level, self._rows, 0, count, True)
        return count

    def _finish(self, level: int) -> bool:
        return bool(finish_level(self._program, self._blocks, self._image, level))

    def _specification(self, matrix: Float64Array, offsets: Float64Array, out: Float64Array) -> None:
        ordered = np.ascontiguousarray(matrix[:, self._layout.orders[-1]])
        unit_walk.bound_specification(
            self._program, self._image, self._scratch, self._merged, ordered, offsets, True, True, out
        )
