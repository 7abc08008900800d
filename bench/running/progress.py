"""How far a run is: a live display in a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.results.words import TABLE_WIDTH, duration
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.bench.running.priors import LEAST, MOST, PRIORS, SHIPPED
from prunecert.verifiers.base import Status, Verdict

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

    What has not been seen at work yet is guessed from recorded runs, scaled by how much dearer or cheaper this network
    is for the verifiers that were. Starting processes and loading networks is left out: it comes once.

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
        cost[0] += sum(max(0.0, v.times.wall_s - v.times.load_s) for v in verdicts)
        cost[1] += len(verdicts)
        passed = self._passed[verifier]
        passed[0] += sum(not v.status.decided for v in verdicts)
        passed[1] += len(verdicts)

    def remaining_s(self) -> float | None:
        """Returns the seconds to go; None while nothing is known yet that they could be told from."""
        total = 0.0
        for plan, cascade in zip(self._plans, self._cascades, strict=True):
            current, open_, undecided = cascade.outlook()
            expected = float(undecided)
            for number in range(max(current, 0), len(plan.stages)):
                stage = plan.stages[number]
                questions = (
                    float(open_) if number == current else len(cascade.positions) if stage.everyone else expected
                )
                if questions:
                    cost = self._cost(plan.cell.network, stage.verifier)
                    if cost is None:
                        return None
                    total += questions * min(cost, stage.timeout)
                expected *= self._share_left(stage.verifier)
        return total / self._workers

    def _cost(self, network: str, verifier: str) -> float | None:
        """Returns the seconds of an image, measured or guessed."""
        spent, count = self._seconds.get((network, verifier), (0.0, 0.0))
        if count:
            return spent / count
        prior = PRIORS.get(verifier)
        measured = [
            (own / images, PRIORS[name].seconds)
            for (other, name), (own, images) in self._seconds.items()
            if other == network and images and name in PRIORS
        ]
        if prior is None or (not measured and network not in SHIPPED):
            return None
        factor = sum(own for own, _ in measured) / sum(usual for _, usual in measured) if measured else 1.0
        return prior.seconds * min(max(factor, LEAST), MOST)

    def _share_left(self, verifier: str) -> float:
        undecided, images = self._passed.get(verifier, (0, 0))
        if images:
            return undecided / images
        return PRIORS[verifier].undecided if verifier in PRIORS else 1.0


class _Bar(Progress):
    """How far it is, and below it what it is at: words of their own width, so that they take none from the bar."""

    words = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yields the bar, and the words, which go on in a line of their own where they are longer than the screen."""
        yield self.make_tasks_table(self.tasks)
        yield Text(self.words)


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
        self._proved: set[tuple[int, int]] = set()
        self._broken: set[tuple[int, int]] = set()
        self._failed: Counter[str] = Counter()
        self._began = time.monotonic()
        self._total = sum(len(c.positions) for c in cascades)
        self._last = time.monotonic()
        self._now = ""
        self._bar: _Bar | None = None
        self._task: TaskID | None = None
        if console.is_terminal:
            # Two lines that fit 80 columns.
            self._bar = _Bar(
                TextColumn("images"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[rest]}"),
                console=console,
                expand=True,
            )
            self._bar.words = self._words()
            self._task = self._bar.add_task("", total=self._total, completed=self._settled(), rest=self._rest())

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        else:
            self._console.print(f"to do: {self._line()}", highlight=False, soft_wrap=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def answered(self, batch: Batch, verdicts: Sequence[Verdict]) -> None:
        """Takes the answers to a batch; `refresh` then shows them."""
        for position, verdict in zip(batch.positions, verdicts, strict=True):
            if verdict.status is Status.UNSAT:
                self._proved.add((batch.cell, position))
            elif verdict.status is Status.SAT:
                self._broken.add((batch.cell, position))
            elif verdict.status in (Status.ERROR, Status.MEMOUT):
                self._failed[str(verdict.status)] += 1
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
            self._bar.words = self._words()
            self._bar.update(self._task, completed=self._settled(), rest=self._rest())
        else:
            self._console.print(self._line(), highlight=False, soft_wrap=True)

    def _rest(self) -> str:
        """Returns how long it will still take, in words."""
        if self._settled() >= self._total:
            return "done"
        left = self._estimate.remaining_s()
        return "estimating" if left is None else f"about {duration(left)} to go"

    def _words(self) -> str:
        """Returns what has come of the images so far, and what is being asked."""
        parts = [f"proved {len(self._proved)}", f"broken {len(self._broken)}"]
        parts.append(f"open {max(0, self._total - self._settled())}")
        parts += [f"FAILED: {status} {count}" for status, count in sorted(self._failed.items())]
        return " · ".join([*parts, *([self._now] if self._now else [])])

    def _line(self) -> str:
        """Returns all of it as one plain line."""
        elapsed = duration(time.monotonic() - self._began)
        cells = sum(cascade.finished for cascade in self._cascades)
        return " · ".join(
            [
                f"images {self._settled()}/{self._total}",
                f"networks {cells}/{len(self._cascades)}",
                elapsed,
                self._rest(),
                self._words(),
            ]
        )
