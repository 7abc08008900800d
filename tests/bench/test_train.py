"""bench.train: what is trained already, budgets, subsets, what the cards say; training itself is tests/models'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import prunecert.models.data
from prunecert.bench import train
from prunecert.bench.planning.select import CHECKPOINTS
from prunecert.bench.running import training
from prunecert.bench.running.session import unfit
from prunecert.bench.running.training_progress import TrainingProgress
from prunecert.errors import UserError
from prunecert.hashing import digest
from prunecert.models.checkpoint import load_card
from prunecert.models.data import Dataset
from prunecert.models.recipe import Recipe
from prunecert.models.reports import EpochReport
from tests.bench.trainkit import SUITE, jobs
from tests.models.conftest import blobs


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    def load(split: str, *_: Any, **__: Any) -> Dataset:
        return blobs(60 if split == "train" else 20, split)

    monkeypatch.setattr(prunecert.models.data, "load", load)
    file = tmp_path / "tiny.yaml"
    file.write_text(SUITE)
    return str(file)


def test_cells_are_trained_once(suite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--suite", suite, "--out", str(tmp_path / "zoo"), "--cells", "*lwm_x10_s0"]
    assert train.main(command) == 0
    printed = capsys.readouterr().out
    assert "1 cells, 0 trained already, 1 to train." in printed
    assert "Throughput, cnn-small, natural: pretrain " in printed
    assert ", finetune " in printed
    card = load_card(tmp_path / "zoo" / "cnn-small_natural_eps2_lwm_x10_s0.json")
    assert set(card.throughput) == {"pretrain", "finetune"}
    assert all(rate > 0 for rate in card.throughput.values())
    assert card.unfit == ""
    assert "pruners" not in card.recipe, "another pruner's settings are not this cell's"
    assert train.main(command) == 0
    assert "1 cells, 1 trained already, 0 to train." in capsys.readouterr().out


@pytest.mark.slow
def test_another_recipe_or_other_data_is_not_overwritten(suite: str, tmp_path: Path) -> None:
    command = ["--suite", suite, "--out", str(tmp_path / "zoo"), "--cells", "*dense_x1_s0"]
    train.main([*command, "--subset", "40"])
    card = tmp_path / "zoo" / "cnn-small_natural_eps2_dense_x1_s0.json"
    assert load_card(card).unfit == "trained on 40 images only (--subset)"
    with pytest.raises(UserError, match=r"trained on other data \(trained on 40 images only.*--force"):
        train.main(command)
    train.main([*command, "--force"])
    Path(suite).write_text(SUITE.replace("augment: false", "augment: false, lr: 0.01, ramp: smoothed"))
    with pytest.raises(UserError, match=r"another recipe \(different: lr, ramp\).*--force"):
        train.main(command)


def test_a_card_from_before_a_key_existed_means_its_default(suite: str, tmp_path: Path) -> None:
    command = ["--suite", suite, "--out", str(tmp_path / "zoo"), "--cells", "*dense_x1_s0"]
    train.main(command)
    card = tmp_path / "zoo" / "cnn-small_natural_eps2_dense_x1_s0.json"
    data = json.loads(card.read_text())
    for key in ("throughput", "unfit"):
        del data[key]
    del data["recipe"]["grad_clip"]
    data["recipe"]["optimizer"] = "adamw"
    card.write_text(json.dumps(data))
    (job,) = jobs(suite, "*dense_x1_s0")
    assert training.is_done(tmp_path / "zoo", job)


@pytest.mark.slow
def test_the_rate_of_scores_concerns_only_pruners_that_learn_them(suite: str, tmp_path: Path) -> None:
    text = SUITE.replace("[lwm, drop-grow]", "[lwm, hydra]").replace("[1, 2, 10]", "[1, 10]").replace("[0, 1]", "[0]")
    Path(suite).write_text(text)
    train.main(["--suite", suite, "--out", str(tmp_path / "zoo")])
    Path(suite).write_text(text.replace("augment: false", "augment: false, score_lr: 0.03"))
    assert {job.pruner for job in jobs(suite)} == {"dense", "lwm", "hydra"}
    for job in jobs(suite):
        if job.pruner == "hydra":
            with pytest.raises(UserError, match=r"another recipe \(different: score_lr\)"):
                training.is_done(tmp_path / "zoo", job)
        else:
            assert training.is_done(tmp_path / "zoo", job)


def test_shipped_cards_say_their_recipes_as_they_would_be_written_now() -> None:
    cards = [load_card(file) for file in CHECKPOINTS.glob("*.json")]
    assert len(cards) >= 20
    for card in cards:
        assert Recipe.from_dict(card.recipe, card.objective).to_dict() == card.recipe, card.name


def test_what_was_pretrained_for_a_recipe_of_old_is_still_found() -> None:
    recipe = Recipe.from_dict({"precision": "bfloat16", "allocation": "balanced", "augment": False}, "ibp")
    job = train_job(recipe)
    assert digest(job.pretraining()) == digest(
        {
            "network": "cnn-small",
            "objective": {},
            "eps": "2/255",
            "seed": 0,
            "init": "default",
            "pretrain_epochs": 40,
            "warmup_epochs": 1,
            "ramp_epochs": 20,
            "batch_size": 128,
            "lr": 1e-3,
            "decay": 0.5,
            "weight_decay": 0.0,
            "l1": 0.0,
            "grad_clip": 10.0,
            "average": 0.0,
            "train_eps_factor": 1.0,
            "augment": False,
            "precision": "bfloat16",
        }
    )
    other = Recipe.from_dict({**recipe.to_dict(), "optimizer": "sgd"}, "ibp")
    assert digest(train_job(other).pretraining()) != digest(job.pretraining())
    pruner = Recipe.from_dict({**recipe.to_dict(), "pruners": {"drop-grow": {"every": 7}}}, "ibp")
    assert digest(train_job(pruner).pretraining()) == digest(job.pretraining())


def train_job(recipe: Recipe) -> Any:
    from prunecert.models.pipeline import Job

    return Job("cell", "cnn-small", "ibp", 2 / 255, "2/255", "lwm", 10.0, 0, recipe, "command")


def test_subsets_are_marked_and_kept_out_of_the_zoo(suite: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--subset is refused without --out"):
        train.main(["--suite", suite, "--subset", "10"])

    class Plan:
        def __init__(self, name: str, card: dict[str, str]) -> None:
            self.cell, self.export = type("C", (), {"name": name}), type("E", (), {"card": card})

    plans: Any = [Plan("a", {"unfit": "trained on 10 images only"}), Plan("b", {"unfit": ""}), Plan("c", {})]
    assert unfit(plans) == ["a: trained on 10 images only"]


@pytest.mark.slow
def test_a_budget_stops_between_epochs_and_the_same_command_goes_on(
    suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr("prunecert.bench.running.training.time.monotonic", lambda: clock[0])
    epochs: list[str] = []
    original = TrainingProgress.epoch

    def hourly(self: TrainingProgress, report: EpochReport) -> None:
        epochs.append(f"{report.stage} {report.epoch}")
        clock[0] += 3600
        original(self, report)

    monkeypatch.setattr(TrainingProgress, "epoch", hourly)
    command = ["--suite", suite, "--out", str(tmp_path / "zoo"), "--cells", "*lwm_x10_s0"]
    assert train.main([*command, "--budget", "2.5h"]) == 0
    assert epochs == ["pretrain 1", "pretrain 2", "finetune 1"]
    printed = capsys.readouterr().out
    assert "The budget of 2.5h is spent: 0 of 1 cells are trained; the same command goes on with" in printed
    assert not (tmp_path / "zoo" / "cnn-small_natural_eps2_lwm_x10_s0.json").exists()
    assert train.main([*command, "--budget", "2.5h"]) == 0
    assert epochs[3:] == ["finetune 2"]
    stopped = load_card(tmp_path / "zoo" / "cnn-small_natural_eps2_lwm_x10_s0.json")
    train.main(["--suite", suite, "--out", str(tmp_path / "whole"), "--cells", "*lwm_x10_s0"])
    assert load_card(tmp_path / "whole" / f"{stopped.name}.json").sha256 == stopped.sha256


@pytest.mark.parametrize(
    ("pruner", "ratio", "message"),
    [
        ("structured-filters", 20, r"structured-filters_x20_s0: Compression 20 is refused: with 5% of the units"),
        ("filter-l1", 200, "filter-l1_x200_s0: Compression 200 is refused for filter pruning"),
        ("hydra", 80000, "hydra_x80000_s0: Keeping 3 weights is refused: 4 layers"),
        ("lwm", 100000, "lwm_x100000_s0: Keeping 2 weights is refused"),
        ("lwm-global", 99999, "lwm-global_x99999_s0: Keeping 2 weights is refused"),
        ("lwm-global", 50000, None),
    ],
)
def test_an_unreachable_sparsity_is_refused_before_anything_is_trained(
    suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruner: str, ratio: int, message: str | None
) -> None:
    from prunecert.models.pipeline import Pipeline

    ran: list[str] = []

    def stop(_: Pipeline, job: Any) -> None:
        ran.append(job.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "run", stop)
    text = SUITE.replace("[lwm, drop-grow]", f"[{pruner}]").replace("[1, 2, 10]", f"[1, {ratio}]")
    Path(suite).write_text(text)
    command = ["--suite", suite, "--out", str(tmp_path / "zoo")]
    if message is None:
        with pytest.raises(KeyboardInterrupt):
            train.main(command)
        assert ran == ["cnn-small_natural_eps2_dense_x1_s0"]
        return
    with pytest.raises(UserError, match=message):
        train.main(command)
    assert not ran
