from __future__ import annotations

import math
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.formats import vnnlib_terms, vnnlib_text
from prunecert.verifiers.formats.vnnlib import Case, Property, UnsupportedPropertyError, parse_property, to_vnnlib
from tests.fuzz.compare import difference
from tests.fuzz.texts import Maker

DECLARED = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)"
BOX = "(assert (>= X_0 0))(assert (<= X_0 1))(assert (>= X_1 0))(assert (<= X_1 1))"


def read(*assertions: str, before: str = "", box: str = BOX) -> Property:
    return parse_property(DECLARED + box + before + "".join(f"(assert {a})" for a in assertions), "f.vnnlib")


def only(prop: Property) -> Case:
    (case,) = prop.cases
    return case


def rows(prop: Property) -> list[list[list[float]]]:
    """Rows of all disjuncts, each with its right-hand side."""
    return [np.column_stack([a, b]).tolist() for a, b in only(prop).spec.disjuncts]


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.sampled_from(["1.0", "2.0"]))
def test_the_sets_are_those_of_an_independent_evaluation(seed: int, version: str) -> None:
    draw = random.Random(seed)
    text = Maker(draw, version).text()
    try:
        prop = parse_property(text)
    except UnsupportedPropertyError:
        return
    assert difference(text, prop, draw) is None, text


@pytest.mark.parametrize("operator", ["<", ">", "<=", ">="])
@pytest.mark.parametrize("negated", [False, True])
def test_a_strict_row_is_closed_for_proofs_and_open_for_counterexamples(operator: str, negated: bool) -> None:
    formula = f"({operator} Y_0 Y_1)"
    spec = only(read(f"(not {formula})" if negated else formula)).spec
    strict = (operator in "<>") != negated
    assert spec.violated_by([2.0, 2.0]) is not strict
    assert OutputSpec(spec.disjuncts).violated_by([2.0, 2.0])
    falls = (operator[0] == ">") != negated
    assert spec.violated_by([np.nextafter(np.float32(2), np.float32(3 if falls else 1)), 2.0])
    assert spec.digest() != OutputSpec(spec.disjuncts).digest() or not strict


def test_strict_bounds_of_inputs() -> None:
    case = only(read("(<= Y_0 0)", box=BOX.replace("<=", "<")))
    assert (case.lower.tolist(), case.upper.tolist()) == ([0, 0], [1, 1])
    assert case.contains([0.0, 0.5])
    assert not case.contains([0.5, 1.0])
    inside = case.nearest(np.ones(2, np.float32))
    assert inside is not None
    assert inside.tolist() == [float(np.nextafter(np.float32(1), np.float32(0)))] * 2
    assert not read("(<= Y_0 0)", "(> X_0 0.5)", "(< X_0 0.5)").cases
    assert not read("(<= Y_0 0)", "(< X_0 0)").cases


def test_robustness_by_strict_inequalities_keeps_its_label() -> None:
    prop = read("(or (> Y_0 Y_1))")
    (instance,) = prop.instances(__import__("pathlib").Path("n.onnx"), "", (2,), 1.0)
    assert instance.label == 1
    assert not instance.spec.violated_by([1.0, 1.0])
    assert "(> Y_0 Y_1)" in to_vnnlib(instance)
    assert parse_property(to_vnnlib(instance)).cases[0].spec.digest() == instance.spec.digest()


@pytest.mark.parametrize(
    ("formula", "same"),
    [
        ("(not (and (> Y_1 Y_0) (> Y_1 5)))", "(or (<= Y_1 Y_0) (<= Y_1 5))"),
        ("(=> (> Y_1 Y_0) (>= Y_0 5))", "(or (<= Y_1 Y_0) (>= Y_0 5))"),
        ("(=> (> Y_1 0) (> Y_0 0) (>= Y_0 Y_1))", "(or (<= Y_1 0) (<= Y_0 0) (>= Y_0 Y_1))"),
        ("(let ((m Y_1)) (or (>= Y_0 m) (>= 3 m)))", "(or (>= Y_0 Y_1) (>= 3 Y_1))"),
        (
            "(let ((m Y_1) (n (<= Y_0 0))) (let ((m (- m 1))) (and n (<= m Y_0))))",
            "(and (<= Y_0 0) (<= (- Y_1 1) Y_0))",
        ),
        ("(let ((Y_0 Y_1)) (<= Y_0 2))", "(<= Y_1 2)"),
        ("(! (<= Y_0 2) :named a)", "(<= Y_0 2)"),
        ("(<= 0 Y_0 Y_1)", "(and (<= 0 Y_0) (<= Y_0 Y_1))"),
        ("(and true (<= Y_0 1) (or false (<= 0.0 1.0)))", "(<= Y_0 1)"),
        ("(<= (/ Y_0 2) 1)", "(<= (* 0.5 Y_0) 1)"),
        ("(<= Y_0 (/ 1 4))", "(<= Y_0 0.25)"),
        ("(AND (<= |Y_0| 1) (<= Y_1 2))", "(and (<= Y_0 1) (<= Y_1 2))"),
        ("(ite (<= 0 1) (<= Y_0 1) (<= Y_1 2))", "(<= Y_0 1)"),
        ("(= Y_0 Y_1 2)", "(and (= Y_0 Y_1) (= Y_1 2))"),
    ],
)
def test_formulas_that_say_the_same(formula: str, same: str) -> None:
    assert only(read(formula)).spec.digest() == only(read(same)).spec.digest()


