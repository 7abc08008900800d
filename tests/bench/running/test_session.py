from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.bench.results.decode import plain
from prunecert.bench.results.protocol_types import Missing
from prunecert.bench.results.store import Log, Writer
from prunecert.bench.running.session import session_row, unfit, unpublishable
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from prunecert.models.data import Dataset
from tests.bench.conftest import SUITE
from tests.bench.timekit import plan, stage

DATA = Dataset(np.zeros((3, 3, 2, 2), np.float32), np.zeros(3, np.int64), np.arange(3), "test", "f", True, False, "x")


def row(folder: Path, **changes: Any) -> Any:
    (folder / "tiny.yaml").write_text(SUITE)
    options: dict[str, Any] = {
        "writer": "main",
        "missing": [Missing(name="f_m", command="train it", family="f", member="m")],
        "skipped": {"x": "install x"},
        "device": "cpu",
        "workers": 2,
        "threads": 1,
        "shard": None,
        "argv": ["--suite", "tiny"],
    }
    plans = changes.pop("plans", [plan(10, [stage("fake-bound", 1)], 3)])
    return session_row(load_suite(str(folder / "tiny.yaml")), plans, [DATA], **{**options, **changes})


def test_a_session_says_what_is_done_with_what(tmp_path: Path) -> None:
    session = row(tmp_path)
    assert session.command == ["python", "-m", "bench.run", "--suite", "tiny"]
    assert (session.suite, session.profile, session.float32) == ("tiny", "default", "TF32 off")
    assert [plain(cell) for cell in session.missing] == [
        {"name": "f_m", "command": "train it", "family": "f", "member": "m"}
    ]
    assert [cell.name for cell in session.cells] == ["cnn-small_ibp_eps2_lwm_x10_s0"]
    with Writer(tmp_path / "run") as writer:
        writer.append(session)
    (copy,) = Log(tmp_path / "run").all_sessions()
    assert plain(copy) == plain(session)


def test_a_part_says_which_it_is(tmp_path: Path) -> None:
    assert row(tmp_path).shard is None
    assert list(row(tmp_path, shard=(2, 5)).shard) == [2, 5]


def test_what_must_not_be_published_is_said(tmp_path: Path) -> None:
    assert unpublishable([DATA]) == []
    (reason,) = unpublishable([DATA, replace(DATA, sample=True)])
    assert "built-in sample of 3 images" in reason
    base = plan(10, [], 3)
    toy = replace(base, export=replace(base.export, card={"unfit": "trained on 10 images only"}))
    assert unfit([base, toy]) == [f"{toy.cell.name}: trained on 10 images only"]
    assert row(tmp_path, plans=[toy]).unpublishable == unfit([toy])


def test_what_could_not_be_read_back_is_refused_before_the_work(tmp_path: Path) -> None:
    base = plan(10, [stage("fake-bound", 1)], 3)
    odd = replace(base, export=replace(base.export, compression=float("nan")))
    with pytest.raises(UserError, match=r"This run can't be written down: cells\[0\]\.measured_compression: "):
        row(tmp_path, plans=[odd])
