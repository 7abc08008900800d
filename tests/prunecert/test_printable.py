"""Foreign text is shown on one line, whatever it holds, and not without end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.printable import printable, say, shortened


@given(st.text(st.characters()))
def test_printable_text_is_printable_and_says_what_was_there(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    if text.isprintable():
        assert shown == text


@given(st.text(st.characters(), max_size=3000))
def test_shortened_text_is_short(text: str) -> None:
    assert shortened(text).isprintable()
    # An escape has at most ten characters.
    assert len(shortened(text, 50)) <= 10 * 100


def test_what_is_said_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[31m\nb\udce9")
    assert capsys.readouterr().out == "a\\x1b[31m\\nb\\udce9\n"
