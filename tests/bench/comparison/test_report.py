from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunecert.bench.comparison.report import markdown, write
from prunecert.bench.comparison.sides import Finding, Side
from prunecert.bench.results.vnncomp import Key
from prunecert.verifiers.base import Status
from tests.bench.comparison.sidekit import CELL, result_of, side


def test_ratios_are_of_wall_clock_times_and_a_sampled_loop_is_scaled() -> None:
    run, loop_ = side("run", 4.0, i1="unsat", i2="sat"), side("loop", 40.0, i1="unsat", i2="sat")
    full = result_of([run, loop_], 2)
    assert full["loop_over"] == {"run": {"value": 10.0, "low": 10.0, "high": 10.0}}
    text = markdown(full)
    assert "| run | words | 2 | 4 s | 10.0 | 100 | sat 1, unsat 1 |" in text
    findings = dict(loop_.findings)
    findings[Key(CELL, 2)] = Finding(Status.SAT, 6.0, "loop")
    part = Side("loop", "words", [], 40.0, 100.0, findings)
    sampled = result_of([run, part], 20)
    ratio = sampled["loop_over"]["run"]
    # Times of 2 and 6 seconds: 20 instances at a mean of 4 s by two processes, beside 4 s.
    assert ratio["value"] == pytest.approx(10.0)
    assert ratio["low"] == pytest.approx(5.0)
    assert ratio["high"] == pytest.approx(15.0)
    assert "10.0 (5.0–15.0)" in markdown(sampled)
    assert "scaled from 2 instances in 40 s" in markdown(sampled)


def test_the_comparison_is_written_as_data_as_a_table_and_row_by_row(tmp_path: Path) -> None:
    result = result_of([side("run", 4.0, i1="sat"), side("loop", 40.0, i1="unsat")], 1)
    assert [path.name for path in write(result, tmp_path)] == ["comparison.md", "comparison.json", "instances.csv"]
    assert json.loads((tmp_path / "comparison.json").read_text())["kind"] == "comparison"
    assert (tmp_path / "comparison.md").read_text() == markdown(result)
    assert (tmp_path / "instances.csv").read_text().splitlines()[1].startswith(f"{CELL},1,sat,2.0,run,unsat")
