"""The append-only result log: one JSON object a line, one file a writer, and reading it back.

A run directory holds ``instances.<writer>.jsonl`` files and ``witnesses/``. Each line is one row, of one of the kinds
in `bench.results.row_types`; every line is held to their types and ranges when it is read, and before it is written.

Only whole lines count. A process that is killed while writing leaves at most one line without its line break,
which readers leave out and the next writer cuts off. `results/README.md` describes every field.

    run/instances.main.jsonl            one file a writer, locked by it, only ever appended to
        {"type":"session", …}           what is done, with what; one for each start
        {"type":"image", …}             is it classified correctly?   found by image key and image
        {"type":"verdict", …}           an answer                     found by stage key and image
        {"type":"verdict", …            killed here: left out, cut off by the next writer
    run/instances.shard-2-of-3.jsonl    another part, on another machine
    run/witnesses/<id>.npy              counterexamples, named by their rows
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import gc
import io
import math
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from prunecert.bench.results import row_types
from prunecert.bench.results.lines import (
    SCHEMA_VERSION,
    Writable,
    decode_lines,
    encode,
    first_session,
    open_log,
    property_documents,
)
from prunecert.bench.results.row_types import VerdictRow
from prunecert.bench.results.session_types import SessionRow, VerifySessionRow
from prunecert.errors import UserError
from prunecert.files import write_bytes
from prunecert.verifiers.base import FloatArray, Status, Verdict

__all__ = ["MAIN_WRITER", "SCHEMA_VERSION", "Log", "Row", "Writer", "collector_off", "is_run", "verdict_fields"]

MAIN_WRITER = "main"
#: A property's row as plain data, the one kind that still travels so.
Row = dict[str, Any]

_PATTERN = "instances.*.jsonl"
_BLOCK = 8 << 20
#: Bytes of the longest line; a session of ten thousand cells has a tenth of it.
_LONGEST = 256 << 20
_SYNC_EVERY_S = 1.0
_LOG_TAIL = 2000
#: What a counterexample's path may be: nothing outside of the run's folder is read because a row says so.
_WITNESS = re.compile(r"witnesses/[A-Za-z0-9_][A-Za-z0-9._-]*\.npy")


def writer_files(directory: Path) -> list[Path]:
    """Returns the run's log files, in the order of their names.

    Raises:
        UserError: The directory may not be read. (A glob would find nothing in it, and say nothing.)
    """
    try:
        paths = list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{directory} can't be read ({reason}); give a run's directory that can.") from error
    return sorted(path for path in paths if fnmatch.fnmatchcase(path.name, _PATTERN))


def is_run(directory: Path) -> bool:
    """Whether the directory holds a run."""
    return bool(writer_files(directory))


def verdict_fields(verdict: Verdict) -> dict[str, Any]:
    """Returns a verdict as row fields: nothing that is empty, times to the microsecond, bounds as float32.

    Rows are kept lean because a sweep writes a million of them. A time or a size that is not finite says nothing and is
    left out: JSON has no word for it.
    """
    data = verdict.to_json()
    data["times"] = {key: round(value, 6) for key, value in data["times"].items() if value and math.isfinite(value)}
    # Whole logs lie in the run's folder; a row keeps what explains a failure.
    failed = verdict.status in (Status.ERROR, Status.MEMOUT)
    data["log_tail"] = data["log_tail"][-_LOG_TAIL:] if failed else ""
    if data["bounds"] is not None:
        # A bound that isn't finite is no bound; JSON has no word for it either.
        data["bounds"] = [float(f"{b:.7g}") if np.isfinite(b) else None for b in data["bounds"]]
    if data["peak_memory_mb"] is not None:
        finite = math.isfinite(data["peak_memory_mb"])
        data["peak_memory_mb"] = round(data["peak_memory_mb"], 1) if finite else None
    return {key: value for key, value in data.items() if value not in (None, "", {})}


class Writer:
    """Appends rows to one file; a lock on it keeps a second process out.

    Every row is handed to the kernel when `append` returns, so that killing this process loses nothing; once a
    second and on closing it is forced to the disk as well, so that a power cut loses at most that second.

    Args:
        directory: The run directory, made if missing.
        writer: The writer's name, e.g. ``"main"`` or ``"shard-1-of-4"``.

    Raises:
        UserError: Another process writes the same file.
    """

    def __init__(self, directory: Path, writer: str = MAIN_WRITER) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", writer):
            raise ValueError(f"writer name {writer!r} must consist of letters, digits, '_' and '-'")
        self.directory = directory
        self.path = directory / f"instances.{writer}.jsonl"
        #: Bytes of an unfinished last line that were cut off when the file was opened.
        self.cut = 0
        self._guard = threading.Lock()
        self._broken: OSError | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab+", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise UserError(
                f"{directory} is in use: another run is writing {self.path.name}. Wait for it to end, or choose "
                "another directory with --out."
            ) from error
        self._cut_unfinished()
        self._synced = time.monotonic()

    def _cut_unfinished(self) -> None:
        size = self._file.seek(0, io.SEEK_END)
        end = _last_line_break(self._file, size)
        if end < size:
            self.cut = size - end
            self._file.truncate(end)
            os.fsync(self._file.fileno())

    def append(self, *rows: Writable) -> None:
        """Writes rows in one go; may be called from any thread.

        Raises:
            OSError: The disk is full, say. Nothing can be appended after that; what stands in the file is whole.
            ValueError: A row could not be read back; nothing is written.
        """
        data = b"".join(map(encode, rows))
        with self._guard:
            if self._broken is not None:
                raise self._broken
            start = self._file.seek(0, io.SEEK_END)
            try:
                view = memoryview(data)
                while view:
                    view = view[self._file.write(view) :]
                if time.monotonic() - self._synced > _SYNC_EVERY_S:
                    os.fsync(self._file.fileno())
                    self._synced = time.monotonic()
            except OSError as error:
                error.filename = error.filename or str(self.path)
                self._broken = error
                self._file.truncate(start)
                raise

    def save_witness(self, name: str, witness: FloatArray) -> str:
        """Stores a counterexample as ``witnesses/<name>.npy`` and returns that path, relative to the run.

        It appears whole or not at all, and before the row that names it.
        """
        folder = self.directory / "witnesses"
        folder.mkdir(exist_ok=True)
        target = folder / f"{name}.npy"
        data = io.BytesIO()
        np.save(data, witness, allow_pickle=False)
        write_bytes(target, data.getvalue())
        return f"witnesses/{target.name}"

    def close(self) -> None:
        """Forces everything to the disk and gives the lock back."""
        with self._guard:
            if not self._file.closed:
                try:
                    os.fsync(self._file.fileno())
                finally:
                    self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _last_line_break(file: io.FileIO, size: int) -> int:
    """Returns the offset just after the last line break, 0 if there is none."""
    end = size
    while end > 0:
        start = max(0, end - 65_536)
        file.seek(start)
        chunk = file.read(end - start) or b""
        place = chunk.rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0


class Log:
    """A run's rows, read from all its writers' files.

    Example:
        >>> from prunecert.bench.running.session import session_row
        >>> from prunecert.bench.schema.suite import load_suite
        >>> session = session_row(
        ...     load_suite("cifar10-4nets"), plans=[], datasets=[], writer="main", missing=[], skipped={},
        ...     device="cpu", workers=1, threads=1, shard=None, argv=[],
        ... )  # fmt: skip
        >>> with Writer(Path("run")) as writer:
        ...     writer.append(session)
        >>> [row.suite for row in Log(Path("run")).rows()]
        ['cifar10-4nets']

    Args:
        directory: The run directory.

    Raises:
        UserError: It holds no run.
    """

    def __init__(self, directory: Path) -> None:
        # Before `is_dir`, which fails where the folder above may not be entered.
        there = is_run(directory)
        if not directory.is_dir():
            raise UserError(f"{directory} is no run: there is no such directory.")
        if not there:
            raise UserError(f"{directory} is no run: it holds no {_PATTERN} file; prunecert run writes them.")
        self.directory = directory
        #: One sentence for each unfinished line that was left out; filled while reading.
        self.notes: list[str] = []

    def rows(self) -> Iterator[row_types.Row]:
        """Yields every whole row, file by file.

        Raises:
            UserError: A file can't be read, a line is damaged or no row, or a file is of a newer schema.
        """
        self.notes.clear()
        for path in writer_files(self.directory):
            yield from self._read(path)

    def _read(self, path: Path) -> Iterator[row_types.Row]:
        number, first = 0, True
        for whole in self._blocks(path):
            rows = decode_lines(path, number, whole)
            number += len(rows)
            if first and not isinstance(rows[0], SessionRow | VerifySessionRow):
                raise UserError(f"{path}, line 1: a result file must begin with a session row; this is none.")
            first = False
            yield from rows

    def _blocks(self, path: Path) -> Iterator[bytes]:
        """Yields whole lines, many at a time, without the last one's line break."""
        rest = b""
        with open_log(path) as stream:
            while block := stream.read(_BLOCK):
                whole, line_break, tail = (rest + block).rpartition(b"\n")
                rest = tail
                if len(rest) > _LONGEST:
                    raise UserError(
                        f"{path}: a line has over {_LONGEST >> 20} MiB, so the file was damaged after it was written; "
                        "restore it."
                    )
                if line_break:
                    yield whole
        if rest:
            self.notes.append(f"{path.name}: the unfinished last line ({len(rest)} bytes) is left out and done again.")

    def properties(self) -> list[dict[str, Any]]:
        """Returns the `property` rows as plain data, each checked, and with fields that a newer program has added.

        Raises:
            UserError: As `rows`.
        """
        documents = []
        for path in writer_files(self.directory):
            number = 0
            for whole in self._blocks(path):
                documents += property_documents(path, number, whole)
                number += whole.count(b"\n") + 1
        return documents

    def all_sessions(self) -> list[SessionRow | VerifySessionRow]:
        """Returns the first rows of all files without reading the rest: enough to say what the results are."""
        sessions = []
        for path in writer_files(self.directory):
            with open_log(path) as stream:
                line = stream.readline(_LONGEST)
            if line.endswith(b"\n"):
                sessions.append(first_session(path, line[:-1]))
        return sessions

    def sessions(self) -> list[SessionRow]:
        """Returns the first sessions of a run's files; see `all_sessions`.

        Raises:
            UserError: As `rows`; or these are results of `bench.verify`, which are no run's.
        """
        return [run_session(self.directory, row) for row in self.all_sessions()]

    def witness(self, row: VerdictRow) -> FloatArray:
        """Returns the counterexample that a ``sat`` row names.

        Raises:
            UserError: The file is missing or no array, or lies outside of the run's counterexamples.
        """
        path = self.directory / row.witness
        try:
            if _WITNESS.fullmatch(row.witness) is None:
                raise ValueError("only files in witnesses/ are read")
            return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
        except (OSError, ValueError, TypeError, MemoryError) as error:
            raise UserError(f"{path} is no readable counterexample ({error}); the row {row.id} names it.") from error


def run_session(directory: Path, row: SessionRow | VerifySessionRow) -> SessionRow:
    """Returns the session of a run.

    Raises:
        UserError: It is one of `bench.verify`, whose answers are about properties, not about a suite's cells.
    """
    if isinstance(row, VerifySessionRow):
        raise UserError(f"{directory} is refused: these are results of 'prunecert verify'; give a run.")
    return row


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """Keeps the garbage collector from walking again and again through rows, which hold no cycles: half the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
