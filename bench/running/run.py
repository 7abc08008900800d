"""Runs a suite: plan, verify, store, conclude. This is the door for programs; `bench.run` is the one for people.

RunRequest ─ mode.refuse ─ cells ─ data ─ networks ─ mode.plans ─┐
                                                                 │
    ┌── dry run ── says what would be done                       │
    ├── cluster ── parts, each of them a RunRequest ──┐ ◄────────┘
    └── here ───── mode.work, row by row into the log ┴─ conclude ─ RunResult
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from prunecert.bench.machine import cores, utc_now
from prunecert.bench.planning import select
from prunecert.bench.planning.card import card_cells, card_plans, read_card
from prunecert.bench.planning.certificates import describe_certificates
from prunecert.bench.planning.exports import Export
from prunecert.bench.planning.holdout import refuse_contaminated
from prunecert.bench.planning.own import prepare_own, split_own
from prunecert.bench.planning.pairs import describe_pairs
from prunecert.bench.report.conclude import Conclusion, conclude
from prunecert.bench.report.medium import print_sentence
from prunecert.bench.results.protocol_types import Missing
from prunecert.bench.results.row_types import EndRow
from prunecert.bench.results.session_types import SessionRow
from prunecert.bench.results.store import MAIN_WRITER, Log, Writer, is_run
from prunecert.bench.running import resources
from prunecert.bench.running.asking import OpenRun
from prunecert.bench.running.certificates import known_certificates
from prunecert.bench.running.modes import RunMode, Workload, Workshop, mode_of
from prunecert.bench.running.pair_questions import known_pairs
from prunecert.bench.running.progress import Output
from prunecert.bench.running.recording import read_done
from prunecert.bench.running.request import RunRequest, RunResult
from prunecert.bench.running.session import session_row, unpublishable
from prunecert.bench.schema.cell import Protocol
from prunecert.bench.schema.suite import Suite
from prunecert.errors import UserError
from prunecert.models.checkpoint_folders import describe_places
from prunecert.models.data import Dataset

if TYPE_CHECKING:
    from prunecert.bench.running.cluster import Backend
    from prunecert.bench.running.outlook import KnownAnswers


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A request, and all that was found out about it before anything is done."""

    request: RunRequest
    mode: RunMode
    out: Path
    devices: tuple[str, ...]
    console: Console
    protocols: Mapping[str, Protocol]
    skipped: Mapping[str, str]
    missing: Sequence[Missing]
    data: Sequence[Dataset]
    workload: Workload

    def tell(self, text: str) -> None:
        """Says a line."""
        print_sentence(self.console, text)

    def result(self) -> RunResult:
        """Returns what has come of it when nothing was done."""
        return RunResult(self.out, self.workload.plans, dict(self.protocols))


def run_suite(
    request: RunRequest, console: Console | None = None, *, inspect: Callable[[SessionRow], None] | None = None
) -> RunResult:
    """Runs a suite, or goes on where an earlier run in the same directory stopped.

    Example:
        >>> from prunecert.bench.schema.suite import load_suite
        >>> suite = load_suite("cifar10-4nets", "smoke")
        >>> run_suite(RunRequest(suite=suite, out=Path("run"))).exit_code  # doctest: +SKIP
        0
        >>> run_suite(RunRequest(suite=suite, cells="cnn-smal_*"))
        Traceback (most recent call last):
            ...
        prunecert.errors.UserError: --cells: Unknown cell 'cnn-smal_*' of suite 'cifar10-4nets'. ...

    Args:
        request: What is asked for.
        console: Where progress and tables are shown; None: on standard output.
        inspect: Is shown what is about to be done, networks, images and limits, before the first question; what it
            raises ends the run before anything is written.

    Returns:
        What has come of it; its `exit_code` is the command's.

    Raises:
        UserError: Anything about the input; what was answered before is kept.
    """
    console = Output() if console is None else console
    devices = resources.parse_devices(request.device)
    mode = mode_of(request.suite)
    mode.refuse(request)
    if len(devices) > 1:
        # Whether they can be shared out is known before anything is done.
        resources.share_out(devices, request.workers)
    prepared, backend = _prepare(request, mode, devices, console)
    workload = prepared.workload
    if inspect is not None:
        inspect(_session(prepared, MAIN_WRITER, request.workers or 1))
    if request.dry_run:
        certificates, pairs = describe_certificates(workload.certified), describe_pairs(workload.pairs)
        for line in (*select.describe(workload.plans), *certificates, *pairs):
            prepared.tell(line)
        prepared.tell("* sees every correctly classified image; the others see what is undecided. Nothing was run.")
    if backend is not None:
        return _send(prepared, backend)
    return prepared.result() if request.dry_run else _run_here(prepared)


