"""Numbers are read as binary64 or refused, negation is exact, and calculations need no stack of Python's."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.verifiers.formats.vnnlib_formulas import (
    MAX_DIGITS,
    Atom,
    Junction,
    LinearTerm,
    Negation,
    Step,
    all_of,
    any_of,
    complete,
    negation,
    number,
    varies,
)
from tests.verifiers.formats.formulakit import holds

rationals = st.fractions(-3, 3, max_denominator=4)


@settings(deadline=None, max_examples=40)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_the_one_that_was_written(value: float) -> None:
    assert number(repr(value), "f") == value
    assert number(f"{value:.25e}".upper(), "f") == value


@pytest.mark.parametrize(
    "token", ["", "-", ".", "1e", "e5", "0x1", "1_000", "inf", "nan", "\u0663", "1 ", "--1", "X_0"]
)
def test_what_is_no_number(token: str) -> None:
    assert number(token, "f") is None


@pytest.mark.parametrize(("token", "value"), [("5.", 5.0), (".5", 0.5), ("+1E2", 100.0), ("0E-999", 0.0), ("-0.00", 0)])
def test_forms_that_people_write(token: str, value: float) -> None:
    assert number(token, "f") == value


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("1e999", "too large"),
        ("-1e309", "too large"),
        ("1e-999", "too small"),
        ("-0.0001e-400", "too small"),
        ("1" * (MAX_DIGITS + 1), "5001 characters"),
    ],
)
def test_numbers_that_binary64_has_not(token: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        number(token, "f")


@settings(deadline=None, max_examples=40)
@given(
    st.lists(rationals, min_size=2, max_size=2), rationals, st.booleans(), st.lists(rationals, min_size=2, max_size=2)
)
def test_just_one_of_an_atom_and_its_negation_holds(
    row: list[Fraction], limit: Fraction, strict: bool, point: list[Fraction]
) -> None:
    # On the border, too, where strict and weak part.
    for bound in (limit, sum(c * x for c, x in zip(row, point, strict=True)) + Fraction(0)):
        atom = Atom("Y", tuple(enumerate(row)), bound, strict)
        assert holds(atom, point) is not holds(atom.negated(), point)
        twice = atom.negated().negated()
        assert (twice.terms, twice.limit, twice.strict) == (atom.terms, atom.limit, atom.strict)


def test_formulas_of_one_part_are_that_part() -> None:
    atom, other = (Atom("Y", ((i, Fraction(1)),), Fraction(0), False) for i in range(2))
    assert all_of([atom]) is any_of([atom]) is atom
    both, either = all_of([atom, other]), any_of([atom, other])
    assert isinstance(both, Junction)
    assert isinstance(either, Junction)
    assert (both.all_of, either.all_of) == (True, False)
    assert both.parts == either.parts == (atom, other)
    assert isinstance(negation(both), Negation)
    assert negation(negation(both)) is both


def test_a_term_whose_variables_cancel_does_not_vary() -> None:
    assert varies(LinearTerm({("X", 0): Fraction(1)}, Fraction(0)))
    assert not varies(LinearTerm({("X", 0): Fraction(0)}, Fraction(3)))
    assert not varies(LinearTerm({}, Fraction(3)))


def test_calculations_wait_for_one_another_without_python_s_stack() -> None:
    def depth(levels: int) -> Step:
        if levels == 0:
            return 0
        below = yield depth(levels - 1)
        return below + 1

    def both() -> Step:
        first = yield depth(3)
        second = yield depth(4)
        return first, second

    assert complete(depth(50_000)) == 50_000
    assert complete(both()) == (3, 4)


def test_what_a_step_raises_ends_the_calculation() -> None:
    def fails() -> Step:
        if varies(LinearTerm({}, Fraction(0))):
            yield
        raise UserError("no")

    def waits() -> Step:
        return (yield fails())

    with pytest.raises(UserError, match="no"):
        complete(waits())
