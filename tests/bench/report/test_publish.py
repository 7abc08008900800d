from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from prunecert.bench.report import figures
from prunecert.bench.report.publish import write_all
from prunecert.bench.results.store import Writer
from tests.bench import summarykit
from tests.bench.rowkit import all_typed


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is tests/bench/report/test_figures.py's."""
    monkeypatch.setattr(figures, "save", lambda summary, folder: [])
    monkeypatch.setattr(figures, "inline_svg", lambda summary, name: None)


def run(folder: Path, images: int) -> Path:
    with Writer(folder) as writer:
        writer.append(*all_typed([summarykit.session(summarykit.cell(images=images)), *summarykit.everything()]))
    return folder


def test_summary_table_and_page_say_the_same(tmp_path: Path) -> None:
    stream = io.StringIO()
    summary, paths = write_all(run(tmp_path, 6), Console(file=stream, width=250))
    assert [path.name for path in paths] == ["report.html", "summary.json", "table.md"]
    assert json.loads((tmp_path / "summary.json").read_text()) == json.loads(json.dumps(summary))
    for text in (stream.getvalue(), (tmp_path / "table.md").read_text(), (tmp_path / "report.html").read_text()):
        assert "33.3 (9.7–70.0)" in text


def test_a_part_writes_nothing_before_all_parts_are_there(tmp_path: Path) -> None:
    summary, paths = write_all(run(tmp_path, 9), Console(file=io.StringIO(), width=250), part=True)
    assert not summary["finished"]
    assert paths == []
    assert [path.name for path in tmp_path.glob("*.*") if "instances" not in path.name] == []
    # The last part does, and so does a whole run that was stopped.
    _, paths = write_all(tmp_path, Console(file=io.StringIO(), width=250))
    assert len(paths) == 3
