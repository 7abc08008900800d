"""Training learns, holds masks, resumes to the bit, and says when it breaks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import prunecert.models.pipeline
import prunecert.models.training
from prunecert.errors import UserError
from prunecert.models import NETWORKS
from prunecert.models.checkpoint import load_model
from prunecert.models.masks import Masks
from prunecert.models.norms import estimate_statistics
from prunecert.models.pipeline import Job, Pipeline
from prunecert.models.pruners.contract import Batch, Hooks, Step
from prunecert.models.pruners.lwm import prune
from prunecert.models.schedules import Stage
from prunecert.models.training import Trainer, seed_everything
from tests.models.conftest import blobs
from tests.models.training_kit import job, pipeline, quiet, recipe


@pytest.mark.slow
def test_steps_are_told_in_a_stretch_without_masks(tmp_path: Path) -> None:
    """And additions to the loss, where the loss is another than the objective's."""
    line, one = pipeline(tmp_path, images=60), job(addons={"fast-ibp": {}})
    steps: list[tuple[int, int, int]] = []
    extras: list[float] = []

    def after(step: Step) -> None:
        steps.append((step.number, step.steps, len(step.masks)))

    def loss(batch: Batch) -> torch.Tensor:
        extras.append(batch.extra().item())
        return batch.own()

    model = line.initial(one)
    line.trainer(one).run(model, Stage("plain", 2, 1e-3, 0.01, ramp=2), hooks=Hooks(after=after, loss=loss))
    assert steps == [(number, 6, 0) for number in range(6)]
    assert len(extras) == 6
    assert min(extras) > 0


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["natural", "ibp", "crown-ibp", "pgd"])
def test_a_cell_is_trained_pruned_and_measured(tmp_path: Path, objective: str) -> None:
    card = pipeline(tmp_path).run(job(objective=objective, pretrain_epochs=4))
    assert card.kept == 21_476
    assert card.accuracy["images"] == 100
    assert card.accuracy["clean"] > 0.5
    assert (tmp_path / "cell_lwm_10.safetensors").exists()
    assert not list((tmp_path / "work").glob("*finetune*")), "no state is left of a finished cell"


@pytest.mark.slow
def test_all_cells_train_equally_long(tmp_path: Path) -> None:
    epochs: list[tuple[str, int]] = []
    line = pipeline(tmp_path, lambda report: epochs.append((report.stage, report.epoch)), images=60)
    for pruner, ratio in (("dense", 1.0), ("lwm", 10.0), ("hydra", 10.0)):
        line.run(job(pruner, ratio))
    stages = [stage for stage, _ in epochs]
    assert stages == ["pretrain", "pretrain", "finetune", "finetune", "finetune", "finetune", "scores", "finetune"]


@pytest.fixture(scope="module", params=["lwm", "hydra"])
def whole_cell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, str]:
    """Returns a cell, and the hash of the checkpoint that it comes to when nothing interrupts it."""
    one = job(request.param, prune_epochs=2, finetune_epochs=2, augment=True, average=0.9)
    return one, pipeline(tmp_path_factory.mktemp("whole"), images=60).run(one).sha256


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 2, 3, 4])
def test_an_interrupted_cell_resumes_to_the_same_weights(
    tmp_path: Path, whole_cell: tuple[Job, str], stop_after: int
) -> None:
    one, sha256 = whole_cell
    epochs = 0

    def interrupt(*_: object) -> None:
        nonlocal epochs
        epochs += 1
        if epochs == stop_after + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline(tmp_path / "cut", interrupt, images=60).run(one)
    rest: list[str] = []
    resumed = pipeline(tmp_path / "cut", lambda report: rest.append(report.stage), images=60).run(one)
    assert resumed.sha256 == sha256
    assert len(rest) == 6 - stop_after, "what was done is not done again, but for the epoch in flight"


