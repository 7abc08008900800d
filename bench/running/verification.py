"""`bench.verify` from request to exit code: the verifiers' processes, within which everything else is done."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from prunecert.bench.running.outdir import writing
from prunecert.bench.running.properties_request import PropertiesRequest
from prunecert.errors import UserError
from prunecert.verifiers.process.certifying import CertifyingWorker
from prunecert.verifiers.process.worker import Worker


def run_properties(request: PropertiesRequest) -> int:
    """Answers what is asked, writes it down and prints the summary; returns the exit code.

    Raises:
        UserError: The request makes no sense, the one pair of it can't be read, or the folder can't be written.
    """
    if request.abcrown is not None:
        os.environ["ABCROWN_HOME"] = str(request.abcrown.resolve())
    tasks, out, names = request.tasks(), request.out, list(request.verifiers)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prunecert-")))
        # Left after the verifiers, whose logs lie in it.
        stack.enter_context(writing(out))
        maker = Worker if request.certificate is None else CertifyingWorker
        crew, refusals = dict[str, Worker](), list[str]()
        for name, settings in request.verifiers.items():
            try:
                worker = maker(
                    name,
                    settings,
                    request.device,
                    memory_limit_mb=request.memory_limit_mb,
                    threads=request.threads,
                    log=out / "logs" / f"{name}.log",
                )
            except UserError as error:
                refusals.append(str(error))
            else:
                crew[name] = stack.enter_context(worker)
        if refusals:
            # One to a line, as they end in commands to copy.
            raise UserError("These verifiers can't be asked:", refusals) if len(refusals) > 1 else UserError(*refusals)
        if request.instances is None and len(crew) == 1 and not any(out.glob("instances.*")):
            # One question, which nobody has answered yet: the verifier starts while the files are read.
            crew[names[0]].start_ahead()
        # And while what reads, judges and writes is imported.
        from prunecert.bench.running.properties_session import answer

        return answer(request, tasks, crew, scratch)
