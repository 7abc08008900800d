"""Terms and formulas mean what SMT-LIB says: compared with the same expressions evaluated in rationals."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.verifiers.formats import vnnlib_terms
from prunecert.verifiers.formats.vnnlib_formulas import Atom, Formula, Variable
from prunecert.verifiers.formats.vnnlib_terms import TermEvaluator
from prunecert.verifiers.formats.vnnlib_text import UnsupportedPropertyError, expressions
from tests.verifiers.formats.formulakit import holds

COUNT = 3


def variable(word: str) -> Variable | None:
    match = re.fullmatch(rf"([XY])_([0-{COUNT - 1}])", word)
    return (match[1], int(match[2])) if match else None


def evaluator(*definitions: str) -> TermEvaluator:
    subject = TermEvaluator("f", variable, lambda: "declared are X_0 to Y_2")
    for text in definitions:
        (statement,) = expressions(text, "f")
        subject.define(statement)
    return subject


def formula(text: str, *definitions: str) -> Formula:
    (expression,) = expressions(text, "f")
    return evaluator(*definitions).formula(expression)


#: A term as text, and its value at a point.
Term = tuple[str, Callable[[Sequence[Fraction]], Fraction]]
numbers = st.sampled_from(["0", "1", "2.5", "3e-1", "0.1"])


def total(values: Sequence[Fraction]) -> Fraction:
    return sum(values, Fraction(0))


def _grown(inner: st.SearchStrategy[Term]) -> st.SearchStrategy[Term]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        several.map(lambda ts: (f"(+ {' '.join(t for t, _ in ts)})", lambda y: total([f(y) for _, f in ts]))),
        several.map(
            lambda ts: (
                f"(- {' '.join(t for t, _ in ts)})",
                lambda y: -ts[0][1](y) if len(ts) == 1 else ts[0][1](y) - total([f(y) for _, f in ts[1:]]),
            )
        ),
        st.tuples(numbers, inner, st.booleans()).map(
            lambda p: (f"(* {p[0]} {p[1][0]})" if p[2] else f"(* {p[1][0]} {p[0]} 2)", _scaled(p[0], p[1][1], p[2]))
        ),
        st.tuples(inner, numbers.filter(lambda n: n != "0")).map(
            lambda p: (f"(/ {p[0][0]} {p[1]} 3)", lambda y: p[0][1](y) / Fraction(float(p[1])) / 3)
        ),
        # Within, the name stands for the term; the Y_0 that it hides is the variable again behind.
        st.tuples(inner, inner).map(
            lambda p: (
                f"(+ (let ((Y_0 {p[0][0]}) (t Y_0)) (- Y_0 t)) {p[1][0]})",
                lambda y: p[0][1](y) - y[0] + p[1][1](y),
            )
        ),
    )


def _scaled(
    number: str, inner: Callable[[Sequence[Fraction]], Fraction], once: bool
) -> Callable[[Sequence[Fraction]], Fraction]:
    return lambda y: inner(y) * Fraction(float(number)) * (1 if once else 2)


def _coordinate(index: int) -> Term:
    return f"Y_{index}", lambda y: y[index]


def _constant(number: str) -> Term:
    return number, lambda _: Fraction(float(number))


terms = st.recursive(st.integers(0, COUNT - 1).map(_coordinate) | numbers.map(_constant), _grown, max_leaves=6)
points = st.lists(st.fractions(-2, 2, max_denominator=4), min_size=COUNT, max_size=COUNT)
COMPARISONS: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "<=": lambda a, b: a <= b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
    "=": lambda a, b: a == b,
    "distinct": lambda a, b: a != b,
}


@settings(deadline=None, max_examples=60)
@given(terms, terms, points)
def test_comparisons_are_those_of_the_terms_values(left: Term, right: Term, y: list[Fraction]) -> None:
    gap = left[1](y) - right[1](y)
    for operator, compare in COMPARISONS.items():
        assert holds(formula(f"({operator} {left[0]} {right[0]})"), y) == compare(gap, Fraction(0))
        # Where both sides are equal strict and weak ones part; the shift is exact, as a quotient of whole numbers.
        if max(gap.numerator.bit_length(), gap.denominator.bit_length()) < 53:
            shift = f"(/ {abs(gap.numerator)} {gap.denominator})"
            low, high = (right[0], left[0]) if gap >= 0 else (left[0], right[0])
            assert holds(formula(f"({operator} {high} (+ {low} {shift}))"), y) == compare(gap, gap)


A, B, C = "(<= Y_0 0)", "(< Y_1 0)", "(>= Y_2 0)"
TABLES: list[tuple[str, Callable[[bool, bool, bool], bool]]] = [
    (f"(and {A} {B} {C})", lambda a, b, c: a and b and c),
    (f"(or {A} {B} {C})", lambda a, b, c: a or b or c),
    (f"(not {A})", lambda a, b, c: not a),
    (f"(=> {A} {B})", lambda a, b, c: not a or b),
    (f"(=> {A} {B} {C})", lambda a, b, c: not a or (not b or c)),
    (f"(xor {A} {B})", lambda a, b, c: a != b),
    (f"(xor {A} {B} {C})", lambda a, b, c: (a != b) != c),
    (f"(ite {A} {B} {C})", lambda a, b, c: b if a else c),
    (f"(ite true {B} {C})", lambda a, b, c: b),
    (f"(= {A} {B} {C})", lambda a, b, c: a == b == c),
    (f"(distinct {A} {B})", lambda a, b, c: a != b),
    (f"(! (not (or {A} (not {B}))) :named n)", lambda a, b, c: not (a or not b)),
    (f"(let ((p {A}) (q {B})) (let ((p q) (q p)) (and p (not q))))", lambda a, b, c: b and not a),
    ("(<= Y_0 0 Y_2)", lambda a, b, c: a and c),
    ("(> 0 Y_1)", lambda a, b, c: b),
]


@pytest.mark.parametrize(("text", "expected"), TABLES, ids=[text for text, _ in TABLES])
def test_truth_tables(text: str, expected: Callable[[bool, bool, bool], bool]) -> None:
    value = formula(text)
    for signs in itertools.product((-1, 0, 1), repeat=3):
        y = [Fraction(sign) for sign in signs]
        assert holds(value, y) == expected(y[0] <= 0, y[1] < 0, y[2] >= 0)


def test_a_function_sees_its_parameters_and_what_was_defined_before_it() -> None:
    double = "(define-fun double ((t Real)) Real (+ t t))"
    four = "(define-fun four ((s Real)) Real (double (double s)))"
    three = "(define-const three Real 3)"
    value = formula("(<= (let ((s Y_1)) (four Y_0)) (* three Y_2))", double, four, three)
    for y in itertools.product(map(Fraction, range(-2, 3)), repeat=3):
        assert holds(value, y) == (4 * y[0] <= 3 * y[2])
    with pytest.raises(UserError, match="'s' is neither a number"):
        # Names of `let` round a call mean nothing within.
        formula("(let ((s Y_1)) (<= (bad Y_0) 0))", "(define-fun bad ((t Real)) Real (+ t s))")
    with pytest.raises(UserError, match="not understood"):
        evaluator("(define-fun early ((t Real)) Real t)", "(define-const a Real (late 1))")


@pytest.mark.parametrize(
    "text",
    [
        "(define-const Y_0 Real 1)",
        "(define-const AND Real 1)",
        "(define-const 1e5 Real 1)",
        "(define-fun f)",
        "(define-fun f (t) Real t)",
    ],
)
def test_definitions_that_can_not_be(text: str) -> None:
    with pytest.raises(UserError, match=r"which has a meaning already|is not understood"):
        evaluator(text)


def test_nothing_is_defined_twice() -> None:
    with pytest.raises(UserError, match="has a meaning already"):
        evaluator("(define-const a Real 1)", "(define-const a Real 2)")


@pytest.mark.parametrize(
    ("text", "why", "kind"),
    [
        ("(<= (* Y_0 Y_1) 0)", "multiplies variables", UnsupportedPropertyError),
        ("(<= (/ 1 Y_0) 0)", "divides by a variable", UnsupportedPropertyError),
        ("(<= (/ Y_0 (- 1 1)) 0)", "divides by 0", UnsupportedPropertyError),
        ("(<= (+ X_0 Y_0) 0)", "mixes inputs and outputs", UnsupportedPropertyError),
        ("(<= X_0 X_1)", "ties several inputs together", UnsupportedPropertyError),
        ("(<= (abs Y_0) 0)", "uses 'abs'", UnsupportedPropertyError),
        ("(exists ((z Real)) (<= Y_0 z))", "uses 'exists'", UnsupportedPropertyError),
        ("(not (forall ((z Real)) (<= Y_0 z)))", "uses 'forall'", UnsupportedPropertyError),
        ("(<= (ite (<= Y_0 0) Y_1 Y_2) 0)", "'ite' between terms", UnsupportedPropertyError),
        ("(<= Y_0 Y_9)", "which it does not declare; declared are X_0 to Y_2", UserError),
        ("(+ Y_0 1)", "the formula", UserError),
        ("(<= (<= Y_0 0) 0)", "a formula stands for a number", UserError),
        ("(and Y_0 true)", "the formula", UserError),
        ("(<= Y_0)", "not understood", UserError),
        ("(not)", "not understood", UserError),
        ("(let ((a)) true)", "not understood", UserError),
        ("((<= Y_0 0))", "not understood", UserError),
    ],
)
def test_what_is_not_taken_is_one_sentence(text: str, why: str, kind: type[UserError]) -> None:
    with pytest.raises(UserError, match=why) as caught:
        formula(text)
    assert type(caught.value) is kind
    assert len(str(caught.value).splitlines()) == 1


def test_inputs_whose_coefficients_cancel_are_no_matter() -> None:
    assert formula("(<= (- (+ X_0 X_1) X_1 X_0) 0)") is True
    bound = formula("(<= (- (+ X_0 Y_1) Y_1) 2)")
    assert isinstance(bound, Atom)
    assert (bound.letter, bound.terms, bound.limit) == ("X", ((0, Fraction(1)),), Fraction(2))


def test_steps_and_digits_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = "(define-fun d{0} ((t Real)) Real (d{1} (d{1} t)))"
    doubling = ["(define-fun d0 ((t Real)) Real (+ t t))", *(twice.format(i + 1, i) for i in range(4))]
    assert formula("(<= (d4 Y_0) 1)", *doubling)
    monkeypatch.setattr(vnnlib_terms, "MAX_STEPS", 100)
    with pytest.raises(UnsupportedPropertyError, match="over 100 steps"):
        formula("(<= (d4 Y_0) 1)", *doubling)
    monkeypatch.undo()
    with pytest.raises(UserError, match="too large or too small together"):
        formula(f"(<= (* Y_0 {' '.join(['1e300'] * 5)}) 1)")
