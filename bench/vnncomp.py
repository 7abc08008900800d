"""VNN-COMP's file layout: `instances.csv`, `results.csv`, and the names of counterexample files.

Layout and words are those that the competition's own scripts read (github.com/VNN-COMP/vnncomp2026_results, SCORING):
`instances.csv` has the columns network, property, limit in seconds; `results.csv` has category, network, property,
prepare time, result, run time; neither has a header; rows of all tools are matched by their position.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prunecert.errors import UserError
from verifiers.base import Status
from verifiers.vnnlib import read_text

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


@dataclass(frozen=True)
class Task:
    """One row of an `instances.csv`.

    Args:
        category: Name of the benchmark.
        onnx: Path of the network; it, or it with ``.gz`` added, exists.
        vnnlib: Path of the property, likewise.
        timeout: Limit in seconds.
        name: The competition's name of the pair, e.g. ``net_prop_3``.
    """

    category: str
    onnx: Path
    vnnlib: Path
    timeout: float
    name: str

    def counterexample(self, folder: Path) -> Path:
        """Where the counterexample belongs."""
        return folder / self.category / f"{self.name}.counterexample.gz"


def pair_name(onnx: Path, vnnlib: Path) -> str:
    """Returns the competition's name of a network and a property: their stems."""
    return "_".join(Path(path.name.removesuffix(".gz")).stem for path in (onnx, vnnlib))


def existing(path: Path, kind: str) -> Path:
    """Returns the path, or that with ``.gz`` added (or taken away), whichever is there.

    Raises:
        UserError: Neither is.
    """
    other = path.with_name(path.name.removesuffix(".gz") if path.suffix == ".gz" else path.name + ".gz")
    for candidate in (path, other):
        if candidate.is_file():
            return candidate
    raise UserError(f"The {kind} file {path} does not exist (nor does {other.name} beside it).")


def category_of(folder: Path) -> str:
    """Names a benchmark by its folder; a folder that is only a version (``2.0``) counts to its parent."""
    folder = folder.resolve()
    return folder.parent.name if re.fullmatch(r"\d+(\.\d+)*", folder.name) else folder.name or "benchmark"


def read_instances(path: Path, category: str | None = None, timeout: float | None = None) -> list[Task]:
    """Reads an `instances.csv`, gzipped or not.

    Args:
        path: The file; the paths in it are relative to its folder.
        category: Name of the benchmark; None: the name of that folder.
        timeout: Overrides the limits of all rows.

    Raises:
        UserError: A row isn't understood, a file is missing, or there is no row.
    """
    found: list[tuple[int, Path, Path, float]] = []
    for number, row in enumerate(csv.reader(io.StringIO(read_text(path, "instances"))), start=1):
        fields = [field.strip() for field in row]
        if not any(fields):
            continue
        if len(fields) != 3:
            raise UserError(f"{path}, line {number}: has {len(fields)} fields; allowed are onnx,vnnlib,timeout.")
        try:
            limit = float(fields[2])
        except ValueError:
            limit = math.nan
        if not (math.isfinite(limit) and limit > 0):
            raise UserError(f"{path}, line {number}: the timeout {fields[2]!r} must be a number of seconds above 0.")
        try:
            onnx = existing(path.parent / fields[0], "ONNX")
            vnnlib = existing(path.parent / fields[1], "VNN-LIB")
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        found.append((number, onnx, vnnlib, timeout or limit))
    times = Counter(pair_name(onnx, vnnlib) for _, onnx, vnnlib, _ in found)
    tasks: list[Task] = []
    lines: dict[str, int] = {}
    for number, onnx, vnnlib, limit in found:
        name = pair_name(onnx, vnnlib)
        if times[name] > 1:
            # As the competition does where a benchmark has the same names in several folders.
            name = f"{onnx.parent.name}_{name}"
        # Two rows of one name would write one counterexample file.
        if name in lines:
            raise UserError(
                f"{path}, lines {lines[name]} and {number} have the same pair of names ({name}); take one of them out."
            )
        lines[name] = number
        tasks.append(Task(category or category_of(path.parent), onnx, vnnlib, limit, name))
    if not tasks:
        raise UserError(f"{path} has no instance; a row reads onnx,vnnlib,timeout.")
    return tasks


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
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        scratch.write_text(buffer.getvalue())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