#: The recipe of networks with batch norm, shortened.
FIELD: dict[str, Any] = {
    "init": "ibp-hidden",
    "objective": {"alpha": 0.0025, "attack_factor": 2.24, "steps": 1, "step_size": 1.48, "share": 0.5},
    "addons": {"fast-ibp": {"weight": 0.344, "spread": 0.2}},
    "optimizer": "radam",
    "ramp": "smoothed",
    "lr_schedule": "step",
    "augment": True,
    "crop": 2,
    "crop_padding": "edge",
    "l1": 3e-6,
}


def certified(network: str, **changes: Any) -> Job:
    return replace(job(objective="mtl-ibp"), network=network, recipe=recipe("mtl-ibp", **{**FIELD, **changes}))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"average": 0.9}, {"precision": "bfloat16", "memory_format": "channels-last"}])
def test_a_network_with_batch_norm_resumes_to_the_same_weights(
    tmp_path: Path, changes: dict[str, Any], small_network: str
) -> None:
    cell = certified(small_network, **changes)
    whole = pipeline(tmp_path / "whole", images=60).run(cell)
    epochs = 0

    def interrupt(*_: object) -> None:
        nonlocal epochs
        epochs += 1
        if epochs == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline(tmp_path / "cut", interrupt, images=60).run(cell)
    resumed = pipeline(tmp_path / "cut", images=60).run(cell)
    assert resumed.sha256 == whole.sha256
    assert resumed.kept == round(resumed.weights / 10)
    assert resumed.accuracy["ibp"] <= resumed.accuracy["crown_ibp"] <= resumed.accuracy["pgd"]
    assert load_model(tmp_path / "whole" / "cell_lwm_10.safetensors")[1].holds(
        load_model(tmp_path / "cut" / "cell_lwm_10.safetensors")[0]
    )


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["mtl-ibp", "sabr"])
@pytest.mark.parametrize("network", ["cnn-small", "small-residual"])
def test_scores_learn_from_objectives_that_attack(
    tmp_path: Path, network: str, objective: str, small_network: str
) -> None:
    settings = {"prune_epochs": 2, "finetune_epochs": 0, "score_lr": 0.1}
    cell = replace(job("hydra", objective=objective, **settings), network=network)
    learned = pipeline(tmp_path / "a", images=60).run(cell)
    # With a rate of next to nothing the first mask, that of LWM, stays.
    still = replace(cell, recipe=replace(cell.recipe, score_lr=1e-12))
    assert learned.mask_sha256 != pipeline(tmp_path / "b", images=60).run(still).mask_sha256


@pytest.mark.slow
def test_a_network_with_batch_norm_learns(tmp_path: Path, small_network: str) -> None:
    losses: list[float] = []
    # Few images and large steps: what is learned is learned in a few seconds.
    changes = {"pretrain_epochs": 12, "ramp_epochs": 2, "augment": False, "lr": 1e-2}
    cell = replace(certified(small_network, **changes), pruner="dense", compression=1.0)
    card = pipeline(tmp_path, lambda report: losses.append(report.loss), images=100).run(cell)
    assert losses[-1] < losses[0]
    assert card.accuracy["clean"] > 0.5


@pytest.mark.slow
def test_pruning_and_averaging_set_batch_norm_s_statistics_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_network: str
) -> None:
    calls = []
    original = estimate_statistics

    def counting(model: nn.Module, batches: Any) -> None:
        calls.append(sum(map(len, batches)))
        original(model, batches)

    monkeypatch.setattr(prunecert.models.training, "estimate_statistics", counting)
    line = pipeline(tmp_path, images=60)
    line.run(replace(job(objective="pgd"), network=small_network))
    assert calls == [60], "after pruning"
    line.run(replace(job(objective="pgd", average=0.9, decay=1.0, lr=1e-3), network=small_network))
    assert calls == [60] * 4, "after pre-training, pruning and fine-tuning"
    line.run(replace(job("dense", 1.0, objective="pgd"), network=small_network))
    assert calls == [60] * 4
    line.run(job(objective="pgd"))
    assert calls == [60] * 4, "without batch norm there is nothing to estimate"
    line.run(replace(job("lwm-iterative", objective="pgd"), network=small_network))
    assert calls == [60] * 4, "what was trained as it is keeps its statistics, as the dense control does"


