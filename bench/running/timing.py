"""Takes the times: one verifier process at work at a time, each warm, each answer in the log at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from prunecert.bench.machine import cores
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.stages import Stage
from prunecert.bench.planning.timing import ComparedGroup, at_repeat
from prunecert.bench.results.decode import plain
from prunecert.bench.results.row_types import VerdictRow, VisitRow
from prunecert.bench.results.session_types import SessionRow
from prunecert.bench.results.store import Log, Writer, is_run
from prunecert.bench.results.words import duration
from prunecert.bench.running.asking import OpenRun
from prunecert.bench.running.cascade import Batch
from prunecert.bench.running.recording import predict, verdict_rows
from prunecert.bench.running.timing_schedule import Visit, schedule
from prunecert.errors import UserError
from prunecert.verifiers.base import Instance, Status, Verdict
from prunecert.verifiers.process.worker import Worker

#: The warm-up question's radius over the real one: any verifier answers it at once.
_WARM = 1e-3
_LINE_EVERY_S = 10.0
MakeRows = Callable[[CellPlan, Batch, Sequence[Instance], Sequence[Verdict], Writer], list[VerdictRow]]


def refuse_other_machine(out: Path, machine: Mapping[str, Any], threads: int) -> None:
    """Refuses to add times to those of another machine, or of another number of threads.

    Raises:
        UserError: The run directory holds such.
    """
    if not is_run(out):
        return
    for row in Log(out).rows():
        if isinstance(row, SessionRow) and (plain(row.machine) != dict(machine) or row.threads != threads):
            raise UserError(
                f"--out {out} is refused: it holds times of another machine or of another number of threads "
                f"({row.machine.cpu}, {row.machine.cores} cores, {row.threads} threads), and times are "
                "never compared across them; choose another directory."
            )


class TimeTaker:
    """Works off a schedule.

    Args:
        plans: All networks.
        writer: Where rows go.
        make_rows: Makes the rows of an answered batch.
        threads: Threads of each verifier.
        logs: Folder for the verifiers' own output.
        console: Where progress is shown.
    """

    def __init__(
        self,
        plans: Sequence[CellPlan],
        writer: Writer,
        make_rows: MakeRows,
        *,
        threads: int,
        logs: Path,
        console: Console,
    ) -> None:
        self._plans = plans
        self._writer = writer
        self._make_rows = make_rows
        self._threads = threads
        self._logs = logs
        self._console = console
        self._workers: dict[tuple[str, str], Worker] = {}
        self._repeats: dict[tuple[int, int], CellPlan] = {}

    def run(self, visits: Sequence[Visit], statuses: Mapping[tuple[str, int], Status]) -> None:
        """Asks everything that has no answer yet.

        Args:
            visits: The schedule.
            statuses: What there is already, by stage key and image.
        """
        todo = [(visit, batches) for visit in visits if (batches := self._left(visit, statuses))]
        total = sum(len(batches) for _, batches in todo)
        count, began = 0, time.monotonic()
        said = began
        self._say(f"to do: {total} of {sum(len(visit.batches) for visit in visits)} timed questions")
        try:
            for visit, batches in todo:
                self._visit(visit, batches)
                count += len(batches)
                now = time.monotonic()
                if now - said >= _LINE_EVERY_S or count == total:
                    said = now
                    plan = self._plans[visit.cell]
                    self._say(
                        f"{count}/{total} questions · repeat {visit.repeat} · {plan.stages[visit.stage].verifier} on "
                        f"{plan.name} · {duration(now - began)} so far"
                    )
        finally:
            for worker in self._workers.values():
                worker.close()

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _plan(self, visit: Visit) -> CellPlan:
        key = (visit.cell, visit.repeat)
        if key not in self._repeats:
            self._repeats[key] = at_repeat(self._plans[visit.cell], visit.repeat)
        return self._repeats[key]

    def _left(self, visit: Visit, statuses: Mapping[tuple[str, int], Status]) -> list[tuple[int, ...]]:
        plan = self._plan(visit)
        key = plan.keys[visit.stage]
        return [
            batch for batch in visit.batches if any((key, int(plan.data.indices[p])) not in statuses for p in batch)
        ]

    def _worker(self, stage: Stage) -> Worker:
        key = (stage.verifier, stage.settings_hash)
        if key not in self._workers:
            self._workers[key] = Worker(
                stage.verifier,
                stage.settings,
                stage.device,
                memory_limit_mb=stage.memory_mb,
                log=self._logs / f"{stage.verifier}.0.log",
                threads=self._threads,
            )
        return self._workers[key]

    def _visit(self, visit: Visit, batches: Sequence[tuple[int, ...]]) -> None:
        """Loads the network, asks a question that doesn't count, and then those that do."""
        plan = self._plan(visit)
        stage = plan.stages[visit.stage]
        worker, fresh = self._worker(stage), True
        for positions in batches:
            if fresh or worker.pid is None:
                # Its network has changed, or it died at the last question: what comes first then takes longer.
                self._warm_up(worker, visit, plan, positions)
                fresh = False
            instances = [plan.instance(p, visit.stage) for p in positions]
            verdicts = worker.verify(instances)
            batch = Batch(visit.stage, visit.cell, positions)
            self._writer.append(*self._make_rows(plan, batch, instances, verdicts, self._writer))

    def _warm_up(self, worker: Worker, visit: Visit, plan: CellPlan, positions: tuple[int, ...]) -> None:
        warm = worker.verify([_easy(plan.instance(p, visit.stage)) for p in positions])
        self._writer.append(
            VisitRow(
                cell=plan.name,
                verifier=plan.stages[visit.stage].verifier,
                repeat=visit.repeat,
                image=int(plan.data.indices[positions[0]]),
                start_s=round(sum(v.times.start_s for v in warm), 6),
                load_s=round(sum(v.times.load_s for v in warm), 6),
                warm_s=round(sum(v.times.wall_s - v.times.load_s for v in warm), 6),
                load_average=round(os.getloadavg()[0], 2),
            )
        )


def _easy(instance: Instance) -> Instance:
    """Returns the same question on a box so small that it is no question."""
    lower, upper = instance.lower.astype(np.float64), instance.upper.astype(np.float64)
    center, half = (lower + upper) / 2, (upper - lower) / 2 * _WARM
    return replace(
        instance,
        lower=(center - half).astype(np.float32),
        upper=(center + half).astype(np.float32),
        eps=None if instance.eps is None else instance.eps * _WARM,
        name=f"{instance.name}, warming up",
    )


def time_all(plans: Sequence[CellPlan], groups: Sequence[ComparedGroup], run: OpenRun) -> None:
    """Takes the times of a timing suite; each answer is in the log when it is there.

    Args:
        plans: All networks.
        groups: Which of them are compared.
        run: Where answers go and are looked up.
    """
    for plan in plans:
        predict(plan, run.answers, run.writer, None)
    logs = run.writer.directory / "logs"
    logs.mkdir(exist_ok=True)
    taker = TimeTaker(plans, run.writer, verdict_rows, threads=cores(), logs=logs, console=run.console)
    taker.run(schedule(plans, groups), run.answers.verdicts)
