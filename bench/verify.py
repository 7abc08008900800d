"""Verify anybody's ONNX network against anybody's VNN-LIB property.

One pair, or a benchmark in VNN-COMP's layout; with one verifier or several, which are then checked against each other.

    python -m bench.verify --onnx net.onnx --vnnlib prop.vnnlib --verifier neuralsat --timeout 60
    python -m bench.verify --instances instances.csv --verifier crown,abcrown --out results/runs/acasxu

Written to the folder of --out: results.csv as VNN-COMP has it (a folder for each verifier if there are several), a
counterexample file for each `sat` with the record of its replay beside it, the verifiers' own output in logs/, and a
log with the full verdicts. The same command again goes on where the last one stopped.

A file's property may have several boxes: it is `sat` if one of them is, and `unsat` only if all are. A counterexample
must lie in the box that the file states, compared in binary64, and keep its strict inequalities; `docs/vnnlib.md` says
how files and instance lists are read. What the text gives away is answered without a verifier, with a warning: an
empty input set is `unsat`, a box without a constraint on the outputs `sat`. A row of a list that can't be read ends in
`error` and costs no other row its answer; equal rows are answered once and listed as often as they are asked.

--with NET2 asks whether two networks are alike over the boxes of --vnnlib, as --alike says, or what a VNN-LIB 2.0 query
over two networks asks (docs/pairs.md). Both become one file, so that every verifier can be asked; `sparse-pair` is made
for it, and takes networks of one architecture.

--compact hands the verifiers the network without the units that do nothing. Answers are about the network as it was
given all the same: a counterexample counts only if it is one there, too.

Exit codes: 0 fine; 1 a contradiction (one verifier proves what another breaks); 2 bad input or a broken run: some
property ended in `error`, which is no answer, or is `unsupported` by every verifier that was asked. Limits that were
reached (timeout, memout) and `unknown` are answers. `--retry error` asks again what went wrong, and keeps the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prunecert.bench.machine import machine, utc_now, versions
from prunecert.bench.options import MEMORY_MB, SECONDS, THREADS, PageHelp, parse_statuses
from prunecert.bench.results.store import SCHEMA_VERSION, Log, Writer, is_run
from prunecert.bench.results.vnncomp import (
    Task,
    category_of,
    check_category,
    existing,
    pair_name,
    read_rows,
)
from prunecert.bench.running.outdir import writing
from prunecert.bench.running.pairs import ALIKE, PairFiles, pair_tasks
from prunecert.bench.running.properties import Problem, compacted, prepare
from prunecert.bench.running.properties_run import Run, UnreadableRow, in_words
from prunecert.bench.schema.settings import settings_for
from prunecert.compaction import Mode
from prunecert.errors import UserError, run_main
from prunecert.printable import say, shortened
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.process.worker import Worker

DEFAULT_TIMEOUT_S = 300.0
DEFAULT_OUT = Path("results/runs/verify")


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    command = argparse.ArgumentParser(prog="prunecert verify", description=__doc__, formatter_class=PageHelp)
    command.add_argument("--onnx", type=Path, metavar="FILE", help="network, .onnx or .onnx.gz")
    command.add_argument("--vnnlib", type=Path, metavar="FILE", help="property, .vnnlib or .vnnlib.gz")
    command.add_argument("--with", type=Path, metavar="FILE", dest="second", help="compare the network with this one")
    command.add_argument("--alike", metavar="HOW", help=f"what is asked of the two: {ALIKE}")
    command.add_argument("--instances", type=Path, metavar="CSV", help="VNN-COMP's instances.csv in place of the two")
    command.add_argument(
        "--verifier", required=True, metavar="NAME[,NAME]", help=f"one or more of: {', '.join(VERIFIERS)}"
    )
    command.add_argument(
        "--timeout", type=SECONDS, metavar="S",
        help=f"limit for each property in seconds; default: that of the CSV, or {DEFAULT_TIMEOUT_S:g}",
    )  # fmt: skip
    command.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    command.add_argument(
        "--settings", nargs="+", action="extend", default=[], metavar="K=V",
        help="a verifier's settings, key=value or verifier.key=value",
    )  # fmt: skip
    command.add_argument("--abcrown", type=Path, metavar="DIR", help="checkout of alpha-beta-CROWN to use")
    command.add_argument(
        "--compact", nargs="?", const=str(Mode.ALL_INPUTS), default=str(Mode.OFF), choices=[str(mode) for mode in Mode],
        metavar="MODE", help="remove units that do nothing first: all-inputs (if no MODE is given), pixels (what does "
        "nothing for inputs in [0, 1]; other boxes are refused), exact (no constant is folded but 0)",
    )  # fmt: skip
    command.add_argument(
        "--memory-limit", type=MEMORY_MB, metavar="MB", help="limit on a verifier's resident size in MiB"
    )
    command.add_argument("--threads", type=THREADS, metavar="N", help="threads of a verifier")
    command.add_argument(
        "--certificate", type=Path, metavar="FILE",
        help="of one pair: write a proof that verifiers/checker accepts, found by the sparse engine, if there is one",
    )  # fmt: skip
    command.add_argument("--category", metavar="NAME", help="benchmark's name in results.csv; default: the folder's")
    command.add_argument("--retry", metavar="STATUS", help="ask again what ended in these, e.g. error,memout")
    command.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help=f"default: {DEFAULT_OUT}")
    return command


def tasks_of(options: argparse.Namespace) -> list[Task]:
    """Returns what the command line asks for."""
    if options.instances is not None:
        if options.onnx is not None or options.vnnlib is not None:
            raise UserError("--instances goes without --onnx and --vnnlib; give one or the other.")
        return read_rows(options.instances, options.category, options.timeout)
    if options.onnx is None or options.vnnlib is None:
        raise UserError("Nothing to verify; give --onnx and --vnnlib, or --instances.")
    onnx, vnnlib = existing(options.onnx, "ONNX"), existing(options.vnnlib, "VNN-LIB")
    category = options.category or category_of(onnx.parent)
    return [Task(category, onnx, vnnlib, options.timeout or DEFAULT_TIMEOUT_S, pair_name(onnx, vnnlib))]


def pairs_of(options: argparse.Namespace) -> list[tuple[Task, PairFiles]]:
    """Returns what ``--with`` asks for, its files written; nothing without it.

    Raises:
        UserError: Options are missing or don't go together, or the networks can't be compared.
    """
    if options.second is None and options.alike is None:
        return []
    if options.second is None or options.onnx is None or options.vnnlib is None:
        raise UserError("--with needs --onnx and --vnnlib, and --alike needs --with; give what is missing.")
    if options.compact != str(Mode.OFF) or options.certificate is not None or options.instances is not None:
        raise UserError("--with goes without --compact, --certificate and --instances; leave them out.")
    first, second, vnnlib = (
        existing(path, kind)
        for path, kind in ((options.onnx, "ONNX"), (options.second, "ONNX"), (options.vnnlib, "VNN-LIB"))
    )
    category = options.category or category_of(first.parent)
    timeout = options.timeout or DEFAULT_TIMEOUT_S
    return pair_tasks(first, second, vnnlib, options.alike, category, timeout, options.out / "networks")


class Preparation:
    """Reads the files of tasks, and compacts networks, each once.

    Args:
        scratch: Folder for networks that have to be unpacked.
        mode: What compaction removes.
        folder: Where compact networks go.
    """

    def __init__(self, scratch: Path, mode: Mode, folder: Path) -> None:
        self._scratch = scratch
        self._mode = mode
        self._folder = folder
        self._unpacked: dict[Path, Path] = {}
        self._compacted: dict[str, Problem] = {}

    def entry(self, task: Task) -> Problem | UnreadableRow:
        """Returns what can be asked of a task, or why nothing can."""
        if task.refusal:
            return UnreadableRow(task, task.refusal)
        try:
            return self._shrunk(prepare(task, self._scratch, self._unpacked))
        except UserError as error:
            return UnreadableRow(task, in_words(error))
        except Exception as error:
            # Readers of networks raise anything; one file of a list costs no other its answer.
            return UnreadableRow(
                task, f"{shortened(task.onnx, 200)} with {shortened(task.vnnlib, 200)}: {in_words(error)}"
            )

    def _shrunk(self, problem: Problem) -> Problem:
        """Returns a problem with its network's compact form, and says what became of a network seen first."""
        sha256 = problem.onnx_sha256
        if sha256 not in self._compacted or self._compacted[sha256].refusal:
            self._compacted[sha256] = compacted(problem, self._mode, self._folder)
            record = self._compacted[sha256].compaction
            if record is not None:
                say(f"{problem.task.onnx.name}: {record.describe()}")
        first = self._compacted[sha256]
        return replace(problem, compact=first.compact, compact_sha256=first.compact_sha256, compaction=first.compaction)


