from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench import timing
from prunecert.bench.results.store import Writer
from prunecert.errors import UserError
from tests.bench.rowkit import all_typed
from tests.fuzz.rows import timing_rows


def test_tables_are_written_once_more_from_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Writer(tmp_path) as writer:
        writer.append(*all_typed(timing_rows()))
    monkeypatch.setattr("prunecert.bench.report.timing_figures.save", lambda summary, folder: [])
    monkeypatch.setattr("prunecert.bench.report.timing_table.html", lambda summary: "<html>")
    assert timing.main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for name in ("timing.html", "timing.json", "timing.md"):
        assert (tmp_path / name).is_file()
        assert f"wrote {tmp_path / name}" in printed


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        timing.main([str(tmp_path / "none")])
