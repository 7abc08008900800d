"""VNN-COMP's file layout: `instances.csv`, `results.csv`, and the names of counterexample files.

Layout and words are those that the competition's own scripts read (github.com/VNN-COMP/vnncomp2026_results, SCORING):
`instances.csv` has the columns network, property, limit in seconds; `results.csv` has category, network, property,
prepare time, result, run time; neither has a header; rows of all tools are matched by their position.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from prunecert.errors import UserError
from prunecert.files import write_bytes
from prunecert.hashing import digest
from prunecert.numbers import read_number
from prunecert.printable import article, shortened
from prunecert.verifiers.base import Status
from prunecert.verifiers.formats.textfile import read_text

#: The scorer's words; it stops at any other. It has none for memory and for properties outside a tool's reach.
RESULT_WORDS = {
    Status.UNSAT: "unsat",
    Status.SAT: "sat",
    Status.UNKNOWN: "unknown",
    Status.TIMEOUT: "timeout",
    Status.MEMOUT: "error",
    Status.ERROR: "error",
    Status.UNSUPPORTED: "unknown",
}


#: Bytes that a file system takes for one name, less what is added to a counterexample's.
MAX_NAME = 200
#: Most seconds of a limit: over three months.
MAX_TIMEOUT_S = 1e7


#: Beside an `instances.csv` that `bench.export` wrote: cell and image of each of its rows, in their order.
CELLS_FILE = "cells.csv"


class Key(NamedTuple):
    """What a run calls an instance by.

    Args:
        cell: Name of the cell.
        image: Index of the image in its split.
    """

    cell: str
    image: int


@dataclass(frozen=True)
class Task:
    """One row of an `instances.csv`.

    Args:
        category: Name of the benchmark.
        onnx: Path of the network; it, or it with ``.gz`` added, exists.
        vnnlib: Path of the property, likewise.
        timeout: Limit in seconds.
        name: The competition's name of the pair, e.g. ``net_prop_3``.
        refusal: Why the row can't be answered, in one sentence; empty if it can.
    """

    category: str
    onnx: Path
    vnnlib: Path
    timeout: float
    name: str
    refusal: str = ""

    def counterexample(self, folder: Path) -> Path:
        """Where the counterexample belongs: under a name that a file system takes, however long the files' are."""
        return folder / self.category / f"{bounded_name(self.name)}.counterexample.gz"


def bounded_name(name: str) -> str:
    """Returns a name of up to `MAX_NAME` bytes: a longer one is cut, and ends in a hash of the whole."""
    raw = os.fsencode(name)
    if len(raw) <= MAX_NAME:
        return name
    tail = "-" + hashlib.sha256(raw).hexdigest()[:16]
    # A letter of several bytes isn't cut in two.
    head = raw[: MAX_NAME - len(tail)].decode("utf-8", "ignore")
    return head + tail


def pair_name(onnx: Path, vnnlib: Path) -> str:
    """Returns the competition's name of a network and a property: their stems."""
    return "_".join(Path(path.name.removesuffix(".gz")).stem for path in (onnx, vnnlib))


def existing(path: Path, kind: str) -> Path:
    """Returns the path, or that with ``.gz`` added (or taken away), whichever is there.

    Raises:
        UserError: Neither is, or its folder may not be entered.
    """
    name = shortened(path, 200)
    try:
        other = path.with_name(path.name.removesuffix(".gz") if path.suffix == ".gz" else path.name + ".gz")
        for candidate in (path, other):
            if candidate.is_file():
                return candidate
        if path.exists():
            raise UserError(f"{name} is no file; wanted is {article(kind)} file.")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"The {kind} file {name} can't be reached ({reason}).") from None
    raise UserError(f"The {kind} file {name} does not exist (nor does {shortened(other.name, 80)} beside it).")


def all_existing(*files: tuple[Path, str]) -> list[Path]:
    """Returns `existing` of several (path, kind) pairs.

    Raises:
        UserError: Some aren't there; it names all of these, so that nobody has to come again for each.
    """
    there, missing = list[Path](), list[str]()
    for path, kind in files:
        try:
            there.append(existing(path, kind))
        except UserError as error:
            missing.append(str(error))
    if missing:
        raise UserError(" ".join(missing))
    return there


