"""What one answer costs from a shell: `bench.verify` started anew for one network and property, by verifier.

``python -m bench.engine.cold --onnx NET --vnnlib PROPERTY --repeats 10`` starts a process for each answer, verifiers
taking turns, after a run of each that only fills the caches of files and compiled kernels. It prints wall-clock and
processor seconds, the latter of the process and of all that it has started and waited for, as median and extremes.
``python`` alone and the import of `bench.verify` are timed along, as what every answer pays whoever gives it. A
verifier that isn't installed is named, and what ends in an error or a limit is no time of an answer: it is counted and
its last line is shown. Two verifiers that contradict each other end the command with exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prunecert.bench.options import REPEATS, SECONDS, THREADS
from prunecert.bench.report.medium import Table
from prunecert.bench.results.outcome import contradictions
from prunecert.bench.results.vnncomp import all_existing
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, UserError, run_main
from prunecert.onnx.io import identity
from prunecert.page_help import PageHelp
from prunecert.printable import shortened
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Kind, Status

#: Seconds beyond a verifier's own limit after which a process is killed: for starting, and compiling at first.
_GRACE_S = 600.0
#: What is timed beside the verifiers: how it is called, and the command behind the interpreter.
_FLOORS = {"python alone": ("-c", "pass"), "import of bench.verify": ("-c", "import prunecert.bench.verify")}
#: Answers whose times count.
_ANSWERS = (*(str(status) for status in (Status.SAT, Status.UNSAT, Status.UNKNOWN)), "")


@dataclass(frozen=True)
class ColdRequest:
    """What is started.

    Args:
        onnx: The network.
        vnnlib: The property.
        verifiers: Names.
        repeats: Runs of each that count.
        timeout: Seconds that a verifier has.
        threads: Of each verifier; None: its own choice.
    """

    onnx: Path
    vnnlib: Path
    verifiers: tuple[str, ...]
    repeats: int = 10
    timeout: float = 60.0
    threads: int | None = None

    def command(self, name: str, out: Path) -> list[str]:
        """Returns what is started for a row of the table; a verifier's results go to `out`."""
        if name in _FLOORS:
            return [sys.executable, *_FLOORS[name]]
        files = ["--onnx", str(self.onnx), "--vnnlib", str(self.vnnlib)]
        threads = [] if self.threads is None else ["--threads", str(self.threads)]
        limits = ["--timeout", f"{self.timeout:g}", *threads]
        verify = [sys.executable, "-m", "prunecert.bench.verify"]
        return [*verify, *files, "--verifier", name, *limits, "--out", str(out)]


@dataclass(frozen=True)
class ColdRun:
    """One process, from its start to its end.

    Args:
        name: Of the row.
        answer: Word of `results.csv`; empty where nothing was asked, ``error`` where there is none.
        wall_s: Wall-clock seconds.
        processor_s: Of the process and of those that it waited for.
        detail: The last line of its output, where it failed.
    """

    name: str
    answer: str
    wall_s: float
    processor_s: float
    detail: str = ""

    @property
    def counts(self) -> bool:
        """Whether its times are those of an answer."""
        return self.answer in _ANSWERS


