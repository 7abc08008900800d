from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from prunecert.bench.report.medium import Table, cell, print_sentence

TABLE = Table((("name", False), ("×", True)), [["a|b", "10"], ["[bold]c\nd", "2"]])


def test_markdown_keeps_each_cell_in_its_place() -> None:
    assert TABLE.markdown() == ["| name | × |", "|---|---:|", "| a\\|b | 10 |", "| [bold]c d | 2 |"]
    assert TABLE.only([1]).markdown() == ["| × |", "|---:|", "| 10 |", "| 2 |"]


@given(st.lists(st.text(), min_size=2, max_size=2))
@settings(deadline=None)
def test_no_text_breaks_a_line_or_adds_a_column(row: list[str]) -> None:
    (line,) = Table((("a", False), ("b", False)), [row]).markdown()[2:]
    assert len(line.splitlines()) == 1
    assert len(re.sub(r"\\.", "", line).split("|")) == 4
    assert cell("plain") == "plain"


@pytest.mark.parametrize(("text", "escaped"), [("|", r"\|"), (r"\|", r"\\\|"), (r"a\b", r"a\b"), (r"\\|", r"\\\\\|")])
def test_backslashes_do_not_undo_an_escape(text: str, escaped: str) -> None:
    assert cell(text) == escaped


def test_a_terminal_shows_text_as_it_is() -> None:
    stream = io.StringIO()
    Console(file=stream, width=60).print(TABLE.terminal("a [red]title", styles=["red", "green"]))
    text = stream.getvalue()
    assert "a [red]title" in text
    assert "[bold]c" in text
    assert text.index("a|b") < text.index("[bold]c")


def test_a_heading_in_brackets_is_no_markup() -> None:
    stream = io.StringIO()
    Console(file=stream, width=60).print(Table((("[verified, attacked] %", False),), [["[1, 2]"]]).terminal())
    assert "[verified, attacked] %" in stream.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_sentence_is_broken_between_words_and_on_terminals_alone(terminal: bool) -> None:
    stream = io.StringIO()
    sentence = "hint: answers near their limits become timeouts, [which] --retry asks again: /a/path/to/it."
    print_sentence(Console(file=stream, width=30, force_terminal=terminal, no_color=True), sentence)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert " ".join(lines) == sentence
    assert (len(lines) > 1) is terminal
    assert not terminal or max(map(len, lines)) <= 30
