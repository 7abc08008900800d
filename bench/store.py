"""The append-only result log: one JSON object a line, one file a writer, and reading it back.

A run directory holds ``instances.<writer>.jsonl`` files and ``witnesses/``. Each line is one row:

- ``session``: one at every start of `bench.run`: schema version, command, versions, suite, what is to be done.
- ``cell``: a network that takes part, with its hashes and sparsity.
- ``image``: an image and what the exported network predicts on it.
- ``verdict``: what a verifier answered on an instance.

Only whole lines count. A process that is killed while writing leaves at most one line without its line break,
which readers leave out and the next writer cuts off. `results/README.md` describes every field.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import io
import itertools
import json
import operator
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from prunecert.errors import UserError
from verifiers.base import FloatArray, Status, Verdict

SCHEMA_VERSION = 1
MAIN_WRITER = "main"
Row = dict[str, Any]

_PATTERN = "instances.*.jsonl"
_BLOCK = 8 << 20
#: Most of a row's text. Within a JSON string a quotation mark has a backslash before it, so none of those is hit.
_BOUNDS = re.compile(rb'"bounds":\[[^][{}]*\]')
_SYNC_EVERY_S = 1.0
_LOG_TAIL = 2000


def writer_files(directory: Path) -> list[Path]:
    """Returns the run's log files, in the order of their names."""
    return sorted(directory.glob(_PATTERN))


def is_run(directory: Path) -> bool:
    """Whether the directory holds a run."""
    return bool(writer_files(directory))


def _encode(row: Row) -> bytes:
    return (json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n").encode()


def verdict_fields(verdict: Verdict) -> Row:
    """Returns a verdict as row fields: nothing that is empty, times to the microsecond, bounds as float32.

    Rows are kept lean because a sweep writes a million of them.
    """
    data = verdict.to_json()
    data["times"] = {key: round(value, 6) for key, value in data["times"].items() if value}
    # Whole logs lie in the run's folder; a row keeps what explains a failure.
    failed = verdict.status in (Status.ERROR, Status.MEMOUT)
    data["log_tail"] = data["log_tail"][-_LOG_TAIL:] if failed else ""
    if data["bounds"] is not None:
        # A bound that isn't finite is no bound; JSON has no word for it either.
        data["bounds"] = [float(f"{b:.7g}") if np.isfinite(b) else None for b in data["bounds"]]
    if data["peak_memory_mb"] is not None:
        data["peak_memory_mb"] = round(data["peak_memory_mb"], 1)
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

    def append(self, *rows: Row) -> None:
        """Writes rows in one go; may be called from any thread.

        Raises:
            OSError: The disk is full, say. Nothing can be appended after that; what stands in the file is whole.
        """
        data = b"".join(_encode(row) for row in rows)
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
        scratch = folder / f".{name}.{os.getpid()}.tmp"
        try:
            with scratch.open("wb") as stream:
                np.save(stream, witness, allow_pickle=False)
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
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
        found = chunk.rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


class Log:
    """A run's rows, read from all its writers' files.

    Args:
        directory: The run directory.

    Raises:
        UserError: It holds no run.
    """

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise UserError(f"{directory} is no run: there is no such directory.")
        if not is_run(directory):
            raise UserError(f"{directory} is no run: it holds no {_PATTERN} file; bench.run writes them.")
        self.directory = directory
        #: One sentence for each unfinished line that was left out; filled while reading.
        self.notes: list[str] = []

    def rows(self, bounds: bool = True) -> Iterator[Row]:
        """Yields every whole row, file by file.

        Args:
            bounds: Whether the verifiers' bounds are wanted; without them a verdict's `bounds` is 0, and reading takes
                a sixth less.

        Raises:
            UserError: A line is damaged, or a file is of a newer schema.
        """
        self.notes.clear()
        for path in writer_files(self.directory):
            yield from self._read(path, bounds)

    def _read(self, path: Path, bounds: bool) -> Iterator[Row]:
        number, rest, first = 0, b"", True
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                whole, line_break, tail = (rest + block).rpartition(b"\n")
                if not line_break:
                    rest = tail
                    continue
                rest = tail
                if not bounds and b'"type":"session"' not in whole:
                    # A session's settings may have a key of that name.
                    whole = _BOUNDS.sub(b'"bounds":0', whole)
                rows = _parse(path, number, whole)
                number += len(rows)
                if first and rows[0]["type"] != "session":
                    raise UserError(f"{path}, line 1: a result file must begin with a session row; this is none.")
                first = False
                if b'"session"' in whole:
                    for row in rows:
                        if row["type"] == "session":
                            _check_schema(path, row)
                yield from rows
        if rest:
            self.notes.append(f"{path.name}: the unfinished last line ({len(rest)} bytes) is left out and done again.")

    def sessions(self) -> list[Row]:
        """Returns the first rows of all files without reading the rest: enough to say what the run is."""
        found = []
        for path in writer_files(self.directory):
            with path.open("rb") as stream:
                line = stream.readline()
            if line.endswith(b"\n"):
                row = _parse(path, 0, line[:-1])[0]
                if row["type"] != "session":
                    raise UserError(f"{path}, line 1: a result file must begin with a session row; this is none.")
                _check_schema(path, row)
                found.append(row)
        return found

    def witness(self, row: Mapping[str, Any]) -> FloatArray:
        """Returns the counterexample that a ``sat`` row names.

        Raises:
            UserError: The file is missing or no array.
        """
        path = self.directory / str(row["witness"])
        try:
            return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is no readable counterexample ({error}); the row {row['id']} names it.") from error


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


def _parse(path: Path, before: int, lines: bytes) -> list[Row]:
    """Parses whole lines; all at once, which is three times faster than one by one."""
    try:
        # Each line in brackets of its own, so that nothing but one value a line can pass.
        boxed = json.loads(b"[[" + lines.replace(b"\n", b"],[") + b"]]")
        rows = [row for (row,) in boxed]
        # Without a loop in Python: there may be a million rows.
        if set(map(type, rows)) == {dict} and all(map(operator.contains, rows, itertools.repeat("type"))):
            return rows
    except ValueError:
        pass
    rows = []
    for number, line in enumerate(lines.split(b"\n"), start=before + 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: this is no JSON ({error}), so the file was damaged after it was written; "
                "restore it, or delete that line to have its instance done again."
            ) from error
        if not isinstance(row, dict) or "type" not in row:
            raise UserError(f"{path}, line {number}: a row must be an object with a 'type'; restore the file.")
        rows.append(row)
    return rows


def _check_schema(path: Path, row: Row) -> None:
    version = row.get("schema_version")
    if not isinstance(version, int) or version < 1:
        raise UserError(f"{path}: a session row has no valid schema_version (found {version!r}).")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{path} is of schema version {version}, newer than this program reads ({SCHEMA_VERSION}); "
            "upgrade prunecert."
        )
