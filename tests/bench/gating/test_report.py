from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from prunecert.bench.gating.report import WRITTEN, GateReport, write
from prunecert.errors import UserError
from tests.bench.gatekit import result


def refuse(report: GateReport) -> None:
    with pytest.raises(UserError, match="no baseline"), report.refusals():
        raise UserError("no baseline")


def test_files_are_those_that_a_refusal_takes_away(tmp_path: Path) -> None:
    assert set(write(result(), tmp_path / "new")) == {"junit.xml", *WRITTEN}
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"junit.xml", *WRITTEN}
    assert json.loads((tmp_path / "new" / "gate.json").read_text())["exit_code"] == 1


def test_a_refusal_replaces_an_earlier_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = GateReport(None, {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "page.md")})
    report.lies_in(tmp_path)
    write(result(), tmp_path / "gate")
    refuse(report)
    assert [path.name for path in (tmp_path / "gate").iterdir()] == ["junit.xml"]
    assert "no baseline" in (tmp_path / "gate" / "junit.xml").read_text()
    assert "no baseline" in (tmp_path / "page.md").read_text()
    assert capsys.readouterr().out.startswith("::error title=bench.gate::no baseline")


def test_a_mistyped_run_is_not_made_into_a_folder_and_a_report_folder_is(tmp_path: Path) -> None:
    report = GateReport(None, {})
    report.lies_in(tmp_path / "tpyo")
    refuse(report)
    assert not (tmp_path / "tpyo").exists()
    refuse(GateReport(None, {}))
    refuse(GateReport(tmp_path / "a" / "report", {}))
    assert (tmp_path / "a" / "report" / "junit.xml").is_file()


def test_a_report_named_goes_before_the_runs_own_folder_and_may_be_no_file(tmp_path: Path) -> None:
    report = GateReport(tmp_path / "named", {})
    report.lies_in(tmp_path / "run")
    assert report.folder == tmp_path / "named"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="it is a file; give a folder"):
        GateReport(tmp_path / "file", {})


def test_a_result_is_told_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, screen = tmp_path / "page.md", io.StringIO()
    report = GateReport(tmp_path / "report", {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(page)})
    report.tell(result(), Console(file=screen, width=200))
    assert f"in {tmp_path / 'report'}" in screen.getvalue()
    assert page.read_text() == (tmp_path / "report" / "gate.md").read_text()
    assert "::error title=bench.gate" in capsys.readouterr().out
