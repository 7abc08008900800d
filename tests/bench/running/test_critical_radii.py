from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from prunecert.bench import add
from prunecert.bench.planning.module_export import export_module
from prunecert.bench.results.critical_radii import NAME, read_radii
from prunecert.bench.running import critical_radii
from prunecert.errors import UserError
from tests.bench.running.test_adding import connected


@pytest.mark.slow
def test_the_command_closes_in_resumes_and_finds_contradictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    export_module(connected(0.3), tmp_path / "p.onnx", torch.rand(1, 1, 8, 8))
    words = ["p.onnx", "--data", "digits", "--eps", "1/1000", "--images", "4", "--out", "run", "--name", "mine"]
    words += ["--verifiers", "pgd,sparse-bab", "--critical-radius", "2"]
    assert add.main(words) == 0
    shown = capsys.readouterr().out
    rows = read_radii(tmp_path / "run" / NAME)
    assert [row.image for row in rows] == [0, 1]
    for row in rows:
        proved, broken = row.ends
        if row.correct:
            assert broken is not None
            assert 0 < broken - proved <= critical_radii.TOLERANCE
            assert row.questions > 3
    assert "mine (own): the median image is proved up to" in shown
    # What is known is not asked again; more images are.
    monkeypatch.setattr(critical_radii, "_append", lambda *_: pytest.fail("asked again"))
    assert add.main(words) == 0
    # A run that says otherwise is a contradiction.
    path = tmp_path / "run" / NAME
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line |= {"correct": True, "proved": "0", "broken": "1/2000"}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    capsys.readouterr()
    assert add.main(words) == 1
    assert "CONTRADICTION: mine (own) image" in capsys.readouterr().out


def test_a_network_without_a_complete_verifier_is_refused() -> None:
    from types import SimpleNamespace
    from typing import Any

    plan: Any = SimpleNamespace(name="mine", stages=[SimpleNamespace(kind="attack", verifier="pgd")])
    with pytest.raises(UserError, match=r"mine: a critical radius needs a complete verifier.*pgd takes this network"):
        critical_radii._deciding(plan)


def test_a_line_cut_off_by_a_kill_is_replaced(tmp_path: Path) -> None:
    from tests.bench.results.test_critical_radii import row

    path = tmp_path / NAME
    critical_radii._append(path, row(0))
    path.write_bytes(path.read_bytes() + b'{"half')
    critical_radii._append(path, row(1))
    assert [one.image for one in read_radii(path)] == [0, 1]
    assert critical_radii._line(row(0)).endswith("image 0: proved up to 2/255, broken at 3/255; 7 questions, 1.5 s")
    assert critical_radii._line(row(0, broken=None)).endswith("not broken up to 32/255; 7 questions, 1.5 s")
    assert critical_radii._line(row(0, correct=False)).endswith("misclassified")
