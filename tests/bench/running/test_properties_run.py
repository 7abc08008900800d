from __future__ import annotations

import csv
import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from prunecert.bench.results.store import Log, Writer
from prunecert.bench.results.vnncomp import Task, read_instances
from prunecert.bench.running import properties_run
from prunecert.bench.running.properties import Problem, prepare
from prunecert.bench.running.properties_reading import UnreadableRow
from prunecert.bench.running.properties_run import PropertiesRun, check_file
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, EXIT_USAGE
from prunecert.verifiers.base import Status, Times, Verdict
from tests.bench.propertykit import BREAKS, HOLDS, identity
from tests.bench.rowkit import typed

WITNESS = np.array([0.5, 1.0], dtype=np.float32)


def worker(name: str = "one") -> Any:
    return SimpleNamespace(name=name, device="cpu", identity={"name": name, "version": "1", "settings": {}})


@pytest.fixture
def problems(tmp_path: Path) -> list[Problem]:
    """Two: of the first one is proved what it says, the second is broken."""
    identity().save(tmp_path / "net.onnx")
    (tmp_path / "holds.vnnlib").write_text(HOLDS)
    (tmp_path / "breaks.vnnlib").write_text(BREAKS)
    (tmp_path / "instances.csv").write_text("net.onnx,holds.vnnlib,5\nnet.onnx,breaks.vnnlib,5\n")
    return [prepare(task, tmp_path / "scratch", {}) for task in read_instances(tmp_path / "instances.csv", "toy")]


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answers without a verifier; returns the names of what was asked."""
    names: list[str] = []

    def solve(problem: Problem, crew: Any) -> Verdict:
        names.append(f"{crew.name} {problem.task.name}")
        if "breaks" in problem.task.name and crew.name != "liar":
            check = {"ok": True, "outputs": [0.5, 1.0]}
            return Verdict(Status.SAT, witness=WITNESS, witness_check=check, verifier=crew.name, version="1")
        return Verdict(Status.UNSAT, times=Times(wall_s=2.0), verifier=crew.name, version="1")

    monkeypatch.setattr(properties_run, "solve", solve)
    return names


def go(out: Path, entries: list[Any], *names: str, retry: frozenset[Status] = frozenset()) -> int:
    rows = Log(out).properties() if any(out.glob("instances.*")) else []
    with Writer(out) as writer:
        if not rows:
            writer.append(typed({"type": "session", "verifiers": []}))
        run = PropertiesRun(out, entries, {name: worker(name) for name in names}, writer, rows, retry)
        run.go()
        return run.report()


def words(path: Path) -> list[str]:
    with path.open(newline="") as stream:
        return [row[4] for row in csv.reader(stream)]


def test_answers_are_written_with_counterexamples_and_kept(
    tmp_path: Path, problems: list[Problem], solved: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert go(out, problems, "one") == EXIT_OK
    assert words(out / "results.csv") == ["unsat", "sat"]
    assert problems[1].task.counterexample(out).is_file()
    assert check_file(problems[1].task.counterexample(out)).is_file()
    assert go(out, problems, "one") == EXIT_OK
    assert len(solved) == 2
    assert capsys.readouterr().out.count("(kept)") == 2


def test_a_counterexample_that_is_gone_is_asked_for_again(
    tmp_path: Path, problems: list[Problem], solved: list[str]
) -> None:
    go(tmp_path / "out", problems, "one")
    problems[1].task.counterexample(tmp_path / "out").unlink()
    go(tmp_path / "out", problems, "one")
    assert solved == ["one net_holds", "one net_breaks", "one net_breaks"]


def test_verifiers_that_disagree_end_with_1(
    tmp_path: Path, problems: list[Problem], solved: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(tmp_path / "out", problems, "one", "liar") == EXIT_REGRESSION
    assert "CONTRADICTION" in capsys.readouterr().out
    assert words(tmp_path / "out" / "liar" / "results.csv") == ["unsat", "unsat"]


def test_what_goes_wrong_is_one_rows_error_and_is_asked_again_on_request(
    tmp_path: Path, problems: list[Problem], solved: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest: Callable[[Problem, Any], Verdict] = vars(properties_run)["solve"]

    def broken(problem: Problem, crew: Any) -> Verdict:
        if "holds" in problem.task.name:
            raise ZeroDivisionError("by nothing\nat all")
        return honest(problem, crew)

    monkeypatch.setattr(properties_run, "solve", broken)
    assert go(tmp_path / "out", problems, "one") == EXIT_USAGE
    assert words(tmp_path / "out" / "results.csv") == ["error", "sat"]
    assert Log(tmp_path / "out").properties()[0]["detail"] == "ZeroDivisionError: by nothing"
    monkeypatch.setattr(properties_run, "solve", honest)
    assert go(tmp_path / "out", problems, "one") == EXIT_USAGE
    assert go(tmp_path / "out", problems, "one", retry=frozenset({Status.ERROR})) == EXIT_OK


def test_a_full_disk_ends_it_and_what_is_answered_stands(
    tmp_path: Path, problems: list[Problem], solved: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest: Callable[[Problem, Any], Verdict] = vars(properties_run)["solve"]

    def full(problem: Problem, crew: Any) -> Verdict:
        if "breaks" in problem.task.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return honest(problem, crew)

    monkeypatch.setattr(properties_run, "solve", full)
    with pytest.raises(OSError, match="No space"):
        go(tmp_path / "out", problems, "one")
    assert words(tmp_path / "out" / "results.csv") == ["unsat"]


def test_a_row_that_can_not_be_asked_is_an_error_of_its_own(
    tmp_path: Path, problems: list[Problem], solved: list[str]
) -> None:
    bad = UnreadableRow(Task("toy", tmp_path / "a.onnx", tmp_path / "b.vnnlib", 0.0, "", "line 3"), "line 3 is odd")
    assert go(tmp_path / "out", [problems[0], bad], "one") == EXIT_USAGE
    assert words(tmp_path / "out" / "results.csv") == ["unsat", "error"]
    assert Log(tmp_path / "out").properties()[1]["detail"] == "line 3 is odd"
    assert solved == ["one net_holds"]
