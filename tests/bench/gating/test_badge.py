from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from prunecert.bench.gating import badge
from prunecert.bench.gating.compare import compare
from prunecert.bench.gating.result import GateResult
from prunecert.bench.schema.gate import RuleSet
from tests.bench import gatekit as kit
from tests.bench.gatekit import BROKEN, OTHER, OTHER_NAME, PROVED, TIMEOUT, crashed, result, snapshot


def better() -> GateResult:
    return compare(snapshot(kit.cell(PROVED, TIMEOUT)), snapshot(kit.cell(PROVED, PROVED, onnx=OTHER)), RuleSet())


def worse() -> GateResult:
    return compare(snapshot(kit.cell(PROVED, PROVED)), snapshot(kit.cell(PROVED, BROKEN, onnx=OTHER)), RuleSet())


def same() -> GateResult:
    own = snapshot(kit.cell(PROVED, TIMEOUT, PROVED), kit.cell(PROVED, TIMEOUT, name=OTHER_NAME))
    return compare(own, own, RuleSet())


CASES = [
    (better, "100.0 % (+50.0 pp)", "brightgreen", False),
    (worse, "50.0 % (−50.0 pp)", "red", False),
    (same, "50.0–66.7 % (±0 pp)", "brightgreen", False),
    (result, "97.0–100.0 % (±0 to +25.0 pp)", "red", False),
    (crashed, "unknown: an error", "lightgrey", True),
]


@pytest.mark.parametrize(("make", "message", "colour", "error"), CASES)
def test_the_endpoint_says_the_accuracy_and_its_change(
    make: Callable[[], GateResult], message: str, colour: str, error: bool
) -> None:
    assert badge.endpoint(make()) == {
        "schemaVersion": 1,
        "label": "verified accuracy",
        "message": message,
        "color": colour,
        "isError": error,
    }


@pytest.mark.parametrize(("make", "message", "colour", "error"), CASES)
def test_the_drawing_says_the_same_and_asks_no_server(
    make: Callable[[], GateResult], message: str, colour: str, error: bool
) -> None:
    text = badge.svg(make())
    root = ElementTree.fromstring(text)
    assert root.attrib["aria-label"] == f"verified accuracy: {message}"
    words = root.findall(".//{http://www.w3.org/2000/svg}text")
    assert [word.text for word in words] == ["verified accuracy", message]
    assert text.count("http") == 1, "nothing but the name space"
    # Both texts lie within the badge and don't touch.
    middles = [(float(word.attrib["x"]), float(word.attrib["textLength"]) / 2) for word in words]
    ends = [(middle - half, middle + half) for middle, half in middles]
    assert 0 < ends[0][0] < ends[0][1] < ends[1][0] < ends[1][1] < float(root.attrib["width"])


def test_whatever_is_written_is_text_of_the_drawing() -> None:
    root = ElementTree.fromstring(badge.drawn('a<b>&"', "x'\"", "#fff"))
    assert root.attrib["aria-label"] == 'a<b>&": x\'"'
