from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.gating import junit
from prunecert.bench.gating.compare import compare
from prunecert.bench.schema.gate import RuleSet
from tests.bench import gatekit as kit
from tests.bench.gatekit import (
    NASTY,
    OTHER_NAME,
    PROVED,
    crashed,
    result,
    snapshot,
)


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
