from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from prunecert.bench.results.vnncomp import Task
from prunecert.bench.running.properties import Problem
from prunecert.bench.running.properties_reading import ProblemReader, UnreadableRow, in_words
from prunecert.compaction import Mode
from prunecert.errors import UserError
from tests.bench.propertykit import HOLDS, half


@pytest.fixture
def task(tmp_path: Path) -> Task:
    half().save(tmp_path / "net.onnx")
    (tmp_path / "p.vnnlib").write_text(HOLDS)
    return Task("toy", tmp_path / "net.onnx", tmp_path / "p.vnnlib", 5.0, "net_p")


def test_a_reason_is_one_line_of_bounded_length() -> None:
    assert in_words(UserError("no file\nmore")) == "no file"
    assert in_words(KeyError("x")) == "KeyError: 'x'"
    assert len(in_words(ValueError("x" * 10_000))) <= 1_200


def test_a_network_is_shrunk_once_and_said_once(task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader = ProblemReader(tmp_path, Mode.EXACT, tmp_path / "networks")
    first, again = reader.entry(task), reader.entry(replace(task, name="again"))
    assert isinstance(first, Problem)
    assert isinstance(again, Problem)
    assert first.compact is not None
    assert (again.compact, again.compact_sha256) == (first.compact, first.compact_sha256)
    assert again.task.name == "again"
    assert capsys.readouterr().out.count("net.onnx: ") == 1
    plain = ProblemReader(tmp_path, Mode.OFF, tmp_path / "networks").entry(task)
    assert isinstance(plain, Problem)
    assert plain.compact is None
    assert plain.key == first.key


def test_what_cannot_be_read_stands_for_itself(task: Task, tmp_path: Path) -> None:
    reader = ProblemReader(tmp_path, Mode.OFF, tmp_path)
    refused = reader.entry(replace(task, refusal="line 3 is odd"))
    absent = reader.entry(replace(task, onnx=tmp_path / "none.onnx"))
    task.onnx.write_bytes(b"no network")
    odd = reader.entry(task)
    for entry, reason in ((refused, "line 3 is odd"), (absent, "none.onnx"), (odd, "net.onnx")):
        assert isinstance(entry, UnreadableRow)
        assert reason in entry.reason
    assert len({entry.key for entry in (refused, absent, odd)}) == 3
