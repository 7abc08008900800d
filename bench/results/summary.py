"""From result rows to the numbers of a run: pure reading, no verifier and no plan is needed.

What counts as what:

- *verified*: correctly classified, and some verifier answered `unsat`, and none `sat`.
- *attacked*: correctly classified, and no verifier found a counterexample; the upper bound of *verified*.
- *time* of an image: the seconds of all verifiers of the cascade up to the one that decided it (of all, if none did),
  without starting processes and loading networks. An image that stays undecided counts with all that was spent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec import UNSET

from prunecert.bench.results import certificates as smoothing
from prunecert.bench.results import pairs as compared
from prunecert.bench.results import proofs
from prunecert.bench.results.decode import plain
from prunecert.bench.results.outcome import MISCLASSIFIED, PENDING, Claims, Outcome, seconds, settle
from prunecert.bench.results.protocol_types import SessionStage
from prunecert.bench.results.row_types import CertificateRow, EndRow, ImageRow, PairRow, ProofRow, Row, VerdictRow
from prunecert.bench.results.session_types import SessionCell, SessionRow, present
from prunecert.bench.results.stats import share_record
from prunecert.bench.results.store import Log, collector_off, run_session
from prunecert.bench.results.summary_types import CONFIDENCE, KIND, SCHEMA_VERSION
from prunecert.errors import UserError

_SHARED = ("name", "network", "objective", "eps", "pruner", "compression", "seed", "split")
_UNDECIDED = ("unknown", "timeout", "memout", "error", "unsupported")


class Answer(NamedTuple):
    """One verdict, as far as the summary needs it: seconds are without start-up and loading."""

    status: str
    seconds: float
    unstable: int | None
    domains: int | None
    version: str


@dataclass
class Rows:
    """All rows of a log in a compact form.

    Args:
        sessions: The latest session of each writer.
        ended: Writers whose latest session came to its end.
        correct: By image key and image: whether it is classified correctly.
        labels: By image key and image: its class.
        answers: By stage key and image.
        claims: Cell, image and verifier of what was decided, by question.
        devices: Devices named in verdicts.
        certificates: By key and image; nothing that counts verdicts looks at them.
        proofs: By key and image: the latest certificate of an answer.
        pairs: By key and image: answers about two networks; nothing that counts verdicts looks at them.
    """

    sessions: dict[str, SessionRow] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    correct: dict[str, dict[int, bool]] = field(default_factory=lambda: defaultdict(dict))
    labels: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    answers: dict[str, dict[int, Answer]] = field(default_factory=lambda: defaultdict(dict))
    claims: Claims[tuple[str, int, str]] = field(default_factory=Claims)
    devices: set[str] = field(default_factory=set)
    certificates: dict[str, dict[int, smoothing.CertificateAnswer]] = field(default_factory=lambda: defaultdict(dict))

    proofs: dict[str, dict[int, ProofRow]] = field(default_factory=lambda: defaultdict(dict))
    pairs: dict[str, dict[int, compared.PairAnswer]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, rows: Iterable[Row]) -> None:
        """Takes rows in the order of the log; a later answer to the same instance replaces the earlier one."""
        answers, claims, devices = self.answers, self.claims, self.devices
        for row in rows:
            if isinstance(row, VerdictRow):
                answers[row.key][row.image] = Answer(
                    row.status, seconds(row.times), row.unstable, row.domains, row.version
                )
                devices.add(row.device or "cpu")
                claims.add(row.question, row.status, (row.cell, row.image, row.verifier))
            elif isinstance(row, ImageRow):
                self.correct[row.key][row.image] = row.correct
                self.labels[row.key][row.image] = row.label
            elif isinstance(row, CertificateRow):
                self.certificates[row.key][row.image] = smoothing.found_of(row)
                devices.add(row.device or "cpu")
            elif isinstance(row, ProofRow):
                self.proofs[row.key][row.image] = row
                if row.sha256:
                    claims.add(row.question, row.status, (row.cell, row.image, row.verifier))
            elif isinstance(row, PairRow):
                self.pairs[row.key][row.image] = compared.answer_of(row)
                devices.add(row.device or "cpu")
                claims.add(row.question, row.status, (f"{row.cell} with {row.partner}", row.image, row.verifier))
            elif isinstance(row, SessionRow):
                self.sessions[row.writer] = row
                self.ended.discard(row.writer)
            elif isinstance(row, EndRow):
                self.ended.add(row.writer)

    def latest(self) -> SessionRow:
        """Returns the session that began last; there must be one."""
        return max(self.sessions.values(), key=lambda row: row.started)

    def cells(self) -> dict[str, SessionCell]:
        """Returns the cells of all sessions by name, each as the latest session has it."""
        cells: dict[str, SessionCell] = {}
        for session in self.sessions.values():
            for cell in session.cells:
                cells.setdefault(cell.name, cell)
        if self.sessions:
            cells.update((cell.name, cell) for cell in self.latest().cells)
        return cells

    def contradictions(self) -> list[dict[str, Any]]:
        """Returns the questions that one verifier answered `unsat` and another `sat`."""
        items = [
            {"cell": cell, "image": image, "unsat_by": verifier, "sat_by": broken[2], "question": question}
            for question, (cell, image, verifier), broken in self.claims.contradictions()
        ]
        if self.pairs:
            cells = self.cells()
            single = {name: self._outcomes(cell) for name, cell in cells.items() if not cell.certified_only}
            items += compared.contradictions(cells, self.pairs, single)
        return sorted(items, key=lambda item: (item["cell"], item["image"]))

    def _outcomes(self, cell: SessionCell) -> dict[int, Outcome]:
        """Returns what became of a cell's images."""
        right = self.correct.get(cell.image_key, {})
        answers = [self.answers.get(stage.key, {}) for stage in cell.stages]
        return {
            image: settle(cell.stages, [by_image.get(image) for by_image in answers])
            if right[image]
            else Outcome(MISCLASSIFIED, None, 0.0, 0.0)
            for image in present(cell.numbers, right)
        }


