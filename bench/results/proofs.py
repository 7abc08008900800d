"""Certificates of a run's answers: files named by their hash beside the rows, and what they come to.

    run/certificates/<sha256>.cert     a proof, or a counterexample; docs/certificates.md has the format
    run/instances.main.jsonl           {"type":"proof", …} says whose it is

A file is written before the row that names it, whole or not at all. One without a row is what a killed run leaves: it
proves nothing less, and nothing counts it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from prunecert.bench.results.row_types import ProofRow
from prunecert.bench.results.session_types import SessionCell
from prunecert.errors import UserError
from prunecert.files import read_regular, write_bytes
from prunecert.verifiers.base import Status

#: How the names of the sparse engine's verifiers begin.
SPARSE = "sparse-"
#: Bytes that a certificate may have; the checker's limit.
MOST_BYTES = 2**30
_SHA256 = re.compile(r"[0-9a-f]{64}")


class DecidedAnswer(Protocol):
    """A verifier's answer on an image."""

    @property
    def status(self) -> str:
        """A `Status`."""


def certificate_path(directory: Path, sha256: str) -> Path:
    """Returns where a run keeps a certificate.

    Raises:
        UserError: It is no hash; no file is read because a row says so.
    """
    if _SHA256.fullmatch(sha256) is None:
        raise UserError(f"{directory}: a row names the certificate {sha256!r:.80}, which is no SHA-256.")
    return directory / "certificates" / f"{sha256}.cert"


def save_certificate(directory: Path, content: bytes) -> str:
    """Stores a certificate, unless it is there already, and returns its hash."""
    sha256 = hashlib.sha256(content).hexdigest()
    path = certificate_path(directory, sha256)
    path.parent.mkdir(exist_ok=True)
    if not is_whole(directory, sha256):
        write_bytes(path, content)
    return sha256


def read_certificate(directory: Path, sha256: str) -> bytes:
    """Returns a certificate's content.

    Raises:
        UserError: It is missing, or is not what its name says.
    """
    path = certificate_path(directory, sha256)
    content = read_regular(path, MOST_BYTES)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path} was changed after it was written: its SHA-256 is not its name.")
    return content


def is_whole(directory: Path, sha256: str) -> bool:
    """Whether a certificate is there, and is what its name says."""
    try:
        read_certificate(directory, sha256)
    except UserError:
        return False
    return True


def summarise(
    cells: Iterable[SessionCell],
    answers: Mapping[str, Mapping[int, DecidedAnswer]],
    proofs: Mapping[str, Mapping[int, ProofRow]],
) -> list[dict[str, Any]]:
    """Returns each cell's counts; nothing where no certificate was ever asked for.

    Args:
        cells: The cells.
        answers: By stage key and image.
        proofs: By stage key and image.
    """
    return [_of_cell(cell, answers, proofs) for cell in cells] if proofs else []


def _of_cell(
    cell: SessionCell, answers: Mapping[str, Mapping[int, DecidedAnswer]], proofs: Mapping[str, Mapping[int, ProofRow]]
) -> dict[str, Any]:
    decided: dict[tuple[int, str], list[str]] = {}
    rows: dict[tuple[int, str], ProofRow] = {}
    numbers = set(cell.numbers)
    for stage in cell.stages:
        for image, answer in answers.get(stage.key, {}).items():
            if image not in numbers or answer.status not in (Status.UNSAT, Status.SAT):
                continue
            decided.setdefault((image, str(answer.status)), []).append(stage.verifier)
            row = proofs.get(stage.key, {}).get(image)
            # A row that says that there is none doesn't hide another verifier's.
            if row is not None and row.status == answer.status and (row.sha256 or (image, row.status) not in rows):
                rows[image, str(row.status)] = row
    certified = {place for place, row in rows.items() if row.sha256}
    sparse = {place for place, names in decided.items() if any(name.startswith(SPARSE) for name in names)}

    def counts(places: Iterable[tuple[int, str]]) -> dict[str, int]:
        chosen = list(places)
        return {"decided": len(chosen), "certified": sum(place in certified for place in chosen)}

    return {
        "name": cell.name,
        **{status: counts(place for place in decided if place[1] == status) for status in ("unsat", "sat")},
        "sparse": counts(sparse),
        "size": sum(row.size or 0 for row in rows.values()),
        "seconds": round(sum(row.seconds for row in rows.values()), 6),
        "check_s": round(sum(row.check_s for row in rows.values()), 6),
        "uncertified": [
            {
                "image": image,
                "status": status,
                "verifier": decided[image, status][0],
                "detail": rows[image, status].detail if (image, status) in rows else "",
            }
            for image, status in sorted(decided)
            if (image, status) not in certified
        ],
    }
