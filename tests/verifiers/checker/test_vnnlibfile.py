from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prunecert.verifiers.checker import vnnlibfile
from prunecert.verifiers.checker.files import UnreadableError
from prunecert.verifiers.checker.vnnlibfile import Case, _alternatives, read_property
from prunecert.verifiers.formats.vnnlib import read_property as read_otherwise
from tests.verifiers.checker import kit


def case(*asserts: str, box: tuple[tuple[float, float], ...] = ((0.0, 1.0), (-1.0, 0.5)), outputs: int = 3) -> Case:
    (single,) = read_property(kit.text(box, outputs, *asserts), len(box), outputs)
    return single


def unsafe(single: Case, y: list[float]) -> bool:
    rows = single.rows @ np.array(y)
    return any(bool(np.all(rows[a:b] <= single.limits[a:b])) for a, b in single.spans)


def test_robustness_is_read_as_rows() -> None:
    single = case("(or (and (>= Y_0 Y_2)) (and (>= Y_1 Y_2)))")
    assert single.rows.tolist() == [[-1, 0, 1], [0, -1, 1]]
    assert (single.limits.tolist(), single.spans) == ([0.0, 0.0], [(0, 1), (1, 2)])
    assert (single.lower.tolist(), single.upper.tolist()) == ([0.0, -1.0], [1.0, 0.5])


@pytest.mark.parametrize(
    ("formula", "inside", "outside"),
    [
        ("(<= Y_0 1.5)", [1.5, 0, 0], [1.6, 0, 0]),
        ("(< 2.0 Y_1)", [0, 2.5, 0], [0, 1.5, 0]),
        ("(>= (+ Y_0 (* 2.0 Y_1) -1) Y_2)", [1, 1, 2], [1, 1, 2.5]),
        ("(<= (- Y_0 Y_1 Y_2) (- 1))", [0, 1, 0], [0, 0.5, 0]),
        ("(and (<= Y_0 0) (or (<= Y_1 0) (<= Y_2 0)))", [0, 1, 0], [0, 1, 1]),
        ("(or (and (<= Y_0 0) (<= Y_1 0)) (>= Y_2 1))", [1, 1, 1], [0, 1, 0]),
        ("(<= (* Y_0 0.5) (+ Y_1 Y_1))", [4, 1, 0], [4.5, 1, 0]),
    ],
)
def test_formulas_mean_what_they_say(formula: str, inside: list[float], outside: list[float]) -> None:
    single = case(formula)
    assert unsafe(single, inside)
    assert not unsafe(single, outside)


@given(
    kind=st.sampled_from(["<=", "<", ">=", ">"]),
    value=st.floats(allow_nan=False, allow_infinity=False),
    variable=st.sampled_from(["X_0", "Y_12"]),
)
@example(kind=">=", value=-0.0, variable="X_0")
def test_the_usual_form_means_what_any_other_form_means(kind: str, value: float, variable: str) -> None:
    number = format(Decimal(repr(value)), "f")
    ((usual,),) = _alternatives([kind, variable, number])
    for other in (
        [kind, ["+", variable], number],
        [kind, variable, ["*", "1", number]],
        [kind, ["-", variable, number], "0"],
    ):
        assert _alternatives(other) == [[usual]]
    turned = {"<": ">", ">": "<"}[kind[0]] + kind[1:]
    assert _alternatives([turned, number, variable]) == [[usual]]


def test_constraints_on_inputs_hold_wherever_they_stand() -> None:
    # One asserted by itself, one that all alternatives have, one that a single alternative has.
    text = kit.text([(0.0, 1.0)], 2, "(<= X_0 0.75)", "(or (and (>= X_0 0.5) (<= Y_0 0)) (<= Y_1 0))", "(<= Y_0 Y_1)")
    narrow, wide = read_property(text, 1, 2)
    assert [(one.lower[0], one.upper[0]) for one in (narrow, wide)] == [(0.5, 0.75), (0.0, 0.75)]
    # Rows come in the order of the file.
    assert narrow.rows.tolist() == [[1, 0], [1, -1]]
    exact = [
        sorted(name for atom in (*one.shared, *atoms) for name in atom[0])
        for one in (narrow, wide)
        for atoms in one.alternatives
    ]
    assert exact == [["X_0", "X_0", "X_0", "X_0", "Y_0", "Y_0", "Y_1"], ["X_0", "X_0", "X_0", "Y_0", "Y_1", "Y_1"]]


def test_several_assertions_hold_together() -> None:
    single = case("(or (<= Y_0 0) (<= Y_1 0))", "(<= Y_2 0)")
    assert [single.rows[a:b].tolist() for a, b in single.spans] == [[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 1]]]


def test_boxes_in_alternatives_become_cases_and_empty_ones_are_left_out() -> None:
    text = kit.text(
        [(0.0, 1.0)],
        1,
        "(or (and (<= X_0 0.5) (<= Y_0 0)) (and (>= X_0 0.25) (<= Y_0 1)) (and (<= X_0 -1) (<= Y_0 2)))",
    )
    cases = read_property(text, 1, 1)
    assert [(one.lower[0], one.upper[0], one.limits[0]) for one in cases] == [(0.0, 0.5, 0.0), (0.25, 1.0, 1.0)]


