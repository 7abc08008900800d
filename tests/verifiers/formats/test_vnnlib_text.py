"""The text layer reads what was written, whatever blanks and comments stand between, and runs a script's commands."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.verifiers.formats import vnnlib_text
from prunecert.verifiers.formats.vnnlib_text import (
    Expression,
    UnsupportedPropertyError,
    expressions,
    keyword,
    plain,
    script,
    shown,
)

words = st.text("abXY_019.<=>+-*/", min_size=1, max_size=6)
trees = st.lists(st.recursive(words, lambda inner: st.lists(inner, max_size=4), max_leaves=12), max_size=4)
gaps = st.sampled_from([" ", "\n", "\t \r\n", ' ; (assert " | false\n', ";\n", " ;)\r"])


def written(expression: Expression, draw: random.Random, between: list[str]) -> str:
    if isinstance(expression, str):
        return expression
    parts = [written(part, draw, between) for part in expression]
    return "(" + "".join(draw.choice(between) + part for part in parts) + draw.choice(between) + ")"


@settings(deadline=None, max_examples=40)
@given(trees, st.lists(gaps, min_size=1, max_size=4), st.integers(0, 2**32))
def test_what_is_written_is_read_whatever_stands_between(tree: list[Expression], between: list[str], seed: int) -> None:
    draw = random.Random(seed)
    text = "\ufeff" + "".join(draw.choice(between) + written(part, draw, between) + "\n" for part in tree)
    assert expressions(plain(text, "f"), "f") == tree


def test_a_parenthesis_alone_separates_words() -> None:
    assert expressions("(a(b)c)d(e)", "f") == [["a", ["b"], "c"], "d", ["e"]]


def test_a_symbol_in_bars_is_the_same_symbol() -> None:
    assert expressions(plain("(|X_0| |<=|)", "f"), "f") == [["X_0", "<="]]


def test_nothing_is_found_within_bars_and_strings() -> None:
    text = '(echo "; (check-sat) |") (set-info :a |two (words| |; no comment|) ; |\n(b)'
    first, second, third = expressions(plain(text, "f"), "f")
    assert len(first) == 2
    assert len(second) == 4
    assert third == ["b"]


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=8), st.text(max_size=8))
def test_symbols_in_bars_are_one_token_and_differ_where_they_differ(one: str, other: str) -> None:
    # Bars can't stand within bars; only a text with its bars written out can be compared.
    one, other = one.replace("|", ""), other.replace("|", "")
    tokens = expressions(plain(f"|{one}| |{other}|", "f"), "f")
    assert len(tokens) == 2
    assert (tokens[0] == tokens[1]) == (one == other)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(a))(b", "never opened"),
        ("((a)", "1 parentheses are not closed"),
        ("(((", "3 parentheses are not closed"),
    ],
)
def test_parentheses_that_do_not_match(text: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        expressions(text, "f")


def test_sizes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vnnlib_text, "MAX_DEPTH", 5)
    monkeypatch.setattr(vnnlib_text, "MAX_TOKENS", 20)
    monkeypatch.setattr(vnnlib_text, "MAX_QUOTES", 4)
    assert len(expressions("((((a))))" + "b " * 11, "f")) == 12
    with pytest.raises(UserError, match="nested over 5 deep"):
        expressions("(" * 6 + ")" * 6, "f")
    with pytest.raises(UserError, match="over 20 words"):
        expressions("((((a))))" + "b " * 12, "f")
    assert plain("|a| |b|", "f").split() == ["a", "b"]
    with pytest.raises(UserError, match="over 4 bars"):
        plain('|a| |b| "', "f")


def test_a_keyword_is_the_first_word_in_lower_case() -> None:
    assert keyword(["ASSERT", "a"]) == "assert"
    assert keyword([]) == keyword([["assert"]]) == keyword("assert") == ""


def statements(text: str) -> list[Expression]:
    return list(script(expressions(text, "f"), "f"))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 99).map(lambda n: f"(assert {n})"), max_size=5),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3), st.integers(0, 3)), max_size=3),
)
def test_what_is_popped_was_never_said(asserts: list[str], detours: list[tuple[int, int, int]]) -> None:
    parts = list(asserts)
    for place, levels, count in detours:
        inner = "".join(f"(push)(assert wrong{i})(pop 1)(assert wrong)" for i in range(count))
        parts.insert(min(place, len(parts)), f"(push {levels})(assert wrong){inner}(pop {levels})")
    assert statements("".join(parts)) == expressions("".join(asserts), "f")


def test_a_push_that_is_not_popped_counts() -> None:
    assert statements("(assert a)(push 2)(assert b)(pop)") == [["assert", "a"]]
    assert statements("(assert a)(push)(assert b)(push)(assert c)(pop 2)") == [["assert", "a"]]
    assert statements("(assert a)(push 2)(assert b)") == [["assert", "a"], ["assert", "b"]]


def test_the_question_is_what_stands_at_its_check_sat() -> None:
    text = "(set-logic QF_LRA)(push)(assert a)(Check-Sat)(get-model)(pop)(exit)(assert b)(check-sat)"
    assert statements(text) == [["assert", "a"]]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(assert a)(check-sat)(check-sat)", "several questions"),
        ("(assert a)(check-sat)(assert b)", "several questions"),
        ("(check-sat-assuming (a))", "check-sat-assuming"),
        ("(reset)", "'reset'"),
    ],
)
def test_other_questions_are_unsupported(text: str, why: str) -> None:
    with pytest.raises(UnsupportedPropertyError, match=why):
        statements(text)


@pytest.mark.parametrize("text", ["(pop)", "(push 2)(pop 3)", "(push -1)", "(push 1 2)", "(push 1000)"])
def test_levels_that_can_not_be(text: str) -> None:
    with pytest.raises(UserError, match=r"has no push before it|allowed is \(push 1\)"):
        statements(text)


@settings(deadline=None, max_examples=40)
@given(trees)
def test_what_is_shown_is_short_and_printable(tree: list[Expression]) -> None:
    text = shown([*tree, "\x1b[2J\n", ["a"] * 50])
    assert len(text) <= 80
    assert text.isprintable()
    assert shown(["<=", "X_0", ["+", "1", ["*", ["-", "2"]]]]) == "(<= X_0 (+ 1 (* (...))))"
