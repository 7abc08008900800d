"""Joins the result files of a run's parts: their sessions must be of one run, and no row is lost."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from prunecert.bench.results.session_types import SessionRow, VerifySessionRow
from prunecert.bench.results.store import Log, is_run, run_session, writer_files
from prunecert.errors import UserError

#: What a result file is called.
_NAME = re.compile(r"instances\.([A-Za-z0-9_-]{1,200})\.jsonl")
_SAME = ("suite", "profile", "suite_digest", "device")


def check_parts(parts: Sequence[Path]) -> dict[Path, list[SessionRow]]:
    """Returns the latest session of each file of each part.

    Raises:
        UserError: A part is no run, is damaged, or is of another suite, profile, device or data than the first.
    """
    latest: dict[Path, dict[str, SessionRow]] = {part: {} for part in parts}
    reference: tuple[Path, SessionRow] | None = None
    for part in parts:
        for row in Log(part).rows():
            if isinstance(row, SessionRow | VerifySessionRow):
                session = run_session(part, row)
                latest[part][session.writer] = session
        for session in latest[part].values():
            if session.timed:
                raise UserError(
                    f"{part} cannot be joined: its rows are times, and times of different runs are never put together."
                )
            if reference is None:
                reference = (part, session)
            for key in _SAME:
                ours, theirs = getattr(session, key), getattr(reference[1], key)
                if ours != theirs:
                    raise UserError(
                        f"{part} cannot be joined with {reference[0]}: their {key} differ ({ours!r} and {theirs!r}); "
                        "only parts of the same run can be joined."
                    )
            if _prints(session) != _prints(reference[1]):
                raise UserError(
                    f"{part} cannot be joined with {reference[0]}: they were run on different data "
                    f"({_prints(session)} and {_prints(reference[1])})."
                )
    return {part: list(rows.values()) for part, rows in latest.items()}


def _prints(session: SessionRow) -> dict[str, str]:
    return {data.split: data.fingerprint[:16] for data in session.data}


def merge(parts: Sequence[Path], out: Path) -> None:
    """Copies the rows and counterexamples of all parts into `out`; each part's files keep apart by their names.

        A/instances.main.jsonl          ──► OUT/instances.part1-main.jsonl    row by row, under another writer's name
        B/instances.main.jsonl          ──► OUT/instances.part2-main.jsonl
        B/instances.shard-2-of-2.jsonl  ──► OUT/instances.part2-shard-2-of-2.jsonl
        A/witnesses/*, B/witnesses/*    ──► OUT/witnesses/*                   named by the instances that they answer
        A/certificates/*, …             ──► OUT/certificates/*                named by their hashes

    The files appear when all are whole, so that a merge that was stopped is no run.

    Raises:
        UserError: The parts don't fit together, two hold a file of the same name, or `out` holds a run already.
    """
    if out.exists() and (is_run(out) or any(part.resolve() == out.resolve() for part in parts)):
        raise UserError(f"--out {out} is refused: it holds a run already; choose a new directory.")
    if len({part.resolve() for part in parts}) < len(parts):
        raise UserError("A part is given twice; name each part once.")
    check_parts(parts)
    sources = {
        source: f"part{number}-{_writer(source)}"
        for number, part in enumerate(parts, start=1)
        for source in writer_files(part)
    }
    out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        for folder, pattern in (("witnesses", "*.npy"), ("certificates", "*.cert")):
            _copy_files(part / folder, out / folder, pattern)
    scratch = {source: out / f".{writer}.{os.getpid()}.tmp" for source, writer in sources.items()}
    try:
        for source, writer in sources.items():
            _copy_rows(source, scratch[source], writer)
        for source, writer in sources.items():
            scratch[source].replace(out / f"instances.{writer}.jsonl")
    finally:
        for path in scratch.values():
            path.unlink(missing_ok=True)


def _writer(source: Path) -> str:
    """Returns the name of a result file's writer.

    Raises:
        UserError: It is none that this program gives.
    """
    match = _NAME.fullmatch(source.name)
    if match is None:
        raise UserError(
            f"{str(source)!r} cannot be joined: a writer's name has up to 200 letters, digits, '_' and '-'; rename the "
            "file to instances.NAME.jsonl."
        )
    return match[1]


def _copy_files(source: Path, target: Path, pattern: str) -> None:
    """Copies counterexamples or certificates: plain files, so that no link or pipe holds it up."""
    if not source.is_dir():
        return
    target.mkdir(exist_ok=True)
    for path in sorted(source.glob(pattern)):
        if stat.S_ISREG(path.lstat().st_mode) and not path.name.startswith("."):
            shutil.copyfile(path, target / path.name)


def _copy_rows(source: Path, target: Path, writer: str) -> None:
    """Copies whole lines, with the writer's name put where it stands, so that two parts' sessions keep apart."""
    with source.open("rb") as lines, target.open("wb") as stream:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            if b'"session"' in line or b'"end"' in line:
                # As plain data, so that fields of a newer program stay.
                row = msgspec.json.decode(line, type=dict[str, Any])
                if row["type"] in ("session", "end"):
                    line = msgspec.json.encode({**row, "writer": writer}) + b"\n"
            stream.write(line)
