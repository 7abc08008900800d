"""Which verifier sees which image next.

The order that costs least sorts verifiers by cost over the chance to decide (IBP, CROWN-IBP, an attack, CROWN, …, a
complete verifier last). Verifiers that see everyone (`Stage.everyone`) are asked about every correctly classified
image; the others only about images that nobody before them has decided.

    images    0  1  2  3  4  5        ✓ unsat   ✗ sat   · undecided   (blank: not asked)
    ibp  all  ✓  ·  ·  ·  ✓  ·
    pgd  all  ·  ✗  ·  ·  ·  ·        sees everyone, so that a proof it breaks is found
    crown           ✓  ·     ·        0, 4 are proved and 1 is broken: 2, 3 and 5 are left
    neuralsat          ✓     ·        released in batches when all of crown's are answered
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prunecert.bench.planning.stages import Stage
from prunecert.verifiers.base import Status

Lookup = Callable[[int, Sequence[int]], Mapping[int, Status]]


@dataclass(frozen=True, order=True)
class Batch:
    """Images of one cell for one verifier, to be handed over together.

    Args:
        stage: Number of the verifier in the cell's cascade.
        cell: Number of the cell.
        positions: Places of the images in the cell's image set.
    """

    stage: int
    cell: int
    positions: tuple[int, ...]


class CellCascade:
    """The state of one cell: what has been answered, and what is to be asked now.

    A verifier's batches are released when all verifiers before it have answered, so that what is batched together
    does not depend on the number of workers nor on how often the run was interrupted.

    Args:
        cell: Number of the cell.
        stages: Its verifiers, in order.
        positions: Places of its correctly classified images, in order.
        statuses: What earlier runs found, by stage and position.
        lookup: Asked, before a verifier is, what is known of (stage, positions) elsewhere; returns it by position.
        ready: Whether a verifier's turn may come, where it has to wait for other cells; None: it never has.
    """

    def __init__(
        self,
        cell: int,
        stages: Sequence[Stage],
        positions: Iterable[int],
        statuses: Mapping[tuple[int, int], Status] | None = None,
        lookup: Lookup | None = None,
        ready: Callable[[int], bool] | None = None,
    ) -> None:
        self.cell = cell
        self.stages = tuple(stages)
        self.positions = tuple(positions)
        self._status = dict(statuses or {})
        self._lookup = lookup
        self._ready = ready
        self._current = -1
        self._open: set[int] = set()
        self._undecided = {p for p in self.positions if not self._decided(p, len(self.stages))}
        self._settled = {p for p in self.positions if self._is_settled(p)}

    def _decided(self, position: int, before: int) -> bool:
        """Whether a stage below `before` has decided an image."""
        return any(
            (status := self._status.get((stage, position))) is not None and status.decided for stage in range(before)
        )

    def _is_settled(self, position: int) -> bool:
        return position not in self._undecided or all((s, position) in self._status for s in range(len(self.stages)))

    def eligible(self, stage: int) -> list[int]:
        """Returns the images that a stage sees, given what the stages before it have answered so far."""
        if self.stages[stage].everyone:
            return list(self.positions)
        return [p for p in self.positions if not self._decided(p, stage)]

    def release(self) -> list[Batch]:
        """Returns the batches that can be worked on now and were not returned before; empty while some are open."""
        while not self._open and self._current + 1 < len(self.stages):
            if self._ready is not None and not self._ready(self._current + 1):
                return []
            self._current += 1
            stage = self._current
            images, size = self.eligible(stage), self.stages[stage].batch
            if self._lookup is not None:
                missing = [p for p in images if (stage, p) not in self._status]
                for position, status in self._lookup(stage, missing).items():
                    self._take(stage, position, status)
            batches = []
            for start in range(0, len(images), size):
                todo = tuple(p for p in images[start : start + size] if (stage, p) not in self._status)
                if todo:
                    batches.append(Batch(stage, self.cell, todo))
                    self._open.update(todo)
            if batches:
                return batches
        return []

    def record(self, batch: Batch, statuses: Sequence[Status]) -> list[Batch]:
        """Takes the answers to a batch and returns what `release` then has."""
        for position, status in zip(batch.positions, statuses, strict=True):
            self._open.discard(position)
            self._take(batch.stage, position, status)
        return self.release()

    def _take(self, stage: int, position: int, status: Status) -> None:
        self._status[stage, position] = status
        if status.decided:
            self._undecided.discard(position)
        if self._is_settled(position):
            self._settled.add(position)

    def status(self, stage: int, position: int) -> Status | None:
        """Returns what a stage answered on an image; None if it has not."""
        return self._status.get((stage, position))

    def passed(self, stage: int) -> bool:
        """Whether a stage has answered all that it is to be asked."""
        return self._current > stage or (self._current == stage and not self._open)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be asked."""
        return not self._open and self._current + 1 >= len(self.stages)

    @property
    def settled(self) -> int:
        """How many images are decided, or have met every verifier."""
        return len(self._settled)

    def outlook(self) -> tuple[int, int, int]:
        """Returns the stage in work, how many of its answers are awaited, and how many images are undecided."""
        return self._current, len(self._open), len(self._undecided)
