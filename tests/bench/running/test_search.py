"""bench.search: spaces, draws, criteria, halving; a whole search on toy data, resumed, without a test image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import prunecert.models.data
from prunecert.bench import search
from prunecert.bench.results.impact.images import BoolArray
from prunecert.bench.results.stats import paired_difference
from prunecert.bench.results.store import Writer
from prunecert.bench.running.request import RunRequest, RunResult
from prunecert.bench.running.search import _proofs_of
from prunecert.errors import UserError
from prunecert.models.data import Dataset
from prunecert.models.pipeline import Pipeline
from tests.bench import summarykit
from tests.bench.rowkit import all_typed
from tests.bench.trainkit import command
from tests.models.conftest import blobs


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    splits: list[str] = []

    def load(split: str, *_: Any, **__: Any) -> Dataset:
        splits.append(split)
        return blobs(40 if split == "train" else 20, split)

    monkeypatch.setattr(prunecert.models.data, "load", load)
    return splits


@pytest.mark.slow
def test_a_search_finds_what_learns_and_goes_on_where_it_was(
    tmp_path: Path, loaded: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []
    original = Pipeline.run

    def counting(self: Pipeline, job: Any) -> Any:
        if len(ran) == 2 and "stopped" not in ran:
            ran.append("stopped")
            raise KeyboardInterrupt
        ran.append(f"{self.folder.name} {job.name[-2:]}")
        return original(self, job)

    monkeypatch.setattr(Pipeline, "run", counting)
    halving = command(tmp_path, "--trials", "3", "--rungs", "2", "--eta", "2", "--epochs", "8")
    with pytest.raises(KeyboardInterrupt):
        search.main(halving)
    assert search.main(halving) == 0
    first = [f"trial00{n}-rung0 s{seed}" for n in range(3) for seed in (0, 1)]
    assert [name for name in ran if "rung0" in name] == first
    assert len([name for name in ran if "rung1" in name]) == 2 * 2, "half of three, rounded up"
    assert set(loaded) == {"train", "val"}
    table = (tmp_path / "out" / "table.md").read_text()
    assert table.count("\n| ") == 3 + 2
    recipe = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())["recipes"]["cnn-small/natural"]
    assert recipe in ({}, {"lr": 0.003})
    assert "1e-06" not in (tmp_path / "out" / "recipe.yaml").read_text()
    count = len(ran)
    assert search.main(halving) == 0
    assert len(ran) == count, "nothing is trained twice"
    assert "validation images" in capsys.readouterr().out
    capsys.readouterr()


@pytest.mark.slow
def test_verified_accuracy_is_measured_on_validation_images(
    tmp_path: Path, loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[dict[str, Any]] = []

    def run(request: RunRequest) -> RunResult:
        suite, folder = request.suite, request.checkpoints
        assert request.out is not None
        folders = ["--checkpoints", str(folder), "--exports", str(request.exports)]
        own = ["--suite", str(suite.path), "--out", str(request.out), "--device", "cpu"]
        assert request.argv[:10] == (*own, *folders)
        assert all(protocol.split == "val" and protocol.images == 7 for _, protocol in suite.cells)
        assert all((folder / f"{cell.name}.safetensors").exists() for cell, _ in suite.cells)
        requests.append({"folder": folder, "names": [cell.name for cell, _ in suite.cells]})
        return RunResult(request.out, (), {})

    def proofs(out: Path, names: Sequence[str]) -> list[BoolArray]:
        assert list(names) == requests[-1]["names"]
        proved = [1, 1, 1, 0] if "trial001" in str(out) else [0, 0, 0, 1]
        return [np.array(proved, dtype=bool) for _ in names]

    monkeypatch.setattr("prunecert.bench.running.search.run_suite", run)
    monkeypatch.setattr("prunecert.bench.running.search._proofs_of", proofs)
    options = command(tmp_path, "--trials", "2", "--verify", "7", "--verifiers", "ibp, crown-ibp")
    place = options.index("--criterion")
    del options[place : place + 2]
    assert search.main(options) == 0, "what is verified ranks, unless another criterion is given"
    assert len(requests) == 2
    assert "Trial 1 of 2: verified = 0.7500" in (tmp_path / "out" / "recipe.yaml").read_text()
    rows = (tmp_path / "out" / "table.md").read_text().splitlines()
    difference, low, high = paired_difference(2, 6, 8)
    assert f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})" in rows[2]
    assert "against trial 0" in rows[0]
    assert "( to" not in rows[3]
    assert rows[3].count("+") == 0, "trial 0 beside itself says nothing"


def test_what_a_run_has_proved_is_read_from_it(tmp_path: Path) -> None:
    with Writer(tmp_path) as writer:
        writer.append(*all_typed([summarykit.session(summarykit.cell()), *summarykit.everything()]))
    (proved,) = _proofs_of(tmp_path, ["c"])
    assert proved.tolist() == [False, True, True, False, False, False]
    with pytest.raises(UserError, match="later: not all of its images are answered"):
        _proofs_of(tmp_path, ["c", "later"])