def category_of(folder: Path) -> str:
    """Names a benchmark by its folder; a folder that is only a version (``2.0``) counts to its parent."""
    folder = folder.resolve()
    return folder.parent.name if re.fullmatch(r"\d+(\.\d+)*", folder.name) else folder.name or "benchmark"


def check_category(name: str) -> str:
    """Returns a benchmark's name, which becomes a folder of the results.

    Raises:
        UserError: It isn't one plain name.
    """
    plain = name.isprintable() and not {"/", "\\"} & set(name) and name.strip() == name and name not in ("", ".", "..")
    if not plain or len(os.fsencode(name)) > MAX_NAME:
        raise UserError(
            f"--category {shortened(repr(name), 80)} is refused; allowed is the plain name of a folder: no /, no \\, "
            f"not . or .., up to {MAX_NAME} bytes."
        )
    return name


def read_instances(path: Path, category: str | None = None, timeout: float | None = None) -> list[Task]:
    """Reads an `instances.csv` whose rows all have to be fit to be answered; see `read_rows`.

    Raises:
        UserError: A row isn't understood, a file is missing, or there is no row.
    """
    tasks = read_rows(path, category, timeout)
    for task in tasks:
        if task.refusal:
            raise UserError(task.refusal)
    return tasks


def read_rows(path: Path, category: str | None = None, timeout: float | None = None) -> list[Task]:
    """Reads an `instances.csv`, gzipped or not; a row that can't be answered says so in its `refusal`.

    Blank lines, lines that begin with ``#``, columns after the third and a header are left out. A field may stand in
    quotation marks, between spaces, and with backslashes for slashes. The same row may stand there several times.

    Args:
        path: The file; the paths in it are relative to its folder.
        category: Name of the benchmark; None: the name of that folder.
        timeout: Overrides the limits of all rows, which then may lack theirs.

    Returns:
        A task for each row, in their order; equal rows are equal tasks, and others have other names.

    Raises:
        UserError: The file can't be read, or no row of it has the form of one.
    """
    category = category or category_of(path.parent)
    tasks: list[Task] = []
    formed, first = 0, True
    text = read_text(path, "instances").removeprefix("\ufeff")
    # Not splitlines, which knows more line breaks than editors do.
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        try:
            # Line by line: a quotation mark that isn't closed takes no other row with it.
            fields = [field.strip() for row in csv.reader([line], skipinitialspace=True) for field in row]
        except csv.Error as error:
            fields, wrong = [line[:40]], str(error)
        else:
            wrong = ""
            if not any(fields) or fields[0].startswith("#"):
                continue
        limit = read_number(fields[2]) if len(fields) > 2 else timeout
        if first and limit is None and not wrong and len(fields) > 2 and not _names_files(path.parent, fields):
            # A header: names of columns.
            first = False
            continue
        first = False
        tasks.append(_task(f"{shortened(path, 200)}, line {number}", path.parent, fields, wrong, category, timeout))
        formed += limit is not None
    if not formed:
        if tasks:
            raise UserError(tasks[0].refusal)
        raise UserError(f"{shortened(path, 200)} has no instance; a row reads onnx,vnnlib,timeout.")
    return _named(path.parent, tasks)


def _names_files(folder: Path, fields: list[str]) -> bool:
    """Whether fields are those of an instance, as far as names or what is there say so."""
    endings = (".onnx", ".vnnlib", ".onnx.gz", ".vnnlib.gz")
    if any(field.lower().endswith(endings) for field in fields[:2]):
        return True
    try:
        existing(folder / fields[0], "ONNX")
    except UserError:
        return False
    return True


