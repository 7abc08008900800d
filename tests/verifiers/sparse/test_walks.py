"""Sums of walks: never above the exact value less the errors, and nothing is claimed of what overflows."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.walks import HUGE, RowSums


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([1e-20, 1.0, 1e20]))
def test_a_bound_is_below_the_exact_sum_less_its_errors(seed: int, width: int, scale: float) -> None:
    rng, rows = np.random.default_rng(seed), 3
    constant = rng.standard_normal(rows) * scale
    factors, values = rng.standard_normal((rows, width)), rng.standard_normal(width) * scale
    errors = rng.random((2, rows)) * scale * 1e-12
    # Pairs that cancel, so that what rounding leaves of the sum is seen.
    factors[:, width // 2 : 2 * (width // 2)] = -factors[:, : width // 2]
    values[width // 2 : 2 * (width // 2)] = values[: width // 2]
    sums = RowSums.of(constant)
    for begin in range(0, width, 7):
        part, x = factors[:, begin : begin + 7], values[begin : begin + 7]
        sums.add(part @ x, np.abs(part) @ np.abs(x))
        sums.reach(np.abs(part).max(axis=1))
    for error in errors:
        sums.charge(error)
    lower = sums.lower(4.0 * width + 8.0)
    for row in range(rows):
        products = (Fraction(a) * Fraction(b) for a, b in zip(factors[row], values, strict=True))
        exact = Fraction(constant[row]) + sum(products, Fraction(0))
        charged = sum((Fraction(error) for error in errors[:, row]), Fraction(0))
        assert Fraction(lower[row]) <= exact - charged
        # No more than rounding and the errors are charged.
        room = 1e-12 * (abs(constant[row]) + float(np.abs(factors[row]) @ np.abs(values)))
        assert lower[row] >= float(exact) - 1.02 * float(charged) - room


def test_what_it_begins_with_stays_as_it_was() -> None:
    constant = np.array([1.0, -2.0])
    sums = RowSums.of(constant)
    sums.add(np.ones(2), np.ones(2))
    sums.charge(np.ones(2))
    assert constant.tolist() == [1.0, -2.0]
    assert (sums.value.tolist(), sums.size.tolist()) == ([2.0, -1.0], [2.0, 3.0])
    assert (sums.error.tolist(), sums.largest.tolist()) == ([1.0, 1.0], [0.0, 0.0])


@pytest.mark.parametrize("bad", [2 * HUGE, np.inf, np.nan])
def test_of_what_may_have_overflowed_nothing_is_claimed(bad: float) -> None:
    rows = np.array([0.0, bad])
    sums = {name: RowSums.of(np.ones(2)) for name in ("reach", "size", "value", "error")}
    sums["reach"].reach(rows)
    sums["reach"].reach(np.ones(2))
    sums["size"].add(np.zeros(2), rows)
    sums["value"].add(rows, rows)
    sums["error"].charge(rows)
    for name, one in sums.items():
        lower = one.lower(10.0)
        assert 0.999 < lower[0] <= 1.0, name
        assert lower[1] < -HUGE, name
    assert all(sums[name].lower(10.0)[1] == -np.inf for name in ("reach", "size", "value"))
