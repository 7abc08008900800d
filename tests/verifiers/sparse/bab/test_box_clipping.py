"""What clipping cuts off is proved, in rational arithmetic; and it cuts."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.arrays import BoolArray, Float64Array
from prunecert.verifiers.sparse.bab.box_bounds import frame
from prunecert.verifiers.sparse.bab.box_clipping import KEPT, clip_boxes
from tests.verifiers.sparse.bab.test_box_bounds import exact_line_at, line_at


def clipped(lines: Float64Array, low: Float64Array, high: Float64Array) -> tuple[Float64Array, Float64Array, BoolArray]:
    """Returns corners of clipped sub-boxes, and which are empty."""
    left, right, empty = low.copy(), high.copy(), np.zeros(len(low), dtype=np.bool_)
    counts = np.full(len(low), lines.shape[1])
    clip_boxes(lines, counts, left, right, 0, len(low), empty)
    return left, right, empty


def random_lines(rng: np.random.Generator, count: int, rows: int, inputs: int) -> Float64Array:
    lines = rng.normal(size=(count, rows, inputs + 2))
    lines[:, :, 0] += rng.uniform(-1, 3, (count, rows))
    lines[:, :, -1] = np.abs(lines[:, :, -1])
    lines[rng.random(lines.shape) < 0.1] = 0.0
    return lines * 10.0 ** rng.uniform(-12, 12, (count, 1, 1))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4))
def test_no_point_that_keeps_all_lines_is_cut_off(seed: int, rows: int, inputs: int) -> None:
    rng = np.random.default_rng(seed)
    lines = random_lines(rng, 8, rows, inputs)
    low = rng.normal(size=(8, inputs)) * 10.0 ** rng.uniform(-8, 8, (8, inputs))
    # So small that products underflow.
    low[::3] *= 2.0**-1050
    high = low + np.abs(low) * 10.0 ** rng.uniform(-15, 2, (8, inputs))
    flat = rng.random(low.shape) < 0.2
    high[flat] = low[flat]
    left, right, empty = clipped(lines, low, high)
    assert np.all((low <= left) & (left <= right) & (right <= high))
    for box in range(8):
        points = [*rng.uniform(low[box], high[box], (10, inputs)), low[box], high[box], left[box], right[box]]
        # Numbers just outside of what is left.
        for side in (np.nextafter(left[box], -np.inf), np.nextafter(right[box], np.inf)):
            for axis in range(inputs):
                for base in points[:6]:
                    point = base.copy()
                    point[axis] = side[axis]
                    points.append(point)
        for point in points:
            x = np.clip(point, low[box], high[box])
            if all(line_at(line, low[box], high[box], x) <= Fraction(KEPT) for line in lines[box]):
                assert not empty[box]
                assert np.all((left[box] <= x) & (x <= right[box]))


def test_nothing_is_cut_off_between_the_smallest_numbers() -> None:
    """Centre plus radius times an edge is rounded to one of them: no point on the way there may be lost."""
    least = Fraction(5e-324)
    for steps in (1, 2, 3, 7, 11):
        low, high = np.zeros((1, 1)), np.full((1, 1), steps * 5e-324)
        for edge in np.linspace(-0.9, 0.9, 13):
            for sign in (1.0, -1.0):
                lines = np.array([[[-sign * edge, sign, 0.0]]])
                left, right, empty = clipped(lines, low, high)
                assert not empty[0]
                for step in range(7 * steps + 1):
                    x = step * least / 7
                    if exact_line_at(lines[0, 0], low[0], high[0], x) <= 0:
                        assert Fraction(left[0, 0]) <= x <= Fraction(right[0, 0])


def test_one_line_is_cut_where_it_is_zero() -> None:
    """Over [0, 2]^2 the row x0 - x1 - 1 <= 0 keeps all; -x0 + 1.5 <= 0 keeps x0 >= 1.5; 3 <= 0 keeps nothing."""
    lines = np.array([[[-1.0, 1.0, -1.0, 0.0]], [[0.5, -1.0, 0.0, 0.0]], [[3.0, 0.0, 0.0, 0.0]]])
    low, high = np.zeros((3, 2)), np.full((3, 2), 2.0)
    left, right, empty = clipped(lines, low, high)
    assert empty.tolist() == [False, False, True]
    np.testing.assert_array_equal(left[0], low[0])
    np.testing.assert_array_equal(right[0], high[0])
    np.testing.assert_allclose(left[1], [1.5, 0.0], atol=1e-7)
    assert left[1, 0] < 1.5
    np.testing.assert_array_equal(right[1], high[1])


def test_a_conjunction_empties_what_no_row_of_it_does() -> None:
    """x0 >= 1.5 and x0 <= 0.5, over [0, 2]."""
    low, high = np.zeros((1, 1)), np.full((1, 1), 2.0)
    both = np.array([[[0.5, -1.0, 0.0], [0.5, 1.0, 0.0]]])
    assert clipped(both, low, high)[2].tolist() == [True]
    for row in range(2):
        assert clipped(both[:, row : row + 1], low, high)[2].tolist() == [False]


def test_what_is_no_number_cuts_nothing() -> None:
    low, high = np.zeros((4, 2)), np.ones((4, 2))
    lines = np.ones((4, 1, 4))
    for box, value in enumerate((np.nan, np.inf, -np.inf, np.nan)):
        lines[box, 0, box] = value
    lines[1, 0, 1] = np.inf
    left, right, empty = clipped(lines, low, high)
    # A line of nan or infinite terms says nothing.
    assert not empty.any()
    np.testing.assert_array_equal(left, low)
    np.testing.assert_array_equal(right, high)


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e30, 1e30), st.floats(0, 1e30))
def test_a_frame_reaches_both_ends(low: float, width: float) -> None:
    high = low + width
    center, radius = frame(low, high)
    assert Fraction(center) + Fraction(radius) >= Fraction(high)
    assert Fraction(center) - Fraction(radius) <= Fraction(low)