def entries_of(options: argparse.Namespace, tasks: Sequence[Task], scratch: Path) -> list[Problem | UnreadableRow]:
    """Reads all files.

    Raises:
        UserError: The one pair that was given can't be asked.
    """
    preparation = Preparation(scratch, Mode(options.compact), options.out / "networks")
    entries = [preparation.entry(task) for task in tasks]
    if options.instances is None and isinstance(entries[0], UnreadableRow):
        raise UserError(entries[0].reason)
    return entries


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    options = parser().parse_args(arguments)
    names = list(dict.fromkeys(name.strip() for name in options.verifier.split(",")))
    for name in names:
        VERIFIERS.check(name)
    settings = settings_for(names, options.settings)
    retry = parse_statuses(options.retry)
    if options.category is not None:
        check_category(options.category)
    if options.abcrown is not None:
        if not options.abcrown.is_dir():
            raise UserError(f"--abcrown {options.abcrown} is no folder; give a checkout of alpha-beta-CROWN.")
        os.environ["ABCROWN_HOME"] = str(options.abcrown.resolve())
    pairs = pairs_of(options)
    tasks = [task for task, _ in pairs] or tasks_of(options)
    if options.certificate is not None and options.instances is not None:
        raise UserError("--certificate is written for one pair; give --onnx and --vnnlib in place of --instances.")
    out: Path = options.out
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prunecert-")))
        # Left after the verifiers, whose logs lie in it.
        stack.enter_context(writing(out))
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
        if options.instances is None and len(crew) == 1 and not is_run(out):
            # One question, which nobody has answered yet: the verifier starts while the files are read.
            crew[names[0]].start_ahead()
        entries = entries_of(options, tasks, scratch)
        entries = [
            replace(entry, pair=pair) if isinstance(entry, Problem) else entry
            for entry, pair in itertools.zip_longest(entries, (pair for _, pair in pairs))
        ]
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
        run = Run(out, entries, crew, writer, rows, retry)
        run.go()
        code = run.report()
        if options.certificate is not None:
            from prunecert.bench.running.certifying import write_file

            try:
                write_file(options.certificate, tasks[0].onnx, tasks[0].vnnlib, tasks[0].timeout)
            except UserError as error:
                # The answers stand all the same.
                say(f"uncertified: {error}")
        return code


if __name__ == "__main__":
    run_main(main)
