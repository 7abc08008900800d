"""Optimised slopes: the derivatives are right, no step loses what was proved, and bounds stay below the truth."""

from __future__ import annotations

import time

import numpy as np
from scipy import sparse

from prunecert.verifiers.sparse.balls.ascent import Ascent
from prunecert.verifiers.sparse.balls.ranges import find_ranges
from prunecert.verifiers.sparse.balls.walk import Boxes, Slopes, Trace, Walker
from tests.verifiers.sparse.balls.ballkit import case

SIZES = (3, 6, 5, 4, 2)
ROWS = sparse.csr_array(np.array([[1.0, -1.0], [-1.0, 1.0]]))


def test_gradients_are_those_of_differences() -> None:
    one = case(SIZES, 3, 0.5, skip=True)
    walker = Walker(one.checker, find_ranges(one.checker, one.ball))
    ascent, trace, zero = Ascent(walker, one.checker.last), Trace(), np.zeros(2)
    rng = np.random.default_rng(0)
    # Off CROWN's slopes, at which minimisers jump from one side of 0 to the other.
    slopes = {
        node: Slopes(rng.uniform(0.1, 0.9, (2, len(free))), rng.normal(0, 0.05, (2, len(free))))
        for node, free in walker.ranges.unstable.items()
    }
    walker.lower(one.checker.last, ROWS, zero, slopes, trace=trace)
    gaps = ascent.gradient(trace)
    step, compared = 1e-6, 0
    for node, gap in gaps.items():
        for place in range(gap.shape[1]):
            for name, exact in (("slope", trace.coefficients[node] * gap), ("shift", gap)):
                ends = []
                for sign in (-1, 1):
                    moved = {key: Slopes(own.slope.copy(), own.shift.copy()) for key, own in slopes.items()}
                    getattr(moved[node], name)[:, place] += sign * step
                    ends.append(walker.lower(one.checker.last, ROWS, zero, moved))
                numeric = (ends[1] - ends[0]) / (2 * step)
                # The multiplier is found to within a share of the radius, so derivatives are, too.
                np.testing.assert_allclose(exact[:, place], numeric, rtol=2e-2, atol=2e-2)
                compared += 1
    assert compared > 8


def test_bounds_rise_and_stay_below_the_outputs() -> None:
    better = 0
    for seed in range(6):
        one = case(SIZES, seed, 0.5)
        walker = Walker(one.checker, find_ranges(one.checker, one.ball))
        ascent = Ascent(walker, one.checker.last)
        before = walker.lower(one.checker.last, ROWS, np.zeros(2))
        climb = ascent.climb(ROWS, np.zeros(2), 25, goal=np.inf)
        assert np.all(climb.lower >= before)
        assert np.all(climb.lower <= (one.network.evaluate(one.points(2000)) @ ROWS.toarray().T).min(axis=0))
        # What is kept gives what is said.
        again = walker.lower(one.checker.last, ROWS, np.zeros(2), climb.slopes)
        np.testing.assert_allclose(again, climb.lower, rtol=1e-12)
        better += int(np.any(climb.lower > before + 1e-4))
    assert better >= 3


def test_rows_that_are_high_enough_are_left() -> None:
    one = case(SIZES, 1, 0.5)
    walker = Walker(one.checker, find_ranges(one.checker, one.ball))
    ascent = Ascent(walker, one.checker.last)
    constant = np.array([100.0, -100.0])
    climb = ascent.climb(ROWS, constant, 5)
    assert climb.traced.tolist() == [1]
    assert climb.steps == 5
    assert climb.lower[0] == walker.lower(one.checker.last, ROWS, constant)[0]
    assert ascent.climb(ROWS, constant, 5, deadline=time.monotonic() - 1).steps == 0
    assert ascent.climb(ROWS, constant + 200, 5).steps == 0


def test_splits_start_from_their_parents_slopes() -> None:
    one = case(SIZES, 2, 0.5)
    walker = Walker(one.checker, find_ranges(one.checker, one.ball))
    ranges, ascent = walker.ranges, Ascent(walker, one.checker.last)
    parent = ascent.climb(ROWS, np.zeros(2), 10, goal=np.inf)
    node = max(ranges.unstable, key=lambda item: len(ranges.unstable[item]))
    low = {key: ranges.bounds.lower[key][free][None] for key, free in ranges.unstable.items()}
    high = {key: ranges.bounds.upper[key][free][None] for key, free in ranges.unstable.items()}
    for name, side in (("low", low), ("high", high)):
        corner = {**side, node: side[node].copy()}
        corner[node][0, 0] = 0.0
        boxes = Boxes(np.zeros(2, dtype=np.int64), corner if name == "low" else low, corner if name == "high" else high)
        child = ascent.climb(ROWS, np.zeros(2), 10, slopes=parent.slopes, boxes=boxes, goal=np.inf)
        assert np.all(child.lower >= parent.lower - 1e-9)
