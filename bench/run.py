"""Verify a suite's checkpoints: plan, verify, store, and show the table.

Runs of the same command go on where the last one stopped: finished instances are never done again.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console

from prunecert.bench.leaderboard.submit import submit
from prunecert.bench.options import IMAGES, SEED, WORKERS
from prunecert.bench.planning import select
from prunecert.bench.planning.card import card_cells, card_plans, read_card
from prunecert.bench.planning.certificates import describe_certificates, with_certificates
from prunecert.bench.planning.exports import Export
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.timing import Group, timed_plans
from prunecert.bench.report.timing_command import conclude_times, holds_times, refuse_for_times, take_times
from prunecert.bench.results.decode import plain
from prunecert.bench.results.row_types import EndRow
from prunecert.bench.results.store import MAIN_WRITER, Log, Writer, is_run
from prunecert.bench.running import resources, slurm
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.bench.running.certificates import known_certificates, take
from prunecert.bench.running.progress import Display, Output
from prunecert.bench.running.recording import Done, parse_statuses, predict, read_done, verdict_rows
from prunecert.bench.running.reuse import read_earlier, take_over
from prunecert.bench.running.session import cores, machine, session_row, unpublishable, utc_now
from prunecert.bench.running.timing import refuse_other_machine
from prunecert.bench.running.warmstart import WarmStart, warm_plans
from prunecert.bench.schema.suite import Suite, load_suite
from prunecert.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_REGRESSION, EXIT_USAGE, UserError, run_main
from prunecert.printable import shortened
from prunecert.verifiers.base import Instance, Verdict

if TYPE_CHECKING:
    from prunecert.bench.running.cluster import Part
    from prunecert.bench.running.outlook import Known


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--suite", required=True, help="name of a shipped suite (see bench.ls), or a .yaml file")
    parser.add_argument("--profile", default="default", help="the suite's profile: default, smoke, paper, …")
    parser.add_argument("--images", type=IMAGES, help="verify the first N images instead of the profile's number")
    parser.add_argument("--cells", help="only cells whose name fits one of these comma-separated shell patterns")
    parser.add_argument("--verifiers", help="comma-separated verifiers, in order, instead of the suite's cascade")
    parser.add_argument("--image-seed", type=SEED, help="draw the images with this seed instead of taking the first")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:N, or a list: cuda:0,cuda:1")
    parser.add_argument(
        "--workers", type=WORKERS, help="verifier processes side by side (default: by cores and memory)"
    )
    parser.add_argument("--no-pin", action="store_true", help="let workers share all cores instead of a set for each")
    parser.add_argument("--out", type=Path, help="run directory (default: results/runs/SUITE-PROFILE)")
    parser.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--checkpoints", type=Path, default=select.CHECKPOINTS, help="folder of trained cells")
    parser.add_argument("--exports", type=Path, default=Path("onnx_exports"), help="folder for ONNX files")
    parser.add_argument("--abcrown", type=Path, metavar="PATH", help="a checkout of alpha-beta-CROWN")
    parser.add_argument("--shard", type=_shard, metavar="I/N", help="only part I of N; join the parts with bench.merge")
    parser.add_argument("--skip-unavailable", action="store_true", help="leave out verifiers that are not installed")
    parser.add_argument(
        "--reuse", type=Path, nargs="+", default=[], metavar="RUN", help="take over what these earlier runs answered"
    )
    parser.add_argument(
        "--warm-start", action="store_true", help="attacks begin at the neighbouring ratio's counterexamples"
    )
    parser.add_argument("--retry", metavar="STATUS", help="do instances of these statuses again, e.g. error,memout")
    parser.add_argument(
        "--card", type=Path, nargs="+", metavar="CARD", help="verify the networks of these cards, not the suite's own"
    )
    select.add_compact_option(parser)
    parser.add_argument("--submit", action="store_true", help="write leaderboard entries of the cells, once finished")
    parser.add_argument("--by", default="", metavar="NAME", help="who submits; shown on the leaderboard")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and stop")
    slurm.add_options(parser)
    return parser


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    plain = slash and re.fullmatch(r"[0-9]{1,6}/[0-9]{1,6}", text)
    if not (plain and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(
            f"{shortened(repr(text), 60)} is refused; write I/N with I from 1 to N, e.g. 2/8"
        )
    return int(number), int(count)


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


def verify(
    plans: Sequence[CellPlan], writer: Writer, done: Done, options: argparse.Namespace, workers: int, console: Console
) -> None:
    """Asks everything that has no answer yet; each answer is in the log when the instance ends."""
    earlier = read_earlier(options.reuse, machine(), options.device) if options.reuse else None
    warm = WarmStart(plans, options.out) if options.warm_start else None
    console.print(f"finding out what {len(plans)} networks classify correctly", highlight=False)
    cascades = []
    for number, plan in enumerate(plans):
        positions = predict(plan, done, writer, options.shard)
        known = {
            (s, p): done.verdicts[key, int(plan.data.indices[p])]
            for s, key in enumerate(plan.keys)
            for p in positions
            if (key, int(plan.data.indices[p])) in done.verdicts
        }
        look = None if earlier is None else partial(take_over, plan, earlier=earlier, writer=writer)
        ready = None if warm is None else partial(warm.ready, number)
        cascades.append(CellCascade(number, plan.stages, positions, known, look, ready))
    if warm is not None:
        warm.cascades = cascades
    display = Display(console, plans, cascades, workers)

    def answered(batch: Batch, instances: Sequence[Instance], verdicts: Sequence[Verdict]) -> None:
        writer.append(*verdict_rows(plans[batch.cell], batch, instances, verdicts, writer))
        display.answered(batch, verdicts)

    work(plans, cascades, answered, display, options, workers, None if warm is None else warm.add_starts)


def work(
    plans: Sequence[CellPlan],
    cascades: Sequence[CellCascade],
    answered: Callable[[Batch, Sequence[Instance], Sequence[Verdict]], None],
    display: Display,
    options: argparse.Namespace,
    workers: int,
    prepare: Callable[[Batch, Sequence[Instance]], list[Instance]] | None = None,
) -> None:
    """Works through all questions of the cascades in processes on this machine."""
    from prunecert.bench.running.local import LocalExecutor

    devices = resources.parse_devices(options.device)
    # Parts of a run may share its directory, but no file in it.
    logs = options.out / "logs" / ("" if options.shard is None else "shard-{}-of-{}".format(*options.shard))
    logs.mkdir(parents=True, exist_ok=True)
    executor = LocalExecutor(
        plans,
        cascades,
        answered,
        on_progress=display.refresh,
        prepare=prepare,
        workers=workers,
        threads=max(1, cores() // workers),
        log_dir=logs,
        devices=resources.share_out(devices, workers) if len(devices) > 1 else None,
        cores=None if options.no_pin else resources.core_sets(workers),
    )
    with display:
        executor.run()


def default_workers(device: str) -> int:
    """Returns how many verifier processes to run side by side: one a core, each with 2 GiB of free memory."""
    import psutil

    if device != "cpu":
        return 1
    return max(1, min(cores(), int(psutil.virtual_memory().available // (2 << 30))))


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None, part: Part | None = None) -> int:
    """Runs the command; see the module's docstring.

    Args:
        argv: Its arguments; None: those of the process.
        part: What this process does of a run that was handed to a batch system.

    Returns:
        0; 1 if verifiers contradict each other; 2 if a verifier failed on everything it was asked.

    Raises:
        UserError: Anything about the input.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parser().parse_args(arguments)
    console = Output()
    wanted = slurm.check(options)
    devices = resources.parse_devices(options.device)
    suite = load_suite(options.suite, options.profile)
    retry = parse_statuses(options.retry)
    if part is not None:
        options.shard = part.number, part.count
        retry = retry if part.retry else frozenset()
    if suite.timed:
        refuse_for_times(options)
    if options.warm_start and (options.shard is not None or options.executor != "local"):
        raise UserError("--warm-start is refused with shards and jobs: all ratios of an image must be in one process.")
    if options.warm_start and options.submit:
        raise UserError("--warm-start is refused with --submit: an entry must stand for itself.")
    if options.image_seed is not None and options.submit:
        raise UserError("--image-seed is refused with --submit: the leaderboard is about the first images.")
    workers = options.workers
    if len(devices) > 1:
        workers = len(resources.share_out(devices, workers))
    send = wanted if part is None else None
    if send is not None and suite.timed:
        raise UserError(f"--executor is refused: suite {options.suite!r} takes times, on one machine.")
    select.use_abcrown(options.abcrown)
    exported: dict[str, Export] = {}
    offered = suite
    if options.card:
        if options.compact is not None:
            raise UserError("--compact goes without --card: a card's network is verified as its file has it.")
        entered, exported = card_cells(suite, [read_card(path) for path in options.card])
        offered = replace(suite, cells=entered)
    cells = select.choose(offered, options.cells, options.verifiers, options.images)
    cells = select.set_compact(cells, options.compact)
    installed, skipped = select.check_installed(
        # What sends jobs need not have the devices on which they run.
        cells,
        devices[0] if send is None else "cpu",
        options.skip_unavailable,
    )
    own = f"-{'-'.join(sorted(exported))}"[:100] if exported else ""
    options.out = options.out or Path("results/runs") / f"{suite.name}-{suite.profile}{own}"
    refuse_other_suite(options.out, suite)

    def tell(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    if send is not None:
        from prunecert.bench.running import cluster

        backend = cluster.make_backend(
            options.executor, options.out.absolute() / "slurm", send, dry_run=options.dry_run, tell=tell
        )

    for name, hint in skipped.items():
        tell(f"left out: {name} ({hint})")
    data = select.load_data(cells, options.data_root, options.image_seed, sample=options.shard is None)
    for reason in unpublishable(list(data.values())):
        tell(f"NOT PUBLISHABLE: {reason}")
    exports = options.exports / suite.name / "onnx"
    missing: dict[str, str] = {}
    if exported:
        plans = card_plans(cells, exported, installed, data, tell)
    else:
        plans, missing = select.prepare(suite, cells, installed, data, options.checkpoints, exports, tell)
    if missing:
        tell(f"cells without a checkpoint: {len(missing)} of {len(cells)}")
        for line in select.describe_missing(missing):
            tell(f"  {line}")
    if not plans:
        raise UserError(f"No cell of suite {suite.name!r} has a checkpoint in {options.checkpoints}; train one first.")
    groups: list[Group] = []
    if suite.timed:
        plans, groups = timed_plans(plans, exports, tell)
    plans, certified = with_certificates(plans, installed, tell)
    if options.warm_start:
        plans = warm_plans(plans)
    if options.dry_run:
        for line in (*select.describe(plans), *describe_certificates(certified)):
            tell(line)
        tell("* sees every correctly classified image; the others see what is undecided. Nothing was run.")
    if send is not None:

        def known(again: bool) -> Known:
            done = read_done(options.out, retry if again else frozenset())[0]
            certificates = known_certificates(options.out, retry if again else frozenset()) if certified else {}
            return done.correct, {**done.verdicts, **certificates}

        cluster.run(
            [*plans, *certified],
            options.out,
            arguments,
            backend,
            send,
            known,
            tell,
            workers=options.workers,
            dry_run=options.dry_run,
        )
        return EXIT_OK if options.dry_run else conclude(options.out, console)
    if options.dry_run:
        return EXIT_OK
    workers = workers or (1 if suite.timed else default_workers(devices[0]))
    if suite.timed:
        refuse_other_machine(options.out, machine(), max(1, cores() // workers))
    name = MAIN_WRITER if options.shard is None else f"shard-{options.shard[0]}-of-{options.shard[1]}"
    began = time.monotonic()
    with Writer(options.out, name) as writer:
        if writer.cut:
            tell(
                f"{writer.path.name}: cut off an unfinished last line ({writer.cut} bytes); its instance is done again."
            )
        done, notes = read_done(options.out, retry)
        for note in notes:
            tell(note)
        if done.verdicts:
            tell(f"going on with {options.out}: {len(done.verdicts)} verdicts are there already")
        session = session_row(
            suite,
            plans,
            list(data.values()),
            writer=name,
            missing=missing,
            skipped=skipped,
            device=options.device,
            workers=workers,
            threads=max(1, cores() // workers),
            shard=options.shard,
            argv=arguments,
        )
        writer.append(session)
        if suite.timed:
            take_times(plans, groups, writer, done, options, console)
        else:
            verify(plans, writer, done, options, workers, console)
        if certified:
            take(certified, writer, retry, options, workers, console, work)
        writer.append(EndRow(writer=name, ended=utc_now(), seconds=round(time.monotonic() - began, 3)))
    if part is not None:
        # Who sent the parts writes the report, when all are done.
        return EXIT_OK
    code = conclude(options.out, console, part=options.shard is not None)
    if options.submit and code == EXIT_OK:
        asked = {cell.name: protocol for cell, protocol in offered.cells}
        # The leaderboard is about what is proved; certificates hold with a probability.
        for path in submit(
            options.out, [plan for plan in plans if plan.protocol.cascade], asked, plain(session), by=options.by
        ):
            tell(f"wrote {path}")
    elif options.submit:
        tell("nothing was submitted: see above.")
    return code


def conclude(out: Path, console: Console, *, part: bool = False) -> int:
    """Writes and shows the summary, the figures and the report of a run, or of a part; returns the exit code."""
    from prunecert.bench.report.publish import write_all

    summary, paths = conclude_times(out, console) if holds_times(out) else write_all(out, console, part=part)
    if not paths:
        console.print(
            f"this part is done; the last part that runs into {out} writes the report, or bench.merge does",
            markup=False,
            soft_wrap=True,
        )
    for path in paths:
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    return exit_code(summary, console)


def exit_code(summary: dict[str, Any], console: Console) -> int:
    """Names contradictions and verifiers that never worked, and returns the exit code."""
    for item in summary["contradictions"]:
        console.print(
            f"CONTRADICTION: {item['cell']} image {item['image']}: {item['unsat_by']} proves it, "
            f"{item['sat_by']} breaks it",
            markup=False,
            soft_wrap=True,
        )
    if summary["contradictions"]:
        return EXIT_REGRESSION
    for name in summary["broken_verifiers"]:
        console.print(f"BROKEN: {name} failed on every instance; see the logs folder of the run", markup=False)
    return EXIT_USAGE if summary["broken_verifiers"] else EXIT_OK


def command() -> int:
    """Runs `main` and, on Ctrl-C, ends at once: taking torch down in good order takes seconds.

    Nothing is left to be put in order by then: the log is closed and the verifier processes are gone.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return main()
    except KeyboardInterrupt:
        print("interrupted: finished results are kept; run the same command again to go on.", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    run_main(command)
