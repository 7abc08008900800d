"""One start of `bench.verify`: what is answered already, what is asked, what is written."""

from __future__ import annotations

import errno
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from prunecert.bench.results.store import Row, Writer, verdict_fields
from prunecert.bench.results.vnncomp import write_results
from prunecert.bench.running.properties import Problem, contradictions, solve
from prunecert.bench.running.properties_reading import UnreadableRow, in_words
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, EXIT_USAGE
from prunecert.files import write_text
from prunecert.hashing import canonical_json, digest
from prunecert.printable import plural, say
from prunecert.verifiers.base import Status, Verdict
from prunecert.verifiers.formats.vnnlib import write_counterexample
from prunecert.verifiers.process.worker import Worker

#: How property files are understood; answers of another reading are asked again.
READING = "exact, strict"
#: Of the time since `results.csv` was written last, the share that writing it may take.
_SHARE = 0.02


def row_of(problem: Problem, worker: Worker, verdict: Verdict, identifier: str, counterexample: Path | None) -> Row:
    """Makes the log's row of a verdict."""
    return {
        "type": "property",
        "id": identifier,
        "problem": problem.key,
        "category": problem.task.category,
        "onnx": str(problem.task.onnx),
        "onnx_sha256": problem.onnx_sha256,
        "vnnlib": str(problem.task.vnnlib),
        "vnnlib_sha256": problem.vnnlib_sha256,
        "timeout": problem.task.timeout,
        "settings": worker.identity["settings"],
        **({} if problem.compaction is None else {"compaction": problem.compaction.summary()}),
        "counterexample": None if counterexample is None else str(counterexample),
        **verdict_fields(verdict),
    }


def row_of_unreadable(entry: UnreadableRow, worker: Worker, identifier: str) -> Row:
    """Makes the log's row of what can't be asked."""
    verdict = Verdict(
        Status.ERROR,
        entry.reason,
        device=worker.device,
        verifier=worker.name,
        version=str(worker.identity["version"]),
    )
    return {
        "type": "property",
        "id": identifier,
        "problem": entry.key,
        "category": entry.task.category,
        "onnx": str(entry.task.onnx),
        "onnx_sha256": "",
        "vnnlib": str(entry.task.vnnlib),
        "vnnlib_sha256": "",
        "timeout": entry.task.timeout,
        "settings": worker.identity["settings"],
        "counterexample": None,
        **verdict_fields(verdict),
    }


def save_counterexample(path: Path, problem: Problem, verdict: Verdict) -> None:
    """Writes a counterexample, and the record of its replay beside it."""
    assert verdict.witness is not None
    assert verdict.witness_check is not None
    values = np.array([float(value) for value in verdict.witness_check["outputs"]], dtype=np.float32)
    write_counterexample(path, verdict.witness, values)
    record = {
        **verdict.witness_check,
        "verifier": verdict.verifier,
        "verifier_version": verdict.version,
        "onnx": str(problem.task.onnx),
        "vnnlib": str(problem.task.vnnlib),
        "vnnlib_sha256": problem.vnnlib_sha256,
        "in_file_box": True,
    }
    write_text(check_file(path), canonical_json(record) + "\n")


def check_file(counterexample: Path) -> Path:
    """Where the record of a counterexample's replay belongs."""
    return counterexample.with_name(counterexample.name.removesuffix(".gz") + ".check.json")