def read(log: Log) -> Rows:
    """Reads a log into its compact form."""
    for session in log.all_sessions():
        run_session(log.directory, session)
    rows = Rows()
    with collector_off():
        rows.add(log.rows())
    return rows


def summarise(directory: Path) -> dict[str, Any]:
    """Returns the summary of a run directory, as plain data; see `results/README.md` for its fields.

    Raises:
        UserError: There is no run, or its files are damaged.
    """
    return summary_of(read(Log(directory)))


def summary_of(rows: Rows) -> dict[str, Any]:
    """Returns the summary of rows read already.

    Raises:
        UserError: No session has begun; the run was killed before that.
    """
    if not rows.sessions:
        raise UserError("The run was killed before it began: it holds no session; start it again (prunecert run).")
    latest, cells = rows.latest(), rows.cells()
    summaries = [summarise_cell(cell, rows) for cell in cells.values() if not cell.certified_only]
    certified = smoothing.summarise(cells.values(), rows.certificates, rows.correct, CONFIDENCE)
    proved = proofs.summarise((c for c in cells.values() if not c.certified_only), rows.answers, rows.proofs)
    pairs = compared.summarise(cells.values(), rows.pairs, CONFIDENCE)
    contradictions = rows.contradictions()
    unfinished = list(dict.fromkeys(cell["name"] for cell in (*summaries, *certified, *pairs) if not cell["finished"]))
    reasons = list(dict.fromkeys(reason for s in rows.sessions.values() for reason in s.unpublishable))
    if unfinished:
        reasons.append(f"{len(unfinished)} of {len(cells)} cells are not finished")
    if contradictions:
        reasons.append(f"{len(contradictions)} contradictions between verifiers")
    shared = ("suite", "profile", "suite_digest", "description", "command", "started", "data", "versions", "machine")
    head = plain(latest)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        **{key: head[key] for key in (*shared, "device", "workers", "threads", "float32", "skipped")},
        "sessions": len(rows.sessions),
        "devices": sorted(rows.devices),
        "finished": not unfinished,
        "publishable": not reasons,
        "unpublishable": reasons,
        "confidence": CONFIDENCE,
        "cells": summaries,
        "certificates": certified,
        **({"proofs": proved} if proved else {}),
        **({"pairs": pairs} if pairs else {}),
        "missing": [plain(item) for item in latest.missing if item.name not in cells],
        "contradictions": contradictions,
        "broken_verifiers": sorted({*_broken(summaries), *smoothing.broken(certified), *compared.broken(pairs)}),
    }