def test_definitions() -> None:
    before = (
        "(define-fun margin () Real (- Y_1 Y_0))(define-fun twice ((a Real)) Real (* 2 a))(define-const c Real 0.5)"
    )
    assert rows(read("(<= (twice margin) c)", before=before)) == [[[-2, 2, 0.5]]]
    # What a caller calls a is nothing to the function.
    assert rows(read("(let ((a Y_0)) (<= (twice (+ a 1)) 0))", before=before)) == [[[2, 0, -2]]]


def test_commands_of_a_script_are_skipped() -> None:
    plain = read("(<= Y_0 0)").cases[0].spec.digest()
    for text in (
        f"(set-logic QF_LRA)(set-info :source |(a ; b|){DECLARED}{BOX}(assert (<= Y_0 0))(check-sat)(get-model)(exit)",
        f"\ufeff{DECLARED}{BOX}(push)(assert (<= Y_0 9))(pop)(push 1)(assert (<= Y_0 0))(check-sat)(pop 1)",
        f"{DECLARED}{BOX}\r(assert (<= Y_0 0)); (assert (<= Y_0 -1))\r; |\r",
        f'(set-info :note "(assert (<= X_0 0.5))"){DECLARED}{BOX}(assert (<= Y_0 0))(exit)(assert (<= Y_0 -5))',
        (DECLARED + BOX + "(assert (<= Y_0 0))").replace("X_", "x_").replace("Y_", "y_").replace("Real", "real"),
    ):
        case = only(parse_property(text))
        assert case.spec.digest() == plain, text
        assert case.upper.tolist() == [1, 1]


@pytest.mark.parametrize("end", ["(exit)", "(pop 1)"])
def test_what_an_order_leaves_out_is_not_declared(end: str) -> None:
    """A declaration after `exit`, or within what is popped, is none: only then may the order be left aside."""
    before = "(push 1)" if end == "(pop 1)" else ""
    declared = (
        "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 1))(assert (>= X_0 0))(assert (<= Y_0 0))"
    )
    late = "(declare-const Y_1 Real)"
    text = f"{declared}{before}{late}{end}" if before else f"{declared}{end}{late}"
    assert parse_property(text, "t").outputs == 1


@pytest.mark.parametrize(
    "text",
    ["(check-sat)(assert (<= Y_1 0))", "(check-sat)(check-sat)", "(check-sat-assuming (a))", "(reset-assertions)"],
)
def test_several_questions_are_unsupported(text: str) -> None:
    with pytest.raises(UnsupportedPropertyError, match="allowed is one"):
        parse_property(f"{DECLARED}{BOX}(assert (<= Y_0 0)){text}")


def test_rationals_are_exact() -> None:
    case = only(read("(<= (* 3 Y_0) 1)", "(<= X_0 (/ 1 3))", "(>= X_0 (/ 1 10))"))
    assert (case.lower[0], case.upper[0]) == (math.nextafter(0.1, 0), math.nextafter(1 / 3, 1))
    assert not case.contains([case.lower[0], 0.5])
    assert case.contains([0.1, 0.5])
    assert case.contains([1 / 3, 0.5])
    assert not case.contains([case.upper[0], 0.5])
    # A row is multiplied by what makes its coefficients numbers of binary64.
    assert rows(read("(<= (+ (* (/ 1 3) Y_0) Y_1) 2)")) == [[[0.5, 1.5, 3.0]]]
    spec = only(read("(<= Y_0 (/ 1 3))")).spec
    assert spec.violated_by([1 / 3, 0])
    assert not spec.violated_by([math.nextafter(1 / 3, 1), 0])
    assert OutputSpec(spec.disjuncts).violated_by([math.nextafter(1 / 3, 1), 0])


