"""Open subdomains, worst bound first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verifiers.sparse.dual import FIELDS, Batch


class Pool:
    """Subdomains in arrays that grow; the worst are taken out together."""

    def __init__(self) -> None:
        self._store: Batch | None = None
        self._used = np.zeros(0, dtype=bool)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def megabytes(self) -> float:
        """Size of the arrays."""
        if self._store is None:
            return 0.0
        return float(sum(getattr(self._store, name).nbytes for name in FIELDS)) / 2**20

    def lowest(self) -> float:
        """Returns the worst bound, infinity if there is none."""
        if self._store is None:
            return np.inf
        return float(self._store.bound[self._used].min(initial=np.inf))

    def by_disjunct(self, disjuncts: int) -> npt.NDArray[np.float64]:
        """Returns the worst bound of each disjunct, infinity where none is open."""
        worst = np.full(disjuncts, np.inf)
        if self._store is not None:
            np.minimum.at(worst, self._store.disjunct[self._used], self._store.bound[self._used])
        return worst

    def put(self, batch: Batch) -> None:
        """Adds subdomains."""
        if not len(batch):
            return
        free = np.flatnonzero(~self._used)
        if len(free) < len(batch):
            self._grow(len(batch) - len(free), batch)
            free = np.flatnonzero(~self._used)
        place = free[: len(batch)]
        for name in FIELDS:
            getattr(self._store, name)[place] = getattr(batch, name)
        self._used[place] = True
        self._count += len(batch)

    def take(self, most: int) -> Batch:
        """Removes and returns up to so many of the worst."""
        assert self._store is not None
        alive = np.flatnonzero(self._used)
        if len(alive) > most:
            alive = alive[np.argpartition(self._store.bound[alive], most)[:most]]
        self._used[alive] = False
        self._count -= len(alive)
        return self._store.take(alive)

    def _grow(self, more: int, like: Batch) -> None:
        size = max(more, len(self._used), 64)
        blank = like.take(np.zeros(size, dtype=np.int64))
        self._store = blank if self._store is None else Batch.join([self._store, blank])
        self._used = np.concatenate([self._used, np.zeros(size, dtype=bool)])
