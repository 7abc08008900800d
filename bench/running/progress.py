"""How far a run is: a live display in a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.results.words import TABLE_WIDTH, duration
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.verifiers.base import Verdict

_LINE_EVERY_S = 10.0


class Output(Console):
    """A console as wide as a table needs where it is no terminal.

    Its reader may go away (``| head``): the run then goes on without it, and its exit code stays true.
    """

    def __init__(self) -> None:
        super().__init__(highlight=False)
        if not self.is_terminal:
            self.width = TABLE_WIDTH

    def on_broken_pipe(self) -> None:
        """Sends all further output nowhere."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Estimate:
    """Foretells the remaining seconds from what each verifier has cost and decided so far.

    Args:
        plans: The cells.
        cascades: Their states.
        workers: How many batches are worked on side by side.
    """

    def __init__(self, plans: Sequence[CellPlan], cascades: Sequence[CellCascade], workers: int) -> None:
        self._plans = plans
        self._cascades = cascades
        self._workers = workers
        self._seconds: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._passed: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    def add(self, batch: Batch, verdicts: Sequence[Verdict]) -> None:
        """Takes the answers to a batch."""
        plan = self._plans[batch.cell]
        verifier = plan.stages[batch.stage].verifier
        cost = self._seconds[plan.cell.network, verifier]
        cost[0] += sum(v.times.wall_s + v.times.start_s for v in verdicts)
        cost[1] += len(verdicts)
        passed = self._passed[verifier]
        passed[0] += sum(not v.status.decided for v in verdicts)
        passed[1] += len(verdicts)

    def remaining_s(self) -> tuple[float, bool]:
        """Returns the seconds to go, and whether that is an upper bound (some verifier was not seen at work yet)."""
        total, bound = 0.0, False
        for plan, cascade in zip(self._plans, self._cascades, strict=True):
            current, open_, undecided = cascade.outlook()
            expected = float(undecided)
            for number in range(max(current, 0), len(plan.stages)):
                stage = plan.stages[number]
                questions = (
                    float(open_) if number == current else len(cascade.positions) if stage.everyone else expected
                )
                spent, count = self._seconds.get((plan.cell.network, stage.verifier), (0.0, 0.0))
                if questions and not count:
                    bound = True
                total += questions * (spent / count if count else stage.timeout)
                undecided_of, images = self._passed.get(stage.verifier, (1, 1))
                expected *= undecided_of / images
        return total / self._workers, bound


class Display:
    """Shows cells, images, verdict counts and the time to go.

    Args:
        console: Where to show it; if that is no terminal, a plain line appears every ten seconds.
        plans: The cells.
        cascades: Their states.
        workers: How many batches are worked on side by side.
    """

    def __init__(
        self, console: Console, plans: Sequence[CellPlan], cascades: Sequence[CellCascade], workers: int
    ) -> None:
        self._console = console
        self._cascades = cascades
        self._plans = plans
        self._estimate = Estimate(plans, cascades, workers)
        self._counts: Counter[str] = Counter()
        self._total = sum(len(c.positions) for c in cascades)
        self._last = time.monotonic()
        self._now = ""
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]images"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[words]}"),
                TimeElapsedColumn(),
                console=console,
                expand=True,
            )
            self._task = self._bar.add_task("", total=self._total, completed=self._settled(), words=self._words())

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        else:
            self._console.print(f"to do: {self._words()}", highlight=False, soft_wrap=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def answered(self, batch: Batch, verdicts: Sequence[Verdict]) -> None:
        """Takes the answers to a batch; `refresh` then shows them."""
        self._counts.update(str(v.status) for v in verdicts)
        self._estimate.add(batch, verdicts)
        plan = self._plans[batch.cell]
        self._now = f"{plan.stages[batch.stage].verifier} on {plan.cell.name}"

    def _settled(self) -> int:
        return sum(cascade.settled for cascade in self._cascades)

    def refresh(self) -> None:
        """Shows the state after a cell has changed, if it is time."""
        due = time.monotonic() - self._last >= (0.2 if self._bar is not None else _LINE_EVERY_S)
        if not due and self._settled() < self._total:
            return
        self._last = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._settled(), words=self._words())
        else:
            self._console.print(self._words(), highlight=False, soft_wrap=True)

    def _words(self) -> str:
        cells = sum(cascade.finished for cascade in self._cascades)
        left, bound = self._estimate.remaining_s()
        parts = [f"cells {cells}/{len(self._cascades)}", f"images {self._settled()}/{self._total}"]
        parts += [f"{status} {count}" for status, count in sorted(self._counts.items())]
        if left > 0:
            parts.append(f"{'at most ' if bound else ''}{duration(left)} to go")
        if self._now:
            parts.append(self._now)
        return " · ".join(parts if self._bar is None else [parts[0], *parts[2:]])
