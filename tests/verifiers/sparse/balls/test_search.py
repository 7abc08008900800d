"""Branch and bound over a ball against exact answers."""

from __future__ import annotations

import time

import numpy as np
import pytest

from prunecert.verifiers.base import Status
from prunecert.verifiers.output_spec import OutputSpec
from prunecert.verifiers.sparse.arrays import Float32Array
from prunecert.verifiers.sparse.bab.outcome import Limits, Outcome
from prunecert.verifiers.sparse.balls.search import BallSearch
from tests.verifiers.sparse.balls.ballkit import Case, case, least

ROW = np.array([[1.0, -1.0]])


def search(
    one: Case, spec: OutputSpec, limits: Limits | None = None, seconds: float = 60, allowance: tuple[float, ...] = ()
) -> Outcome:
    def contains(point: Float32Array) -> bool:
        ball, x = one.ball, point.astype(np.float64)
        return bool(np.all((ball.low <= x) & (x <= ball.high)) and np.linalg.norm(x - ball.center) <= ball.radius)

    deadline = time.monotonic() + seconds
    chosen = Limits() if limits is None else limits
    return BallSearch(one.checker, one.ball, spec, contains, chosen, deadline, allowance).run()


def above(threshold: float) -> OutputSpec:
    """Returns the property whose unsafe outputs have y0 - y1 at or below a threshold."""
    return OutputSpec(((ROW, np.array([threshold])),))


@pytest.mark.parametrize("seed", range(6))
def test_answers_are_the_exact_ones_on_both_sides_of_the_threshold(seed: int) -> None:
    one = case((3, 5, 2), seed, 0.6, box=0.5)
    exact = least(one, ROW[0])
    safe = search(one, above(exact - 0.01))
    assert safe.status is Status.UNSAT, safe.detail
    assert safe.bounds is not None
    assert 0 < safe.bounds[0] <= 0.01 + 1e-7
    broken = search(one, above(exact + 0.01))
    assert broken.status is Status.SAT, broken.detail
    assert broken.witness is not None
    assert float((one.network.evaluate(broken.witness[None]) @ ROW.T)[0, 0]) <= exact + 0.01


def test_splits_prove_what_bounds_dont() -> None:
    stages = []
    for seed in range(8):
        one = case((3, 6, 5, 2), seed, 0.6)
        outputs = (one.network.evaluate(one.points(4000)) @ ROW.T)[:, 0]
        out = search(one, above(float(outputs.min()) - 0.1), Limits(root_steps=5, attack_steps=0))
        if out.status is Status.UNSAT:
            stages.append(out.stage)
            assert out.bounds is not None
            assert 0 < out.bounds[0] <= 0.1 + 1e-9
    assert "bab" in stages
    assert len(stages) >= 6


def test_a_disjunct_with_several_rows_needs_one_of_them() -> None:
    one = case((3, 5, 2), 1, 0.3)
    low = least(one, ROW[0])
    rows = np.concatenate([ROW, -ROW])
    assert search(one, OutputSpec(((rows, np.array([low - 0.01, 1e3])), (ROW, np.array([low - 0.1]))))).status is (
        Status.UNSAT
    )


def test_nothing_is_claimed_of_properties_without_rows() -> None:
    one = case((3, 5, 2), 0, 0.1)
    for spec in (OutputSpec(()), OutputSpec(((np.zeros((0, 2)), np.zeros(0)),))):
        assert search(one, spec).status is Status.UNKNOWN


def test_limits_hold_and_say_so() -> None:
    one = case((3, 6, 5, 2), 0, 0.6)
    worst = float((one.network.evaluate(one.points(4000)) @ ROW.T).min())
    late = search(one, above(worst - 0.01), seconds=-1)
    assert late.status is Status.TIMEOUT
    assert "1 of 1 disjuncts" in late.detail
    bounds_only = search(one, above(worst - 0.01), Limits(root_steps=1, attack_steps=0, splits=False))
    assert bounds_only.status is Status.UNKNOWN
    assert bounds_only.domains == 0


def test_more_is_proved_where_more_is_asked_for() -> None:
    one = case((3, 5, 2), 1, 0.3)
    exact = least(one, ROW[0])
    out = search(one, above(exact - 0.1), allowance=(0.05,))
    assert out.status is Status.UNSAT
    assert out.bounds is not None
    assert 0.05 < out.bounds[0] <= 0.1 + 1e-7
    assert search(one, above(exact - 0.04), allowance=(0.05,)).status is not Status.UNSAT
