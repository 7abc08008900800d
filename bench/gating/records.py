"""What the gate compares: each cell's protocol, and image by image what every verifier answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from bench.certify.summary import certified_only
from bench.report.summary import Rows, summary_of
from bench.store import Log, Row, collector_off

MISCLASSIFIED = "misclassified"
PENDING = "pending"

#: What of a cell's entry in a session row is kept.
_CELL_KEYS = (
    "name",
    "network",
    "objective",
    "eps",
    "pruner",
    "compression",
    "seed",
    "split",
    "images",
    "indices",
    "data_fingerprint",
    "onnx_sha256",
    "checkpoint_sha256",
    "measured_sparsity",
    "measured_compression",
    "unsupported",
    "note",
)
_STAGE_KEYS = ("verifier", "kind", "version", "source", "settings", "timeout", "device", "everyone", "memory_mb")
_HEAD_KEYS = ("suite", "profile", "command", "started", "data", "versions", "device", "workers", "threads", "float32")


class Answer(NamedTuple):
    """One verifier's answer: a status, and its seconds without start-up and loading."""

    status: str
    seconds: float


class Outcome(NamedTuple):
    """What became of an image.

    Args:
        status: ``unsat``, ``sat``, ``misclassified``, or the last status of an undecided image.
        by: The verifier that decided it, or None.
        seconds: Of all verifiers up to that one (of all, if none did).
        share: The deciding verifier's seconds over its limit; 0 where nothing was decided.
    """

    status: str
    by: str | None
    seconds: float
    share: float


@dataclass(frozen=True)
class Image:
    """One image of a cell.

    Args:
        image: Its index in the split.
        label: Its class.
        correct: Whether the exported network classifies it correctly.
        question: Digest of network, box and property; None where no verifier was asked. Equal digests are the same
            question to the same network, and then answers that differ contradict each other.
        answers: By verifier.
        details: Why a verifier failed, by verifier; known of a run only.
    """

    image: int
    label: int
    correct: bool
    question: str | None = None
    answers: Mapping[str, Answer] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CellRecord:
    """A cell: what was asked about it, and the answers.

    Args:
        info: The cell's identity, network hashes and image set, as plain data.
        stages: Its verifiers in order, as plain data.
        images: Image by image.
    """

    info: Mapping[str, Any]
    stages: tuple[Mapping[str, Any], ...]
    images: Mapping[int, Image]

    @property
    def name(self) -> str:
        """The cell's name."""
        return str(self.info["name"])

    @property
    def network(self) -> str:
        """Hash of the network with its masks multiplied in, in whatever form the verifiers got it."""
        return str(self.info.get("masked_sha256", self.info["onnx_sha256"]))

    @property
    def verifiers(self) -> tuple[str, ...]:
        """Names of its verifiers, in order."""
        return tuple(stage["verifier"] for stage in self.stages)

    def outcome(self, image: int, without: frozenset[str] = frozenset()) -> Outcome:
        """Returns what became of an image, as `bench.report.summary` counts it.

        Args:
            image: Its index.
            without: Verifiers whose answers are left out of account.
        """
        record = self.images[image]
        if not record.correct:
            return Outcome(MISCLASSIFIED, None, 0.0, 0.0)
        spent, share, last = 0.0, 0.0, "unknown"
        result: str | None = None
        by: str | None = None
        for stage in self.stages:
            answer = record.answers.get(stage["verifier"])
            if answer is None or stage["verifier"] in without:
                continue
            if result is None:
                spent += answer.seconds
                last = answer.status
                if answer.status in ("unsat", "sat"):
                    result, by, share = answer.status, stage["verifier"], answer.seconds / stage["timeout"]
            elif result == "unsat" and answer.status == "sat":
                result, by = "sat", stage["verifier"]
        return Outcome(result or last, by, spent, share)

    def outcomes(self, without: frozenset[str] = frozenset()) -> dict[int, Outcome]:
        """Returns `outcome` of every image."""
        return {image: self.outcome(image, without) for image in self.images}

    def errors(self) -> dict[tuple[int, str], str]:
        """Returns where a verifier failed, by image and verifier, with the reason as far as it is known."""
        return {
            (image, name): record.details.get(name, "")
            for image, record in self.images.items()
            for name, answer in record.answers.items()
            if answer.status == "error"
        }


