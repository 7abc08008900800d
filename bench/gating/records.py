"""What the gate compares: each cell's protocol, and image by image what every verifier answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from prunecert.bench.results.baseline_types import Head, HistoryEntry
from prunecert.bench.results.outcome import MISCLASSIFIED, Outcome, settle
from prunecert.bench.results.protocol_types import StageSettings
from prunecert.bench.results.row_types import ImageRow, Row, VerdictRow
from prunecert.bench.results.session_types import CellInfo, SessionCell, SessionRow, narrowed, present
from prunecert.bench.results.store import Log, collector_off, run_session
from prunecert.bench.results.summary import Rows, summary_of


class AnswerRecord(NamedTuple):
    """One verifier's answer: a status, and its seconds without start-up and loading."""

    status: str
    seconds: float


@dataclass(frozen=True)
class ImageRecord:
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
    answers: Mapping[str, AnswerRecord] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CellRecord:
    """A cell: what was asked about it, and the answers.

    Args:
        info: The cell's identity, network hashes and image set.
        stages: Its verifiers in order.
        images: Image by image.
    """

    info: CellInfo
    stages: tuple[StageSettings, ...]
    images: Mapping[int, ImageRecord]

    @property
    def name(self) -> str:
        """The cell's name."""
        return self.info.name

    @property
    def untaken(self) -> bool:
        """Whether no verifier that was asked takes the network, so that nothing could be said of it."""
        return not self.stages and bool(self.info.unsupported)

    @property
    def network(self) -> str:
        """Hash of the network with its masks multiplied in, in whatever form the verifiers got it."""
        return self.info.masked

    @property
    def verifiers(self) -> tuple[str, ...]:
        """Names of its verifiers, in order."""
        return tuple(stage.verifier for stage in self.stages)

    def outcome(self, image: int, without: frozenset[str] = frozenset()) -> Outcome:
        """Returns what became of an image.

        Args:
            image: Its index.
            without: Verifiers whose answers are left out of account.
        """
        record = self.images[image]
        if not record.correct:
            return Outcome(MISCLASSIFIED, None, 0.0, 0.0)
        stages = [stage for stage in self.stages if stage.verifier not in without]
        return settle(stages, [record.answers.get(stage.verifier) for stage in stages])

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
        head: Suite, command, versions, machines and devices.
        cells: By name, in order.
        history: One entry for each time that the baseline was made or updated; empty for a run.
        contradictions: As `bench.results.summary` names them.
        broken_verifiers: Verifiers that failed every time.
        unfinished: Cells with images that are not answered yet.
        unpublishable: Why it must not be published.
    """

    head: Head
    cells: Mapping[str, CellRecord]
    history: tuple[HistoryEntry, ...] = ()
    contradictions: tuple[Mapping[str, Any], ...] = ()
    broken_verifiers: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    unpublishable: tuple[str, ...] = ()

    @property
    def skipped(self) -> Mapping[str, str]:
        """Verifiers that were not installed and left out on request, with what to install."""
        return self.head.skipped


class Details:
    """What `Rows` has no use for, picked up while it reads."""

    def __init__(self) -> None:
        self.labels: dict[tuple[str, int], int] = {}
        self.questions: dict[tuple[str, int], str] = {}
        self.reasons: dict[tuple[str, int], str] = {}

    def watch(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Passes rows on, and notes what is wanted of them."""
        for row in rows:
            if isinstance(row, ImageRow):
                self.labels[row.key, row.image] = row.label
            elif isinstance(row, VerdictRow):
                place = row.key, row.image
                self.questions[place] = row.question
                self.reasons[place] = row.detail
            yield row


def of_run(directory: Path) -> Snapshot:
    """Reads a run directory.

    Raises:
        UserError: There is no run, or its files are damaged.
    """
    rows, details = Rows(), Details()
    log = Log(directory)
    for session in log.all_sessions():
        run_session(directory, session)
    with collector_off():
        rows.add(details.watch(log.rows()))
    return of_rows(rows, details)


def of_rows(rows: Rows, details: Details) -> Snapshot:
    """Returns the snapshot of rows that were read through `details.watch`.

    Raises:
        UserError: No session has begun.
    """
    summary = summary_of(rows)
    sessions = sorted(rows.sessions.values(), key=lambda row: row.started)
    cells = {cell.name: cell for session in sessions for cell in session.cells}
    return Snapshot(
        head=heading(sessions, rows.devices),
        # Certificates of smoothing hold with a probability only: they are no baseline's business.
        cells={name: _cell(cell, rows, details) for name, cell in cells.items() if not cell.certified_only},
        contradictions=tuple(summary["contradictions"]),
        broken_verifiers=tuple(summary["broken_verifiers"]),
        unfinished=tuple(cell["name"] for cell in summary["cells"] if not cell["finished"]),
        unpublishable=tuple(summary["unpublishable"]),
    )


def heading(sessions: Sequence[SessionRow], devices: Iterable[str] = ()) -> Head:
    """Returns what sessions of one run were made with; the last one speaks for all where they differ.

    Args:
        sessions: At least one, in the order in which they began.
        devices: On which verifiers answered.
    """
    machines = []
    for session in sessions:
        if session.machine not in machines:
            machines.append(session.machine)
    latest = sessions[-1]
    return Head(
        suite=latest.suite,
        profile=latest.profile,
        command=latest.command,
        started=latest.started,
        data=latest.data,
        versions=latest.versions,
        device=latest.device,
        workers=latest.workers,
        threads=latest.threads,
        float32=latest.float32,
        machines=machines,
        devices=sorted(devices),
        skipped={name: hint for session in sessions for name, hint in session.skipped.items()},
    )


def cell_info(cell: SessionCell) -> CellInfo:
    """Returns what a session's cell is, without how it is asked about.

    Rows of older versions have no hash of the masked network: they verified that one itself.
    """
    return replace(narrowed(CellInfo, cell), masked_sha256=cell.masked)


def _cell(cell: SessionCell, rows: Rows, details: Details) -> CellRecord:
    correct = rows.correct.get(cell.image_key, {})
    images = {}
    for index in present(cell.numbers, correct):
        answers, reasons, question = {}, {}, None
        for stage in cell.stages if correct[index] else ():
            answer = rows.answers.get(stage.key, {}).get(index)
            if answer is not None:
                answers[stage.verifier] = AnswerRecord(answer.status, answer.seconds)
                question = details.questions[stage.key, index]
                if answer.status == "error":
                    reasons[stage.verifier] = details.reasons[stage.key, index]
        label = details.labels[cell.image_key, index]
        images[index] = ImageRecord(index, label, correct[index], question, answers, reasons)
    stages = tuple(narrowed(StageSettings, stage) for stage in cell.stages)
    return CellRecord(cell_info(cell), stages, images)
