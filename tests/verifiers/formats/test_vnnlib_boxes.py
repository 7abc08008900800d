"""Clauses, boxes and rows are the formulas' own sets: exact within, never smaller than them without."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.formats import vnnlib_boxes
from prunecert.verifiers.formats.vnnlib_boxes import Box, clauses, rounded, specification
from prunecert.verifiers.formats.vnnlib_formulas import Atom, Formula, Junction, Negation
from prunecert.verifiers.formats.vnnlib_text import UnsupportedPropertyError
from tests.verifiers.formats.formulakit import holds

small = st.integers(-2, 2).map(Fraction)
atoms = st.builds(
    lambda row, limit, strict: Atom("Y", tuple((i, c) for i, c in enumerate(row) if c), limit, strict),
    st.lists(small, min_size=2, max_size=2).filter(any),
    small,
    st.booleans(),
)
formulas = st.recursive(
    atoms | st.booleans(),
    lambda inner: (
        st.builds(Negation, inner)
        | st.builds(
            lambda both, parts: Junction(both, tuple(parts)), st.booleans(), st.lists(inner, min_size=1, max_size=3)
        )
    ),
    max_leaves=6,
)
POINTS = [(Fraction(a), Fraction(b)) for a in range(-2, 3) for b in range(-2, 3)]


@settings(deadline=None, max_examples=40)
@given(st.lists(formulas, max_size=3))
def test_clauses_hold_where_the_formulas_do(parts: list[Formula]) -> None:
    common, product = clauses(parts, "f")
    for point in POINTS:
        expected = all(holds(part, point) for part in parts)
        some = any(all(holds(atom, point) for atom in clause) for clause in product)
        assert (some and all(holds(atom, point) for atom in common)) == expected


def test_what_is_multiplied_out_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    atom = Atom("Y", ((0, Fraction(1)),), Fraction(0), False)
    either = Junction(False, (atom, atom))
    monkeypatch.setattr(vnnlib_boxes, "MAX_CLAUSES", 8)
    assert len(clauses([either] * 3, "f")[1]) == 8
    with pytest.raises(UnsupportedPropertyError, match="over 8 clauses"):
        clauses([either] * 4, "f")
    monkeypatch.setattr(vnnlib_boxes, "MAX_ATOMS", 23)
    with pytest.raises(UnsupportedPropertyError, match="over 23 comparisons"):
        clauses([either] * 3, "f")


@settings(deadline=None, max_examples=40)
@given(st.fractions(), st.booleans())
def test_rounding_goes_the_way_it_is_asked_and_no_further(value: Fraction, up: bool) -> None:
    near = rounded(value, "f", up=up)
    other = math.nextafter(near, -math.inf if up else math.inf)
    assert Fraction(near) >= value > Fraction(other) if up else Fraction(near) <= value < Fraction(other)


@pytest.mark.parametrize("value", [Fraction(2) ** 1024, Fraction(10) ** 400, Fraction(np.finfo(float).max) + 1])
def test_what_rounds_to_infinity_is_refused(value: Fraction) -> None:
    with pytest.raises(UserError, match="too large for binary64"):
        rounded(value, "f", up=True)


def free(count: int = 2) -> Box:
    low, high = np.full(count, -np.inf), np.full(count, np.inf)
    return Box("f", low, high, low.copy(), high.copy())


bounds = st.builds(
    lambda scale, limit, strict: Atom("X", ((0, scale),), limit, strict),
    st.sampled_from([Fraction(n, d) for n in (-3, -1, 1, 2) for d in (1, 3)]),
    st.fractions(-1, 1, max_denominator=3) | st.sampled_from([Fraction(0.1), Fraction(0.1) + Fraction(1, 2**70)]),
    st.booleans(),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(bounds, min_size=1, max_size=5))
def test_a_box_is_the_set_of_its_bounds(parts: list[Atom]) -> None:
    box = free().tightened(parts)
    corners = [atom.limit / atom.terms[0][1] for atom in parts]
    for corner in corners:
        near = float(corner)
        for x in (math.nextafter(near, -math.inf), near, math.nextafter(near, math.inf)):
            inside = all(holds(atom, [Fraction(x)]) for atom in parts)
            # The inner box has just the numbers of binary64 that the file's has; the outer one has them, too.
            assert (box.inner_lower[0] <= x <= box.inner_upper[0]) == inside
            assert not inside or box.lower[0] <= x <= box.upper[0]
        if all(holds(atom, [corner]) for atom in parts):
            assert Fraction(box.lower[0]) <= corner if math.isfinite(box.lower[0]) else True
            assert Fraction(box.upper[0]) >= corner if math.isfinite(box.upper[0]) else True
    # A set of one variable that holds anything holds a corner, a middle of two, or all beyond them.
    places = sorted({*corners, min(corners) - 1, max(corners) + 1})
    places += [(a + b) / 2 for a in places for b in places]
    assert (box.gap() is None) == any(all(holds(atom, [x]) for atom in parts) for x in places)


def test_a_box_is_not_changed_by_its_parts() -> None:
    box = free()
    part = box.tightened([Atom("X", ((1, Fraction(-2)),), Fraction(-1), False)])
    assert part.lower.tolist() == [-math.inf, 0.5]
    assert not np.isfinite(box.lower).any()
    assert not box.exact
    assert box.key() != part.key() == free().tightened([Atom("X", ((1, Fraction(-1)),), Fraction(-1, 2), False)]).key()
    assert (box.unbounded(), part.unbounded()) == (0, 0)
    point = [Atom("X", ((i, Fraction(c)),), Fraction(0), False) for i in range(2) for c in (1, -1)]
    assert free().tightened(point[:3]).unbounded() == 1
    assert free().tightened(point).unbounded() is None


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(atoms, min_size=1, max_size=3), min_size=1, max_size=3))
def test_rows_are_the_groups(groups: list[list[Atom]]) -> None:
    spec = specification(groups, 2, "f")
    for point in POINTS:
        values = [float(x) for x in point]
        assert spec.violated_by(values) == any(all(holds(atom, point) for atom in group) for group in groups)
        closed = [[Atom(a.letter, a.terms, a.limit, False) for a in group] for group in groups]
        assert OutputSpec(spec.disjuncts).violated_by(values) == any(
            all(holds(atom, point) for atom in group) for group in closed
        )


def test_a_group_without_outputs_is_met_by_all() -> None:
    atom = Atom("Y", ((0, Fraction(1)),), Fraction(0), True)
    assert specification([[atom], []], 2, "f").violated_by([5.0, 5.0])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.fractions(-1, 1, max_denominator=9), min_size=2, max_size=2).filter(all), st.fractions(-1, 1))
def test_fractions_are_scaled_to_whole_numbers(row: list[Fraction], limit: Fraction) -> None:
    spec = specification([[Atom("Y", tuple(enumerate(row)), limit, False)]], 2, "f")
    ((a, b),) = spec.disjuncts
    first, second = (Fraction(value) for value in a[0])
    scale = first / row[0]
    assert scale > 0
    assert second == scale * row[1]
    # The outer row is never stricter than the file's, the inner one never weaker.
    assert Fraction(b[0]) >= scale * limit
    assert Fraction((spec.limits or (b,))[0][0]) <= scale * limit


@pytest.mark.parametrize("factor", [Fraction(1, 2**300), Fraction(2**300), Fraction(1, 3**400)])
def test_rows_of_any_size_are_brought_in_range(factor: Fraction) -> None:
    spec = specification([[Atom("Y", ((0, 3 * factor), (1, -factor)), factor, False)]], 2, "f")
    ((a, b),) = spec.disjuncts
    assert a[0][0] == -3 * a[0][1]
    assert 0.25 < np.abs(a).max() < 4
    assert b[0] == -a[0][1]


def test_coefficients_that_binary64_can_not_hold_together_are_unsupported() -> None:
    atom = Atom("Y", ((0, Fraction(1)), (1, Fraction(3) ** 60)), Fraction(0), False)
    with pytest.raises(UnsupportedPropertyError, match="write each coefficient as one decimal"):
        specification([[atom]], 2, "f")
