"""Asks about pairs of a suite's networks, and writes the answers down as rows of their own type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunecert.bench.planning.pairs import PairPlan
from prunecert.bench.planning.plan import in_shard, instance_id, question_id
from prunecert.bench.results.decode import build
from prunecert.bench.results.row_types import PairRow
from prunecert.bench.results.store import Log, Writer, collector_off, is_run, verdict_fields
from prunecert.bench.running.asking import OpenRun, work_off
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.bench.running.pairs import confirmed_on
from prunecert.bench.running.progress import Display
from prunecert.verifiers.base import Instance, Status, Verdict


def known_pairs(out: Path, retry: frozenset[Status]) -> dict[tuple[str, int], Status]:
    """Returns what earlier runs have answered, by key and image; statuses named in `retry` are left out."""
    statuses: dict[tuple[str, int], Status] = {}
    if not is_run(out):
        return statuses
    with collector_off():
        for row in Log(out).rows():
            if isinstance(row, PairRow):
                if row.status in retry:
                    statuses.pop((row.key, row.image), None)
                else:
                    statuses[row.key, row.image] = row.status
    return statuses


def pair_rows(
    plan: PairPlan, batch: Batch, instances: Sequence[Instance], verdicts: Sequence[Verdict], writer: Writer
) -> list[PairRow]:
    """Returns the rows of an answered batch; counterexamples are stored on the way."""
    stage, rows = plan.stages[batch.stage], []
    for position, instance, verdict in zip(batch.positions, instances, verdicts, strict=True):
        identity = instance_id(instance, stage)
        fields: dict[str, Any] = {
            "id": identity,
            "question": question_id(instance),
            "key": plan.keys[batch.stage],
            "cell": plan.name,
            "partner": plan.partner.name,
            "alike": plan.alike,
            "image": int(plan.data.indices[position]),
            "settings": stage.settings_hash,
            "timeout": stage.timeout,
            **verdict_fields(verdict),
            "verifier": stage.verifier,
            "version": verdict.version or stage.version,
        }
        if verdict.witness is not None:
            fields["witness"] = writer.save_witness(identity, verdict.witness)
        rows.append(build(PairRow, fields))
    return rows


def ask_pairs(plans: Sequence[PairPlan], run: OpenRun) -> None:
    """Asks about every image's box that has no answer yet; each answer is in the log when it is there.

    Args:
        plans: What is to be asked.
        run: Where answers go and are looked up.
    """
    statuses = known_pairs(run.writer.directory, run.request.retry)
    cascades = []
    for number, plan in enumerate(plans):
        indices = [int(index) for index in plan.data.indices[: plan.images]]
        mine = [p for p, index in enumerate(indices) if in_shard(plan.cell, index, run.request.shard)]
        cascades.append(CellCascade(number, plan.stages, mine, plan.answers_among(statuses, mine)))
    run.console.print(f"comparing {len(plans)} pairs of networks", highlight=False)
    display = Display(run.console, plans, cascades, run.workers)

    def answered(batch: Batch, instances: Sequence[Instance], verdicts: Sequence[Verdict]) -> None:
        plan = plans[batch.cell]
        files = (plan.partner.path, plan.own)
        checked = [
            confirmed_on(verdict, files, instance.spec, inside=_inside(verdict, instance))
            for instance, verdict in zip(instances, verdicts, strict=True)
        ]
        run.writer.append(*pair_rows(plan, batch, instances, checked, run.writer))
        display.answered(batch, checked)

    work_off(plans, cascades, answered, display, run)


def _inside(verdict: Verdict, instance: Instance) -> bool:
    return verdict.witness is not None and instance.contains(np.asarray(verdict.witness, dtype=np.float32))
