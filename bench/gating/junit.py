"""A gate's result as JUnit XML: a suite a cell, a test case a metric.

A regression is a `failure`, a verifier that crashed an `error`, one that is not installed `skipped`.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from prunecert.bench.gating.result import CaseState, GateCase, GateResult

#: Characters that XML 1.0 has no way to write.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAGS = {CaseState.FAIL: "failure", CaseState.ERROR: "error", CaseState.SKIP: "skipped"}
WHOLE = "run"


def clean(text: str) -> str:
    """Returns `text` without the characters that XML can't hold."""
    return _ILLEGAL.sub("�", text)


def render(result: GateResult) -> str:
    """Returns the document."""
    root = ET.Element("testsuites")
    started = str(result.head["run"]["started"]).removesuffix("Z")
    _suite(root, WHOLE, result.cases, 0.0, started)
    for cell in result.cells:
        _suite(root, cell.name, cell.cases, cell.seconds, started)
    return _finish(root, result.all_cases)


def render_refusal(message: str) -> str:
    """Returns the document of a gate that compared nothing: one test case, in error.

    Args:
        message: Why.
    """
    root, case = ET.Element("testsuites"), GateCase("", "comparison", CaseState.ERROR, message)
    _suite(root, WHOLE, [case], 0.0, None)
    return _finish(root, [case])


def _finish(root: ET.Element, cases: Sequence[GateCase]) -> str:
    root.set("name", "bench.gate")
    _count(root, cases)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _count(element: ET.Element, cases: Sequence[GateCase]) -> None:
    element.set("tests", str(len(cases)))
    for state, word in ((CaseState.FAIL, "failures"), (CaseState.ERROR, "errors"), (CaseState.SKIP, "skipped")):
        # JUnit's schema knows `skipped` on a suite only.
        if word != "skipped" or element.tag == "testsuite":
            element.set(word, str(sum(case.state is state for case in cases)))


def _suite(root: ET.Element, name: str, cases: Sequence[GateCase], seconds: float, started: str | None) -> None:
    suite = ET.SubElement(root, "testsuite", name=clean(name), time=f"{seconds:.3f}")
    if started is not None:
        suite.set("timestamp", started)
    _count(suite, cases)
    for case in cases:
        element = ET.SubElement(suite, "testcase", classname=clean(f"prunecert.{name}"), name=clean(case.name))
        element.set("time", "0.000")
        text = clean("\n".join([case.message, *case.lines]))
        if case.state in _TAGS:
            outcome = ET.SubElement(element, _TAGS[case.state], message=clean(case.message))
            if case.state is not CaseState.SKIP:
                outcome.set("type", "Regression" if case.state is CaseState.FAIL else "VerifierError")
                outcome.text = text
        else:
            ET.SubElement(element, "system-out").text = text
