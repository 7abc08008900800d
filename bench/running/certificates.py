"""Asks for certificates, and writes them down as rows of their own type: `verdict` rows they are not."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from prunecert.bench.planning.certificates import CertifyPlan
from prunecert.bench.planning.plan import CellPlan, in_shard, instance_id
from prunecert.bench.results.decode import build
from prunecert.bench.results.row_types import CertificateRow
from prunecert.bench.results.store import Log, Writer, collector_off, is_run, verdict_fields
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.bench.running.progress import Display
from prunecert.verifiers.base import Instance, Status, Verdict

Answered = Callable[[Batch, Sequence[Instance], Sequence[Verdict]], None]


Work = Callable[[Sequence[CellPlan], Sequence[CellCascade], Answered, Display, argparse.Namespace, int], None]


def known_certificates(out: Path, retry: frozenset[Status]) -> dict[tuple[str, int], Status]:
    """Returns what earlier runs have found, by key and image; failures named in `retry` are left out."""
    found: dict[tuple[str, int], Status] = {}
    if not is_run(out):
        return found
    with collector_off():
        for row in Log(out).rows():
            if isinstance(row, CertificateRow):
                if row.status in retry and row.certificate is None:
                    found.pop((row.key, row.image), None)
                else:
                    found[row.key, row.image] = row.status
    return found


def certificate_rows(
    plan: CertifyPlan, batch: Batch, instances: Sequence[Instance], verdicts: Sequence[Verdict]
) -> list[CertificateRow]:
    """Returns the rows of an answered batch."""
    stage = plan.stages[batch.stage]
    return [
        build(
            CertificateRow,
            {
                "id": instance_id(instance, stage),
                "key": plan.keys[batch.stage],
                "cell": plan.name,
                "image": int(plan.data.indices[position]),
                "label": instance.label,
                "settings": stage.settings_hash,
                "timeout": stage.timeout,
                **verdict_fields(verdict),
                "verifier": stage.verifier,
                "version": verdict.version or stage.version,
            },
        )
        for position, instance, verdict in zip(batch.positions, instances, verdicts, strict=True)
    ]


def take(
    plans: Sequence[CertifyPlan],
    writer: Writer,
    retry: frozenset[Status],
    options: argparse.Namespace,
    workers: int,
    console: Console,
    work: Work,
) -> None:
    """Certifies every image that has no certificate yet; each is in the log when it is there.

    Args:
        plans: What is to be certified.
        writer: The log.
        retry: Statuses of failures that are tried again.
        options: Those of `bench.run`.
        workers: Verifier processes side by side.
        console: Where to show how far it is.
        work: Works through the questions; see `bench.run`.
    """
    known = known_certificates(writer.directory, retry)
    cascades = []
    for number, plan in enumerate(plans):
        indices = [int(index) for index in plan.data.indices[: plan.images]]
        mine = [p for p, index in enumerate(indices) if in_shard(plan.cell, index, options.shard)]
        (key,) = plan.keys
        done = {(0, p): known[key, indices[p]] for p in mine if (key, indices[p]) in known}
        cascades.append(CellCascade(number, plan.stages, mine, done))
    console.print(f"certifying {len(plans)} networks by randomized smoothing", highlight=False)
    display = Display(console, plans, cascades, workers)

    def answered(batch: Batch, instances: Sequence[Instance], verdicts: Sequence[Verdict]) -> None:
        writer.append(*certificate_rows(plans[batch.cell], batch, instances, verdicts))
        display.answered(batch, verdicts)

    work(plans, cascades, answered, display, options, workers)