def _broken(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns the verifiers that were asked and failed every single time."""
    counts_asked: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for cell in cells:
        for name, counts in cell["by_verifier"].items():
            counts_asked[name] += counts["asked"]
            failed[name] += counts["error"]
    return sorted(name for name in counts_asked if counts_asked[name] and counts_asked[name] == failed[name])


def summarise_cell(cell: SessionCell, rows: Rows) -> dict[str, Any]:
    """Returns one cell's numbers.

    Args:
        cell: Its entry in a session row.
        rows: The rows.
    """
    right = rows.correct.get(cell.image_key, {})
    there = present(cell.numbers, right)
    correct = [i for i in there if right[i]]
    stages = cell.stages
    answers = [rows.answers.get(stage.key, {}) for stage in stages]
    decided_by: dict[str, Counter[str]] = {stage.verifier: Counter() for stage in stages}
    undecided: Counter[str] = Counter()
    outcome: Counter[str] = Counter()
    spent: list[float] = []
    for image in correct:
        settled = settle(stages, [by_image.get(image) for by_image in answers])
        if not settled.complete:
            outcome[PENDING] += 1
            continue
        outcome[settled.status] += 1
        spent.append(settled.seconds)
        if settled.by is not None:
            decided_by[settled.by][settled.status] += 1
        else:
            undecided[settled.status] += 1
    n = len(there)
    timed = np.asarray(spent)
    compaction = None if cell.compaction is UNSET else cell.compaction
    return {
        **{key: getattr(cell, key) for key in _SHARED},
        "sparsity": cell.measured_sparsity,
        "measured_compression": cell.measured_compression,
        "onnx_sha256": cell.onnx_sha256,
        "masked_sha256": cell.masked,
        "compaction": plain(compaction),
        "checkpoint_sha256": cell.checkpoint_sha256,
        "data_fingerprint": cell.data_fingerprint,
        "images": n,
        "images_asked": cell.images,
        "finished": n == cell.images and not outcome[PENDING],
        "pending": outcome[PENDING],
        "clean": share_record(len(correct), n, CONFIDENCE),
        "verified": share_record(outcome["unsat"], n, CONFIDENCE),
        "attacked": share_record(len(correct) - outcome["sat"], n, CONFIDENCE),
        "undecided": {"total": sum(undecided.values()), **{s: undecided[s] for s in _UNDECIDED}},
        "decided_by": {name: {"unsat": c["unsat"], "sat": c["sat"]} for name, c in decided_by.items()},
        "time": {
            "median_s": float(np.median(timed)) if timed.size else None,
            "p90_s": float(np.quantile(timed, 0.9)) if timed.size else None,
            "total_s": float(timed.sum()),
            "images": int(timed.size),
        },
        "by_verifier": {
            stage.verifier: _by_verifier(stage, [by_image[i] for i in correct if i in by_image])
            for stage, by_image in zip(stages, answers, strict=True)
        },
        "unsupported": dict(cell.unsupported),
        "note": cell.note,
        **({} if cell.size is None else {"size": plain(cell.size)}),
    }


def _by_verifier(stage: SessionStage, answers: list[Answer]) -> dict[str, Any]:
    counts = Counter(answer.status for answer in answers)
    unstable = [a.unstable for a in answers if a.unstable is not None]
    domains = [a.domains for a in answers if a.domains is not None]
    return {
        "asked": len(answers),
        "everyone": stage.everyone,
        **{status: counts[status] for status in ("unsat", "sat", *_UNDECIDED)},
        "timeout_s": stage.timeout,
        "version": stage.version,
        "versions_seen": sorted({answer.version for answer in answers}),
        "settings_hash": stage.settings_hash,
        "device": stage.device,
        "median_s": float(np.median([a.seconds for a in answers])) if answers else None,
        "total_s": float(sum(a.seconds for a in answers)),
        "median_unstable": float(np.median(unstable)) if unstable else None,
        "median_domains": float(np.median(domains)) if domains else None,
    }
