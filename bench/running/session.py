"""What a run is made with: the session row that begins every part of a result file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import msgspec

from prunecert.bench.machine import machine, utc_now, versions
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.results.decode import build, plain, why
from prunecert.bench.results.protocol_types import Missing
from prunecert.bench.results.session_types import SessionRow
from prunecert.bench.results.store import SCHEMA_VERSION
from prunecert.bench.schema.suite import Suite
from prunecert.errors import UserError
from prunecert.models.data import Dataset


def unpublishable(datasets: Sequence[Dataset]) -> list[str]:
    """Returns why results on this data must not be published, one sentence each; empty if they may be."""
    reasons = []
    for data in datasets:
        if data.sample:
            reasons.append(f"the {data.split} split is the built-in sample of {len(data)} images, not CIFAR-10")
    return reasons


def unfit(plans: Sequence[CellPlan]) -> list[str]:
    """Returns why results on these networks must not be published, one sentence each: what their cards say."""
    return [f"{plan.cell.name}: {plan.export.card['unfit']}" for plan in plans if plan.export.card.get("unfit")]


def session_row(
    suite: Suite,
    plans: Sequence[CellPlan],
    datasets: Sequence[Dataset],
    *,
    writer: str,
    missing: Sequence[Missing],
    skipped: Mapping[str, str],
    device: str,
    workers: int,
    threads: int,
    shard: tuple[int, int] | None,
    argv: Sequence[str],
) -> SessionRow:
    """Returns the row that says what is about to be done, with what, and what it is to be read with.

    Args:
        suite: The suite, its profile chosen.
        plans: Cells that are verified.
        datasets: Splits in use.
        writer: Name of the result file's writer.
        missing: Cells without a checkpoint, with the command that trains each.
        skipped: Verifiers that are not installed and were left out on request, with what to install.
        device: Device asked for.
        workers: Verifier processes side by side.
        threads: Threads of each.
        shard: (i, n) for part i of n, or None for everything.
        argv: The command's arguments.
    """
    fields = {
        "schema_version": SCHEMA_VERSION,
        "writer": writer,
        "started": utc_now(),
        "command": ["python", "-m", "bench.run", *argv],
        "suite": suite.name,
        "profile": suite.profile,
        "suite_digest": suite.digest(),
        "description": suite.description,
        "data": [
            {
                "split": d.split,
                "fingerprint": d.fingerprint,
                "official": d.official,
                "sample": d.sample,
                "source": d.source,
            }
            for d in datasets
        ],
        "versions": versions(),
        "machine": machine(),
        "device": device,
        "workers": workers,
        "threads": threads,
        "pid": os.getpid(),
        "float32": "TF32 off",
        "shard": None if shard is None else list(shard),
        "unpublishable": [*unpublishable(datasets), *unfit(plans)],
        "missing": [plain(cell) for cell in missing],
        "skipped": dict(skipped),
        "cells": [plan.to_json() for plan in plans],
    }
    try:
        return build(SessionRow, fields)
    except msgspec.ValidationError as error:
        # What a foreign card says, for example.
        where, reason = why(error)
        raise UserError(f"This run can't be written down: {where}: {reason}; change it and run again.") from error
