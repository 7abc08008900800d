"""What a run's ``summary.json`` is made of: a class for each of its parts, with the type and range of each field."""

from __future__ import annotations

from pathlib import Path

from msgspec import UNSET, Struct, UnsetType, field

from prunecert.bench.results.decode import convert, document, read_bytes
from prunecert.bench.results.protocol_types import DataRecord, Machine, Missing
from prunecert.bench.results.quantities import (
    Count,
    Name,
    Positive,
    Share,
)
from prunecert.bench.results.summary_cells import CertifiedCell, PairedCell, ProvedCell, SummaryCell
from prunecert.errors import UserError

SCHEMA_VERSION = 1
KIND = "summary"
CONFIDENCE = 0.95


class ContradictionRecord(Struct, kw_only=True):
    """A question that one verifier proved and another broke."""

    cell: Name
    image: Count
    unsat_by: Name
    sat_by: Name
    question: Name


class Summary(Struct, kw_only=True):
    """A run's ``summary.json``.

    Args:
        schema_version: 1.
        kind: ``summary``.
        suite: The suite; the fields up to `skipped` are those of the latest session.
        profile: Its profile.
        suite_digest: Hash of the resolved suite.
        description: Of the suite.
        command: What was run.
        started: UTC.
        data: Splits in use.
        versions: Of Python and of the packages that have a say.
        machine: Where.
        device: Device asked for.
        workers: Verifier processes side by side.
        threads: Threads of each.
        float32: How float32 is computed.
        skipped: Verifiers left out on request, with what to install.
        sessions: How many writers.
        devices: Devices named in answers.
        finished: Whether all cells are.
        publishable: Whether the results may be published.
        unpublishable: Why not.
        confidence: Of all intervals.
        cells: Cell by cell.
        certificates: Cells that are certified.
        proofs: Certificates of answers, by cell; none of runs without ``--certificates``.
        pairs: Pruned networks compared with others; none of runs that don't ask about pairs.
        missing: Cells without a checkpoint.
        contradictions: Between verifiers.
        broken_verifiers: Those that failed on everything they were asked.
    """

    schema_version: Positive
    kind: Name
    suite: Name
    profile: Name
    suite_digest: Name
    description: str
    command: list[str]
    started: Name
    data: list[DataRecord]
    versions: dict[Name, Name]
    machine: Machine
    device: Name
    workers: Positive
    threads: Positive
    float32: Name
    skipped: dict[Name, str]
    sessions: Positive
    devices: list[Name]
    finished: bool
    publishable: bool
    unpublishable: list[str]
    confidence: Share
    cells: list[SummaryCell]
    # Summaries of before there were certificates have none.
    certificates: list[CertifiedCell] = field(default_factory=list)
    proofs: list[ProvedCell] | UnsetType = UNSET
    pairs: list[PairedCell] | UnsetType = UNSET
    missing: list[Missing]
    contradictions: list[ContradictionRecord]
    broken_verifiers: list[Name]


def read_summary(path: Path) -> Summary:
    """Reads a run's summary.

    Raises:
        UserError: It is unreadable, no summary, damaged, or of a newer schema.
    """
    hint = "give the summary.json of a run, which prunecert run writes"
    data = document(read_bytes(path, "Summary", hint), path, "Summary", hint)
    if data.get("kind") != KIND:
        raise UserError(f"{path} is no run's summary; give the summary.json of a run, or a folder of checkpoints.")
    version = data.get("schema_version")
    if isinstance(version, int) and not isinstance(version, bool) and version > SCHEMA_VERSION:
        raise UserError(
            f"Summary {path} is of schema version {version:.40g}, newer than this program reads ({SCHEMA_VERSION}); "
            "upgrade prunecert."
        )
    return convert(data, Summary, path, "Summary", hint)