def measure(request: ColdRequest, name: str) -> ColdRun:
    """Starts one process, waits for it, and reads what it has answered."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        out, log = folder / "out", folder / "log"
        with log.open("wb") as stream:
            begin = time.perf_counter()
            process = subprocess.Popen(
                request.command(name, out), stdout=stream, stderr=stream, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
            watch = threading.Timer(request.timeout + _GRACE_S, _kill, (process.pid,))
            watch.start()
            try:
                _, status, usage = os.wait4(process.pid, 0)
                wall_s = time.perf_counter() - begin
                process.returncode = os.waitstatus_to_exitcode(status)
            except BaseException:
                _kill(process.pid)
                raise
            finally:
                watch.cancel()
        answer = _answer(out / "results.csv", asked=name not in _FLOORS)
        lines = log.read_text(errors="replace").strip().splitlines()
    failed = process.returncode != 0 or answer == str(Status.ERROR)
    detail = f"exit code {process.returncode}: {shortened(lines[-1] if lines else 'no output', 300)}" if failed else ""
    return ColdRun(name, str(Status.ERROR) if failed else answer, wall_s, usage.ru_utime + usage.ru_stime, detail)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _answer(results: Path, asked: bool) -> str:
    """Returns the word that a run has written down, ``error`` where there is none."""
    if not asked:
        return ""
    if not results.is_file():
        return str(Status.ERROR)
    with results.open(newline="") as stream:
        rows = [row for row in csv.reader(stream) if len(row) > 4]
    return rows[0][4] if len(rows) == 1 else str(Status.ERROR)


def cold(request: ColdRequest) -> list[ColdRun]:
    """Runs all, in turns, whose order changes from turn to turn.

    Raises:
        UserError: A file is missing.
    """
    for path in (request.onnx, request.vnnlib):
        if not path.is_file():
            raise UserError(f"{path} is refused because there is no such file; allowed are a network and a property.")
    names = [*_FLOORS, *request.verifiers]
    for name in names:
        # Files and compiled kernels are in their caches from here on.
        measure(request, name)
    runs = []
    for turn in range(request.repeats):
        start = turn % len(names)
        runs += [measure(request, name) for name in names[start:] + names[:start]]
    return runs


def table(runs: Sequence[ColdRun]) -> Table:
    """Returns a line for each verifier: what it answered, and seconds, median and extremes."""
    rows = []
    for name in dict.fromkeys([*_FLOORS, *(run.name for run in runs)]):
        mine = [run for run in runs if run.name == name]
        answers = Counter(run.answer for run in mine if run.answer)
        cells = [_spread([getattr(run, key) for run in mine if run.counts]) for key in ("wall_s", "processor_s")]
        rows.append([name, ", ".join(f"{word} {count}" for word, count in answers.items()), *cells])
    seconds = "s, median (least to most)"
    return Table([("verifier", False), ("answers", False), (f"wall {seconds}", True), (f"cpu {seconds}", True)], rows)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else ""


def installed(names: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Returns the verifiers that are there, and a sentence about each other one.

    Args:
        names: Verifiers; empty: all complete ones of boxes and one network.

    Raises:
        UserError: One is unknown, or none is there.
    """
    chosen = names or [name for name in VERIFIERS if _complete(name)]
    there = {name: VERIFIERS.get(name).availability() for name in chosen}
    present = tuple(name for name, availability in there.items() if availability.installed)
    absent = [f"{name} is left out: {item.hint}" for name, item in there.items() if not item.installed]
    if not present:
        raise UserError("None of these verifiers is installed:", absent)
    return present, absent


def _complete(name: str) -> bool:
    return VERIFIERS.get(name).kind is Kind.COMPLETE and name != "sparse-pair"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.engine.cold", description=__doc__.split("\n\n")[0], formatter_class=PageHelp
    )
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE")
    parser.add_argument("--vnnlib", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--verifiers", default="", metavar="NAME[,NAME]", help="default: all complete ones that are there"
    )
    parser.add_argument("--repeats", type=REPEATS, default=10, help="runs of each (default: 10)")
    parser.add_argument("--timeout", type=SECONDS, default=60.0, help="seconds that a verifier has (default: 60)")
    parser.add_argument("--threads", type=THREADS, help="of each verifier (default: its own choice)")
    options = parser.parse_args(arguments)
    options.onnx, options.vnnlib = all_existing((options.onnx, "ONNX"), (options.vnnlib, "VNN-LIB"))
    # What is no network would be refused by each of many processes.
    identity(options.onnx)
    names, absent = installed([name for name in options.verifiers.split(",") if name])
    for sentence in absent:
        print(sentence, file=sys.stderr)
    request = ColdRequest(options.onnx, options.vnnlib, names, options.repeats, options.timeout, options.threads)
    runs = cold(request)
    print("\n".join(table(runs).markdown()))
    for detail in dict.fromkeys(f"{run.name} failed, {run.detail}" for run in runs if run.detail):
        print(detail)
    claims = ((request.vnnlib.name, Status(run.answer), run.name) for run in runs if run.answer and run.counts)
    broken = contradictions(claims)
    for dispute in broken:
        print(f"CONTRADICTION: {dispute.question}: unsat by {dispute.proved}, sat by {dispute.broken}")
    return EXIT_REGRESSION if broken else EXIT_OK


if __name__ == "__main__":
    run_main(main)
