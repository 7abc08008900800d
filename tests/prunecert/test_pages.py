from __future__ import annotations

from prunecert import pages


def test_pages_escape_what_they_are_given() -> None:
    assert pages.definitions({"<a>": "&"}) == "<table><tr><th>&lt;a&gt;</th><td>&amp;</td></tr></table>"
    text = pages.table(["<h>"], [["1 < 2"]], "<c>")
    assert "&lt;h&gt;" in text
    assert "1 &lt; 2" in text
    assert "<caption>&lt;c&gt;</caption>" in text
