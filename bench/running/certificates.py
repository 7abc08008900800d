"""Asks for certificates, and writes them down as rows of their own type: `verdict` rows they are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.planning.certificates import CertifyPlan
from prunecert.bench.planning.plan import in_shard
from prunecert.bench.results.decode import build
from prunecert.bench.results.row_types import CertificateRow
from prunecert.bench.results.store import Log, collector_off, is_run
from prunecert.bench.running.asking import OpenRun, work_off
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.bench.running.progress import Display
from prunecert.bench.running.recording import answer_fields
from prunecert.verifiers.base import Instance, Status, Verdict


def known_certificates(out: Path, retry: frozenset[Status]) -> dict[tuple[str, int], Status]:
    """Returns what earlier runs have found, by key and image; failures named in `retry` are left out."""
    statuses: dict[tuple[str, int], Status] = {}
    if not is_run(out):
        return statuses
    with collector_off():
        for row in Log(out).rows():
            if isinstance(row, CertificateRow):
                if row.status in retry and row.certificate is None:
                    statuses.pop((row.key, row.image), None)
                else:
                    statuses[row.key, row.image] = row.status
    return statuses


def certificate_rows(
    plan: CertifyPlan, batch: Batch, instances: Sequence[Instance], verdicts: Sequence[Verdict]
) -> list[CertificateRow]:
    """Returns the rows of an answered batch."""
    return [
        build(CertificateRow, answer_fields(plan, batch, position, instance, verdict))
        for position, instance, verdict in zip(batch.positions, instances, verdicts, strict=True)
    ]


def certify_all(plans: Sequence[CertifyPlan], run: OpenRun) -> None:
    """Certifies every image that has no certificate yet; each is in the log when it is there.

    Args:
        plans: What is to be certified.
        run: Where certificates go and are looked up.
    """
    statuses = known_certificates(run.writer.directory, run.request.retry)
    cascades = []
    for number, plan in enumerate(plans):
        indices = [int(index) for index in plan.data.indices[: plan.images]]
        mine = [p for p, index in enumerate(indices) if in_shard(plan.cell, index, run.request.shard)]
        cascades.append(CellCascade(number, plan.stages, mine, plan.answers_among(statuses, mine)))
    run.console.print(f"certifying {len(plans)} networks by randomized smoothing", highlight=False)
    display = Display(run.console, plans, cascades, run.workers)

    def answered(batch: Batch, instances: Sequence[Instance], verdicts: Sequence[Verdict]) -> None:
        run.writer.append(*certificate_rows(plans[batch.cell], batch, instances, verdicts))
        display.answered(batch, verdicts)

    work_off(plans, cascades, answered, display, run)
