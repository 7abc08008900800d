"""Networks with Sigmoid and Tanh whose exact least margin is known: no bound is above it, and near to it answers hold.

There are 72 questions about 18 boxes, half of them on either side, as near as 1e-5 of the margin's range.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest

from prunecert.verifiers.base import Status, Verdict
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.process.worker import Worker
from prunecert.verifiers.sparse.bab.outcome import Limits
from tests.soundness.curved import NEAR, CurvedCase, Kind, cases, hill
from tests.verifiers.adapters.test_sparse_smooth import loaded
from tests.verifiers.sparse.smooth.smoothnets import points

KINDS: tuple[Kind, ...] = get_args(Kind)
EVERY = [case for kind in KINDS for case in cases(kind)]


def names(case: CurvedCase) -> str:
    return case.net.name


def check(case: CurvedCase, question: float, truth: Status, verdict: Verdict, path: Path) -> None:
    """Fails if a verdict, or a bound that comes with it, is wrong."""
    wrong = f"{case.net.name} above {question!r}: {verdict.status} in place of {truth}"
    if truth is Status.SAT:
        assert verdict.status is not Status.UNSAT, wrong
    elif verdict.status is Status.SAT:
        # True of onnxruntime's float32 network, so near to the threshold.
        assert case.least[0] - Decimal(question) < NEAR, wrong
    if verdict.status is Status.SAT:
        assert verdict.witness is not None
        assert counterexample.replay(case.ask(path, question, 1.0), verdict.witness)[0].ok
    if verdict.bounds is not None:
        assert Decimal(min(verdict.bounds)) <= case.least[1] - Decimal(question), f"{wrong}, by {verdict.bounds}"


@pytest.mark.parametrize("case", EVERY, ids=names)
def test_no_point_is_below_the_least_margin_and_one_is_at_it(case: CurvedCase) -> None:
    low, high = case.lower.astype(np.float64), case.upper.astype(np.float64)
    some = points(low, high, 20)
    margins = [case.net.margin(point) for point in some]
    assert case.least[0] <= min(margins)
    assert case.least[1] - case.least[0] <= Decimal(2e-6 * case.scale)
    # Intervals of small boxes hold what is in them, and are near to it.
    width = 1e-6 * (high - low)
    bounds = case.net.margins(some - width, some + width)
    assert all(Decimal(bound) <= margin for bound, margin in zip(bounds, margins, strict=True))
    assert all(margin - Decimal(bound) < 1e-3 for bound, margin in zip(bounds, margins, strict=True))


def test_a_hill_is_no_valley() -> None:
    """Where the least margin is said to be is where it isn't, once the bias has the other sign."""
    for seed in range(6):
        for side in (1, -1):
            case = hill(seed, side)
            low, high = case.lower.astype(np.float64), case.upper.astype(np.float64)
            near, far = np.clip(np.zeros(len(low)), low, high), np.where(-low > high, low, high)
            ends = (far, near) if side > 0 else (near, far)
            assert case.least[0] <= case.net.margin(ends[0]) <= case.least[1] < case.net.margin(ends[1])


@pytest.mark.parametrize("case", EVERY, ids=names)
def test_no_bound_over_the_whole_box_is_above_the_least_margin(
    case: CurvedCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = case.net.save(tmp_path)
    subject = loaded(path, split="input")
    monkeypatch.setattr(subject, "_make_limits", lambda **settings: replace(Limits(**settings), splits=False))
    (question,) = case.thresholds(Status.SAT, (1e-9,))
    (verdict,) = subject.solve([case.ask(path, question, 60.0)])
    check(case, question, Status.SAT, verdict, path)
    assert verdict.bounds is not None
    assert np.isfinite(verdict.bounds).all()


@pytest.mark.parametrize("split", ["input", "relu"])
@pytest.mark.parametrize("kind", ["monotone", "hill"])
def test_one_input_is_decided_on_both_sides(kind: Kind, split: str, tmp_path: Path) -> None:
    case = cases(kind)[0]
    path = case.net.save(tmp_path)
    subject = loaded(path, split=split)
    for truth in (Status.UNSAT, Status.SAT):
        (question,) = case.thresholds(truth, (1e-2,))
        (verdict,) = subject.solve([case.ask(path, question, 60.0)])
        check(case, question, truth, verdict, path)
        assert verdict.status is truth


@pytest.mark.slow
@pytest.mark.parametrize("split", ["input", "relu"])
@pytest.mark.parametrize("kind", KINDS)
def test_sparse_bab_is_never_wrong(kind: Kind, split: Literal["input", "relu"], tmp_path: Path) -> None:
    answers: Counter[tuple[Status, Status]] = Counter()
    for case in cases(kind):
        path = case.net.save(tmp_path)
        subject = loaded(path, split=split)
        for truth in (Status.UNSAT, Status.SAT):
            for question in case.thresholds(truth):
                # Splits of inputs end where there is something to prove; what is broken, an attack finds or nothing.
                limit = 60.0 if split == "input" and truth is Status.UNSAT else 0.5
                (verdict,) = subject.solve([case.ask(path, question, limit)])
                check(case, question, truth, verdict, path)
                answers[truth, verdict.status] += 1
    if split == "input":
        assert answers[Status.UNSAT, Status.UNSAT] == 2 * len(cases(kind))
    assert answers[Status.SAT, Status.SAT] > len(cases(kind))


@pytest.fixture(scope="module", name="worker")
def _worker() -> Iterator[Worker]:
    with Worker("sparse-bab") as worker:
        yield worker


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_worker_answers_is_never_wrong(kind: Kind, worker: Worker, tmp_path: Path) -> None:
    """With float32's allowance, and with counterexamples judged by onnxruntime."""
    answers: Counter[tuple[Status, Status]] = Counter()
    for case in cases(kind):
        path = case.net.save(tmp_path)
        for truth, share in ((Status.UNSAT, 0.1), (Status.SAT, 1e-2)):
            (question,) = case.thresholds(truth, (share,))
            (verdict,) = worker.verify([case.ask(path, question, 60.0 if truth is Status.UNSAT else 2.0)])
            check(case, question, truth, verdict, path)
            answers[truth, verdict.status] += 1
    assert answers[Status.UNSAT, Status.UNSAT] >= len(cases(kind)) - 1
    assert answers[Status.SAT, Status.SAT] >= len(cases(kind)) - 1