class PropertiesRun:
    """One start of the command.

    Args:
        out: Folder of the results.
        entries: All rows of the list, in order.
        crew: Workers by verifier.
        writer: The log.
        rows: Rows of earlier starts.
        retry: Statuses of earlier answers that are asked for again.
    """

    def __init__(
        self,
        out: Path,
        entries: Sequence[Problem | UnreadableRow],
        crew: Mapping[str, Worker],
        writer: Writer,
        rows: Sequence[Row],
        retry: frozenset[Status] = frozenset(),
    ) -> None:
        self.entries = entries
        self.crew = crew
        self.writer = writer
        self.rows = list(rows)
        latest = {row["id"]: row for row in rows}
        self.row_of = {identity: row for identity, row in latest.items() if Status(row["status"]) not in retry}
        self.folders = {name: out / name if len(crew) > 1 else out for name in crew}
        self.out = out
        self.identifiers = {name: self._identifiers(worker) for name, worker in crew.items()}
        self._written = dict.fromkeys(crew, (-1e9, 0.0))

    def _identifiers(self, worker: Worker) -> list[str]:
        """Returns, for each entry, the hash of all that decides its answer, with the device."""
        identity = worker.identity
        identifiers = []
        for entry in self.entries:
            if isinstance(entry, UnreadableRow):
                identifiers.append(digest([entry.key, identity]))
            else:
                small = [] if entry.compact is None else [entry.compact_sha256]
                identifiers.append(digest([entry.key, entry.task.timeout, identity, worker.device, READING, *small]))
        return identifiers

    def go(self) -> None:
        """Answers what is not answered yet."""
        for name in self.crew:
            self.write_results(name)
        try:
            for i, entry in enumerate(self.entries):
                for name, worker in self.crew.items():
                    self._answer(i, entry, name, worker)
        finally:
            # On the way out as well, with whatever is answered: Ctrl-C, a full disk.
            for name in self.crew:
                self.write_results(name)

    def _answer(self, i: int, entry: Problem | UnreadableRow, name: str, worker: Worker) -> None:
        identifier = self.identifiers[name][i]
        again = "  (kept)"
        if isinstance(entry, UnreadableRow):
            again = ""
            if identifier not in self.row_of:
                self._append(row_of_unreadable(entry, worker, identifier))
        elif not self.kept(entry, name, identifier):
            again = ""
            self.keep(entry, worker, self._solved(entry, worker), identifier)
            written, took = self._written[name]
            if time.monotonic() - written > took / _SHARE:
                self.write_results(name)
        row = self.row_of[identifier]
        seconds = row.get("times", {}).get("wall_s", 0.0)
        detail = f"  {row['detail']}" if row.get("detail") else ""
        say(
            f"[{i + 1}/{len(self.entries)}] {name:<11} {row['status']:<11} {seconds:8.2f} s  "
            f"{entry.task.name or entry.task.onnx.name}{again}{detail}"
        )

    @staticmethod
    def _solved(problem: Problem, worker: Worker) -> Verdict:
        """Answers a problem; what goes wrong is this problem's `error` and no other's."""
        try:
            return solve(problem, worker)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            return Verdict(
                Status.ERROR,
                in_words(error),
                device=worker.device,
                verifier=worker.name,
                version=str(worker.identity["version"]),
            )

    def kept(self, problem: Problem, name: str, identifier: str) -> bool:
        """Whether the answer is there already, and its counterexample, if it has one, where this start wants it."""
        row = self.row_of.get(identifier)
        if row is None or row.get("counterexample") is None:
            return row is not None
        # The same question may have been asked under another name, or next to other verifiers.
        source, target = self.out / row["counterexample"], problem.task.counterexample(self.folders[name])
        for old, new in ((source, target), (check_file(source), check_file(target))):
            if not new.is_file():
                if not old.is_file():
                    return False
                new.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(old, new)
        return True

    def keep(self, problem: Problem, worker: Worker, verdict: Verdict, identifier: str) -> None:
        """Writes a verdict down: first its counterexample, then the row that names it."""
        path = None
        if verdict.status is Status.SAT:
            path = problem.task.counterexample(self.folders[worker.name])
            save_counterexample(path, problem, verdict)
            path = path.relative_to(self.out)
        self._append(row_of(problem, worker, verdict, identifier, path))

    def _append(self, row: Row) -> None:
        self.writer.append(row)
        self.rows.append(row)
        self.row_of[row["id"]] = row

    def write_results(self, name: str) -> None:
        """Writes a verifier's `results.csv` anew: at the start, at the end, and between them not too often."""
        begin = time.monotonic()
        lines = []
        for entry, identifier in zip(self.entries, self.identifiers[name], strict=True):
            row = self.row_of.get(identifier)
            if row is not None:
                times = row.get("times", {})
                lines.append((entry.task, Status(row["status"]), times.get("start_s", 0.0), times.get("wall_s", 0.0)))
        write_results(self.folders[name] / "results.csv", lines)
        self._written[name] = (time.monotonic(), time.monotonic() - begin)

    def report(self) -> int:
        """Prints the summary; returns the exit code."""
        say()
        answers = {name: [Status(self.row_of[i]["status"]) for i in self.identifiers[name]] for name in self.crew}
        for name, statuses in answers.items():
            count_of = Counter(statuses)
            counts = ", ".join(f"{count_of[status]} {status}" for status in Status if count_of[status])
            say(f"{name}: {plural(len(self.entries), 'property')}: {counts}; {self.folders[name] / 'results.csv'}")
        here = {entry.key for entry in self.entries}
        sentences = contradictions([row for row in self.rows if row["problem"] in here])
        for sentence in sentences:
            say(sentence)
        failed = sum(status is Status.ERROR for statuses in answers.values() for status in statuses)
        if failed:
            say(f"{failed} ended in error: the reasons stand above, and in logs/; --retry error asks them again.")
        refused = sum(set(statuses) == {Status.UNSUPPORTED} for statuses in zip(*answers.values(), strict=True))
        if refused:
            say(f"{refused} unsupported by every verifier that was asked: the reasons stand above.")
        if sentences:
            return EXIT_REGRESSION
        return EXIT_USAGE if failed or refused else EXIT_OK
