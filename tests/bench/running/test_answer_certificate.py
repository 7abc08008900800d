from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from prunecert.bench.results.vnncomp import Task
from prunecert.bench.running.answer_certificate import certify_answer
from prunecert.bench.running.properties import Problem, prepare
from prunecert.bench.running.properties_run import PropertiesRun
from prunecert.bench.running.proving import CERTIFIER
from prunecert.errors import UserError
from prunecert.verifiers.base import FloatArray, Instance
from prunecert.verifiers.certification import Written
from prunecert.verifiers.checker import check
from prunecert.verifiers.formats.vnnlib import write_counterexample
from prunecert.verifiers.process.certifying import CertifyingWorker
from prunecert.verifiers.sparse import certificates as proofs
from tests.bench.propertykit import BOX, HOLDS, identity, spec

PROVED = Written("unsat", "", "bab", 3, 5, 0.5, 0.25)


class Certifier:
    """Writes down what it is asked, and certifies as it is told."""

    def __init__(self, written: Written, content: bytes = b"proof") -> None:
        self.answer = written, b"" if written.reason else content
        self.calls: list[tuple[list[str], bytes, float, FloatArray | None]] = []

    def certify(
        self, instances: Sequence[Instance], vnnlib: bytes, timeout: float, witness: FloatArray | None
    ) -> tuple[Written, bytes]:
        self.calls.append(([instance.question() for instance in instances], vnnlib, timeout, witness))
        return self.answer


def prepared(folder: Path, text: str = HOLDS) -> Problem:
    onnx, vnnlib = identity().save(folder / "net.onnx"), folder / "p.vnnlib"
    vnnlib.write_text(text)
    return prepare(Task("toy", onnx, vnnlib, 7.0, "p"), folder / "scratch", {})


def finished(problem: Problem, out: Path, status: str, counterexample: str | None = None) -> PropertiesRun:
    """Returns what `certify_answer` looks at of a run whose one property one verifier answered."""
    row = {"status": status, "counterexample": counterexample}
    fields = {"entries": [problem], "identifiers": {CERTIFIER: ["id"]}, "row_of": {"id": row}, "out": out}
    return cast("PropertiesRun", SimpleNamespace(**fields))


def crew(certifier: Certifier) -> dict[str, CertifyingWorker]:
    return {CERTIFIER: cast("CertifyingWorker", certifier)}


def test_the_verifier_that_answered_is_asked_for_each_box_of_the_property(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = "(or (and (<= X_0 0.4) (<= Y_0 0)) (and (>= X_0 0.45) (<= Y_0 0.1)))"
    problem, certifier, target = prepared(tmp_path, spec(*BOX, boxes)), Certifier(PROVED), tmp_path / "new" / "proof"
    assert certify_answer(target, finished(problem, tmp_path, "unsat"), crew(certifier)) == 0
    assert target.read_bytes() == b"proof"
    ((questions, text, timeout, witness),) = certifier.calls
    assert questions == [instance.question() for instance in problem.read()[1]]
    assert len(questions) == 2
    assert (text, timeout, witness) == (problem.task.vnnlib.read_bytes(), 7.0, None)
    assert capsys.readouterr().out.startswith("unsat, certified by bab: 3 leaves, 5 bytes")


def test_a_counterexample_is_handed_on(tmp_path: Path) -> None:
    problem, certifier = prepared(tmp_path), Certifier(Written("sat", "", "witness"))
    x = np.array([1 / 3, 0.1], dtype=np.float32)
    write_counterexample(tmp_path / "p.counterexample", x, x)
    run = finished(problem, tmp_path, "sat", "p.counterexample")
    assert certify_answer(tmp_path / "proof", run, crew(certifier)) == 0
    witness = certifier.calls[0][3]
    assert witness is not None
    np.testing.assert_array_equal(witness, x)


def test_where_there_is_none_the_exit_code_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem, certifier = prepared(tmp_path), Certifier(Written("timeout", "12 subdomains are open"))
    assert certify_answer(tmp_path / "proof", finished(problem, tmp_path, "unsat"), crew(certifier)) == 1
    assert capsys.readouterr().out == "uncertified: 12 subdomains are open\n"
    assert not (tmp_path / "proof").exists()


def test_a_proof_of_the_opposite_is_a_contradiction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem, certifier = prepared(tmp_path), Certifier(Written("sat", "", "witness"))
    assert certify_answer(tmp_path / "proof", finished(problem, tmp_path, "unsat"), crew(certifier)) == 1
    assert "CONTRADICTION: answered unsat; " in capsys.readouterr().out


def test_what_nobody_decided_is_not_searched_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem, certifier = prepared(tmp_path), Certifier(PROVED)
    assert certify_answer(tmp_path / "proof", finished(problem, tmp_path, "timeout"), crew(certifier)) == 1
    assert certifier.calls == []
    assert "uncertified: no verifier decided it; " in capsys.readouterr().out
    # Nor is there anything to be tried where it was refused.
    assert certify_answer(tmp_path / "proof", finished(problem, tmp_path, "unsupported"), crew(certifier)) == 1
    assert capsys.readouterr().out == "uncertified: no verifier decided it\n"


def test_a_property_without_inputs_needs_no_process(tmp_path: Path) -> None:
    problem, certifier = prepared(tmp_path, spec(*BOX, "(>= X_0 0.6)", "(<= Y_0 0)")), Certifier(PROVED)
    assert certify_answer(tmp_path / "proof", finished(problem, tmp_path, "unsat"), crew(certifier)) == 0
    assert certifier.calls == []
    report = check(tmp_path / "proof", problem.onnx, problem.task.vnnlib)
    assert report.describe() == "unsat, checked: of no input at all"


def test_a_property_that_cannot_be_stated_is_refused(tmp_path: Path) -> None:
    problem = replace(prepared(tmp_path), refusal="the network takes two samples at once")
    with pytest.raises(UserError, match="two samples"):
        certify_answer(tmp_path / "proof", finished(problem, tmp_path, "unsupported"), {})


def test_a_certificate_that_proves_the_answer_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem, certifier, target = prepared(tmp_path), Certifier(PROVED), tmp_path / "proof"
    assert not proofs.Certifier(problem.task.onnx).write(problem.task.vnnlib, target, 10.0).reason
    content = target.read_bytes()
    assert certify_answer(target, finished(problem, tmp_path, "unsat"), crew(certifier)) == 0
    assert (target.read_bytes(), certifier.calls) == (content, [])
    said = capsys.readouterr().out.strip()
    assert said.startswith("unsat, checked: ")
    assert said.endswith(f"{target} (kept)")
    # What is no certificate of this question is replaced.
    target.write_bytes(content[:-1])
    assert certify_answer(target, finished(problem, tmp_path, "unsat"), crew(certifier)) == 0
    assert (target.read_bytes(), len(certifier.calls)) == (b"proof", 1)