def refuse_other_suite(out: Path, suite: Suite) -> None:
    """Refuses a run directory that holds another suite's results.

    Raises:
        UserError: It does.
    """
    if is_run(out):
        for session in Log(out).all_sessions():
            if session.suite != suite.name:
                raise UserError(
                    f"--out {out} is refused: it holds results of suite {session.suite!r}, not {suite.name!r}; "
                    "choose another directory."
                )


def _prepare(
    request: RunRequest, mode: RunMode, devices: tuple[str, ...], console: Console
) -> tuple[_Prepared, Backend | None]:
    """Finds out what there is to be done, and what takes the jobs if it is to be sent."""

    def tell(text: str) -> None:
        print_sentence(console, text)

    suite, away = request.suite, request.cluster is not None
    select.use_abcrown(request.abcrown)
    offered, exported = _offered(request)
    cells = select.choose(offered, request.cells, request.verifiers, request.images, tell)
    cells = select.set_compact(cells, request.compact)
    if request.certificates:
        _tell_of_balls(cells, tell)
    # What sends jobs need not have the devices on which they run.
    installed, skipped = select.check_installed(cells, "cpu" if away else devices[0], request.skip_unavailable)
    own = f"-{'-'.join(sorted(exported))}"[:100] if exported else ""
    out = request.out or Path("results/runs") / f"{suite.name}-{suite.profile}{own}"
    refuse_other_suite(out, suite)
    backend = _backend(request, out, console)
    for name, hint in skipped.items():
        tell(f"left out: {name} ({hint})")
    data = select.load_data(
        suite.data, cells, request.data_root, request.image_seed, sample=request.sample and request.shard is None
    )
    for reason in unpublishable(tuple(data.values())):
        tell(f"NOT PUBLISHABLE: {reason}")
    exports = request.exports / suite.name / "onnx"
    missing: tuple[Missing, ...] = ()
    if exported:
        plans = tuple(card_plans(cells, exported, installed, data, tell))
    else:
        named, foreign = split_own(cells)
        plans, missing = select.prepare(
            suite, named, installed, data, request.checkpoints, exports, tell, request.data_root
        )
        plans += card_plans(*prepare_own(foreign, suite.data, exports, tell), installed, data, tell)
    if missing:
        tell(f"cells without a checkpoint: {len(missing)} of {len(cells)}")
        for line in select.describe_missing(missing):
            tell(f"  {line}")
    refuse_contaminated(((plan.name, plan.data.split, plan.export) for plan in plans), tell)
    if not plans:
        raise UserError(
            f"No cell of suite {suite.name!r} has a checkpoint in {describe_places(request.checkpoints)}; train "
            "one first, or name the folder of those that are trained with --checkpoints."
        )
    workload = mode.plans(plans, request, Workshop(installed, exports, tell))
    prepared = _Prepared(
        request=request,
        mode=mode,
        out=out,
        devices=devices,
        console=console,
        protocols={cell.name: protocol for cell, protocol in offered.cells},
        skipped=skipped,
        missing=missing,
        data=tuple(data.values()),
        workload=workload,
    )
    return prepared, backend


def _tell_of_balls(cells: select.Cells, tell: Callable[[str], None]) -> None:
    """Says which cells have no certificates since they are verified over l2 balls.

    Raises:
        UserError: All of them are.
    """
    balls = [cell.name for cell, _ in cells if cell.ball]
    if balls and len(balls) == len(cells):
        raise UserError(
            "--certificates is refused: all of these cells are verified over l2 balls, and certificates are about "
            "boxes; leave it out, or name other cells with --cells."
        )
    if balls:
        tell(f"certificates are about boxes: cells over l2 balls get none ({balls[0]}, {len(balls)} in all)")


