"""Walks over a ball: sound for any slopes and splits, and never worse with hidden balls than without."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from prunecert.verifiers.sparse.balls.ranges import find_ranges
from prunecert.verifiers.sparse.balls.walk import Boxes, Slopes, Trace, Walker
from tests.verifiers.sparse.balls.ballkit import case, least

SIZES = (3, 6, 5, 4, 2)
ROWS = np.array([[1.0, -1.0], [-1.0, 1.0], [0.3, 0.0]])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.3, 1.0]), st.booleans(), st.booleans())
def test_any_slopes_and_splits_give_bounds(seed: int, radius: float, skip: bool, exact: bool) -> None:
    one, rng = case(SIZES, seed, radius, skip=skip, exact=exact), np.random.default_rng(seed)
    ranges = find_ranges(one.checker, one.ball)
    count = len(ROWS)
    slopes, low, high = {}, {}, {}
    for node, free in ranges.unstable.items():
        shape = (count, len(free))
        slopes[node] = Slopes(rng.uniform(-0.5, 1.5, shape), rng.standard_normal(shape) * rng.integers(0, 2))
        side = rng.integers(-2, 3, (2, len(free)))
        low[node] = np.where(side > 1, 0.0, ranges.bounds.lower[node][free])
        high[node] = np.where(side < -1, 0.0, ranges.bounds.upper[node][free])
    boxes = Boxes(np.array([0, 1, 0]), low, high)
    rows, constant = sparse.csr_array(ROWS), np.array([0.0, 1.0, -2.0])
    bounds = Walker(one.checker, ranges).lower(one.checker.last, rows, constant, slopes, boxes)
    values = one.network.forward(one.points(800))
    outputs = values[-1] @ ROWS.T + constant
    for row in range(count):
        own = int(boxes.domain[row])
        inside = np.ones(len(outputs), dtype=bool)
        for node, free in ranges.unstable.items():
            z = values[node][:, free]
            inside &= np.all((z >= low[node][own]) & (z <= high[node][own]), axis=1)
        assert np.all(outputs[inside, row] >= bounds[row] - 1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.3, 1.0]))
def test_a_hidden_ball_makes_no_row_worse(seed: int, radius: float) -> None:
    one = case(SIZES, seed, radius)
    ranges = find_ranges(one.checker, one.ball)
    rows, constant = sparse.csr_array(ROWS), np.zeros(len(ROWS))
    plain, ball = (
        Walker(one.checker, ranges, balls=balls).lower(one.checker.last, rows, constant) for balls in (False, True)
    )
    assert np.all(ball >= plain - 1e-10 * (1 + np.abs(plain)))


def test_it_is_below_the_exact_minimum_and_meets_it_where_nothing_is_unstable() -> None:
    gaps = []
    for seed, radius in [(0, 0.4), (1, 0.4), (2, 0.4), (3, 1e-4), (4, 1e-4)]:
        one = case((3, 4, 2), seed, radius, box=0.3)
        ranges = find_ranges(one.checker, one.ball)
        bounds = Walker(one.checker, ranges).lower(2, sparse.csr_array(ROWS), np.zeros(len(ROWS)))
        exact = [least(one, row) for row in ROWS]
        assert np.all(bounds <= np.array(exact) + 1e-7)
        gaps.append((ranges.count, float(np.max(exact - bounds))))
    assert all(gap < 1e-6 for count, gap in gaps if count == 0)
    assert any(count > 0 for count, _ in gaps)
    assert any(count == 0 for count, _ in gaps)


def test_a_trace_holds_what_the_walk_did() -> None:
    one = case(SIZES, 3, 0.5)
    ranges, trace = find_ranges(one.checker, one.ball), Trace()
    rows = sparse.csr_array(ROWS)
    walker = Walker(one.checker, ranges)
    traced = walker.lower(one.checker.last, rows, np.zeros(len(ROWS)), trace=trace)
    np.testing.assert_array_equal(traced, walker.lower(one.checker.last, rows, np.zeros(len(ROWS))))
    assert trace.inputs.shape == (len(ROWS), 3)
    for node, points in trace.points.items():
        free = ranges.unstable[node]
        assert points.shape == (len(ROWS), len(free)) == trace.coefficients[node].shape
        assert np.all((points >= ranges.bounds.lower[node][free]) & (points <= ranges.bounds.upper[node][free]))


def test_what_overflows_is_no_bound() -> None:
    one = case(SIZES, 0, 0.3)
    ranges = find_ranges(one.checker, one.ball)
    for huge in (1e60, np.inf, np.nan):
        with np.errstate(all="ignore"):
            rows = sparse.csr_array(np.array([[huge, -1.0], [1.0, 0.0]]))
        bounds = Walker(one.checker, ranges).lower(one.checker.last, rows, np.zeros(2))
        assert bounds[0] == -np.inf
        assert np.isfinite(bounds[1])
