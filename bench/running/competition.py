"""One instance of the verification competition: everything within one limit, and an answer in its form."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from prunecert.bench.results.vnncomp import Task, all_existing, pair_name
from prunecert.bench.running.properties import prepare, solve
from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Status, Verdict
from prunecert.verifiers.formats.vnnlib import counterexample_text
from prunecert.verifiers.process.worker import Worker, prepare_verifiers

#: Who is asked, in this order, as far as they are installed.
DEFAULT = ("sparse-bab", "neuralsat", "abcrown")
#: Seconds that are left for writing the answer: a result that comes late counts as none.
RESERVE_S = 1.0
#: Competition's words for what is no answer.
_WORDS = {Status.MEMOUT: "error", Status.UNSUPPORTED: "unknown"}


def answer(onnx: Path, vnnlib: Path, timeout: float, verifiers: Sequence[str], scratch: Path) -> Verdict:
    """Asks verifiers until one decides or the time is over; starting and loading counts.

    What they do only once for this machine, compiling kernels, does not; prepare_instance.sh has had it done before.

    Args:
        onnx: The network.
        vnnlib: The property.
        timeout: Seconds for everything.
        verifiers: Names, in order; those that are not installed are left out.
        scratch: Folder for networks that have to be unpacked.

    Returns:
        The deciding verdict, or the last one that is no failure, or the last one.

    Raises:
        UserError: A file can't be read, the two don't fit, or no verifier is there.
    """
    network, property_file = all_existing((onnx, "ONNX"), (vnnlib, "VNN-LIB"))
    prepare_verifiers(verifiers)
    end = time.monotonic() + timeout - RESERVE_S
    problem = prepare(Task("", network, property_file, timeout, pair_name(network, property_file)), scratch, {})
    names = [name for name in verifiers if VERIFIERS.get(name).availability().installed]
    if not names:
        raise UserError(f"None of {', '.join(verifiers) or 'no verifiers'} is installed; see `prunecert verifiers`.")
    verdicts: list[Verdict] = []
    for name in names:
        left = end - time.monotonic()
        if left <= 0:
            break
        task = replace(problem.task, timeout=left)
        # What a process that hangs while it starts or loads would take beyond the limit.
        with Worker(name, start_limit_s=max(1.0, left), load_limit_s=max(1.0, left), grace_s=RESERVE_S / 2) as worker:
            verdicts.append(solve(replace(problem, task=task), worker))
        if verdicts[-1].status.decided:
            return verdicts[-1]
    if not verdicts:
        return Verdict(Status.TIMEOUT, "the limit was over before a verifier was asked")
    telling = [v for v in verdicts if v.status not in (Status.ERROR, Status.UNSUPPORTED)] or verdicts
    return telling[-1]


def results_text(verdict: Verdict) -> str:
    r"""Returns the results file for a verdict.

    >>> results_text(Verdict(Status.UNSAT))
    'unsat\n'
    """
    word = _WORDS.get(verdict.status, str(verdict.status))
    if verdict.status is not Status.SAT:
        return f"{word}\n"
    assert verdict.witness is not None
    assert verdict.witness_check is not None
    outputs = np.array([float(value) for value in verdict.witness_check["outputs"]], dtype=np.float32)
    return f"{word}\n{counterexample_text(verdict.witness, outputs)}"
