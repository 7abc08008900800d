"""Verify anybody's ONNX network against anybody's VNN-LIB property.

One pair, or a benchmark in VNN-COMP's layout; with one verifier or several, which are then checked against each other.

    python -m bench.verify --onnx net.onnx --vnnlib prop.vnnlib --verifier neuralsat --timeout 60
    python -m bench.verify --instances instances.csv --verifier crown,abcrown --out results/runs/acasxu

Written to the folder of --out: results.csv as VNN-COMP has it (a folder for each verifier if there are several), a
counterexample file for each `sat` with the record of its replay beside it, the verifiers' own output in logs/, and a
log with the full verdicts. The same command again goes on where the last one stopped.

A file's property may have several boxes: it is `sat` if one of them is, and `unsat` only if all are. A counterexample
must lie in the box that the file states, compared in binary64; see `verifiers.vnnlib` for float32 and decimals.

--compact hands the verifiers the network without the units that do nothing. Answers are about the network as it was
given all the same: a counterexample counts only if it is one there, too.

Exit codes: 0 fine; 1 a contradiction (one verifier proves what another breaks); 2 bad input or a broken run: some
property ended in `error`, which is no answer. Limits that were reached (timeout, memout), `unknown` and `unsupported`
are answers. `--retry error` asks again what went wrong, and keeps the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bench.properties import Problem, compacted, contradictions, prepare, solve
from bench.rows import parse_statuses
from bench.session import machine, utc_now, versions
from bench.store import SCHEMA_VERSION, Log, Row, Writer, is_run, verdict_fields
from bench.vnncomp import Task, category_of, existing, pair_name, read_instances, write_results
from prunecert.compaction import Mode
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, EXIT_USAGE, UserError, run_main
from prunecert.hashing import canonical_json, digest
from verifiers import VERIFIERS
from verifiers.base import Status, Verdict
from verifiers.vnnlib import write_counterexample
from verifiers.worker import Worker

DEFAULT_TIMEOUT_S = 300.0
DEFAULT_OUT = Path("results/runs/verify")


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
    check_file(path).write_text(canonical_json(record) + "\n")


def check_file(counterexample: Path) -> Path:
    """Where the record of a counterexample's replay belongs."""
    return counterexample.with_name(counterexample.name.removesuffix(".gz") + ".check.json")


