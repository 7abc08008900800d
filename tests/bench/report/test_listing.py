from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from prunecert.bench.report.listing import WHAT, Listing, show
from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from tests.bench.results.test_store import fill


def test_settings_are_readable_in_a_terminal_of_80_columns() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system=None, width=80)
    show(WHAT["settings"](Path()), console, grouped=True)
    printed = stream.getvalue()
    assert max(map(len, printed.splitlines())) <= 80
    for name in VERIFIERS:
        # No name is broken over lines, and each verifier stands once, over its settings.
        settings = VERIFIERS.get(name).known_settings
        assert len(re.findall(rf"^\s*{name}\s*$", printed, re.MULTILINE)) == bool(settings)
        for key in settings:
            assert re.search(rf"^\s*{key}\s+\S", printed, re.MULTILINE)
    assert "steps of the optimiser" in printed


def test_a_runs_folder_can_be_copied_from_a_narrow_terminal() -> None:
    stream = io.StringIO()
    folder = "results/runs/" + "long-" * 20
    rows: Listing = [("run", "suite", "cells"), (folder, "tiny", "3")]
    show(rows, Console(file=stream, force_terminal=True, color_system=None, width=40))
    assert stream.getvalue().splitlines() == [folder, "  tiny · 3 cells"]


def test_terminals_get_a_table() -> None:
    stream = io.StringIO()
    show([("a", "b"), ("[bold]x", "y")], Console(file=stream, force_terminal=True, color_system=None, width=60))
    assert "[bold]x" in stream.getvalue()


def test_what_is_no_run_is_not_listed_and_no_folder_holds_none(tmp_path: Path) -> None:
    assert WHAT["runs"](tmp_path / "none") == [("run", "suite", "profile", "begun", "cells", "summary")]
    (tmp_path / "no-run").mkdir()
    fill(tmp_path / "run", 1)
    assert [row[0] for row in WHAT["runs"](tmp_path)[1:]] == [str(tmp_path / "run")]


def test_a_run_that_can_not_be_read_hides_no_other(tmp_path: Path) -> None:
    fill(tmp_path / "run", 1)
    (tmp_path / "circle").symlink_to("circle")
    rows = {row[0]: row for row in WHAT["runs"](tmp_path)[1:]}
    assert set(rows) == {str(tmp_path / "run"), str(tmp_path / "circle")}
    assert "can't be read" in rows[str(tmp_path / "circle")][-1]
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="it is no folder"):
        WHAT["runs"](file)


def test_whoever_reads_lines_gets_them_with_tabs() -> None:
    stream = io.StringIO()
    show([("a", "b"), ("x", "y")], Console(file=stream))
    assert stream.getvalue() == "a\tb\nx\ty\n"
