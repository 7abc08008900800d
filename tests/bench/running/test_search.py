"""bench.search: spaces, draws, criteria, halving; a whole search on toy data, resumed, without a test image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import prunecert.models.data
from prunecert.bench import search
from prunecert.bench.running.request import RunRequest, RunResult
from prunecert.models.data import Dataset
from prunecert.models.pipeline import Pipeline
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

    def summarise(out: Path) -> dict[str, Any]:
        value = 0.75 if "trial001" in str(out) else 0.25
        return {"cells": [{"name": name, "verified": {"value": value}} for name in requests[-1]["names"]]}

    monkeypatch.setattr("prunecert.bench.running.search.run_suite", run)
    monkeypatch.setattr("prunecert.bench.running.search.summarise", summarise)
    options = command(tmp_path, "--trials", "2", "--verify", "7", "--verifiers", "ibp, crown-ibp")
    assert search.main([*options, "--criterion", "verified"]) == 0
    assert len(requests) == 2
    assert "Trial 1 of 2: verified = 0.7500" in (tmp_path / "out" / "recipe.yaml").read_text()
