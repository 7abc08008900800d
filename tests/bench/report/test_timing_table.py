from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.report import timing_table
from prunecert.bench.report.timing_table import COLUMNS, SHAPE_COLUMNS, faster, markdown, notes, rows, shape_rows
from prunecert.bench.results.timing import summarise_times
from tests.bench.timekit import observations

SUMMARY = summarise_times(observations(1.0))
(GROUP,) = SUMMARY["groups"]


@given(st.floats(0.01, 100), st.floats(0.5, 1), st.floats(1, 2))
def test_a_speed_up_is_the_inverse_of_a_ratio_and_so_is_its_interval(ratio: float, down: float, up: float) -> None:
    text = faster({"ratio": ratio, "low": ratio * down, "high": ratio * up})
    value, low, high = (float(word) for word in text.replace("(", " ").replace(")", " ").replace("–", " ").split())
    assert low <= value <= high
    assert value == pytest.approx(1 / ratio, abs=0.006)
    assert faster({"ratio": ratio, "low": None, "high": None}) == f"{1 / ratio:.2f}"


def test_what_was_not_compared_is_a_dash() -> None:
    assert faster(None) == "–"


def test_a_line_has_masked_and_compact_times_of_one_ratio() -> None:
    dense, pruned = rows(GROUP)
    assert len(dense) == len(pruned) == len(COLUMNS)
    assert dense[:7] == ["slow", "dense", "1", "2", "1", "8", "12*"]
    assert pruned[:9] == ["slow", "lwm", "10", "2", "2", "2", "2*", "1", "1*"]


def test_sizes_are_shown_of_all_but_filled_networks() -> None:
    lines = shape_rows(GROUP)
    assert [line[:3] for line in lines] == [
        ["dense", "1", "masked"],
        ["lwm", "10", "masked"],
        ["lwm", "10", "compact"],
    ]
    assert all(len(line) == len(SHAPE_COLUMNS) for line in lines)
    filled = {**GROUP, "networks": [{**network, "variant": "filled"} for network in GROUP["networks"]]}
    assert shape_rows(filled) == []


def test_what_spoils_times_is_said_beneath_them() -> None:
    assert not any("WARNING" in line for line in notes(SUMMARY))
    busy, stopped = summarise_times(observations(3.1)), {**SUMMARY, "finished": False}
    assert any("the load average reached 3.1 on 2 cores" in line for line in notes(busy))
    assert any("the run was stopped" in line for line in notes(stopped))
    assert "left out: x (install x)" in markdown({**SUMMARY, "skipped": {"x": "install x"}})


def test_the_page_is_whole_and_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing_table, "inline_svg", lambda group, name: "<svg></svg>")
    nasty = {**SUMMARY, "skipped": {"<b>x": "install"}}
    page = timing_table.html(nasty)
    assert "<b>x" not in page
    assert "&lt;b&gt;x" in page
    assert page.count("<svg>") == 3
