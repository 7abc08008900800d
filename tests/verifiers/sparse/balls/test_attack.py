"""Counterexamples in a ball: in it exactly, unsafe, and there where they are known to be."""

from __future__ import annotations

import time

import numpy as np

from prunecert.verifiers.output_spec import OutputSpec
from prunecert.verifiers.sparse.arrays import Float32Array
from prunecert.verifiers.sparse.balls.attack import BallAttack
from tests.verifiers.sparse.balls.ballkit import Case, case, least

ROW = np.array([[1.0, -1.0]])


def attack(one: Case, threshold: float, steps: int = 40) -> Float32Array | None:
    def contains(point: Float32Array) -> bool:
        ball, x = one.ball, point.astype(np.float64)
        return bool(np.all((ball.low <= x) & (x <= ball.high)) and np.linalg.norm(x - ball.center) <= ball.radius)

    spec = OutputSpec(((ROW, np.array([threshold])),))
    return BallAttack(one.checker, one.ball, spec, contains).from_center(steps, 3, 0, time.monotonic() + 60)


def test_what_is_there_is_found_and_nothing_else() -> None:
    points = 0
    for seed in range(6):
        one = case((3, 4, 2), seed, 0.4, box=0.3)
        exact = least(one, ROW[0])
        assert attack(one, exact - 1e-3) is None
        point = attack(one, exact + 0.05)
        if point is not None:
            points += 1
            assert point.dtype == np.float32
            assert float((one.network.evaluate(point[None]) @ ROW.T)[0, 0]) <= exact + 0.05
    assert points >= 5


def test_a_property_without_disjuncts_is_broken_by_nothing() -> None:
    one = case((3, 4, 2), 0, 0.4)
    nothing = BallAttack(one.checker, one.ball, OutputSpec(()), lambda _: True)
    assert nothing.from_center(5, 2, 0, time.monotonic() + 60) is None


def test_points_outside_of_the_set_dont_count() -> None:
    one = case((3, 4, 2), 0, 0.4)
    spec = OutputSpec(((ROW, np.array([1e6])),))
    assert BallAttack(one.checker, one.ball, spec, lambda _: False).from_center(3, 2, 0, time.monotonic() + 60) is None
    assert (
        BallAttack(one.checker, one.ball, spec, lambda _: True).from_center(3, 2, 0, time.monotonic() + 60) is not None
    )
