"""Asks everything that has no answer yet, in verifier processes of this machine; answers are in the log at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from prunecert.bench.machine import cores, machine
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.results.store import Writer
from prunecert.bench.running import resources
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.bench.running.progress import Display
from prunecert.bench.running.proving import Certificates
from prunecert.bench.running.recording import LoggedAnswers, predict, verdict_rows
from prunecert.bench.running.request import RunRequest
from prunecert.bench.running.reuse import read_earlier, take_over
from prunecert.bench.running.warmstart import WarmStart
from prunecert.verifiers.base import Instance, Verdict

Answered = Callable[[Batch, Sequence[Instance], Sequence[Verdict]], None]
Prepare = Callable[[Batch, Sequence[Instance]], list[Instance]]


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run whose log is open: what a mode works with.

    Args:
        request: What is asked for.
        writer: The log.
        answers: What earlier runs in the directory have found.
        workers: Verifier processes side by side.
        console: Where progress is shown.
    """

    request: RunRequest
    writer: Writer
    answers: LoggedAnswers
    workers: int
    console: Console


def ask_all(plans: Sequence[CellPlan], run: OpenRun) -> None:
    """Asks the verifiers everything that has no answer yet; each answer is in the log when the instance ends.

    Args:
        plans: The networks.
        run: Where answers go and are looked up.
    """
    request, writer, answers = run.request, run.writer, run.answers.verdicts
    certificates = Certificates.going_on(writer, bool(request.retry)) if request.certificates else None
    earlier = read_earlier(request.reuse, machine(), request.device) if request.reuse else None
    warm = WarmStart(plans, writer.directory) if request.warm_start else None
    they = "the network classifies" if len(plans) == 1 else f"{len(plans)} networks classify"
    run.console.print(f"finding out what {they} correctly", highlight=False)
    cascades = []
    for number, plan in enumerate(plans):
        positions = predict(plan, run.answers, writer, request.shard)
        statuses = plan.answers_among(answers, positions)
        look = None if earlier is None else partial(take_over, plan, earlier=earlier, writer=writer)
        ready = None if warm is None else partial(warm.ready, number)
        cascades.append(CellCascade(number, plan.stages, positions, statuses, look, ready))
    if warm is not None:
        warm.cascades = cascades
    display = Display(run.console, plans, cascades, run.workers)

    def answered(batch: Batch, instances: Sequence[Instance], verdicts: Sequence[Verdict]) -> None:
        writer.append(*verdict_rows(plans[batch.cell], batch, instances, verdicts, writer))
        display.answered(batch, verdicts)

    work_off(plans, cascades, answered, display, run, None if warm is None else warm.add_starts, certificates)
    if certificates is not None:
        certificates.rest(
            plans,
            cascades,
            workers=run.workers,
            pinned=request.pinned,
            log_dir=log_folder(run),
            tell=partial(run.console.print, markup=False, highlight=False, soft_wrap=True),
        )


def log_folder(run: OpenRun) -> Path:
    """Returns where verifiers' own output goes; parts of a run may share its directory, but no file in it."""
    shard = run.request.shard
    logs = run.writer.directory / "logs" / ("" if shard is None else "shard-{}-of-{}".format(*shard))
    logs.mkdir(parents=True, exist_ok=True)
    return logs


def work_off(
    plans: Sequence[CellPlan],
    cascades: Sequence[CellCascade],
    answered: Answered,
    display: Display,
    run: OpenRun,
    prepare: Prepare | None = None,
    certificates: Certificates | None = None,
) -> None:
    """Works through all questions of the cascades in processes on this machine.

    Args:
        plans: The networks.
        cascades: Their states, in the same order.
        answered: Called with each answered batch.
        display: Shows how far it is.
        run: Devices, processors and the run directory.
        prepare: Changes a batch's instances before they are asked.
        certificates: Writes them of what a search has just answered; None: nobody does.
    """
    from prunecert.bench.running.local import LocalExecutor

    request, workers = run.request, run.workers
    devices = resources.parse_devices(request.device)
    executor = LocalExecutor(
        plans,
        cascades,
        answered,
        on_progress=display.refresh,
        prepare=prepare,
        certify=None if certificates is None else certificates.answered,
        workers=workers,
        threads=max(1, cores() // workers),
        log_dir=log_folder(run),
        devices=resources.share_out(devices, workers) if len(devices) > 1 else None,
        cores=resources.core_sets(workers) if request.pinned else None,
    )
    with display:
        executor.run()