@pytest.mark.slow
def test_a_last_batch_of_one_image_is_left_out(tmp_path: Path, small_network: str) -> None:
    assert pipeline(tmp_path, images=41).run(replace(job(objective="pgd"), network=small_network)).kept


@pytest.mark.parametrize(
    ("changes", "objective"), [({}, "ibp"), ({"addons": {"nrs": {}}}, "pgd"), ({"addons": {"fast-ibp": {}}}, "natural")]
)
def test_a_layer_without_bounds_is_refused_before_training(changes: dict[str, Any], objective: str) -> None:
    cell = replace(job(objective=objective, **changes), network="vgg16")
    who = "ibp" if objective == "ibp" else next(iter(changes["addons"]))
    with pytest.raises(UserError, match=rf"cell_lwm_10: {who} needs bounds of vgg16\..*'6' \(MaxPool2d\)"):
        cell.refuse_unreachable()
    replace(job(objective="pgd"), network="vgg16").refuse_unreachable()


def test_windows_of_different_sizes_are_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS._targets, "uneven", "tests.models.conftest:uneven")
    with pytest.raises(
        UserError, match=r"ibp needs bounds of uneven\. .*'2' \(AdaptiveAvgPool2d\).* 3x3 of 8x8 places"
    ):
        replace(job(), network="uneven").refuse_unreachable()
    replace(job(), network="uneven", data={"shape": [3, 24, 24], "classes": 10}).refuse_unreachable()


@pytest.mark.slow
def test_training_is_seeded(tmp_path: Path) -> None:
    first, second = (pipeline(tmp_path / name, images=60).run(job()) for name in ("a", "b"))
    assert first.sha256 == second.sha256


def test_masks_survive_training() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 16), nn.ReLU(), nn.Linear(16, 10))
    masks = prune(model, 5)
    masks.apply_(model)
    trainer = Trainer(recipe(weight_decay=0.1, average=0.5, l1=1e-4), "natural", blobs(100), "cpu", quiet)
    trainer.run(model, Stage("finetune", 3, 1e-2, 0.0), masks=masks)
    assert masks.holds(model)
    assert Masks({n: p != 0 for n, p in model.named_parameters() if p.ndim == 2}).kept == masks.kept


def test_a_loss_that_is_no_number_stops_with_batch_and_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    with torch.no_grad():
        model.get_parameter("1.weight").fill_(float("inf"))
    trainer = Trainer(recipe(), "natural", blobs(100), "cpu", quiet)
    with pytest.raises(UserError, match=r"stage 'pretrain', epoch 1, batch 1.*1\.weight"):
        trainer.run(model, Stage("pretrain", 1, 1e-3, 0.0))


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    state.write_bytes(b"half a fil")
    trainer = Trainer(recipe(), "natural", blobs(20), "cpu", quiet)
    with pytest.raises(UserError, match=r"state\.pt' cannot be read .* delete it"):
        trainer.run(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), Stage("a", 2, 1e-3, 0.0), state_file=state)


def test_seeds_differ_between_stages() -> None:
    seed_everything(0, "a")
    first = torch.rand(1)
    seed_everything(0, "b")
    second = torch.rand(1)
    seed_everything(0, "a")
    assert torch.equal(first, torch.rand(1))
    assert not torch.equal(first, second)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cell_is_trained_on_a_cuda_device(tmp_path: Path) -> None:
    data = blobs(200), blobs(100, "val", 1)
    line = Pipeline(tmp_path, tmp_path / "work", *data, "cuda", quiet)
    card = line.run(job("hydra", pretrain_epochs=4, precision="bfloat16", memory_format="channels-last"))
    assert card.kept == 21_476
    assert card.accuracy["clean"] > 0.5
    assert card.device != "cpu"