def _offered(request: RunRequest) -> tuple[Suite, dict[str, Export]]:
    """Returns the suite, with the cards' cells instead of its own where there are cards, and those cells' networks."""
    if not request.cards:
        return request.suite, {}
    if request.compact is not None:
        raise UserError("--compact goes without --card: a card's network is verified as its file has it.")
    entered, exported = card_cells(request.suite, [read_card(path) for path in request.cards])
    return replace(request.suite, cells=entered), exported


def _backend(request: RunRequest, out: Path, console: Console) -> Backend | None:
    """Returns what takes the jobs; None: there are none."""
    if request.cluster is None:
        return None
    from prunecert.bench.running.cluster import make_backend

    return make_backend(
        request.cluster.executor,
        out.absolute() / "slurm",
        request.cluster.resources,
        dry_run=request.dry_run,
        tell=partial(console.print, markup=False, soft_wrap=True),
    )


def _send(prepared: _Prepared, backend: Backend) -> RunResult:
    """Has the parts worked off by a batch system, and concludes the run when all are done."""
    from prunecert.bench.running import cluster

    request, workload, out = prepared.request, prepared.workload, prepared.out
    assert request.cluster is not None

    def read_answers(again: bool) -> KnownAnswers:
        retry = request.retry if again else frozenset()
        answers = read_done(out, retry)[0]
        certificates = known_certificates(out, retry) if workload.certified else {}
        pairs = known_pairs(out, retry) if workload.pairs else {}
        return answers.correct, {**answers.verdicts, **certificates, **pairs}

    cluster.run(
        [*workload.plans, *workload.certified, *workload.pairs],
        out,
        partial(cluster.TaskPart, run_suite, request),
        backend,
        request.cluster.resources,
        read_answers,
        prepared.tell,
        workers=request.workers,
        dry_run=request.dry_run,
    )
    if request.dry_run:
        return prepared.result()
    return replace(prepared.result(), conclusion=_conclude(prepared))


def _conclude(prepared: _Prepared, *, part: bool = False) -> Conclusion:
    return conclude(
        prepared.out,
        prepared.console,
        part=part,
        data=prepared.data,
        checkpoints=prepared.request.checkpoints,
    )


def _session(prepared: _Prepared, writer: str, workers: int) -> SessionRow:
    """Returns the row that says what is about to be done."""
    request = prepared.request
    return session_row(
        request.suite,
        prepared.workload.plans,
        prepared.data,
        writer=writer,
        missing=prepared.missing,
        skipped=prepared.skipped,
        device=request.device,
        workers=workers,
        threads=max(1, cores() // workers),
        shard=request.shard,
        argv=request.argv,
    )


def _run_here(prepared: _Prepared) -> RunResult:
    """Does everything, or one part of it, in this process and its verifier processes."""
    request, out = prepared.request, prepared.out
    devices = prepared.devices
    workers_asked = request.workers if len(devices) == 1 else len(resources.share_out(devices, request.workers))
    workers = prepared.mode.begin(out, workers_asked, devices[0])
    name = MAIN_WRITER if request.shard is None else f"shard-{request.shard[0]}-of-{request.shard[1]}"
    began = time.monotonic()
    if hint := resources.crowd_hint(workers, request.device, cores()):
        prepared.tell(hint)
    with Writer(out, name) as writer:
        if writer.cut:
            prepared.tell(
                f"{writer.path.name}: cut off an unfinished last line ({writer.cut} bytes); its instance is done again."
            )
        answers, notes = read_done(out, request.retry)
        for note in notes:
            prepared.tell(note)
        if answers.verdicts:
            prepared.tell(f"going on with {out}: {len(answers.verdicts)} verdicts are there already")
        session = _session(prepared, name, workers)
        if warning := answers.of_another_suite(session.suite_digest, out):
            prepared.tell(warning)
        writer.append(session)
        prepared.mode.work(prepared.workload, OpenRun(request, writer, answers, workers, prepared.console))
        writer.append(EndRow(writer=name, ended=utc_now(), seconds=round(time.monotonic() - began, 3)))
    result = replace(prepared.result(), session=session)
    if request.part:
        return result
    return replace(result, conclusion=_conclude(prepared, part=request.shard is not None))