@dataclass(frozen=True)
class Snapshot:
    """Everything of a run that a later one can be compared with.

    Args:
        head: Suite, command, versions, machines and devices, as plain data.
        cells: By name, in order.
        history: One entry for each time that the baseline was made or updated; empty for a run.
        contradictions: As `bench.report.summary` names them.
        broken_verifiers: Verifiers that failed every time.
        unfinished: Cells with images that are not answered yet.
        unpublishable: Why it must not be published.
    """

    head: Mapping[str, Any]
    cells: Mapping[str, CellRecord]
    history: tuple[Mapping[str, Any], ...] = ()
    contradictions: tuple[Mapping[str, Any], ...] = ()
    broken_verifiers: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    unpublishable: tuple[str, ...] = ()

    @cached_property
    def skipped(self) -> Mapping[str, str]:
        """Verifiers that were not installed and left out on request, with what to install."""
        found: Mapping[str, str] = self.head["skipped"]
        return found


class Details:
    """What `Rows` has no use for, picked up while it reads."""

    def __init__(self) -> None:
        self.labels: dict[tuple[str, int], int] = {}
        self.questions: dict[tuple[str, int], str] = {}
        self.reasons: dict[tuple[str, int], str] = {}

    def watch(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Passes rows on, and notes what is wanted of them."""
        for row in rows:
            if row["type"] == "image":
                self.labels[row["key"], row["image"]] = row["label"]
            elif row["type"] == "verdict":
                place = row["key"], row["image"]
                self.questions[place] = row["question"]
                self.reasons[place] = row.get("detail", "")
            yield row


def of_run(directory: Path) -> Snapshot:
    """Reads a run directory.

    Raises:
        UserError: There is no run, or its files are damaged.
    """
    rows, details = Rows(), Details()
    with collector_off():
        rows.add(details.watch(Log(directory).rows(bounds=False)))
    return of_rows(rows, details)


def of_rows(rows: Rows, details: Details) -> Snapshot:
    """Returns the snapshot of rows that were read through `details.watch`.

    Raises:
        UserError: No session has begun.
    """
    summary = summary_of(rows)
    sessions = sorted(rows.sessions.values(), key=lambda row: str(row["started"]))
    cells = {cell["name"]: cell for session in sessions for cell in session["cells"]}
    machines = []
    for session in sessions:
        if session["machine"] not in machines:
            machines.append(session["machine"])
    latest = sessions[-1]
    head = {
        **{key: latest[key] for key in _HEAD_KEYS},
        "machines": machines,
        "devices": sorted(rows.devices),
        "skipped": {name: hint for session in sessions for name, hint in session["skipped"].items()},
    }
    return Snapshot(
        head=head,
        # Certificates of smoothing hold with a probability only: they are no baseline's business.
        cells={name: _cell(cell, rows, details) for name, cell in cells.items() if not certified_only(cell)},
        contradictions=tuple(summary["contradictions"]),
        broken_verifiers=tuple(summary["broken_verifiers"]),
        unfinished=tuple(cell["name"] for cell in summary["cells"] if not cell["finished"]),
        unpublishable=tuple(summary["unpublishable"]),
    )


def _cell(cell: Row, rows: Rows, details: Details) -> CellRecord:
    indices = cell["indices"] if cell["indices"] is not None else range(cell["images"])
    correct = rows.correct.get(cell["image_key"], {})
    images = {}
    for index in indices:
        if index not in correct:
            continue
        answers, reasons, question = {}, {}, None
        for stage in cell["stages"] if correct[index] else ():
            answer = rows.answers.get(stage["key"], {}).get(index)
            if answer is not None:
                answers[stage["verifier"]] = Answer(answer.status, answer.seconds)
                question = details.questions[stage["key"], index]
                if answer.status == "error":
                    reasons[stage["verifier"]] = details.reasons[stage["key"], index]
        label = details.labels[cell["image_key"], index]
        images[index] = Image(index, label, correct[index], question, answers, reasons)
    stages = tuple({key: stage[key] for key in _STAGE_KEYS} for stage in cell["stages"])
    info = {key: cell[key] for key in _CELL_KEYS}
    # Rows of older versions have none: they verified the masked networks themselves.
    info["masked_sha256"] = cell.get("masked_sha256", cell["onnx_sha256"])
    return CellRecord(info, stages, images)
