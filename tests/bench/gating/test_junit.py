# ruff: noqa: E501 — the tables stand here as they are printed
from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from prunecert.bench.gating import github, junit, markdown, series, table
from prunecert.bench.gating.compare import compare
from prunecert.bench.gating.result import Case, GateResult, State
from prunecert.bench.schema.gate import RuleSet
from tests.bench import gatekit as kit
from tests.bench.gatekit import BROKEN, ERROR, MISCLASSIFIED, PROVED, SEARCHED, SLOW, TIMEOUT, snapshot

OTHER_NAME = "cnn-small_ibp_eps2_dense_x1_s0"
NASTY = "<b>|`x`\n::error::boo\x00,:%"


def result() -> GateResult:
    """A red gate: one cell that lost and gained images, one that fared well."""
    base = snapshot(
        kit.cell(PROVED, SEARCHED, SLOW, BROKEN, TIMEOUT, MISCLASSIFIED, *[PROVED] * 94),
        kit.cell(*[PROVED] * 3, TIMEOUT, name=OTHER_NAME),
    )
    run = snapshot(
        kit.cell(BROKEN, TIMEOUT, TIMEOUT, PROVED, PROVED, PROVED, *[PROVED] * 94, onnx=kit.OTHER),
        kit.cell(*[PROVED] * 4, name=OTHER_NAME, onnx=kit.OTHER),
    )
    return compare(base, run, RuleSet())


def crashed() -> GateResult:
    base = snapshot(kit.cell(PROVED, SEARCHED))
    return compare(base, snapshot(kit.cell(PROVED, ERROR, onnx=kit.OTHER)), RuleSet())


TERMINAL = """\

 cell                            result    n                   verified   95 % interval  McNemar p  lost  gained                   attacked                      clean   time
 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
 cnn-small_ibp_eps2_lwm_x10_s0   FAIL    100    97.0 → 97.0 % (+0.0 pp)    -5.1 to +5.1          1     3       3    98.0 → 99.0 % (+1.0 pp)   99.0 → 100.0 % (+1.0 pp)  ×1.00
 cnn-small_ibp_eps2_dense_x1_s0  PASS      4  75.0 → 100.0 % (+25.0 pp)  -27.6 to +60.9          1     0       1  100.0 → 100.0 % (+0.0 pp)  100.0 → 100.0 % (+0.0 pp)      –

FAIL: cnn-small_ibp_eps2_lwm_x10_s0, images: 3 proved images lost, 3 gained: 1 now sat or misclassified (0 allowed), 1 now undecided, proved in good time before (0 allowed), 1 now undecided, proved near the limit before (1 allowed)
  image 0: was unsat by ibp, now sat by pgd
  image 1: was unsat by bab, now timeout
  image 2: was unsat by bab (took 60 % of its limit), now timeout
SKIP: cnn-small_ibp_eps2_dense_x1_s0, time: not compared: only 4 images that both classify correctly
gained: cnn-small_ibp_eps2_lwm_x10_s0: 3 images newly proved
  image 3: was sat by pgd, now unsat by ibp
  image 4: was timeout, now unsat by ibp
  image 5: was misclassified, now unsat by ibp
gained: cnn-small_ibp_eps2_dense_x1_s0: 1 image newly proved
  image 3: was timeout, now unsat by ibp
FAILED: a regression or a contradiction in 1 of 2 cells; 3 proved images lost, 4 gained
"""

MARKDOWN = """\
## ❌ FAILED: a regression or a contradiction in 1 of 2 cells; 3 proved images lost, 4 gained

| | cell | n | verified | attacked | clean | lost | gained | McNemar p | time |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|
| ❌ | cnn-small\\_ibp\\_eps2\\_lwm\\_x10\\_s0 | 100 | 97.0 → 97.0 % (+0.0 pp) | 98.0 → 99.0 % (+1.0 pp) | 99.0 → 100.0 % (+1.0 pp) | 3 | 3 | 1 | ×1.00 |
| ✅ | cnn-small\\_ibp\\_eps2\\_dense\\_x1\\_s0 | 4 | 75.0 → 100.0 % (+25.0 pp) | 100.0 → 100.0 % (+0.0 pp) | 100.0 → 100.0 % (+0.0 pp) | 0 | 1 | 1 | – |


### Failed

- **cnn-small\\_ibp\\_eps2\\_lwm\\_x10\\_s0**, images: 3 proved images lost, 3 gained: 1 now sat or misclassified (0 allowed), 1 now undecided, proved in good time before (0 allowed), 1 now undecided, proved near the limit before (1 allowed)
  - image 0: was unsat by ibp, now sat by pgd
  - image 1: was unsat by bab, now timeout
  - image 2: was unsat by bab (took 60 % of its limit), now timeout

Baseline of 2026-01-01T00:00:00Z: first
"""


