"""No answer counts that can't be: counterexamples are replayed on the file, and each kind says only what it may."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from prunecert.hashing import sha256_file
from prunecert.verifiers.base import FloatArray, Instance, Kind, OutputSpec, Status, Times, Verdict, Verifier
from prunecert.verifiers.certificate import Certificate, certificate
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.process.child import encode
from prunecert.verifiers.process.judge import judge, nonsense
from tests.verifiers import onnxnets


class Complete(Verifier):
    name = "complete"
    kind = Kind.COMPLETE


class Incomplete(Verifier):
    name = "incomplete"
    kind = Kind.INCOMPLETE


class Attack(Verifier):
    name = "attack"
    kind = Kind.ATTACK


class Smoothing(Verifier):
    name = "smoothing"
    kind = Kind.PROBABILISTIC


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnxnets.linear(tmp_path_factory.mktemp("judge") / "n.onnx")


@pytest.fixture(scope="module")
def question(network: Path) -> Instance:
    """Its box is so wide that corners of it are of other classes."""
    return onnxnets.instance(network, 1.0)


@pytest.fixture(scope="module")
def witness(question: Instance) -> FloatArray:
    points = onnxnets.samples(question, 300)
    outputs = counterexample.outputs(question.onnx, points)
    return next(x for x, y in zip(points, outputs, strict=True) if question.spec.violated_by(y))


@pytest.fixture(scope="module")
def claim() -> Certificate:
    return certificate(3, 90, n0=10, n=100, alpha=0.001, sigma=0.25)


def judged(question: Instance, status: Status, verifier: type[Verifier] = Complete, **fields: Any) -> Verdict:
    return judge(verifier, question, encode(Verdict(status, **fields)))


def test_a_counterexample_that_the_network_can_not_be_given_is_no_answer(tmp_path: Path) -> None:
    """A box of pixels in which there is no whole number; a claim from beyond it is an error still."""
    text = (
        """<ir_version: 8, opset_import: ["" : 13]> net (uint8[1, 1] x) => (float[1, 1] y) { y = Cast <to = 1> (x) }"""
    )
    path = tmp_path / "n.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    low, high = (np.full((1, 1), end, dtype=np.float32) for end in (2.2, 2.6))
    always = OutputSpec(((np.zeros((1, 1)), np.ones(1)),))
    question = Instance(path, sha256_file(path), low, high, always, 10.0, classes=1)
    verdict = judged(question, Status.SAT, witness=np.full((1, 1), 2.5, dtype=np.float32))
    assert verdict.status is Status.UNKNOWN
    assert verdict.witness is None
    assert "whose input isn't float32" in verdict.detail
    assert judged(question, Status.SAT, witness=np.full((1, 1), 3.0, dtype=np.float32)).status is Status.ERROR


def test_a_counterexample_that_onnxruntime_confirms_counts(question: Instance, witness: FloatArray) -> None:
    verdict = judged(question, Status.SAT, Attack, witness=witness, stage="attack", bounds=(-1.0,) * 9)
    assert verdict.status is Status.SAT
    assert verdict.witness is not None
    np.testing.assert_array_equal(verdict.witness, witness)
    assert verdict.witness_check is not None
    assert verdict.witness_check["ok"]
    assert (verdict.stage, verdict.bounds) == ("attack", (-1.0,) * 9)


def test_one_that_is_safe_or_outside_is_an_error(question: Instance, witness: FloatArray) -> None:
    assert question.center is not None
    narrow = replace(question, lower=question.center, upper=question.center)
    for instance, point, why in (
        (question, question.center, "not unsafe"),
        (narrow, witness, "outside the box"),
        (question, witness.reshape(-1)[:5], "5 values"),
        (question, np.full_like(witness, np.nan), "outside the box|no counterexample|NaN|not a number"),
    ):
        verdict = judged(instance, Status.SAT, witness=point, stage="attack")
        assert verdict.status is Status.ERROR
        assert any(part in verdict.detail for part in why.split("|")), verdict.detail
        assert verdict.witness is None
        assert verdict.stage is None


def test_without_a_replay_nothing_counts(question: Instance, witness: FloatArray, tmp_path: Path) -> None:
    gone = replace(question, onnx=tmp_path / "gone.onnx")
    verdict = judged(gone, Status.SAT, witness=witness)
    assert verdict.status is Status.ERROR
    assert verdict.detail.startswith("no replay: ")
    assert verdict.witness is None


def test_equality_is_no_counterexample_of_a_strict_property(question: Instance) -> None:
    assert question.center is not None
    point = question.center
    output = float(counterexample.outputs(question.onnx, point[None])[0, 0])
    rows, limit = np.eye(10)[:1], np.array([output])
    closed = replace(question, label=None, spec=OutputSpec(((rows, limit),)))
    strict = replace(closed, spec=OutputSpec(closed.spec.disjuncts, (np.nextafter(limit, -np.inf),)))
    assert judged(closed, Status.SAT, witness=point).status is Status.SAT
    verdict = judged(strict, Status.SAT, witness=point)
    assert verdict.status is Status.UNKNOWN
    assert "holds with equality" in verdict.detail
    assert verdict.witness is None
    assert verdict.witness_check is not None


def test_a_proof_needs_a_margin_beyond_rounding(question: Instance) -> None:
    assert question.center is not None
    small = onnxnets.instance(question.onnx, 1e-4)
    assert judged(small, Status.UNSAT, bounds=(0.5,) * 9).status is Status.UNSAT
    assert judged(small, Status.UNSAT, bounds=(1e-9,) * 9).status is Status.UNKNOWN
    # A proof of what onnxruntime breaks at a point that is tried is none.
    assert judged(question, Status.UNSAT, bounds=(0.5,) * 9).status is not Status.UNSAT


@pytest.mark.parametrize("status", [Status.ERROR, Status.UNSUPPORTED, Status.MEMOUT])
def test_failures_say_something(status: Status, question: Instance) -> None:
    assert judged(question, status).detail == f"complete answered {status} and said no more"
    assert judged(question, status, detail="why").detail == "why"
    assert judged(question, status, detail="why").status is status


def test_what_comes_over_is_what_was_said(question: Instance, claim: Certificate) -> None:
    times = Times(bound_s=0.25, search_s=0.5)
    verdict = judged(
        question, Status.TIMEOUT, times=times, unstable=3, domains=4, iterations=5, device="cpu", version="2"
    )
    assert verdict.status is Status.TIMEOUT
    assert verdict.times == times
    assert (verdict.unstable, verdict.domains, verdict.iterations, verdict.version) == (3, 4, 5, "2")
    certified = judged(question, Status.UNKNOWN, Smoothing, certificate=claim)
    assert certified.certificate == claim


PROVED, OPEN = (1.0,) * 9, (1.0,) * 8 + (-0.5,)


@pytest.mark.parametrize(
    ("verifier", "fields", "why"),
    [
        (Attack, {"status": Status.UNSAT}, "is an attack but answered unsat"),
        (Incomplete, {"status": Status.SAT, "witness": True}, "is an incomplete verifier but answered sat"),
        (Smoothing, {"status": Status.UNSAT}, "is a probabilistic verifier but answered unsat"),
        (Smoothing, {"status": Status.SAT, "witness": True}, "is a probabilistic verifier but answered sat"),
        (Smoothing, {"status": Status.UNKNOWN}, "answered unknown without a certificate"),
        (Smoothing, {"status": Status.TIMEOUT, "certificate": True}, "answered timeout with a certificate"),
        (Complete, {"status": Status.UNKNOWN, "certificate": True}, "no probabilistic verifier but gave a certificate"),
        (Complete, {"status": Status.SAT}, "answered sat without a counterexample"),
        (Complete, {"status": Status.UNSAT, "witness": True}, "answered unsat with a counterexample"),
        (Complete, {"status": Status.UNKNOWN, "witness": True}, "answered unknown with a counterexample"),
        (Complete, {"status": Status.UNSAT, "bounds": PROVED[:8]}, "gave 8 bounds for 9 disjuncts"),
        (Complete, {"status": Status.UNKNOWN, "bounds": (np.nan, *PROVED[:8])}, "not a number or is infinite"),
        (Complete, {"status": Status.UNSAT, "bounds": (np.inf, *PROVED[:8])}, "not a number or is infinite"),
        (Complete, {"status": Status.SAT, "witness": True, "bounds": PROVED}, "answered sat with bounds that prove"),
        (Incomplete, {"status": Status.UNSAT, "bounds": OPEN}, "answered unsat with a lowest bound of -0.5"),
        (Incomplete, {"status": Status.UNSAT, "bounds": (0.0, *PROVED[:8])}, "answered unsat with a lowest bound of 0"),
        (Complete, {"status": Status.UNKNOWN, "times": Times(bound_s=-1e-9)}, "gave times that can't be"),
        (Complete, {"status": Status.UNKNOWN, "times": Times(search_s=np.inf)}, "gave times that can't be"),
        (Complete, {"status": Status.UNKNOWN, "bounds": (-np.inf, *PROVED[:8])}, None),
        (Complete, {"status": Status.UNSAT, "bounds": OPEN}, None),
        (Incomplete, {"status": Status.UNSAT, "bounds": PROVED}, None),
        (Incomplete, {"status": Status.UNKNOWN, "bounds": PROVED}, None),
        (Attack, {"status": Status.SAT, "witness": True}, None),
        (Smoothing, {"status": Status.UNKNOWN, "certificate": True}, None),
        (Smoothing, {"status": Status.TIMEOUT}, None),
    ],
)
def test_what_can_not_be(
    verifier: type[Verifier],
    fields: dict[str, Any],
    why: str | None,
    question: Instance,
    witness: FloatArray,
    claim: Certificate,
) -> None:
    fields = {
        **fields,
        **{key: {"witness": witness, "certificate": claim}[key] for key in fields if fields[key] is True},
    }
    verdict = Verdict(**fields)
    reason = nonsense(verifier, question, verdict)
    if why is None:
        assert reason is None
        return
    assert reason is not None
    assert why in reason
    answer = judge(verifier, question, encode(verdict))
    assert answer.status is Status.ERROR
    assert answer.detail == f"{verifier.name} {reason}"
    # What may be no numbers doesn't go on into results.
    assert [answer.witness, answer.bounds, answer.stage, answer.certificate] == [None] * 4


def test_a_certificate_is_counted_again(question: Instance, claim: Certificate) -> None:
    for wrong, why in (
        (replace(claim, radius=claim.radius * 1.001), "the counts give"),
        (replace(claim, predicted=10), "whose counts can't be"),
    ):
        assert why in str(nonsense(Smoothing, question, Verdict(Status.UNKNOWN, certificate=wrong)))
