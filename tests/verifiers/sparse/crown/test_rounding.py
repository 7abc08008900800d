"""Rules of rounding and relaxation, each in exact arithmetic; `test_rows` and `test_passes` have the walks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.verifiers.sparse.crown.program import FUSED, INPUT
from prunecert.verifiers.sparse.crown.rounding import (
    LEAST,
    U53,
    adopt,
    below,
    enclose,
    flush,
    plane,
    reference,
    set_box,
)

NUMBERS = st.floats(-1e5, 1e5, allow_nan=False)
SIZES = st.floats(0, 10, allow_nan=False)


@given(ends=st.tuples(NUMBERS, NUMBERS), rectified=st.booleans())
def test_a_reference_s_radius_reaches_both_ends(ends: tuple[float, float], rectified: bool) -> None:
    low, high = sorted(ends)
    y, r = reference.py_func(rectified, low, high)
    if rectified:
        low, high = max(low, 0.0), max(high, 0.0)
    assert Fraction(y) - Fraction(r) <= Fraction(low)
    assert Fraction(y) + Fraction(r) >= Fraction(high)


@given(
    ends=st.tuples(NUMBERS, NUMBERS),
    share=st.floats(0, 1),
    slack=SIZES,
    shift=st.floats(-1, 1),
    slope=st.sampled_from((-1, 0, 1)),
)
def test_planes_are_on_their_side_of_the_relu(
    ends: tuple[float, float], share: float, slack: float, shift: float, slope: int
) -> None:
    """Whichever slope below is chosen: λ (relu(z) - y) >= λ slope (z - reference) + constant, the slope taken for the
    sign of λ = ±1, and all of it beyond what the row's own reference may be off by."""
    low, high = sorted(ends)
    if high <= 0:
        return
    # NumPy would round a float32 times a Python float to float32, where compiled code does not.
    middle = 0.5 * low + 0.5 * high
    center = middle + shift * (high - low) * 0.01
    y, _ = reference.py_func(True, low, high)
    numbers = map(np.float64, (low, high, center, y, slack))
    lower_slope, upper_slope, positive, negative = plane.py_func(FUSED, *numbers, slope)
    assert lower_slope == (1 if low >= 0 else slope if slope >= 0 else high > -low)
    z = Fraction(low) + (Fraction(high) - Fraction(low)) * Fraction(share)
    relu = max(z, Fraction(0))
    for off in (-slack, slack):
        # The walk reads z - reference, and that is known up to the slack.
        deviation = z - Fraction(center) + Fraction(off)
        assert relu - Fraction(y) >= Fraction(float(lower_slope)) * deviation + Fraction(float(positive))
        assert relu - Fraction(y) <= Fraction(float(upper_slope)) * deviation + Fraction(float(negative))


@given(ends=st.tuples(NUMBERS, NUMBERS), share=st.floats(0, 1))
def test_the_input_s_planes_are_the_box(ends: tuple[float, float], share: float) -> None:
    low, high = sorted(ends)
    y, _ = reference.py_func(False, low, high)
    lower_slope, upper_slope, positive, negative = plane.py_func(INPUT, *map(np.float64, (low, high, y, y, 0.0)), -1)
    assert lower_slope == upper_slope == 0
    x = Fraction(low) + (Fraction(high) - Fraction(low)) * Fraction(share)
    assert Fraction(float(positive)) <= x - Fraction(y) <= Fraction(float(negative))