def test_the_table_is_what_it_was() -> None:
    stream = io.StringIO()
    table.show(result(), Console(file=stream, width=200, highlight=False))
    assert [line.rstrip() for line in stream.getvalue().splitlines()] == TERMINAL.splitlines()


def test_markdown_is_what_it_was() -> None:
    assert markdown.render(result()) == MARKDOWN


@given(st.text())
def test_markdown_is_escaped(text: str) -> None:
    escaped = markdown.escape(text)
    assert "\n" not in escaped
    assert "<" not in escaped
    assert not re.search(r"(?<!\\)(\\\\)*[|`*]", escaped)


# --- JUnit ---


def check_junit(text: str) -> ET.Element:
    """Checks a document against the rules of Jenkins' junit-10.xsd, which GitLab and others read as well."""
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    assert set(root.attrib) <= {"name", "time", "tests", "failures", "disabled", "errors"}
    cases = list(root.iter("testcase"))
    assert int(root.attrib["tests"]) == len(cases)
    for plural, tag in (("failures", "failure"), ("errors", "error")):
        assert int(root.attrib[plural]) == len(list(root.iter(tag)))
    for suite in root:
        assert suite.tag == "testsuite"
        allowed = {"name", "tests", "failures", "errors", "time", "disabled", "skipped", "timestamp", "hostname", "id"}
        assert {"name", "tests"} <= set(suite.attrib) <= allowed | {"package"}
        assert float(suite.attrib["time"]) >= 0
        if "timestamp" in suite.attrib:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
        for plural, tag in (
            ("tests", "testcase"),
            ("failures", "failure"),
            ("errors", "error"),
            ("skipped", "skipped"),
        ):
            assert int(suite.attrib[plural]) == len(list(suite.iter(tag)))
        names = [case.attrib["name"] for case in suite]
        assert len(names) == len(set(names))
        for case in suite:
            assert case.tag == "testcase"
            assert {"name", "classname"} <= set(case.attrib) <= {"name", "classname", "time", "assertions", "status"}
            order = ["skipped", "error", "failure", "system-out", "system-err"]
            tags = [child.tag for child in case]
            assert tags == sorted(tags, key=order.index)
            for child in case:
                assert set(child.attrib) <= ({"message"} if child.tag == "skipped" else {"message", "type"})
    return root


def outcome(root: ET.Element, cell: str, name: str) -> str:
    (case,) = [case for suite in root if suite.attrib["name"] == cell for case in suite if case.attrib["name"] == name]
    return case[0].tag


def test_junit_has_a_test_case_a_cell_and_metric() -> None:
    root = check_junit(junit.render(result()))
    assert [suite.attrib["name"] for suite in root] == ["run", kit.NAME, OTHER_NAME]
    names = ["contradictions", "images", "verified", "attacked", "clean", "sparsity", "time"]
    verifiers = ["verifier ibp", "verifier pgd", "verifier bab"]
    assert [case.attrib["name"] for case in root[1]] == [*names, *verifiers]
    assert outcome(root, kit.NAME, "images") == "failure"
    assert outcome(root, kit.NAME, "verified") == "system-out"
    assert outcome(root, OTHER_NAME, "time") == "skipped"
    failure = root.find(".//failure")
    assert failure is not None
    assert "image 0: was unsat by ibp, now sat by pgd" in (failure.text or "")


