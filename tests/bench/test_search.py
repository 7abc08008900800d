"""bench.search: spaces, draws, criteria, halving; a whole search on toy data, resumed, without a test image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import prunecert.models.data
from prunecert.bench import search
from prunecert.bench.running.request import RunRequest, RunResult
from prunecert.errors import UserError
from prunecert.models.data import Dataset
from prunecert.models.pipeline import Pipeline
from tests.bench.test_train import SUITE
from tests.models.conftest import blobs


def written(folder: Path, text: str) -> Path:
    file = folder / "space.yaml"
    file.write_text(text)
    return file


def test_criteria() -> None:
    weights = search.parse_criterion("0.7*crown_ibp + 0.3*clean")
    assert weights == {"crown_ibp": 0.7, "clean": 0.3}
    found = [{"crown_ibp": 0.4, "clean": 0.6}, {"crown_ibp": 0.2, "clean": 0.4}]
    assert search.score(weights, list(found)) == pytest.approx(0.7 * 0.3 + 0.3 * 0.5)
    with pytest.raises(UserError, match="Did you mean 'crown_ibp'"):
        search.parse_criterion("crownibp")
    with pytest.raises(UserError, match="'x' is no number"):
        search.parse_criterion("x*clean")
    with pytest.raises(UserError, match=r"no 'verified'.*needs --verify"):
        search.score({"verified": 1.0}, list(found))


def test_the_best_third_goes_on() -> None:
    scores = {0: 0.3, 1: 0.5, 2: 0.5, 3: 0.1, 4: 0.9}
    assert search.survivors(scores, 9, 1, 3.0) == [4, 1, 2]
    assert search.survivors(scores, 9, 2, 3.0) == [4]
    assert search.survivors(scores, 2, 5, 3.0) == [4], "one at least"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    splits: list[str] = []

    def load(split: str, *_: Any, **__: Any) -> Dataset:
        splits.append(split)
        return blobs(40 if split == "train" else 20, split)

    monkeypatch.setattr(prunecert.models.data, "load", load)
    return splits


def command(folder: Path, *more: str) -> list[str]:
    (folder / "tiny.yaml").write_text(SUITE)
    space = written(folder, "lr: [0.003, 1.0e-6]\n")
    known = ["--suite", str(folder / "tiny.yaml"), "--cells", "*natural_eps2_dense_x1_s?", "--space", str(space)]
    return [*known, "--out", str(folder / "out"), "--criterion", "clean", *more]


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
    done = len(ran)
    assert search.main(halving) == 0
    assert len(ran) == done, "nothing is trained twice"
    assert "validation images" in capsys.readouterr().out
    capsys.readouterr()


def test_verified_accuracy_is_measured_on_validation_images(
    tmp_path: Path, loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def run(request: RunRequest) -> RunResult:
        suite, folder = request.suite, request.checkpoints
        assert request.out is not None
        folders = ["--checkpoints", str(folder), "--exports", str(request.exports)]
        own = ["--suite", str(suite.path), "--out", str(request.out), "--device", "cpu"]
        assert request.argv[:10] == (*own, *folders)
        assert all(protocol.split == "val" and protocol.images == 7 for _, protocol in suite.cells)
        assert all((folder / f"{cell.name}.safetensors").exists() for cell, _ in suite.cells)
        asked.append({"folder": folder, "names": [cell.name for cell, _ in suite.cells]})
        return RunResult(request.out, (), {})

    def summarise(out: Path) -> dict[str, Any]:
        value = 0.75 if "trial001" in str(out) else 0.25
        return {"cells": [{"name": name, "verified": {"value": value}} for name in asked[-1]["names"]]}

    monkeypatch.setattr("prunecert.bench.running.run.run_suite", run)
    monkeypatch.setattr("prunecert.bench.results.summary.summarise", summarise)
    options = command(tmp_path, "--trials", "2", "--verify", "7", "--verifiers", "ibp, crown-ibp")
    assert search.main([*options, "--criterion", "verified"]) == 0
    assert len(asked) == 2
    assert "Trial 1 of 2: verified = 0.7500" in (tmp_path / "out" / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--cells", "*"], None),
        (["--cells", "nothing*"], "fits 0 cells of no network"),
        (["--criterion", "verified", "--rungs", "2"], "last rung only"),
        (["--criterion", "speed"], "Unknown measure 'speed'"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, more: list[str], message: str | None) -> None:
    options = [*command(tmp_path), *more, "--dry-run"]
    if message is None:
        assert search.main(options) == 0
        return
    with pytest.raises(UserError, match=message):
        search.main(options)


def test_a_trial_that_is_no_recipe_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    options = command(tmp_path)
    written(tmp_path, "objective.kappa_end: [0.5]\n")
    with pytest.raises(UserError, match=r"trial 1 \(objective\.kappa_end=0\.5\): objective: Unknown setting"):
        search.main([*options, "--dry-run"])
