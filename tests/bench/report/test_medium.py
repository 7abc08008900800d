from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from prunecert.bench.report.medium import Table, cell

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
