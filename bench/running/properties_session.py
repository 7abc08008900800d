"""`bench.verify` once its verifiers are there: files, answers, and the certificate of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from prunecert.bench.machine import machine, utc_now, versions
from prunecert.bench.results.store import SCHEMA_VERSION, Log, Row, Writer, is_run
from prunecert.bench.results.vnncomp import Task
from prunecert.bench.running.pairs import PairFiles
from prunecert.bench.running.properties import Problem
from prunecert.bench.running.properties_reading import ProblemReader, UnreadableRow
from prunecert.bench.running.properties_request import PropertiesRequest
from prunecert.bench.running.properties_run import PropertiesRun
from prunecert.errors import EXIT_REGRESSION, UserError
from prunecert.printable import say
from prunecert.verifiers.process.certifying import CertifyingWorker
from prunecert.verifiers.process.worker import Worker


def answer(
    request: PropertiesRequest,
    tasks: Sequence[tuple[Task, PairFiles | None]],
    crew: Mapping[str, Worker],
    scratch: Path,
) -> int:
    """Answers what is asked, writes it down and prints the summary; returns the exit code.

    Args:
        request: What is asked; its folder of results is this process's.
        tasks: The pairs of files, and the two networks of each comparison.
        crew: The verifiers, by name.
        scratch: A folder that goes when this is done.

    Raises:
        UserError: The one pair can't be read, or the folder can't be written.
    """
    out = request.out
    reader = ProblemReader(scratch, request.compact, out / "networks")
    entries = [reader.entry(task) for task, _ in tasks]
    if request.instances is None and isinstance(entries[0], UnreadableRow):
        raise UserError(entries[0].reason)
    if request.certificate is not None and isinstance(entry := entries[0], Problem):
        # Before anything is asked: there will be none, whatever the answer.
        from prunecert.bench.running.certifying import refuse_quantised

        refuse_quantised(entry.onnx, entry.task.onnx)
    entries = [
        replace(entry, pair=pair) if isinstance(entry, Problem) else entry
        for entry, (_, pair) in zip(entries, tasks, strict=True)
    ]
    with Writer(out) as writer:
        (out / "logs").mkdir(exist_ok=True)
        writer.append(_session(request, crew))
        run = PropertiesRun(out, entries, crew, writer, Log(out).properties() if is_run(out) else [], request.retry)
        run.go()
        code = run.report()
        if request.certificate is not None:
            code = max(code, _certify(request, request.certificate, run, crew))
        return code


def _session(request: PropertiesRequest, crew: Mapping[str, Worker]) -> Row:
    """Makes the row with which a start begins."""
    return {
        "type": "session",
        "schema_version": SCHEMA_VERSION,
        "started": utc_now(),
        "command": ["python", "-m", "bench.verify", *request.argv],
        "suite": "bench.verify",
        "versions": versions(),
        "machine": machine(),
        "device": request.device,
        "float32": "TF32 off",
        "verifiers": [worker.identity for worker in crew.values()],
    }


def _certify(request: PropertiesRequest, target: Path, run: PropertiesRun, crew: Mapping[str, Worker]) -> int:
    """Writes a proof of the one pair, or says why there is none: the answers stand. Returns the exit code."""
    # The checker and what makes certificates are imported only where one is asked for.
    from prunecert.bench.running.answer_certificate import certify_answer

    certifiers = {name: worker for name, worker in crew.items() if isinstance(worker, CertifyingWorker)}
    try:
        return certify_answer(target, run, certifiers, request.threads)
    except UserError as error:
        say(f"uncertified: {error}")
        return EXIT_REGRESSION
