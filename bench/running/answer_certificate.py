"""The certificate of what `bench.verify` has just answered: from the search's own tree, or from the counterexample.

    sparse-bab answered unsat ── its tree ──┐
    anybody answered sat ── the witness ────┤── checked ── file
    anybody else, or nobody ── a search ────┘

A second search is made only where no tree can be had: where another verifier gave the answer, or the network was made
compact, so that the tree is about another file. A certificate that is there already and proves the answer stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from prunecert.bench.running.properties import Problem
from prunecert.bench.running.properties_run import PropertiesRun
from prunecert.bench.running.proving import CERTIFIER
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, UserError
from prunecert.files import write_bytes
from prunecert.printable import say
from prunecert.verifiers.base import FloatArray, Status
from prunecert.verifiers.certification import Written
from prunecert.verifiers.checker import RefusedError, Report, UnreadableError, check
from prunecert.verifiers.checker.files import read
from prunecert.verifiers.checker.proof import LARGEST_TEXT
from prunecert.verifiers.formats.vnnlib import read_counterexample
from prunecert.verifiers.process.certifying import CertifyingWorker


def certify_answer(
    target: Path, run: PropertiesRun, crew: Mapping[str, CertifyingWorker], threads: int | None = None
) -> int:
    """Writes the certificate of the one property that was asked, says how it came about, or why there is none.

    Args:
        target: The file; not touched if there is no certificate.
        run: What was answered; its one entry has been read.
        crew: The verifiers that answered, still alive.
        threads: Of a process that searches anew.

    Returns:
        Exit code: 1 where there is no certificate, or the checker accepts the opposite of what was answered.

    Raises:
        UserError: A file can't be read by the checker, or the certificate can't be written.
    """
    (problem,) = run.entries
    assert isinstance(problem, Problem), "what can't be read ends before this"
    if problem.refusal:
        raise UserError(problem.refusal)
    rows = {name: run.row_of[identifier] for name, (identifier,) in run.identifiers.items()}
    status = next((Status(row["status"]) for row in rows.values() if Status(row["status"]).decided), None)
    witness: FloatArray | None = None
    for row in rows.values():
        if row["status"] == Status.SAT and row["counterexample"] is not None:
            x, _ = read_counterexample(run.out / row["counterexample"])
            # The file's decimals are those of float32 numbers.
            witness = x.astype(np.float32)
    if status is None:
        taken = any(row["status"] not in (Status.UNSUPPORTED, Status.ERROR) for row in rows.values())
        hint = "; `bench.certificate write` searches for a proof whoever answered what" if taken else ""
        say(f"uncertified: no verifier decided it{hint}")
        return EXIT_REGRESSION
    kept = _kept(target, problem)
    if kept is not None and kept.answer == status:
        say(f"{kept.describe()}; {target} (kept)")
        return EXIT_OK
    written, content = _certified(problem, run, crew, witness, threads)
    if written.reason:
        say(f"uncertified: {written.reason}")
        return EXIT_REGRESSION
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, content)
    say(f"{written.describe()}; {target}")
    if written.status != status:
        say(f"CONTRADICTION: answered {status}; {target} proves {written.status}, and the checker accepts it.")
        return EXIT_REGRESSION
    return EXIT_OK


def _kept(target: Path, problem: Problem) -> Report | None:
    """Returns what the checker says of a certificate that is there already; None if it doesn't accept it for this."""
    if not target.is_file():
        return None
    try:
        return check(target, problem.task.onnx, problem.task.vnnlib)
    except (RefusedError, UnreadableError, OSError):
        return None


def _certified(
    problem: Problem,
    run: PropertiesRun,
    crew: Mapping[str, CertifyingWorker],
    witness: FloatArray | None,
    threads: int | None,
) -> tuple[Written, bytes]:
    try:
        text = read(problem.task.vnnlib, LARGEST_TEXT)
    except (UnreadableError, OSError, EOFError) as error:
        raise UserError(f"{problem.task.vnnlib} is not taken by the checker of certificates: {error}.") from error
    _, instances = problem.read()
    limit = problem.task.timeout
    if not instances:
        # There is no input, so that there is nothing to be searched, and no question to be put to a process.
        from prunecert.verifiers.sparse.certificates import Certifier

        return Certifier(problem.onnx).certify(text, limit, name=str(problem.task.vnnlib))
    if CERTIFIER in crew:
        return crew[CERTIFIER].certify(instances, text, limit, witness)
    with CertifyingWorker(CERTIFIER, threads=threads, log=run.out / "logs" / "certificate.log") as worker:
        worker.prepare()
        return worker.certify(instances, text, limit, witness)
