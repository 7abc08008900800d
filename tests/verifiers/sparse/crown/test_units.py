"""Rules of rounding and relaxation, each in exact arithmetic; `test_rows` and `test_passes` have the walk in units."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.verifiers.sparse.arrays import LANES32, PAIRED_LANES32
from prunecert.verifiers.sparse.crown.program import FUSED, INPUT
from prunecert.verifiers.sparse.crown.rounding import adopt, below, flush, plane, reference
from prunecert.verifiers.sparse.crown.specification import choose, conclude
from prunecert.verifiers.sparse.crown.units.state import make_scratch

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


@given(ends=st.tuples(NUMBERS, NUMBERS), share=st.floats(0, 1), slack=SIZES, shift=st.floats(-1, 1))
def test_planes_are_on_their_side_of_the_relu(
    ends: tuple[float, float], share: float, slack: float, shift: float
) -> None:
    """λ (relu(z) - y) >= λ slope (z - reference) + constant, the slope taken for the sign of λ = ±1, and all of it
    beyond what the row's own reference may be off by."""
    low, high = sorted(ends)
    if high <= 0:
        return
    # NumPy would round a float32 times a Python float to float32, where compiled code does not.
    middle = 0.5 * low + 0.5 * high
    center = middle + shift * (high - low) * 0.01
    y, _ = reference.py_func(True, low, high)
    lower_slope, upper_slope, positive, negative = plane.py_func(FUSED, *map(np.float64, (low, high, center, y, slack)))
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
    lower_slope, upper_slope, positive, negative = plane.py_func(INPUT, *map(np.float64, (low, high, y, y, 0.0)))
    assert lower_slope == upper_slope == 0
    x = Fraction(low) + (Fraction(high) - Fraction(low)) * Fraction(share)
    assert Fraction(float(positive)) <= x - Fraction(y) <= Fraction(float(negative))


@given(z=NUMBERS, slack=SIZES, down=NUMBERS, up=NUMBERS)
def test_bounds_of_deviations_become_bounds_no_tighter_than_exact_ones(
    z: float, slack: float, down: float, up: float
) -> None:
    lower, upper = np.full(1, -np.inf), np.full(1, np.inf)
    adopt.py_func(lower, upper, 0, z, slack, down, up, True)
    assert Fraction(float(lower[0])) <= Fraction(z) + Fraction(down) - Fraction(slack)
    assert Fraction(float(upper[0])) >= Fraction(z) + Fraction(up) + Fraction(slack)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_only_what_is_better_and_finite_is_adopted() -> None:
    lower, upper = np.array([-1.0]), np.array([1.0])
    adopt.py_func(lower, upper, 0, 0.0, 0.0, -2.0, 2.0, True)
    assert (lower[0], upper[0]) == (-1.0, 1.0)
    for nothing in (np.nan, -np.inf):
        adopt.py_func(lower, upper, 0, 0.0, 0.0, nothing, -nothing, False)
    assert (lower[0], upper[0]) == (-1.0, 1.0)
    adopt.py_func(lower, upper, 0, 0.0, 0.0, -2.0, 2.0, False)
    assert lower[0] <= -2.0
    assert upper[0] >= 2.0


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


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0, np.nan]), max_size=20), st.integers(0, 20))
def test_rows_that_are_not_proved_are_walked_or_all_where_they_are_few(bounds: list[float], most: int) -> None:
    chosen = np.full(20, -1)
    count = choose.py_func(np.array(bounds), most, chosen)
    everything = len(bounds) <= most
    assert chosen[:count].tolist() == [k for k, bound in enumerate(bounds) if everything or not bound > 0]


@given(seed=st.integers(0, 1000), intersect=st.booleans())
def test_bounds_of_deviations_of_outputs_become_bounds_of_rows(seed: int, intersect: bool) -> None:
    rng = np.random.default_rng(seed)
    y, r = rng.standard_normal(5), rng.random(5)
    matrix, offsets, walked = rng.standard_normal((3, 3)), rng.standard_normal(3), rng.standard_normal(2)
    old = rng.standard_normal(3)
    out = old.copy()
    conclude.py_func(y, r, 2, matrix, offsets, walked, np.array([2, 0]), intersect, out)
    assert out[1] == old[1]
    for k, row in enumerate((2, 0)):
        exact = sum((Fraction(a) * Fraction(b) for a, b in zip(matrix[row], y[2:], strict=True)), Fraction(0))
        exact += Fraction(walked[k]) - Fraction(offsets[row])
        # What rounding the coefficients may lose, at the worst deviation.
        exact -= sum(
            (
                abs(Fraction(a) - Fraction(float(np.float32(a)))) * Fraction(b)
                for a, b in zip(matrix[row], r[2:], strict=True)
            ),
            Fraction(0),
        )
        assert Fraction(float(out[row])) <= max(exact, Fraction(float(old[row]))) if intersect else exact


@pytest.mark.parametrize("narrow", [False, True])
def test_scratch_lies_on_cache_lines(narrow: bool) -> None:
    scratch = make_scratch(37, 11, narrow)
    assert scratch.coefficients.shape == (37, PAIRED_LANES32)
    assert scratch.narrow.shape == (37 if narrow else 0, LANES32)
    assert scratch.coefficients.ctypes.data % 64 == 0
    assert not scratch.narrow.size or scratch.narrow.ctypes.data % 64 == 0
    # Eight flags are read as one word.
    assert len(scratch.flags) % 8 == 0
    assert np.shares_memory(scratch.flags, scratch.words)
