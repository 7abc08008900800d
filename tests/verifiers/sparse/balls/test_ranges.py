"""Boxes and balls of hidden values hold at every point of the input set."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.output_spec import OutputSpec
from prunecert.verifiers.sparse.balls import ranges as subject
from prunecert.verifiers.sparse.balls.ranges import ball_of, bound_disjuncts, find_ranges
from prunecert.verifiers.sparse.walks import LateError
from tests.verifiers.sparse.balls.ballkit import Case, case


def check(one: Case, *, balls: bool = True) -> None:
    ranges = find_ranges(one.checker, one.ball, balls=balls)
    values = one.network.forward(one.points())
    for node in one.checker.activated:
        low, high = ranges.bounds.lower[node], ranges.bounds.upper[node]
        assert np.all(values[node] >= low - 1e-12)
        assert np.all(values[node] <= high + 1e-12)
        free = ranges.unstable[node]
        np.testing.assert_array_equal(free, np.flatnonzero((low < 0) & (high > 0)))
        away = np.linalg.norm(values[node][:, free] - ranges.centers[node][free], axis=1)
        assert away.max(initial=0.0) <= ranges.radii.get(node, np.inf) + 1e-12


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([0.0, 1e-3, 0.1, 1.0]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.02, np.inf]),
)
def test_they_hold(seed: int, radius: float, skip: bool, exact: bool, box: float) -> None:
    check(case((3, 6, 5, 4, 2), seed, radius, skip=skip, exact=exact, box=box))


def test_without_balls_there_are_no_radii() -> None:
    one = case((3, 6, 5, 4, 2), 1, 0.5)
    check(one, balls=False)
    assert not find_ranges(one.checker, one.ball, balls=False).radii


def test_balls_are_tighter_than_the_product_of_the_layers_norms() -> None:
    layers = 0
    for seed in range(5):
        one = case((3, 8, 8, 4, 2), seed, 0.6)
        ranges = find_ranges(one.checker, one.ball)
        product = one.ball.radius
        for node in one.checker.activated:
            product *= float(np.linalg.norm(one.network.nodes[node].terms[0].matrix.toarray(), 2))
            assert ranges.radii.get(node, 0.0) <= product * 1.3
            layers += node in ranges.radii
    assert layers > 5


@pytest.mark.parametrize("name", ["_MOST", "_ROOM"])
def test_limits_of_memory_change_no_soundness(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, name, 1)
    check(case((3, 6, 5, 4, 2), 2, 0.5))


def test_a_centre_outside_of_the_box_is_moved_into_it() -> None:
    center, low, high = np.array([2.0, 0.5]), np.zeros(2), np.ones(2)
    ball = ball_of(center, 1.25, low, high)
    points = np.random.default_rng(0).random((2000, 2))
    points = points[np.linalg.norm(points - center, axis=1) <= 1.25]
    assert len(points) > 100
    assert np.all((ball.low <= points) & (points <= ball.high))
    assert np.all(np.linalg.norm(points - ball.center, axis=1) <= ball.radius)
    assert ball.center.tolist() == [1.0, 0.5]


def test_time_that_is_over_is_said() -> None:
    one = case((3, 6, 5, 4, 2), 2, 0.5)
    with pytest.raises(LateError):
        find_ranges(one.checker, one.ball, deadline=time.monotonic() - 1)


def test_disjuncts_are_bounded_by_their_best_row() -> None:
    one = case((3, 6, 4, 3), 5, 0.2)
    rng = np.random.default_rng(0)
    spec = OutputSpec(tuple((rng.standard_normal((rows, 3)), rng.standard_normal(rows)) for rows in (1, 3, 0, 2)))
    bounds, unstable = bound_disjuncts(one.checker, one.ball, spec)
    outputs = one.network.evaluate(one.points())
    for value, (a, b) in zip(bounds, spec.disjuncts, strict=True):
        assert value <= (outputs @ a.T - b).max(axis=1, initial=-np.inf).min() + 1e-12
    assert bounds[2] == -np.inf
    assert unstable == find_ranges(one.checker, one.ball).count
    assert bound_disjuncts(one.checker, one.ball, OutputSpec(()))[0] == ()
