"""Networks on which arithmetic is hard: every question ends in an answer, and no `unsat` is refuted by a point.

With PRUNECERT_SOUNDNESS=full in the environment, 5,200 questions are asked instead of a hundred.
"""

from __future__ import annotations

import os
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.process.child import encode
from prunecert.verifiers.process.judge import judge
from prunecert.verifiers.rounding import guard
from tests.soundness import degenerate

FULL = os.environ.get("PRUNECERT_SOUNDNESS") == "full"
NETWORKS = 2600 if FULL else 50
SPARSE = ("sparse-ibp", "sparse-crown-ibp", "sparse-crown", "sparse-alpha-crown", "sparse-bab")


@pytest.mark.timeout(7200 if FULL else 120)
@pytest.mark.parametrize("verifier", SPARSE)
def test_every_question_ends_in_an_answer_that_nothing_refutes(verifier: str, tmp_path: Path) -> None:
    adapter_class = VERIFIERS.get(verifier)
    adapter = adapter_class()
    adapter.start()
    counts: Counter[Status] = Counter()
    wrong = []
    for net, question in degenerate.questions(1, NETWORKS, tmp_path, timeout=2.0):
        adapter.load(question.onnx)
        (answer,) = adapter.solve([guard.prepare(adapter_class, question)])
        verdict = judge(adapter_class, question, encode(answer))
        counts[verdict.status] += 1
        if verdict.status not in (Status.SAT, Status.UNSAT, Status.UNKNOWN, Status.TIMEOUT):
            wrong.append(f"{question.name}: {verdict.status}: {verdict.detail}")
        elif verdict.status is Status.UNSAT and (reason := degenerate.refutation(net, question)):
            wrong.append(f"{question.name}: unsat, but {reason}")
    print(f"{verifier}: {dict(counts)}")
    assert not wrong, "\n".join(wrong)
    assert counts[Status.UNSAT] > NETWORKS // 10
    assert counts[Status.TIMEOUT] < NETWORKS // 10
    if verifier == "sparse-bab":
        assert counts[Status.SAT] > NETWORKS // 2


def test_the_questions_are_hard(tmp_path: Path) -> None:
    """Points, slivers, cancelling and overflowing weights are among them, and proofs that the runtime would break."""
    pairs = list(degenerate.questions(1, NETWORKS, tmp_path))
    points = [(net, question) for net, question in pairs if np.array_equal(question.lower, question.upper)]
    assert len(points) > NETWORKS // 10
    largest = [max(float(np.abs(weight).max()) for weight, _ in net.layers) for net, _ in pairs]
    assert min(largest) < 1e3 < 1e20 < max(largest)
    disagreeing = 0
    for net, question in points:
        (output,) = counterexample.outputs(question.onnx, question.lower[None])
        disagreeing += question.spec.violated_by(output) != degenerate.holds(question.spec, net.exact(question.lower))
    assert disagreeing > 0


def test_a_wrong_proof_would_be_refuted(tmp_path: Path) -> None:
    refuted = 0
    for net, question in degenerate.questions(2, 20, tmp_path):
        refuted += degenerate.refutation(net, question) is not None
    assert 10 < refuted < 40


def test_rational_arithmetic(tmp_path: Path) -> None:
    one = np.float32(1)
    net = degenerate.Tiny(
        (
            (np.array([[1e30], [-1e30]], dtype=np.float32), np.zeros(2, dtype=np.float32)),
            (np.array([[one, one]]), np.array([one])),
        ),
        (False,),
    )
    assert net.exact(np.array([2.0])) == [Fraction(float(np.float32(1e30))) * 2 + 1]
    # Float64 can't tell these apart.
    limit = float(np.float32(1e30)) * 2
    row = np.array([[1.0]])
    assert not degenerate.holds(OutputSpec(((row, np.array([limit])),)), net.exact(np.array([2.0])))
