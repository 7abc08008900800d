"""What is said to be below λ relu(z) + κ δ is so at every point of the set, whatever the coefficients."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.pairs.bounds import CHOICES
from prunecert.verifiers.sparse.pairs.ranges import PairRanges
from prunecert.verifiers.sparse.pairs.relaxation import Choice, relax

#: Bounds as walks have them, and awkward ones.
NUMBERS = st.one_of(
    st.floats(-4, 4, allow_nan=False), st.sampled_from([0.0, 1.0, -1.0, 1e-30, -1e-30, 1e15, -1e15, 2.0**-1074])
)
SPANS = st.one_of(st.tuples(NUMBERS, NUMBERS).map(sorted), st.sampled_from([[0.0, 0.0], [0.0, 2.0], [-2.0, 0.0]]))


def ranges_of(box: list[list[float]]) -> PairRanges:
    array = np.array(box)
    return PairRanges(array[:, :1, None], array[:, 1:, None])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(SPANS, min_size=3, max_size=3),
    NUMBERS,
    NUMBERS,
    st.sampled_from(["apart", "together", "mixed"]),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=6, max_size=6),
)
def test_it_is_below_in_exact_arithmetic(
    box: list[list[float]], lam: float, kappa: float, choice: Choice, shares: list[tuple[float, float]]
) -> None:
    planes = relax(np.array([[lam]]), np.array([[kappa]]), ranges_of(box), choice)
    mu, nu = Fraction(planes.value[0, 0]), Fraction(planes.change[0, 0])
    constant = Fraction(planes.constant[0, 0]) if len(planes.index) else Fraction(0)
    (low, high), (low2, high2), (least, most) = ([Fraction(end) for end in ends] for ends in box)
    start: Fraction = max(low, low2 - most)
    end: Fraction = min(high, high2 - least)
    if start > end:
        return
    corners = [(Fraction(i), Fraction(j)) for i in (0, 1) for j in (0, 1)]
    kinks = [Fraction(0), low2 - least, high2 - most]
    zero = Fraction(0)
    for share, other in [*((Fraction(a), Fraction(b)) for a, b in shares), *corners]:
        inside: list[Fraction] = [min(max(kink, start), end) for kink in kinks]
        for z in (start + share * (end - start), *inside):
            below: Fraction = max(least, low2 - z)
            above: Fraction = min(most, high2 - z)
            points: list[Fraction] = [below + other * (above - below), min(max(-z, below), above)]
            for d in points:
                active: Fraction = max(z, zero)
                delta = max(z + d, zero) - active
                left = Fraction(lam) * active + Fraction(kappa) * delta
                # Equal neurons have lost their κ, and with it nothing; else the plane is below.
                assert left >= mu * z + nu * d + constant


def test_stable_neurons_lose_nothing() -> None:
    box = [[1.0, 2.0], [1.5, 2.5], [-0.5, 1.0]]
    planes = relax(np.array([[2.0]]), np.array([[-3.0]]), ranges_of(box), "mixed")
    assert (planes.value[0, 0], planes.change[0, 0], len(planes.index)) == (2.0, -3.0, 0)
    box = [[-2.0, -1.0], [1.0, 2.0], [2.0, 4.0]]
    # relu(z) is 0, and δ is z' = z + d.
    planes = relax(np.array([[2.0]]), np.array([[-3.0]]), ranges_of(box), "mixed")
    assert (planes.value[0, 0], planes.change[0, 0], len(planes.index)) == (-3.0, -3.0, 0)


def test_a_neuron_that_is_0_in_one_network_is_on_and_off() -> None:
    """As units without weights are, which pruning leaves."""
    # z' is 0: λ z + κ (0 - z) = λ z + κ d.
    box = [[1.0, 2.0], [0.0, 0.0], [-2.0, -1.0]]
    planes = relax(np.array([[2.0]]), np.array([[-3.0]]), ranges_of(box), "mixed")
    assert (planes.value[0, 0], planes.change[0, 0], len(planes.index)) == (2.0, -3.0, 0)
    # z is 0: λ 0 + κ z', and z' is d.
    box = [[0.0, 0.0], [1.0, 2.0], [1.0, 2.0]]
    planes = relax(np.array([[2.0]]), np.array([[-3.0]]), ranges_of(box), "mixed")
    assert planes.change[0, 0] == -3.0
    assert len(planes.index) == 0
    # Both are 0 behind the ReLU.
    box = [[-2.0, -1.0], [0.0, 0.0], [1.0, 2.0]]
    planes = relax(np.array([[2.0]]), np.array([[-3.0]]), ranges_of(box), "mixed")
    assert (planes.value[0, 0], planes.change[0, 0], len(planes.index)) == (0.0, 0.0, 0)


def test_differences_are_relaxed_together_where_that_loses_less() -> None:
    """A wide neuron with a small difference: apart, both triangles are lost; together, next to nothing."""
    box = ranges_of([[-5.0, 5.0], [-5.0, 5.0], [-0.1, 0.1]])
    lam, kappa = np.zeros((1, 1)), np.ones((1, 1))
    apart, together, mixed = (
        float(relax(lam, kappa, box, choice).constant[0, 0]) for choice in ("apart", "together", "mixed")
    )
    assert apart < -2
    assert together == pytest.approx(-0.05)
    assert mixed == together


def test_equal_neurons_have_no_difference() -> None:
    box = ranges_of([[-5.0, 5.0], [-5.0, 5.0], [0.0, 0.0]])
    planes = relax(np.zeros((1, 1)), np.ones((1, 1)), box, "mixed")
    assert not planes.value.any()
    assert planes.constant == pytest.approx(0.0, abs=1e-190)


def test_what_is_unbounded_gives_no_bound() -> None:
    planes = relax(np.ones((1, 1)), -np.ones((1, 1)), ranges_of([[-np.inf, np.inf]] * 3), "mixed")
    assert planes.constant[0, 0] == -np.inf


@given(st.lists(st.lists(SPANS, min_size=3, max_size=3), min_size=1, max_size=4), st.data())
def test_one_box_for_all_rows_is_as_good_as_a_box_for_each(boxes: list[list[list[float]]], data: st.DataObject) -> None:
    ends = np.array(boxes).transpose(2, 1, 0)
    one = PairRanges(ends[0][:, :, None], ends[1][:, :, None])
    each = PairRanges(*(np.repeat(end, 2, axis=2) for end in (one.lower, one.upper)))
    numbers = st.lists(NUMBERS, min_size=2 * len(boxes), max_size=2 * len(boxes))
    lam, kappa = (np.array(data.draw(numbers)).reshape(-1, 2) for _ in range(2))
    for choice in CHOICES:
        planes, alike = relax(lam, kappa, one, choice), relax(lam, kappa, each, choice)
        np.testing.assert_array_equal(planes.value, alike.value)
        np.testing.assert_array_equal(planes.change, alike.change)
        np.testing.assert_array_equal(planes.constant, alike.constant)
