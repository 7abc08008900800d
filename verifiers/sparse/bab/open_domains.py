"""Open subdomains, worst bound first."""

from __future__ import annotations

import numpy as np

from prunecert.verifiers.base import Status
from prunecert.verifiers.sparse.arrays import Int64Array
from prunecert.verifiers.sparse.bab.dual import FIELDS, Batch
from prunecert.verifiers.sparse.bab.outcome import Outcome

#: Subdomains of the first block and of the largest: what is there is never copied to make room.
_LEAST, _MOST = 64, 4096


class Pool:
    """Subdomains in blocks of arrays; the worst are taken out together."""

    def __init__(self) -> None:
        self._blocks: list[Batch] = []
        #: First place of each block, and the number of places.
        self._starts = np.zeros(1, dtype=np.int64)
        self._used = np.zeros(0, dtype=bool)
        self._bound = np.zeros(0)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def megabytes(self) -> float:
        """Size of the arrays."""
        return sum(block.megabytes for block in self._blocks)

    def lowest(self) -> float:
        """Returns the worst bound, infinity if there is none."""
        return float(self._bound[self._used].min(initial=np.inf))

    def put(self, batch: Batch) -> None:
        """Adds subdomains."""
        if not len(batch):
            return
        while (room := len(self._used) - self._count) < len(batch):
            self._grow(len(batch) - room, batch)
        places = np.flatnonzero(~self._used)[: len(batch)]
        for block, rows, mine in self._split(places):
            for name in FIELDS:
                getattr(block, name)[rows] = getattr(batch, name)[mine]
        self._used[places] = True
        self._bound[places] = batch.bound
        self._count += len(batch)

    def take(self, most: int) -> Batch:
        """Removes and returns up to so many of the worst."""
        places = np.flatnonzero(self._used)
        if len(places) > most:
            places = np.sort(places[np.argpartition(self._bound[places], most)[:most]])
        self._used[places] = False
        self._count -= len(places)
        return Batch.join([block.take(rows) for block, rows, _ in self._split(places)])

    def disjuncts(self) -> Int64Array:
        """Returns the disjuncts of what is open, each once, ascending."""
        places = np.flatnonzero(self._used)
        return np.unique(np.concatenate([np.zeros(0, np.int64), *(b.disjunct[r] for b, r, _ in self._split(places))]))

    def drop(self, disjunct: int) -> None:
        """Removes what is open of a disjunct."""
        every = self.take(len(self))
        self.put(every.take(np.flatnonzero(every.disjunct != disjunct)))

    def _split(self, places: Int64Array) -> list[tuple[Batch, Int64Array, slice]]:
        """Returns the blocks in which ascending places lie, the rows there, and which of the places these are."""
        ends = np.searchsorted(places, self._starts)
        return [
            (block, places[ends[k] : ends[k + 1]] - self._starts[k], slice(int(ends[k]), int(ends[k + 1])))
            for k, block in enumerate(self._blocks)
            if ends[k + 1] > ends[k]
        ]

    def _grow(self, more: int, like: Batch) -> None:
        size = min(max(more, len(self._used), _LEAST), _MOST)
        self._blocks.append(like.take(np.zeros(size, dtype=np.int64)))
        self._starts = np.append(self._starts, self._starts[-1] + size)
        self._used = np.concatenate([self._used, np.zeros(size, dtype=bool)])
        self._bound = np.concatenate([self._bound, np.zeros(size)])


def timeout(outcome: Outcome, pool: Pool) -> None:
    """Says that the time is over."""
    outcome.status = Status.TIMEOUT
    if len(pool):
        outcome.lowest = pool.lowest()
    outcome.detail = f"global lower bound {outcome.lowest:.4g}, {len(pool)} subdomains open"
