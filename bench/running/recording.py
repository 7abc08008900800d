"""From questions and answers to rows of the log, and back: what earlier runs have found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prunecert.bench.planning.plan import CellPlan, in_shard, instance_id, is_correct, question_id
from prunecert.bench.results.decode import build
from prunecert.bench.results.row_types import ImageRow, VerdictRow
from prunecert.bench.results.session_types import SessionRow
from prunecert.bench.results.store import Log, Writer, collector_off, is_run, verdict_fields
from prunecert.bench.running.cascade import Batch
from prunecert.errors import UserError
from prunecert.verifiers.base import Instance, Status, Verdict


@dataclass
class LoggedAnswers:
    """What earlier runs in the same directory have found.

    Args:
        correct: By image key and image.
        verdicts: By stage key and image.
        suites: Names of the suites that they are of, by digest, the latest last.
    """

    correct: dict[tuple[str, int], bool]
    verdicts: dict[tuple[str, int], Status]
    suites: dict[str, str] = field(default_factory=dict)

    def of_another_suite(self, digest: str, out: Path) -> str:
        """Returns what to say where all are of another suite, or of this one before it was changed; else nothing.

        Args:
            digest: The suite's.
            out: Their folder.
        """
        if not self.verdicts or digest in self.suites:
            return ""
        names = ", ".join(map(repr, dict.fromkeys(self.suites.values())))
        return (
            f"warning: {out} holds a run of another suite ({names}), or of this one before it was changed: its rows "
            "stay, but summary, table and report are of this suite alone now; another --out keeps both."
        )


def read_done(out: Path, retry: frozenset[Status]) -> tuple[LoggedAnswers, list[str]]:
    """Reads what is finished already, and what there is to say about the files."""
    answers = LoggedAnswers({}, {})
    if not is_run(out):
        return answers, []
    log = Log(out)
    with collector_off():
        for row in log.rows():
            if isinstance(row, VerdictRow):
                if row.status in retry:
                    answers.verdicts.pop((row.key, row.image), None)
                else:
                    answers.verdicts[row.key, row.image] = row.status
            elif isinstance(row, ImageRow):
                answers.correct[row.key, row.image] = row.correct
            elif isinstance(row, SessionRow):
                answers.suites[row.suite_digest] = row.suite
    return answers, log.notes


def predict(plan: CellPlan, answers: LoggedAnswers, writer: Writer, shard: tuple[int, int] | None) -> list[int]:
    """Finds out which images the exported network classifies correctly, and records what was not known.

    Returns:
        Places of the correctly classified images in the image set, in order.

    Raises:
        UserError: The network gives logits that are not finite.
    """
    from prunecert.verifiers.formats.counterexample import outputs

    data = plan.data
    mine = [p for p in range(plan.images) if in_shard(plan.cell, int(data.indices[p]), shard)]
    new = [p for p in mine if (plan.image_key, int(data.indices[p])) not in answers.correct]
    logits = outputs(plan.export.path, data.images[new])
    if not np.all(np.isfinite(logits)):
        raise UserError(f"Cell {plan.cell.name}: its network gives logits that are not finite; train it again.")
    rows: list[ImageRow] = []
    for position, y in zip(new, logits, strict=True):
        label, index = int(data.labels[position]), int(data.indices[position])
        correct = is_correct(y, label)
        answers.correct[plan.image_key, index] = correct
        rows.append(
            ImageRow(
                key=plan.image_key,
                cell=plan.name,
                image=index,
                label=label,
                predicted=int(y.argmax()),
                correct=correct,
            )
        )
    if rows:
        writer.append(*rows)
    return [p for p in mine if answers.correct[plan.image_key, int(data.indices[p])]]


def answer_fields(plan: CellPlan, batch: Batch, position: int, instance: Instance, verdict: Verdict) -> dict[str, Any]:
    """Returns what the row of any answer about an image says: whose it is, what was asked, and the verdict.

    Args:
        plan: The network.
        batch: What was asked together.
        position: The image's place in the image set.
        instance: The question.
        verdict: The answer.
    """
    stage = plan.stages[batch.stage]
    return {
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
    }


def verdict_rows(
    plan: CellPlan, batch: Batch, instances: Sequence[Instance], verdicts: Sequence[Verdict], writer: Writer
) -> list[VerdictRow]:
    """Returns the rows of an answered batch; counterexamples are stored on the way."""
    stage, rows = plan.stages[batch.stage], []
    for position, instance, verdict in zip(batch.positions, instances, verdicts, strict=True):
        fields = answer_fields(plan, batch, position, instance, verdict)
        fields["question"] = question_id(instance)
        if stage.repeat is not None:
            fields["repeat"] = stage.repeat
        if verdict.witness is not None:
            fields["witness"] = writer.save_witness(fields["id"], verdict.witness)
            for origin, start in instance.starts.items():
                if np.array_equal(start, verdict.witness):
                    fields["start"] = origin
                    break
        rows.append(build(VerdictRow, fields))
    return rows