def test_bounds_that_no_float_has_are_rounded_outwards() -> None:
    text = kit.text([(0.0, 1.0)], 1, "(>= (* 3 X_0) 1)", "(<= (* 3.0 X_0) 2)", "(<= Y_0 0)")
    (single,) = read_property(text, 1, 1)
    assert 3 * np.longdouble(single.lower[0]) <= 1
    assert single.lower[0] > 0.3333
    assert 3 * np.longdouble(single.upper[0]) >= 2
    assert single.upper[0] < 0.6667


@pytest.mark.parametrize("family", ["conv-skip", "fc"])
def test_questions_are_read_as_the_other_reader_reads_them(family: str) -> None:
    for files in kit.questions(family):
        expected = read_otherwise(files.vnnlib)
        (single,) = read_property(files.vnnlib.read_bytes(), expected.inputs, expected.outputs)
        (other,) = expected.cases
        assert np.array_equal(single.lower, other.lower)
        assert np.array_equal(single.upper, other.upper)
        for (first, last), (rows, limits) in zip(single.spans, other.spec.disjuncts, strict=True):
            assert np.array_equal(single.rows[first:last], rows)
            assert np.array_equal(single.limits[first:last], limits)


@pytest.mark.parametrize(
    "formula",
    [
        "(<= (* Y_0 Y_1) 0)",
        "(<= (+ X_0 Y_1) 0)",
        "(<= (+ X_0 X_1) 0)",
        "(= Y_0 0)",
        "(not (<= Y_0 0))",
        "(<= Y_0 nan)",
        "(<= Y_0 1e)",
        "(<= Y_0 0 1)",
        "(<= Y_9 0)",
        "(<= Y_00 0)",
        "(<= Y_0 1e999)",
        "(<= (* 0.1 0.1 Y_0) 0)",
        "(<= (+) 0)",
        "(<= |Y_0| 0)",
        "(<= 0 0)",
        "Y_0",
        "(" * 70 + "<= Y_0 0" + ")" * 70,
    ],
)
def test_what_is_not_taken_is_refused(formula: str) -> None:
    with pytest.raises((ValueError, OverflowError, IndexError)):
        case(formula)


@pytest.mark.parametrize(
    "text",
    [
        "(assert (<= Y_0 0))",
        "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 1))(assert (<= Y_0 0))",
        "(declare-const X_0 Real)(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= Y_0 0))",
        "(declare-const X_0 Int)(declare-const Y_0 Real)",
        "(declare-const X_0 Real)(declare-const Y_0 Real)(check-sat)",
        "(declare-const X_0 Real)(declare-const Y_0 Real))",
        "(declare-const X_0 Real)(declare-const Y_0 Real",
    ],
)
def test_files_that_are_not_whole_are_refused(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        read_property(text.encode(), 1, 1)


def test_alternatives_are_bounded() -> None:
    with pytest.raises(ValueError, match="too many alternatives"):
        case(*["(or (<= Y_0 0) (<= Y_1 0) (<= Y_2 0))"] * 20)


def test_comments_and_declared_functions_are_taken(tmp_path: Path) -> None:
    text = (
        b"; (assert\n(declare-fun X_0 () Real)(declare-fun Y_0 () Real)(assert (and (<= X_0 1)(>= X_0 0)(<= Y_0 .5)))"
    )
    (single,) = read_property(text, 1, 1)
    assert (single.upper[0], single.limits[0]) == (1.0, 0.5)


def test_a_comment_ends_with_its_line_however_that_ends() -> None:
    content = kit.text([(0.0, 1.0)], 2, "(<= Y_0 0)") + b" ; a remark\r(assert (<= Y_1 0))"
    (both,) = read_property(content, 1, 2)
    assert both.rows.tolist() == [[1, 0], [0, 1]]


def test_digits_of_other_scripts_are_no_numbers() -> None:
    with pytest.raises(UnreadableError, match="isn't taken"):
        case("(<= Y_0 \u0663)")


@pytest.mark.parametrize("joined", ["or", "and", "assert"])
def test_alternatives_are_not_expanded_beyond_what_is_taken(joined: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short text can't ask for much memory: of many formulas, each allowed, the first few are enough to refuse it."""
    monkeypatch.setattr(vnnlibfile, "_MOST_ATOMS", 100)
    conjunctions = []
    conjunction = vnnlibfile._conjunction

    def counted(factors: list[list[list[vnnlibfile.Atom]]]) -> list[list[vnnlibfile.Atom]]:
        conjunctions.append(len(factors))
        return conjunction(factors)

    monkeypatch.setattr(vnnlibfile, "_conjunction", counted)
    block = f"(and {4 * '(or (<= Y_0 1) (>= Y_1 2))'})"
    formulas = 1000 * [block] if joined == "assert" else [f"({joined} {1000 * block})"]
    with pytest.raises(UnreadableError, match="too many alternatives"):
        case(*formulas, box=((0.0, 1.0),))
    assert conjunctions == [4, 4]


def test_constraints_times_outputs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vnnlibfile, "_MOST_ENTRIES", 5)
    with pytest.raises(UnreadableError, match="too many constraints on outputs"):
        case("(or (<= Y_0 1) (>= Y_1 2))")
