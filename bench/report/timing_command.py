"""The part of `bench.run` that takes times: what it refuses, what it prepares, and how it runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from prunecert.bench.machine import cores
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.timing import Group
from prunecert.bench.report.medium import Table
from prunecert.bench.results.store import Log, Writer
from prunecert.bench.results.summary import summarise
from prunecert.bench.results.timing import summarise_times
from prunecert.bench.results.timing_observations import read
from prunecert.bench.running.recording import Done, predict, verdict_rows
from prunecert.bench.running.timing import TimeTaker
from prunecert.bench.running.timing_schedule import schedule
from prunecert.errors import UserError
from prunecert.files import write_text


def refuse_for_times(options: argparse.Namespace) -> None:
    """Refuses what would make times that cannot be compared.

    Raises:
        UserError: One of the options is such.
    """
    for flag, given, why in (
        ("--device", "," in options.device, "one verifier process works at a time, on one device"),
        ("--workers", (options.workers or 1) != 1, "one verifier process works at a time, with all cores"),
        ("--shard", options.shard is not None, "times of different machines or loads are never compared"),
        ("--submit", options.submit, "only the images that all its networks classify correctly are looked at"),
        ("--warm-start", options.warm_start, "an attack's time must not depend on another network's"),
        ("--reuse", bool(options.reuse), "each of them is taken here and now"),
        ("--card", bool(options.card), "its networks are the suite's own, dense and pruned"),
    ):
        if given:
            raise UserError(f"{flag} is refused: suite {options.suite!r} takes times, and {why}.")


def holds_times(out: Path) -> bool:
    """Whether a run directory is that of a timing suite."""
    return any(session.timed for session in Log(out).sessions())


def conclude_times(out: Path, console: Console) -> tuple[dict[str, Any], list[Path]]:
    """Writes and shows the tables and figures of a timing run; returns the usual summary, and the paths written."""
    from prunecert.bench.report import timing_figures, timing_table

    found = summarise_times(read(out))
    paths = [
        write_text(out / "timing.html", timing_table.html(found)),
        write_text(out / "timing.json", json.dumps(found, indent=1, allow_nan=False) + "\n"),
        write_text(out / "timing.md", timing_table.markdown(found)),
        *timing_figures.save(found, out / "figures"),
    ]
    for group in found["groups"]:
        console.print(Table(timing_table.COLUMNS, timing_table.rows(group)).terminal(group["name"]))
    for line in timing_table.notes(found):
        console.print(line, markup=False, soft_wrap=True)
    return summarise(out), paths


def take_times(
    plans: Sequence[CellPlan],
    groups: Sequence[Group],
    writer: Writer,
    done: Done,
    options: argparse.Namespace,
    console: Console,
) -> None:
    """Takes the times of a timing suite; each answer is in the log when it is there."""
    for plan in plans:
        predict(plan, done, writer, None)
    logs = options.out / "logs"
    logs.mkdir(exist_ok=True)
    taker = TimeTaker(plans, writer, verdict_rows, threads=cores(), logs=logs, console=console)
    taker.run(schedule(plans, groups), done.verdicts)
