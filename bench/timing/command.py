"""The part of `bench.run` that takes times: what it refuses, what it prepares, and how it runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from bench.plan import CellPlan
from bench.rows import Done, predict, verdict_rows
from bench.session import cores
from bench.store import Writer
from bench.timing.plans import Group
from bench.timing.schedule import schedule
from bench.timing.take import TimeTaker
from prunecert.errors import UserError


def refuse_for_times(options: argparse.Namespace) -> None:
    """Refuses what would make times that cannot be compared.

    Raises:
        UserError: One of the options is such.
    """
    for flag, given, why in (
        ("--workers", (options.workers or 1) != 1, "one verifier process works at a time, with all cores"),
        ("--shard", options.shard is not None, "times of different machines or loads are never compared"),
        ("--submit", options.submit, "only the images that all its networks classify correctly are looked at"),
        ("--card", bool(options.card), "its networks are the suite's own, dense and pruned"),
    ):
        if given:
            raise UserError(f"{flag} is refused: suite {options.suite!r} takes times, and {why}.")


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