def settings_for(names: Sequence[str], given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Reads ``key=value`` (for every verifier) and ``verifier.key=value``; values are YAML scalars."""
    settings: dict[str, dict[str, Any]] = {name: {} for name in names}
    for item in given:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise UserError(f"--settings {item!r} is refused; allowed is key=value or verifier.key=value.")
        owner, dot, rest = key.partition(".")
        if dot and owner not in names:
            raise UserError(f"--settings {item!r} names the verifier {owner!r}; this run has {', '.join(names)}.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(
                f"--settings {item!r} is refused; the value must be a number, a word, true or false."
            ) from None
        for name in [owner] if dot else names:
            settings[name][rest if dot else key] = value
    return settings


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench.verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--onnx", type=Path, metavar="FILE", help="network, .onnx or .onnx.gz")
    made.add_argument("--vnnlib", type=Path, metavar="FILE", help="property, .vnnlib or .vnnlib.gz")
    made.add_argument("--instances", type=Path, metavar="CSV", help="VNN-COMP's instances.csv in place of the two")
    made.add_argument(
        "--verifier", required=True, metavar="NAME[,NAME]", help=f"one or more of: {', '.join(VERIFIERS)}"
    )
    made.add_argument(
        "--timeout", type=float, metavar="S",
        help=f"limit for each property in seconds; default: that of the CSV, or {DEFAULT_TIMEOUT_S:g}",
    )  # fmt: skip
    made.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    made.add_argument(
        "--settings", nargs="+", action="extend", default=[], metavar="K=V",
        help="a verifier's settings, key=value or verifier.key=value",
    )  # fmt: skip
    made.add_argument("--abcrown", type=Path, metavar="DIR", help="checkout of alpha-beta-CROWN to use")
    made.add_argument(
        "--compact", nargs="?", const=str(Mode.ALL_INPUTS), default=str(Mode.OFF), choices=[str(mode) for mode in Mode],
        metavar="MODE", help="remove units that do nothing first: all-inputs (if no MODE is given), pixels (what does "
        "nothing for inputs in [0, 1]; other boxes are refused), exact (no constant is folded but 0)",
    )  # fmt: skip
    made.add_argument("--memory-limit", type=int, metavar="MB", help="limit on a verifier's resident size in MiB")
    made.add_argument("--threads", type=int, metavar="N", help="threads of a verifier")
    made.add_argument("--category", metavar="NAME", help="benchmark's name in results.csv; default: the folder's")
    made.add_argument("--retry", metavar="STATUS", help="ask again what ended in these, e.g. error,memout")
    made.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help=f"default: {DEFAULT_OUT}")
    return made


def tasks_of(options: argparse.Namespace) -> list[Task]:
    """Returns what the command line asks for."""
    if options.timeout is not None and not 0 < options.timeout < float("inf"):
        raise UserError(f"--timeout {options.timeout:g} is refused; it must be a number of seconds above 0.")
    if options.instances is not None:
        if options.onnx is not None or options.vnnlib is not None:
            raise UserError("--instances goes without --onnx and --vnnlib; give one or the other.")
        return read_instances(options.instances, options.category, options.timeout)
    if options.onnx is None or options.vnnlib is None:
        raise UserError("Nothing to verify; give --onnx and --vnnlib, or --instances.")
    onnx, vnnlib = existing(options.onnx, "ONNX"), existing(options.vnnlib, "VNN-LIB")
    category = options.category or category_of(onnx.parent)
    return [Task(category, onnx, vnnlib, options.timeout or DEFAULT_TIMEOUT_S, pair_name(onnx, vnnlib))]


def shrink(problems: Sequence[Problem], mode: Mode, folder: Path) -> list[Problem]:
    """Compacts the networks of problems, each once, and says what became of them."""
    made: dict[str, Problem] = {}
    found = []
    for problem in problems:
        if problem.onnx_sha256 not in made or made[problem.onnx_sha256].refusal:
            made[problem.onnx_sha256] = compacted(problem, mode, folder)
            record = made[problem.onnx_sha256].compaction
            if record is not None:
                print(f"{problem.task.onnx.name}: {record.describe()}")
        first = made[problem.onnx_sha256]
        found.append(
            replace(problem, compact=first.compact, compact_sha256=first.compact_sha256, compaction=first.compaction)
        )
    return found


class Run:
    """One start of the command: what is there already, what is written.

    Args:
        out: Folder of the results.
        problems: All problems, in order.
        crew: Workers by verifier.
        writer: The log.
        rows: Rows of earlier starts.
        retry: Statuses of earlier answers that are asked for again.
    """

    def __init__(
        self,
        out: Path,
        problems: Sequence[Problem],
        crew: Mapping[str, Worker],
        writer: Writer,
        rows: Sequence[Row],
        retry: frozenset[Status] = frozenset(),
    ) -> None:
        self.problems = problems
        self.crew = crew
        self.writer = writer
        self.rows = list(rows)
        latest = {row["id"]: row for row in rows}
        self.done = {identity: row for identity, row in latest.items() if Status(row["status"]) not in retry}
        self.folders = {name: out / name if len(crew) > 1 else out for name in crew}
        self.out = out

    def identifier(self, problem: Problem, worker: Worker) -> str:
        """Hash of all that decides an answer, with the device."""
        small = [] if problem.compact is None else [problem.compact_sha256]
        return digest([problem.key, problem.task.timeout, worker.identity, worker.device, *small])

    def go(self) -> None:
        """Answers what is not answered yet."""
        for name in self.crew:
            self.write_results(name)
        for number, problem in enumerate(self.problems, start=1):
            for name, worker in self.crew.items():
                identifier = self.identifier(problem, worker)
                again = "  (kept)"
                if not self.kept(problem, name, identifier):
                    again = ""
                    self.keep(problem, worker, solve(problem, worker), identifier)
                    self.write_results(name)
                row = self.done[identifier]
                seconds = row.get("times", {}).get("wall_s", 0.0)
                detail = f"  {row['detail']}" if row.get("detail") else ""
                print(
                    f"[{number}/{len(self.problems)}] {name:<11} {row['status']:<11} {seconds:8.2f} s  "
                    f"{problem.task.name}{again}{detail}",
                    flush=True,
                )

    def kept(self, problem: Problem, name: str, identifier: str) -> bool:
        """Whether the answer is there already, and its counterexample, if it has one, where this start wants it."""
        row = self.done.get(identifier)
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
        row = row_of(problem, worker, verdict, identifier, path)
        self.writer.append(row)
        self.rows.append(row)
        self.done[identifier] = row

    def write_results(self, name: str) -> None:
        """Writes a verifier's `results.csv` anew."""
        lines = []
        for problem in self.problems:
            row = self.done.get(self.identifier(problem, self.crew[name]))
            if row is not None:
                times = row.get("times", {})
                lines.append((problem.task, Status(row["status"]), times.get("start_s", 0.0), times.get("wall_s", 0.0)))
        write_results(self.folders[name] / "results.csv", lines)

    def report(self) -> int:
        """Prints the summary; returns the exit code."""
        print()
        for name, worker in self.crew.items():
            found = Counter(self.done[self.identifier(problem, worker)]["status"] for problem in self.problems)
            counts = ", ".join(f"{found[status]} {status}" for status in Status if found[status])
            print(f"{name}: {len(self.problems)} properties: {counts}; {self.folders[name] / 'results.csv'}")
        here = {problem.key for problem in self.problems}
        found_wrong = contradictions([row for row in self.rows if row["problem"] in here])
        for sentence in found_wrong:
            print(sentence)
        failed = sum(
            self.done[self.identifier(problem, worker)]["status"] == Status.ERROR
            for problem in self.problems
            for worker in self.crew.values()
        )
        if failed:
            print(f"{failed} ended in error: the reasons stand above, and in logs/; --retry error asks them again.")
        if found_wrong:
            return EXIT_REGRESSION
        return EXIT_USAGE if failed else EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    options = parser().parse_args(arguments)
    names = list(dict.fromkeys(name.strip() for name in options.verifier.split(",")))
    for name in names:
        VERIFIERS.check(name)
    settings = settings_for(names, options.settings)
    retry = parse_statuses(options.retry)
    if options.abcrown is not None:
        if not options.abcrown.is_dir():
            raise UserError(f"--abcrown {options.abcrown} is no folder; give a checkout of alpha-beta-CROWN.")
        os.environ["ABCROWN_HOME"] = str(options.abcrown.resolve())
    tasks = tasks_of(options)
    out: Path = options.out
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prunecert-")))
        crew = {
            name: stack.enter_context(
                Worker(
                    name,
                    settings[name],
                    options.device,
                    memory_limit_mb=options.memory_limit,
                    threads=options.threads,
                    log=out / "logs" / f"{name}.log",
                )
            )
            for name in names
        }
        unpacked: dict[Path, Path] = {}
        problems = [prepare(task, scratch, unpacked) for task in tasks]
        problems = shrink(problems, Mode(options.compact), out / "networks")
        writer = stack.enter_context(Writer(out))
        (out / "logs").mkdir(exist_ok=True)
        arguments = list(sys.argv[1:] if arguments is None else arguments)
        writer.append(
            {
                "type": "session",
                "schema_version": SCHEMA_VERSION,
                "started": utc_now(),
                "command": ["python", "-m", "bench.verify", *arguments],
                "suite": "bench.verify",
                "versions": versions(),
                "machine": machine(),
                "device": options.device,
                "float32": "TF32 off",
                "verifiers": [worker.identity for worker in crew.values()],
            }
        )
        rows = Log(out).properties() if is_run(out) else []
        run = Run(out, problems, crew, writer, rows, retry)
        run.go()
        return run.report()


if __name__ == "__main__":
    run_main(main)