def _task(where: str, folder: Path, fields: list[str], wrong: str, category: str, timeout: float | None) -> Task:
    """Makes a task of a row's fields, with a refusal if it can't be answered."""
    onnx, vnnlib, text = [*fields, "", "", ""][:3]
    limit = read_number(text) if text or timeout is None else timeout
    refusal = ""
    first, second = folder / onnx, folder / vnnlib
    if wrong:
        refusal = f"{where}: is not understood ({wrong}); allowed are onnx,vnnlib,timeout."
    elif len(fields) < (2 if timeout else 3):
        refusal = f"{where}: has {len(fields)} fields; allowed are onnx,vnnlib,timeout."
    elif limit is None or not 0 < limit <= MAX_TIMEOUT_S:
        refusal = (
            f"{where}: the timeout {shortened(repr(text), 60)} must be a number of seconds above 0, up to "
            f"{MAX_TIMEOUT_S:.0f}."
        )
    else:
        try:
            first, second = _found(folder, onnx, "ONNX"), _found(folder, vnnlib, "VNN-LIB")
        except UserError as error:
            refusal = f"{where}: {error}"
    return Task(category, first, second, 0.0 if refusal else timeout or limit or 0.0, "", refusal)


def _found(folder: Path, text: str, kind: str) -> Path:
    """Finds the file that a field names; backslashes count as slashes if there is no such file otherwise."""
    try:
        return existing(folder / text, kind)
    except UserError:
        if "\\" not in text:
            raise
        return existing(folder / text.replace("\\", "/"), kind)


def _named(folder: Path, tasks: list[Task]) -> list[Task]:
    """Names tasks: equal ones alike, others differently, since counterexamples are stored by name."""
    keys = [(*(os.path.normpath(p) for p in (task.onnx, task.vnnlib)), task.timeout) for task in tasks]
    namings: list[Callable[[Task], str]] = [
        lambda task: pair_name(task.onnx, task.vnnlib),
        # As the competition does where a benchmark has the same names in several folders.
        lambda task: f"{task.onnx.parent.name}_{pair_name(task.onnx, task.vnnlib)}",
        lambda task: "_".join(_steps(folder, task.onnx) + _steps(folder, task.vnnlib)),
    ]
    names = {key: bounded_name(namings[0](task)) for key, task in zip(keys, tasks, strict=True)}
    first = dict(zip(reversed(keys), reversed(tasks), strict=True))
    for name in namings[1:]:
        # A file system may take upper and lower case for the same.
        times = Counter(value.casefold() for value in names.values())
        names = {k: bounded_name(name(first[k])) if times[v.casefold()] > 1 else v for k, v in names.items()}
    times = Counter(value.casefold() for value in names.values())
    names = {
        # The same pair with another limit, or names that their separators make equal.
        key: f"{bounded_name(value)[:180]}-{digest(list(key))[:8]}" if times[value.casefold()] > 1 else value
        for key, value in names.items()
    }
    return [replace(task, name=names[key]) for key, task in zip(keys, tasks, strict=True)]


def _steps(folder: Path, path: Path) -> list[str]:
    """Returns the steps of a path from the list's folder on, without the ending."""
    steps = Path(os.path.relpath(path, folder)).parts
    return [*(step for step in steps[:-1] if step != ".."), Path(steps[-1].removesuffix(".gz")).stem]


def write_keys(folder: Path, keys: Iterable[Key]) -> None:
    """Writes which cell and image each row of a folder's `instances.csv` is about, so that no name has to tell it."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(keys)
    write_bytes(folder / CELLS_FILE, buffer.getvalue().encode())


def read_keys(folder: Path) -> list[Key]:
    """Returns which cell and image each row of a folder's `instances.csv` is about.

    Raises:
        UserError: The folder was not written by `bench.export`, or its file is damaged.
    """
    path = folder / CELLS_FILE
    keys = []
    for number, row in enumerate(csv.reader(read_text(path, "cells").splitlines()), start=1):
        if len(row) != 2 or not row[0] or not (row[1].isascii() and row[1].isdecimal()):
            raise UserError(f"{shortened(path, 200)}, line {number}: is not understood; allowed are cell,image.")
        keys.append(Key(row[0], int(row[1])))
    return keys


def write_results(path: Path, rows: Iterable[tuple[Task, Status, float, float]]) -> None:
    """Writes a `results.csv`; the file is either the old one or the new one at any moment.

    Args:
        path: The file.
        rows: (task, status, prepare time in seconds, run time in seconds), in the order of the instances.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for task, status, prepare_s, run_s in rows:
        writer.writerow(
            [task.category, task.onnx, task.vnnlib, f"{prepare_s:.6f}", RESULT_WORDS[status], f"{run_s:.6f}"]
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue().encode("utf-8", errors="surrogateescape"))
