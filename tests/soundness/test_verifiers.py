"""No verifier may be wrong on a network whose exact answer is known.

The exact margin of an instance speaks of the real-valued network. Verifiers and onnxruntime compute in float32, which
moves the margin by up to a bound that `oracle.rounding` derives from the weights (some 1e-5 here). Where the exact
margin is nearer to zero than that, "near" below, float32 arithmetic may tip the answer either way: there a `sat` with a
replayed witness is true of the network as onnxruntime runs it, and an `unsat` true of the real-valued one within the
bound, and neither is counted as wrong. Near instances are run and printed all the same. Everywhere else the answer is
certain, and one wrong verdict fails the suite.

There are 614 questions: 295 are certainly `unsat`, 305 certainly `sat`, and 14 are near. An answer that is always
`unknown` would never be wrong, so each verifier also has to decide a share of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Kind, Status, Verdict
from prunecert.verifiers.process.worker import Worker
from tests.soundness.oracle import exact_margin
from tests.soundness.questions import TIMEOUT_S, Question

# Some verifiers take minutes for all questions where the machine is busy.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@dataclass(frozen=True)
class Trial:
    """A verifier as it is asked here.

    Args:
        verifier: Its name.
        unsat: Least share of the certain `unsat` robustness questions that it must decide.
        sat: Likewise of the `sat` ones.
        settings: Its settings.
        stride: Every so many-th question only, for verifiers that take a second or more for each. Odd, so that all
            radii take part. With PRUNECERT_SOUNDNESS=full in the environment all questions are asked.
        part: What sets it apart from another trial of the same verifier.
        timeout: Seconds for a question.
    """

    verifier: str
    unsat: float
    sat: float
    settings: dict[str, Any] = field(default_factory=dict)
    stride: int = 1
    part: str = ""
    timeout: float = TIMEOUT_S

    @property
    def name(self) -> str:
        return f"{self.verifier}{self.part and '-'}{self.part}"

    def asked(self, questions: tuple[Question, ...]) -> tuple[Question, ...]:
        return questions if os.environ.get("PRUNECERT_SOUNDNESS") == "full" else questions[:: self.stride]


TRIALS = (
    Trial("ibp", 0.1, 0.0),
    Trial("crown-ibp", 0.3, 0.0),
    Trial("crown", 0.4, 0.0),
    Trial("alpha-crown", 0.5, 0.0, {}, 9),
    Trial("pgd", 0.0, 0.6),
    Trial("autoattack", 0.0, 0.6, {}, 45),
    Trial("sparse-ibp", 0.1, 0.0),
    Trial("sparse-crown-ibp", 0.3, 0.0),
    Trial("sparse-crown", 0.4, 0.0),
    Trial("sparse-alpha-crown", 0.5, 0.0),
    # The networks have few inputs, which are split by default.
    Trial("sparse-bab", 0.98, 0.98),
    Trial("sparse-bab", 0.98, 0.98, {"split": "relu"}, 1, "relus"),
    # The networks have few inputs, on which NeuralSAT splits by itself; large ones it splits on ReLUs.
    # Two or three are beyond it, and take what the limit is.
    Trial("neuralsat", 0.75, 0.75, {"attack_seconds": 0.1}, 27, "inputs", timeout=5.0),
    Trial("neuralsat", 0.9, 0.9, {"attack_seconds": 0.1, "split": "hidden"}, 15, "relus"),
    Trial("abcrown", 0.9, 0.95, {}, 7),
    Trial("marabou", 0.95, 0.95, {}, 3),
    Trial("vibecheck", 0.9, 0.9, {}, 21),
)
MARKED = {
    "abcrown": pytest.mark.abcrown,
    "autoattack": pytest.mark.autoattack,
    "marabou": pytest.mark.marabou,
    "vibecheck": pytest.mark.vibecheck,
}

_answers: dict[str, dict[str, Verdict]] = {}


@pytest.fixture(
    scope="module",
    params=[pytest.param(trial, marks=MARKED.get(trial.verifier, ()), id=trial.name) for trial in TRIALS],
    name="trial",
)
def _trial(request: pytest.FixtureRequest) -> Trial:
    return present(request.param)


def present(trial: Trial) -> Trial:
    """Returns a trial whose verifier is there; the test is skipped otherwise."""
    availability = VERIFIERS.get(trial.verifier).availability()
    if not availability.installed:
        pytest.skip(availability.hint)
    return trial


def ask(trial: Trial, questions: Sequence[Question], networks: Mapping[str, Path]) -> list[tuple[Question, Verdict]]:
    """Returns questions with a trial's answers.

    Args:
        trial: Who is asked.
        questions: What.
        networks: ONNX files by name.
    """
    with Worker(trial.verifier, trial.settings, threads=1) as worker:
        verdicts = worker.verify(
            [question.instance(networks[question.net.name], trial.timeout) for question in questions]
        )
    return list(zip(questions, verdicts, strict=True))


@pytest.fixture(scope="module", name="answers")
def _answers_of(
    trial: Trial, questions: tuple[Question, ...], networks: dict[str, Path]
) -> list[tuple[Question, Verdict]]:
    answers = ask(trial, trial.asked(questions), networks)
    _answers[trial.name] = {question.name: verdict for question, verdict in answers}
    return answers


def summary(name: str, answers: list[tuple[Question, Verdict]]) -> str:
    """Returns counts of (truth, status) as lines."""
    counts = Counter((str(question.truth or "near"), str(verdict.status)) for question, verdict in answers)
    lines = [f"{name}: {len(answers)} questions"]
    lines += [f"  {truth:>5} answered {status:<11} {n}" for (truth, status), n in sorted(counts.items())]
    lines += [
        f"  near: {question.name}: {verdict.status} (margin {question.margin.high:.1e}, "
        f"rounding {question.tolerance:.1e})"
        for question, verdict in answers
        if question.truth is None
    ]
    return "\n".join(lines)


def wrong(answers: list[tuple[Question, Verdict]]) -> list[str]:
    """Names every answer that the exact margin refutes."""
    return [
        f"{question.name}: {verdict.status}, but the margin is {question.margin.high:.3e} +- {question.tolerance:.1e}"
        for question, verdict in answers
        if question.truth is not None and verdict.status.decided and verdict.status is not question.truth
    ]


def test_no_answer_is_wrong(trial: Trial, answers: list[tuple[Question, Verdict]]) -> None:
    print(summary(trial.name, answers))
    refuted = wrong(answers)
    assert not refuted, "\n".join(refuted)


def test_a_wrong_answer_would_be_found(questions: tuple[Question, ...]) -> None:
    """A verifier that takes boxes for 0.2 % smaller than they are is found out, on the radii 0.1 % too large."""
    shrunk = []
    for question in questions:
        if question.name.endswith("x1.001"):
            center, half = (question.lower + question.upper) / 2, (question.upper - question.lower) / 2 * 0.998
            margin = exact_margin(
                question.net, (center - half).astype(float), (center + half).astype(float), question.spec
            )
            shrunk.append((question, Verdict(Status.UNSAT if margin.low > 0 else Status.UNKNOWN)))
    assert len(shrunk) >= 60
    assert len(wrong(shrunk)) >= 40
    honest = [(question, Verdict(question.truth or Status.UNSAT)) for question in questions]
    assert not wrong(honest)


def test_bounds_are_below_the_exact_margins(trial: Trial, answers: list[tuple[Question, Verdict]]) -> None:
    """The certified bound of the weakest disjunct is at most the exact margin."""
    if VERIFIERS.get(trial.verifier).kind is not Kind.INCOMPLETE:
        pytest.skip(f"{trial.verifier} gives no bounds")
    bounded = [(question, verdict) for question, verdict in answers if verdict.bounds is not None]
    assert len(bounded) >= 0.65 * len(answers)
    wrong = [
        f"{question.name}: bound {min(verdict.bounds or ()):.6f} above the exact {question.margin.high:.6f}"
        for question, verdict in bounded
        if min(verdict.bounds or ()) > question.margin.high + question.tolerance
    ]
    assert not wrong, "\n".join(wrong)


def test_a_point_has_an_exact_bound(trial: Trial, answers: list[tuple[Question, Verdict]]) -> None:
    """On a box that is a point every bound is the margin itself, up to rounding: bounds are not just low."""
    if VERIFIERS.get(trial.verifier).kind is not Kind.INCOMPLETE:
        pytest.skip(f"{trial.verifier} gives no bounds")
    points = [
        (question, verdict)
        for question, verdict in answers
        if verdict.bounds is not None and np.array_equal(question.lower, question.upper)
    ]
    assert points
    for question, verdict in points:
        assert min(verdict.bounds or ()) == pytest.approx(question.margin.high, abs=2 * question.tolerance)


def test_nothing_fails(trial: Trial, answers: list[tuple[Question, Verdict]]) -> None:
    """These are all networks and boxes that the verifiers say they take; running out of time is no failure."""
    robust_only = VERIFIERS.get(trial.verifier).capabilities().specs == "robustness"
    failed = [
        f"{question.name}: {verdict.status}: {verdict.detail}"
        for question, verdict in answers
        if verdict.status in (Status.ERROR, Status.MEMOUT)
        or (verdict.status is Status.UNSUPPORTED) != (robust_only and question.label is None)
    ]
    assert not failed, "\n".join(failed)


def test_enough_is_decided(trial: Trial, answers: list[tuple[Question, Verdict]]) -> None:
    for status, share in ((Status.UNSAT, trial.unsat), (Status.SAT, trial.sat)):
        verdicts = [v for q, v in answers if q.truth is status and q.label is not None and not q.structural]
        count = sum(verdict.status is status for verdict in verdicts)
        assert count >= share * len(verdicts), f"{trial.name} answered {count} of {len(verdicts)} {status}"


def test_every_verifier_has_a_trial() -> None:
    """But those that answer neither `unsat` nor `sat`, and those that other tests registered in this process."""
    assert {trial.verifier for trial in TRIALS} >= {
        name
        for name in VERIFIERS
        if (verifier := VERIFIERS.get(name)).__module__.startswith("prunecert.verifiers.")
        and verifier.kind is not Kind.PROBABILISTIC
        # It takes merged pairs only: test_pairs has its trial.
        and name != "sparse-pair"
    }


def test_no_two_verifiers_contradict_each_other(questions: tuple[Question, ...]) -> None:
    """Beyond what the oracle says: one proves and another breaks only where float32 can't tell."""
    if not _answers:
        pytest.skip("no verifier ran")
    for question in questions:
        statuses = {name: by[question.name].status for name, by in _answers.items() if question.name in by}
        if question.truth is not None:
            assert not {Status.SAT, Status.UNSAT} <= set(statuses.values()), f"{question.name}: {statuses}"
