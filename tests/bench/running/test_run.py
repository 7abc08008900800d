"""The door for programs: a suite is run by a request, without a command line."""

from __future__ import annotations

import ast
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from prunecert.bench.running import modes
from prunecert.bench.running.request import RunRequest
from prunecert.bench.running.run import run_suite
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from tests.bench.conftest import CELLS, Zoo
from tests.bench.rowkit import documents

BENCH = Path(modes.__file__).parents[1]


def request_of(zoo: Zoo, out: Path, **more: Any) -> RunRequest:
    request = RunRequest(
        suite=load_suite(str(zoo.suite)),
        out=out,
        checkpoints=zoo.checkpoints,
        exports=zoo.exports,
        data_root=zoo.data,
        workers=1,
        images=6,
    )
    return replace(request, **more)


def quiet() -> Console:
    return Console(file=StringIO())


@pytest.mark.slow
def test_a_program_runs_a_suite_and_gets_what_has_come_of_it(zoo: Zoo, tmp_path: Path) -> None:
    request = request_of(zoo, tmp_path / "run", argv=("as", "typed"))
    result = run_suite(request, quiet())
    assert result.exit_code == 0
    assert result.conclusion is not None
    assert not result.conclusion.contradictions
    assert not result.conclusion.broken_verifiers
    assert [cell["name"] for cell in result.conclusion.summary["cells"]] == [plan.name for plan in result.plans]
    assert [plan.name for plan in result.plans] == list(CELLS)
    assert set(CELLS) < set(result.protocols)
    assert tmp_path / "run" / "report.html" in result.conclusion.paths
    assert all(path.is_file() for path in result.conclusion.paths)
    assert result.session is not None
    (session,) = documents(tmp_path / "run", "session")
    assert session["command"] == ["python", "-m", "bench.run", "as", "typed"] == result.session.command
    # The same request again finds everything done, and a part leaves the conclusion to who sends the parts.
    before = documents(tmp_path / "run", "verdict")
    part = run_suite(replace(request, part=True), quiet())
    assert (part.exit_code, part.conclusion) == (0, None)
    assert documents(tmp_path / "run", "verdict") == before


@pytest.mark.slow
def test_verifiers_that_contradict_each_other_make_the_result_a_regression(zoo: Zoo, tmp_path: Path) -> None:
    request = request_of(zoo, tmp_path / "run", cells=CELLS[0], verifiers="fake-liar,fake-finder")
    text = StringIO()
    result = run_suite(request, Console(file=text, width=230))
    conclusion = result.conclusion
    assert conclusion is not None
    assert result.exit_code == (1 if conclusion.contradictions else 2 if conclusion.broken_verifiers else 0)
    for item in conclusion.contradictions:
        assert f"CONTRADICTION: {item['cell']} image {item['image']}" in text.getvalue()


def test_a_dry_run_writes_nothing(zoo: Zoo, tmp_path: Path) -> None:
    text = StringIO()
    result = run_suite(request_of(zoo, tmp_path / "run", dry_run=True), Console(file=text, width=230))
    assert (result.session, result.conclusion, result.exit_code) == (None, None, 0)
    assert "Nothing was run." in text.getvalue()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"image_seed": -1}, "--image-seed -1 is refused; it must be 0 or more"),
        ({"image_seed": 1, "submit": True}, "--image-seed is refused with --submit"),
        ({"warm_start": True, "shard": (1, 2)}, "--warm-start is refused with shards and jobs"),
        ({"warm_start": True, "submit": True}, "--warm-start is refused with --submit"),
        ({"device": "cuda:0,cpu"}, "a list must name different CUDA devices"),
        ({"cells": "nothing"}, "Unknown cell"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_before_anything_is_written(
    zoo: Zoo, tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_suite(request_of(zoo, tmp_path / "run", **more), quiet())
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_no_command_line_reaches_below_the_commands() -> None:
    for path in sorted(BENCH.glob("*/**/*.py")):
        tree = ast.parse(path.read_text())
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert "Namespace" not in names, path
