"""What each side found, instance by instance, and where the sides disagree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from prunecert.bench.results.outcome import contradictions, seconds, settle
from prunecert.bench.results.row_types import VerdictRow
from prunecert.bench.results.session_types import SessionRow
from prunecert.bench.results.store import Log, collector_off
from prunecert.bench.results.vnncomp import Key
from prunecert.errors import UserError
from prunecert.verifiers.base import Status


@dataclass(frozen=True)
class Finding:
    """What a side found on one instance.

    Args:
        status: The answer; a decided one counts more than those before and after it.
        seconds: Time of all verifiers that were asked, or of the whole command.
        by: Who decided.
        detail: Why it failed, if it did.
    """

    status: Status
    seconds: float
    by: str = ""
    detail: str = ""


@dataclass
class Side:
    """One side of the comparison.

    Args:
        name: ``"loop"``, ``"run"`` or ``"alone"``.
        what: In words.
        command: What was run.
        wall_s: Wall-clock seconds of all of it.
        peak_mb: Peak of the memory of all its processes, summed.
        findings: By cell and image.
        networks: Hash of each cell's network.
    """

    name: str
    what: str
    command: Sequence[str]
    wall_s: float
    peak_mb: float
    findings: Mapping[Key, Finding]
    networks: Mapping[str, str] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Returns how often each status was found."""
        return dict(sorted(Counter(str(finding.status) for finding in self.findings.values()).items()))


def read_run(out: Path, network_of: Mapping[str, str]) -> tuple[dict[Key, Finding], list[str]]:
    """Reads what a run found.

    Args:
        out: Its directory.
        network_of: Hash of each cell's network in the comparison.

    Returns:
        What it found, and contradictions within it, one line each.

    Raises:
        UserError: It was run on other networks.
    """
    rows: dict[Key, list[VerdictRow]] = {}
    with collector_off():
        for row in Log(out).rows():
            if isinstance(row, SessionRow):
                for cell in row.cells:
                    if cell.name in network_of and cell.onnx_sha256 != network_of[cell.name]:
                        raise UserError(
                            f"{out} is refused: it is about another network {cell.name!r} than the loop; give a "
                            "new --out."
                        )
            elif isinstance(row, VerdictRow):
                rows.setdefault(Key(row.cell, row.image), []).append(row)
    findings, wrong = {}, []
    for key, answers in rows.items():
        decided = [row for row in answers if row.status.decided]
        if contradictions((row.question, row.status, row.verifier) for row in decided):
            words = ", ".join(f"{row.verifier} {row.status}" for row in decided)
            wrong.append(f"{key[0]} image {key[1]}: {words}, in {out.name}")
        outcome = settle([_Step(row.verifier) for row in answers], [_whole(row) for row in answers])
        said = next(row for row in reversed(answers) if row.status == outcome.status)
        spent = sum(seconds(row.times, including=("load", "start")) for row in answers)
        findings[key] = Finding(Status(outcome.status), round(spent, 6), outcome.by or "", said.detail)
    return findings, wrong


class _Step(NamedTuple):
    """A verifier in the order of the log, which says nothing of limits."""

    verifier: str
    timeout: float = 1.0
    everyone: bool = False


class _Said(NamedTuple):
    """An answer with all that it took."""

    status: str
    seconds: float


def _whole(row: VerdictRow) -> _Said:
    return _Said(row.status, seconds(row.times, including=("load", "start")))


def disagreements(sides: Sequence[Side]) -> tuple[list[str], list[str]]:
    """Compares all sides, instance by instance.

    Returns:
        Contradictions (one side proves what another breaks); and instances that only some sides decide, which a limit
        in wall-clock time allows. One line each.
    """
    opposed, differences = [], []
    for key in dict.fromkeys(key for side in sides for key in side.findings):
        answers = {side.name: side.findings[key] for side in sides if key in side.findings}
        decided = {finding.status for finding in answers.values() if finding.status.decided}
        words = ", ".join(
            f"{name} {finding.status}{f' ({finding.by})' if finding.by else ''} after {finding.seconds:.1f} s"
            for name, finding in answers.items()
        )
        if len(decided) > 1:
            opposed.append(f"{key[0]} image {key[1]}: {words}")
        elif decided and any(not finding.status.decided for finding in answers.values()):
            differences.append(f"{key[0]} image {key[1]}: {words}")
    return opposed, differences