@pytest.mark.parametrize(
    "row",
    [
        "(<= (* 1e-200 1e-200 Y_0) (* 1e-200 1e-200 -500))",
        "(<= (* 5e-324 Y_0) (* 5e-324 -500))",
        "(<= (* 1e200 Y_0) (* -500 1e200))",
        "(<= (/ Y_0 1e300 1e300) (/ -500 1e300 1e300))",
    ],
)
def test_coefficients_neither_vanish_nor_overflow(row: str) -> None:
    spec = only(read(row)).spec
    assert not spec.violated_by([-499.0, 0])
    assert spec.violated_by([-500.0, 0])
    bound = only(read("(<= Y_0 0)", row.replace("Y_0", "X_0").replace("-500", "0.5")))
    assert bound.upper[0] == 0.5


def test_an_input_set_that_is_empty_has_no_case() -> None:
    for prop in (
        read("(<= Y_0 0)", "(>= X_0 2)"),
        read("(<= Y_0 0)", "(or (>= X_0 2) (<= X_1 -1))"),
        read("(<= Y_0 0)", "(>= X_0 (/ 7 3))"),
    ):
        assert not prop.cases
        assert "its input set is empty: X_" in prop.empty
    for formula in ("false", "(<= 1 0)", "(and (<= Y_0 0) (< 0 0))", "(not true)"):
        assert read(formula).empty == "no output can meet what it asserts"


@pytest.mark.parametrize("more", [[], ["true"], ["(<= 0 1)"], ["(or (<= Y_0 1) (<= X_0 2))"]])
def test_a_file_may_leave_the_outputs_free(more: list[str]) -> None:
    case = only(read(*more))
    assert case.any_output
    assert case.spec.violated_by([1e30, -1e30])
    assert not only(read("(<= Y_0 1)")).any_output


@pytest.mark.slow
@pytest.mark.parametrize("head", ["(and ", "(or ", "(not ", "(! ", "(let ((a true)) "])
@pytest.mark.parametrize("depth", [1_000, 9_000, 100_000])
def test_nesting_is_read_or_refused(head: str, depth: int) -> None:
    text = f"{head * depth}(<= Y_0 0){')' * depth}"
    begin = time.process_time()
    if depth > 10_000:
        with pytest.raises(UserError, match="nested over 10000 deep"):
            read(text)
    else:
        assert rows(read(text))
    assert time.process_time() - begin < 10


@pytest.mark.slow
@pytest.mark.parametrize("head", ["(- ", "(+ 1 "])
def test_nested_terms_are_read(head: str) -> None:
    begin = time.process_time()
    assert rows(read(f"(<= {head * 9_000}Y_0{')' * 9_000} 0)"))
    assert time.process_time() - begin < 10


@pytest.mark.parametrize("head", ["(* 1e300 ", "(* 1e-300 "])
def test_nested_products_are_refused_before_they_fill_the_memory(head: str) -> None:
    begin = time.process_time()
    with pytest.raises(UserError, match="too large or too small together for binary64"):
        read(f"(<= {head * 9_000}Y_0{')' * 9_000} 0)")
    assert time.process_time() - begin < 10


@pytest.mark.parametrize(
    "bomb",
    [
        "".join(f"(let ((a{i + 1} (and a{i} a{i})) (b 0)) " for i in range(60)).replace("a0", "(<= Y_0 0)", 2)
        + "a60"
        + ")" * 60,
        " ".join(["(and", *["(xor (<= Y_0 0) (<= Y_1 0))"] * 40, ")"]),
        "(distinct " + " ".join(["Y_0"] * 9_000) + ")",
    ],
)
def test_small_files_that_grow_are_refused_in_time(bomb: str) -> None:
    begin = time.process_time()
    with pytest.raises(UnsupportedPropertyError, match="split the file"):
        read(bomb)
    assert time.process_time() - begin < 30


def test_a_sum_that_doubles_is_read() -> None:
    doubling = "".join(f"(let ((a{i + 1} (+ a{i} a{i}))) " for i in range(60)).replace("a0", "Y_0", 2)
    assert rows(read(f"{doubling}(<= a60 {2**60}){')' * 60}")) == [[[2.0**60, 0.0, 2.0**60]]]