def test_a_crash_is_an_error_and_a_missing_verifier_is_skipped() -> None:
    root = check_junit(junit.render(crashed()))
    assert outcome(root, kit.NAME, "verifier bab") == "error"
    assert outcome(root, kit.NAME, "verifier ibp") == "system-out"
    base = snapshot(kit.cell(PROVED))
    stages = tuple(stage for stage in kit.stages() if stage.verifier != "bab")
    cell = kit.cell(PROVED, onnx=kit.OTHER)
    whole = kit.with_head(base, skipped={"bab": NASTY})
    partial = replace(whole, cells={cell.name: type(cell)(cell.info, stages, cell.images)}, history=())
    root = check_junit(junit.render(compare(base, partial, RuleSet(), skip_unavailable=True)))
    assert outcome(root, kit.NAME, "verifier bab") == "skipped"


@given(st.text())
def test_whatever_a_verifier_says_stays_xml(text: str) -> None:
    root = check_junit(junit.render_refusal(text))
    assert outcome(root, "run", "comparison") == "error"
    error = root.find(".//error")
    assert error is not None
    # A reader turns each kind of line break into the same one; in attributes they are written as references.
    assert error.attrib["message"] == junit.clean(text)


# --- GitHub ---


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
    cases = [Case("c", f"n{i}", State.FAIL, "m", [f"image {j}" for j in range(30)]) for i in range(14)]
    lines = github.commands(GateResult([], cases, {}))
    assert len(lines) == github.SHOWN
    assert lines[-1] == "::error title=bench.gate::and 5 more; see the summary"
    assert lines[0].endswith("image 9%0A… and 20 more")
    warning = github.commands(GateResult([], [Case("c", "time", State.WARN, "slow")], {}))
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


# --- series and badge ---


def test_series_are_what_github_action_benchmark_reads() -> None:
    bigger, smaller = series.bigger_is_better(result()), series.smaller_is_better(result())
    for entries in (bigger, smaller):
        names = [entry["name"] for entry in entries]
        assert len(names) == len(set(names))
        for entry in entries:
            assert {"name", "unit", "value"} <= set(entry) <= {"name", "unit", "value", "range", "extra"}
            assert isinstance(entry["value"], int | float)
            assert all(isinstance(entry[key], str) for key in set(entry) - {"value"})
    assert bigger[0] == {
        "name": f"{kit.NAME} verified",
        "unit": "%",
        "value": 97.0,
        "range": "91.5–99.0",
        "extra": "97 of 100 images\nbaseline 97.0 %",
    }
    assert [(entry["name"], entry["value"]) for entry in smaller] == [
        (f"{kit.NAME} proved images lost", 3),
        (f"{kit.NAME} median time", 0.01),
        (f"{OTHER_NAME} proved images lost", 0),
    ]


@pytest.mark.parametrize(
    ("made", "message", "colour", "error"),
    [(result, "failed, 1 of 2 cells", "red", False), (crashed, "broken, 1 of 1 cell", "lightgrey", True)],
)
def test_badges(made: object, message: str, colour: str, error: bool) -> None:
    assert callable(made)
    badge = series.badge(made())
    assert badge == {
        "schemaVersion": 1,
        "label": "verified accuracy",
        "message": message,
        "color": colour,
        "isError": error,
    }
    own = snapshot(kit.cell(PROVED))
    assert series.badge(compare(own, own, RuleSet()))["message"] == "passing, 1 cell"


def test_the_result_is_plain_data() -> None:
    data = json.loads(json.dumps(result().to_json(), allow_nan=False))
    assert (data["kind"], data["outcome"], data["exit_code"]) == ("gate", "failed", 1)
    cell = data["cells"][0]
    assert cell["metrics"]["verified"]["lost"] == 3
    assert [(change["image"], change["loss"]) for change in cell["lost"]] == [
        (0, "broken"),
        (1, "undecided"),
        (2, "near-limit"),
    ]
    assert data["baseline"]["history"][0]["reason"] == "first"


def test_long_lists_are_cut() -> None:
    lines: Sequence[str] = [str(i) for i in range(50)]
    assert table.shortened(list(lines))[-1] == "… and 31 more"
    assert table.shortened(list(lines[:20])) == list(lines[:20])