@given(z=NUMBERS, slack=SIZES, down=NUMBERS, up=NUMBERS)
def test_bounds_of_deviations_become_bounds_no_tighter_than_exact_ones(
    z: float, slack: float, down: float, up: float
) -> None:
    lower, upper, slopes = np.full(1, -np.inf), np.full(1, np.inf), np.full(1, -1, dtype=np.int8)
    adopt.py_func(lower, upper, slopes, 0, z, slack, down, up, True)
    assert Fraction(float(lower[0])) <= Fraction(z) + Fraction(down) - Fraction(slack)
    assert Fraction(float(upper[0])) >= Fraction(z) + Fraction(up) + Fraction(slack)
    assert slopes[0] == (upper[0] > -lower[0])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_only_what_is_better_and_finite_is_adopted() -> None:
    lower, upper, slopes = np.array([-1.0]), np.array([2.0]), np.full(1, -1, dtype=np.int8)
    for nothing in (np.nan, -np.inf):
        adopt.py_func(lower, upper, slopes, 0, 0.0, 0.0, nothing, 2.0, True)
    assert slopes[0] == -1
    # The interval's bounds stay; the slope is what the walk says.
    adopt.py_func(lower, upper, slopes, 0, 0.0, 0.0, -4.0, 3.0, True)
    assert (lower[0], upper[0], slopes[0]) == (-1.0, 2.0, 0)
    for nothing in (np.nan, -np.inf):
        adopt.py_func(lower, upper, slopes, 0, 0.0, 0.0, nothing, -nothing, False)
    assert (lower[0], upper[0], slopes[0]) == (-1.0, 2.0, 0)
    adopt.py_func(lower, upper, slopes, 0, 0.0, 0.0, -4.0, 5.0, False)
    assert lower[0] <= -4.0
    assert upper[0] >= 5.0
    assert slopes[0] == 1


@given(total=NUMBERS, tiny=st.floats(0, 1e-20))
def test_a_walk_s_sum_is_rounded_down(total: float, tiny: float) -> None:
    assert Fraction(below.py_func(total, tiny)) <= Fraction(total) - Fraction(tiny)


@pytest.mark.parametrize("total", [np.nan, np.inf, -np.inf])
def test_an_overflow_proves_nothing(total: float) -> None:
    assert below.py_func(total, 0.0) == -np.inf


def test_flushing_moves_sums() -> None:
    sums, totals = np.arange(4, dtype=np.float32), np.ones(4)
    flush.py_func(sums, totals, 4)
    assert totals.tolist() == [1, 2, 3, 4]
    assert not sums.any()


@given(seed=st.integers(0, 10_000), entries=st.integers(0, 6), inexact=st.booleans())
def test_a_row_s_interval_holds_at_both_ends(seed: int, entries: int, inexact: bool) -> None:
    """Σ w y + b, every y within its radius, every weight within its error, b within its own."""
    rng = np.random.default_rng(seed)
    weights = (rng.standard_normal(entries) * 10.0 ** rng.integers(-8, 8, entries)).astype(np.float32)
    y, r = rng.standard_normal(entries) * 1e3, rng.random(entries)
    bias, error = float(np.float32(rng.standard_normal())), float(rng.random() * 1e-6)
    w = weights.astype(np.float64)
    sums = float((w * y).sum()), float(np.abs(w * y).sum()), float((np.abs(w) * r).sum()), 0.0
    value, low, high, slack = enclose.py_func(*sums, bias, error, inexact, entries, entries + 2)
    middle, reach = Fraction(bias), Fraction(error)
    for weight, center, radius in zip(weights, y, r, strict=True):
        off = abs(Fraction(float(weight))) * Fraction(1, 2**24) if inexact else Fraction(0)
        middle += Fraction(float(weight)) * Fraction(center)
        reach += abs(Fraction(float(weight))) * Fraction(radius) + off * (abs(Fraction(center)) + Fraction(radius))
    assert Fraction(low) <= middle - reach
    assert Fraction(high) >= middle + reach
    assert abs(Fraction(value) - middle) + Fraction(error) <= Fraction(slack) + Fraction(2) ** -1000


def test_a_row_of_tiny_values_is_charged_what_may_underflow() -> None:
    _, low, high, slack = enclose.py_func(0.0, 1e-200, 0.0, 0.0, 0.0, 0.0, False, 1, 3)
    assert low <= -LEAST < LEAST <= high
    assert slack >= LEAST
    assert enclose.py_func(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, False, 0, 0) == (0.0, 0.0, 0.0, 0.0)


def test_the_box_is_set_and_halved_without_overflow() -> None:
    lower, upper, centers = np.zeros(3), np.zeros(3), np.zeros(3)
    set_box.py_func(lower, upper, centers, np.array([-1.0, 1e308]), np.array([3.0, 1.5e308]))
    assert lower.tolist() == [-1.0, 1e308, 0.0]
    assert upper.tolist() == [3.0, 1.5e308, 0.0]
    np.testing.assert_allclose(centers, [1.0, 1.25e308, 0.0], rtol=4 * U53)
