from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.gating import github
from prunecert.bench.gating.result import CaseState, GateCase, GateResult
from tests.bench import gatekit as kit
from tests.bench.gatekit import (
    result,
)


def test_commands_are_escaped() -> None:
    line = github.annotation("error", "a: b, c\n", "100 % of it\r\nfailed: yes, all")
    assert line == "::error title=a%3A b%2C c%0A::100 %25 of it%0D%0Afailed: yes, all"


@given(st.text(), st.text())
def test_nobody_smuggles_in_a_command(title: str, message: str) -> None:
    line = github.annotation("error", title, message)
    assert "\n" not in line
    assert "\r" not in line
    head, _, text = line.removeprefix("::error title=").partition("::")
    assert ":" not in head
    for sign, code in (("\n", "%0A"), ("\r", "%0D"), ("%", "%25")):
        text = text.replace(code, sign)
    assert text == message


def test_failures_are_errors_and_no_more_than_github_shows() -> None:
    lines = github.commands(result())
    assert len(lines) == 1
    assert lines[0].startswith(f"::error title=bench.gate%3A {kit.NAME}%2C images::3 proved images lost, 3 gained")
    assert "%0Aimage 0: was unsat by ibp, now sat by pgd%0A" in lines[0]
    cases = [GateCase("c", f"n{i}", CaseState.FAIL, "m", [f"image {j}" for j in range(30)]) for i in range(14)]
    lines = github.commands(GateResult([], cases, {}))
    assert len(lines) == github.SHOWN
    assert lines[-1] == "::error title=bench.gate::and 5 more; see the summary"
    assert lines[0].endswith("image 9%0A… and 20 more")
    warning = github.commands(GateResult([], [GateCase("c", "time", CaseState.WARN, "slow")], {}))
    assert warning == ["::warning title=bench.gate%3A c%2C time::slow"]


def test_the_summary_is_appended_and_never_larger_than_github_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "summary.md"
    assert github.append_summary({}, "x") is None
    for nowhere in ("/nonexistent/x.md", str(tmp_path), "a\0b", str(tmp_path / ("n" * 300))):
        assert github.append_summary({"GITHUB_STEP_SUMMARY": nowhere}, "x") is None
        assert "warning: the summary of the step is left out" in capsys.readouterr().err
    environment = {"GITHUB_STEP_SUMMARY": str(path)}
    for text in ("eins\n", "zwei\n"):
        assert github.append_summary(environment, text) == path
    assert path.read_text() == "eins\nzwei\n"
    monkeypatch.setattr(github, "SUMMARY_LIMIT", 200)
    github.append_summary(environment, "drei ✅\n" * 50)
    assert path.stat().st_size <= 200
    assert path.read_text().endswith("drei ✅\n\nCut off here: the summary of a step may have 1 MiB.\n")
    before = path.read_text()
    github.append_summary(environment, "vier\n" * 50)
    assert path.read_text() == before