def test_applied_functions_that_double_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vnnlib_terms, "MAX_STEPS", 100_000)
    names = "".join(f"(define-fun f{i} ((a Real)) Real (+ (f{i - 1} a) (f{i - 1} a)))" for i in range(1, 60))
    with pytest.raises(UnsupportedPropertyError, match="over 100000 steps"):
        read("(<= (f59 Y_0) 1)", before="(define-fun f0 ((a Real)) Real a)" + names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('"' * 1_000_001, "over 1000000 bars and quotation marks"),
        (DECLARED + "()" * 400_001, "over 800000 words and parentheses"),
        (DECLARED + "(" * 1_000_000, "nested over 10000 deep"),
    ],
)
def test_what_is_large_is_refused_in_time(text: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A tenth of what may be read; where time grew faster than the text, it would show here, too.
    assert vnnlib_text.MAX_TOKENS == 8_000_000
    monkeypatch.setattr(vnnlib_text, "MAX_TOKENS", 800_000)
    begin = time.process_time()
    with pytest.raises(UserError, match=why):
        parse_property(text)
    assert time.process_time() - begin < 10


def test_control_characters_are_shown_as_text() -> None:
    for text in ("(\x1b[2J\x1b[31massert (<= Y_0 0))", f"{DECLARED}{BOX}(assert (<= (\x1b[31mmax Y_0 1) 0))"):
        with pytest.raises(UserError) as caught:
            parse_property(text, "f.vnnlib")
        assert str(caught.value).isprintable()
        assert "\\x1b[31m" in str(caught.value)


NETWORK = "(declare-network N (declare-input X float32 [1, 2]) (declare-output Y float32 [1,2]))"
BOX_2 = "(assert (and (>= X[0,0] 0) (<= X [0, 0] 1e0) (>= X[0,1] 0.0) (<= X[0, 1] 1)))"


@pytest.mark.parametrize(
    "version", ["", "(vnnlib-version <2.0>)", "( vnnlib-version 2.0 )", "\ufeff(vnnlib-version <2.0>)"]
)
def test_version_2_says_the_same_as_version_1(version: str) -> None:
    prop = parse_property(f"{version}{NETWORK}{BOX_2}(assert (=> (> Y[0,0] 1) (>= Y[0,1] Y[0,0])))")
    like = read("(=> (> Y_0 1) (>= Y_1 Y_0))")
    assert prop.version == "2.0"
    assert only(prop).spec.digest() == only(like).spec.digest()
    assert only(prop).upper.tolist() == only(like).upper.tolist()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (NETWORK + BOX_2 + "(assert (<= Y[0,2] 0))", r"uses Y\[0,2\], which it does not declare"),
        (NETWORK + BOX_2 + "(assert (<= Y[0] 0))", r"uses Y\[0\], which it does not declare"),
        (NETWORK.replace("[1, 2]", "[1,100000000000]"), r"\[1,100000000000\]; allowed are 1 to 10000000 numbers"),
        (NETWORK.replace("[1, 2]", f"[{'9' * 5000}]"), "allowed are 1 to 10000000 numbers"),
        (NETWORK.replace("[1, 2]", "[1, 0]"), "allowed are 1 to 10000000 numbers"),
        (NETWORK.replace("float32", "int8"), "declares X as int8"),
        (NETWORK.replace("Y", "X"), "two different names"),
        (NETWORK.replace("Y", "\u200bY") + BOX_2 + "(assert (<= Y[0, 0] 0.0))", "which it does not declare"),
        (NETWORK + NETWORK, "speaks of two networks"),
        (3 * NETWORK, "several networks"),
        (NETWORK.replace(")(declare-output", ")(declare-hidden H float32 [1])(declare-output"), None),
        ("(vnnlib-version <2.0>)" + DECLARED, r"has no \(declare-network"),
        ("(vnnlib-version <3.0>)" + DECLARED, "version that is not known"),
        (NETWORK + f"(assert {'(or ' * 100_000}(<= Y[0,0] 0.0){')' * 100_000})", "nested over 10000 deep"),
    ],
)
def test_broken_version_2(text: str, why: str | None) -> None:
    if why is None:
        text, why = NETWORK[:-1] + " (declare-hidden H float32 [1]))", "hidden nodes"
    with pytest.raises(UserError, match=why) as caught:
        parse_property(text, "f")
    assert str(caught.value).isprintable()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32))
def test_the_vnnlib_package_reads_version_2_alike(seed: int) -> None:
    """Where the package, which knows no let, no not and no whole numbers, takes a file, so do we, with equal atoms."""
    import vnnlib

    draw = random.Random(seed)
    operators = ["<=", ">=", "<", ">", "=="]
    variables = [f"{draw.choice('XY')}[0,{draw.randrange(2)}]" for _ in range(4)]
    parts = [f"({draw.choice(operators)} {variable} {draw.choice([0.5, 2.25])})" for variable in variables]
    box = BOX_2.replace("1e0", "1.0").replace(" 0)", " 0.0)").replace(" 1)", " 1.0)")
    text = f"(vnnlib-version <2.0>)\n{NETWORK}\n{box}"
    text += f"(assert ({draw.choice(['and', 'or'])} {' '.join(parts)}))"
    query = vnnlib.parse_query_string(text)
    again = "".join(f"(assert {assertion.expr})" for assertion in query.assertions)
    ours, theirs = parse_property(text), parse_property(NETWORK + again)
    assert [case.spec.digest() for case in ours.cases] == [case.spec.digest() for case in theirs.cases]
    assert difference(text, ours, draw) is None
