"""Values and lines against decimal arithmetic: an error that were larger than it says would be a wrong proof."""

from __future__ import annotations

from decimal import Decimal, Inexact, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.smooth import curves
from prunecert.verifiers.sparse.smooth.curves import SMOOTH, Curve
from tests.verifiers.sparse.smooth import smoothnets

ENDS = st.one_of(
    st.floats(-40, 40), st.floats(-1e-6, 1e-6), st.sampled_from([0.0, 16.0, 32.0, -32.0, 709.0, -1e6, 1e30, -1e49])
)


@given(x=ENDS, curve=st.sampled_from(SMOOTH))
def test_values_are_within_the_error_that_is_claimed(x: float, curve: Curve) -> None:
    value = float(curves.value(curve, np.array([x]))[0])
    error = abs(Decimal(value) - smoothnets.curve(curve, Decimal(x)))
    # A good deal less: what is claimed covers any order of operations.
    assert error <= Decimal(curves.ERROR) / 16
    low, high = curves.bounds(curve, np.array([x]), np.array([x]))
    assert Decimal(float(low[0])) <= smoothnets.curve(curve, Decimal(x)) <= Decimal(float(high[0]))
    y = smoothnets.curve(curve, Decimal(x))
    slope = 1 - y * y if curve == "Tanh" else y * (1 - y)
    assert abs(Decimal(float(curves.derivative(curve, np.array([x]))[0])) - slope) <= Decimal(curves.ERROR)


@settings(max_examples=60)
@given(ends=st.tuples(ENDS, ENDS), curve=st.sampled_from(("Relu", *SMOOTH)), data=st.data())
def test_lines_stay_on_their_sides(ends: tuple[float, float], curve: Curve, data: st.DataObject) -> None:
    low, high = min(ends), max(ends)
    lines = curves.lines(curve, np.array([low]), np.array([high]))
    a, b, c, d = (Decimal(float(part[0])) for part in lines)
    inner = data.draw(st.lists(st.floats(low, high), max_size=4))
    with localcontext() as context:
        # Products of two float64 numbers and a sum with a third, as they are.
        context.prec = 2500
        context.traps[Inexact] = True
        triples = [(z, a * Decimal(z) + b, c * Decimal(z) + d) for z in (low, high, min(max(0.0, low), high), *inner)]
    for z, below, above in triples:
        assert below <= smoothnets.curve(curve, Decimal(z)) <= above


@pytest.mark.parametrize("curve", SMOOTH)
def test_lines_are_no_farther_apart_than_a_constant_band(curve: Curve) -> None:
    rng = np.random.default_rng(0)
    low = rng.normal(0, 4, 400)
    high = low + rng.exponential(2, 400)
    lines = curves.lines(curve, low, high)
    middle = 0.5 * (low + high)
    gap = (lines.upper_slope - lines.lower_slope) * middle + lines.upper_shift - lines.lower_shift
    band = curves.value(curve, high) - curves.value(curve, low)
    assert np.all(gap <= band + 1e-8)
    # And a good deal nearer as intervals become narrow: of second order.
    narrow = curves.lines(curve, low, low + 1e-3)
    gap = (narrow.upper_slope - narrow.lower_slope) * (low + 5e-4) + narrow.upper_shift - narrow.lower_shift
    assert np.all(gap <= 1e-6)


@pytest.mark.parametrize("curve", SMOOTH)
def test_of_what_is_unbounded_the_range_is_known(curve: Curve) -> None:
    ends = np.array([-np.inf, np.nan, -1e60, 0.0]), np.array([np.inf, np.nan, 1e60, np.inf])
    floor = -1.0 if curve == "Tanh" else 0.0
    lines = curves.lines(curve, *ends)
    np.testing.assert_array_equal(lines.lower_slope, 0.0)
    np.testing.assert_array_equal(lines.upper_slope, 0.0)
    assert np.all(lines.lower_shift <= floor)
    assert np.all(lines.upper_shift >= 1.0)
    low, high = curves.bounds(curve, *ends)
    np.testing.assert_array_equal(low[:3], floor)
    np.testing.assert_array_equal(high, 1.0)
