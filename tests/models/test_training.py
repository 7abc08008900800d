"""Training learns, holds masks, resumes to the bit, and says when it breaks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import prunecert.models.pipeline
import prunecert.models.training
from prunecert.errors import UserError
from prunecert.models import NETWORKS, OBJECTIVES, PRUNERS
from prunecert.models.checkpoint import load_model
from prunecert.models.data import Dataset
from prunecert.models.evaluate import evaluate
from prunecert.models.initialisation import ibp_init
from prunecert.models.masks import Masks
from prunecert.models.norms import estimate_statistics
from prunecert.models.pipeline import Job, Pipeline
from prunecert.models.pruners.contract import Batch, Hooks, Step
from prunecert.models.pruners.lwm import prune
from prunecert.models.recipe import Recipe
from prunecert.models.reports import EpochReport
from prunecert.models.schedules import Stage, ramp
from prunecert.models.training import Trainer, augment, seed_everything
from tests.models.conftest import blobs

FAST = {
    "pretrain_epochs": 2,
    "warmup_epochs": 0,
    "ramp_epochs": 1,
    "prune_epochs": 1,
    "finetune_epochs": 1,
    "batch_size": 20,
    "augment": False,
    "lr": 3e-3,
}


def quiet(report: EpochReport) -> None:
    """Reports nothing."""


def recipe(name: str = "natural", objective_settings: Mapping[str, Any] | None = None, **changes: Any) -> Recipe:
    settings = {"objective": objective_settings} if objective_settings else {}
    return Recipe.from_dict({**FAST, **settings, **changes}, name)


def job(pruner: str = "lwm", ratio: float = 10.0, objective: str = "ibp", **changes: Any) -> Job:
    return Job(
        f"cell_{pruner}_{ratio:g}",
        "cnn-small",
        objective,
        2 / 255,
        "2/255",
        pruner,
        ratio,
        0,
        recipe(objective, **changes),
        "command",
    )


def pipeline(folder: Path, report: object = quiet, images: int = 200) -> Pipeline:
    data = blobs(images), blobs(images // 2, "val", 1)
    return Pipeline(folder, folder / "work", *data, "cpu", report)  # type: ignore[arg-type]


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


def rectified_adam(model: nn.Module, data: Dataset, steps: int, lr: float, decay: float) -> None:
    """RAdam as it is published (Liu et al. 2020, algorithm 2), with decoupled decay; one batch of all images.

    The authors' code rectifies from a length of 5 on, where the paper's text has 4.
    """
    first, second = 0.9, 0.999
    longest = 2 / (1 - second) - 1
    x, y = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    moments = [(torch.zeros_like(one), torch.zeros_like(one)) for one in model.parameters()]
    for step in range(1, steps + 1):
        grads = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
        length = longest - 2 * step * second**step / (1 - second**step)
        for one, grad, (mean, square) in zip(model.parameters(), grads, moments, strict=True):
            mean.mul_(first).add_((1 - first) * grad)
            square.mul_(second).add_((1 - second) * grad**2)
            update = mean / (1 - first**step)
            if length > 5:
                numerator = (length - 4) * (length - 2) * longest
                rectification = (numerator / ((longest - 4) * (longest - 2) * length)) ** 0.5
                update = update * rectification / ((square / (1 - second**step)).sqrt() + 1e-8)
            with torch.no_grad():
                one.mul_(1 - lr * decay).sub_(lr * update)


@pytest.mark.parametrize("steps", [1, 5, 9])
def test_radam_s_updates_are_the_published_ones(steps: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    expected = copy.deepcopy(model)
    rectified_adam(expected, blobs(20), steps, 1e-2, 0.1)
    settings = recipe(optimizer="radam", weight_decay=0.1, decay=0.0, grad_clip=0.0)
    trainer = Trainer(settings, "natural", blobs(20), "cpu", quiet)
    trainer.run(model, Stage("pretrain", steps, 1e-2, 0.0))
    for actual, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(actual, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("radam", torch.optim.RAdam), ("sgd", torch.optim.SGD)]
)
def test_the_recipe_s_optimiser_trains(name: str, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[dict[str, Any]] = []
    step = kind.step

    def counting(self: torch.optim.Optimizer) -> None:
        steps.append(self.param_groups[0])
        step(self)

    monkeypatch.setattr(kind, "step", counting)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    trainer = Trainer(recipe(optimizer=name, weight_decay=0.1, momentum=0.7), "natural", blobs(40), "cpu", quiet)
    trainer.run(model, Stage("pretrain", 2, 1e-3, 0.0))
    assert len(steps) == 4
    assert steps[0]["weight_decay"] == 0.1
    assert steps[0].get("momentum", 0.7) == 0.7
    assert steps[0].get("decoupled_weight_decay", True), "of RAdam and AdamW"


def test_the_l1_norm_of_the_prunable_weights_is_in_the_loss() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    weights = (model.get_parameter("0.weight"), model.get_parameter("4.weight"))
    norm = sum(float(weight.detach().abs().double().sum()) for weight in weights)
    losses = {}
    for l1 in (0.0, 3e-3):
        trainer = Trainer(recipe(l1=l1), "natural", blobs(20), "cpu", quiet)
        losses[l1] = trainer.loss(model, trainer.images, trainer.labels, 0.0, 1.0)
    assert float((losses[3e-3] - losses[0.0]).detach()) == pytest.approx(3e-3 * norm, rel=1e-4)
    (with_it, without) = (torch.autograd.grad(loss, weights[1], retain_graph=True)[0] for loss in losses.values())
    assert torch.allclose(without - with_it, 3e-3 * weights[1].detach().sign(), atol=1e-6)


@pytest.mark.parametrize("clip", [0.0, 1e-3, 10.0])
def test_the_gradient_s_norm_is_clipped(clip: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    data = blobs(20)
    loss = F.cross_entropy(model(torch.from_numpy(data.images)), torch.from_numpy(data.labels))
    grads = torch.autograd.grad(loss, list(model.parameters()))
    norm = float(torch.cat([grad.flatten() for grad in grads]).norm())
    assert 1e-3 < norm < 10
    settings = recipe(optimizer="sgd", momentum=0.0, grad_clip=clip, decay=0.0)
    Trainer(settings, "natural", data, "cpu", quiet).run(model, Stage("pretrain", 1, 1.0, 0.0))
    moved = [old - new.detach() for old, new in zip(before, model.parameters(), strict=True)]
    assert float(torch.cat([one.flatten() for one in moved]).norm()) == pytest.approx(
        clip if clip == 1e-3 else norm, rel=1e-3
    )


class Noting:
    """An objective that notes what it is called with, and is natural."""

    def __init__(self) -> None:
        self.images: list[torch.Tensor] = []
        self.radii: list[float] = []
        self.progress: list[float] = []
        self.halved: list[bool] = []
        self.weights: list[torch.Tensor] = []

    def __call__(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float, *, progress: float = 1.0
    ) -> torch.Tensor:
        self.images.append(x)
        self.radii.append(eps)
        self.progress.append(progress)
        self.halved.append(torch.is_autocast_enabled("cpu"))
        self.weights.append(next(model.parameters()).detach().clone())
        return F.cross_entropy(model(x), y)


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Noting:
    """The calls of the objective ``natural``, for as long as a test runs."""
    noting = Noting()
    monkeypatch.setitem(OBJECTIVES._loaded, "natural", noting)
    return noting


@pytest.mark.parametrize("shape", ["linear", "smoothed"])
def test_the_loss_meets_the_recipe_s_ramp_in_batches_of_its_size(noted: Noting, shape: str) -> None:
    rates: list[float] = []
    changes: dict[str, Any] = {
        "ramp": shape,
        "lr_schedule": "step",
        "lr_milestones": [0.5],
        "lr_gamma": 0.1,
        "batch_size": 30,
    }
    trainer = Trainer(recipe(**changes), "natural", blobs(60), "cpu", lambda report: rates.append(report.lr))
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    trainer.run(model, Stage("pretrain", 4, 1e-3, 0.1, warmup=1, ramp=2))
    shares = [0, 0, 0, 0.25, 0.5, 0.75, 1, 1]
    if shape == "smoothed":
        # auto_LiRPA's schedule: a share^4 up to 1/4, then the tangent, which ends at 1.
        a = 1 / (0.25**4 + 4 * 0.25**3 * 0.75)
        shares = [a * (one**4 if one <= 0.25 else 0.25**4 + 4 * 0.25**3 * (one - 0.25)) for one in shares]
    assert noted.progress == pytest.approx(shares)
    assert noted.radii == pytest.approx([0.1 * share for share in shares])
    assert [len(x) for x in noted.images] == [30] * 8
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])


def test_the_factor_of_the_radius_reaches_the_loss_in_every_stage(
    tmp_path: Path, noted: Noting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        prunecert.models.pipeline, "evaluate", lambda *_, **__: {"images": 10, "clean": 1.0, "pgd": 1.0}
    )
    cell = job(objective="natural", train_eps_factor=1.26, warmup_epochs=1, ramp_epochs=0, prune_epochs=0)
    pipeline(tmp_path, images=20).run(cell)
    # An epoch of warm-up, one of pre-training at the whole radius, one of fine-tuning.
    assert noted.radii == pytest.approx([0.0, 1.26 * 2 / 255, 1.26 * 2 / 255])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_products_and_images_are_in_the_recipe_s_format(noted: Noting, precision: str, layout: str) -> None:
    trainer = Trainer(recipe(precision=precision, memory_format=layout), "natural", blobs(20), "cpu", quiet)
    model = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.Flatten(), nn.Linear(256, 10))
    trainer.run(model, Stage("pretrain", 1, 1e-3, 0.0))
    assert noted.halved == [precision == "bfloat16"]
    assert noted.images[0].is_contiguous(memory_format=torch.channels_last) == (layout == "channels-last")
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_the_average_of_the_weights_starts_where_the_rate_begins_to_fall(noted: Noting) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    ends = []
    for average in (0.0, 0.75):
        one = copy.deepcopy(model)
        torch.manual_seed(0)
        settings = recipe(average=average, decay=0.5, optimizer="sgd")
        Trainer(settings, "natural", blobs(40), "cpu", quiet).run(one, Stage("pretrain", 4, 0.01, 0.0))
        ends.append(one.get_parameter("1.weight").detach())
    # Two steps an epoch: the weights after steps 5 to 8 count.
    first, *others = [*noted.weights[5:8], ends[0]]
    expected = first
    for weight in others:
        expected = 0.75 * expected + 0.25 * weight
    assert torch.allclose(ends[1], expected, atol=1e-6)
    assert not torch.allclose(ends[1], ends[0], atol=1e-6)


@pytest.mark.parametrize(("crop", "padding", "mode"), [(2, "edge", "replicate"), (3, "zero", "constant")])
def test_training_crops_as_the_recipe_says(noted: Noting, crop: int, padding: str, mode: str) -> None:
    data = blobs(60)
    image = torch.arange(1.0, 1 + 3 * 32 * 32).view(1, 3, 32, 32) / 4000
    data.images[:] = image.numpy()
    trainer = Trainer(recipe(augment=True, crop=crop, crop_padding=padding), "natural", data, "cpu", quiet)
    trainer.run(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), Stage("pretrain", 1, 1e-3, 0.0))
    padded = F.pad(image, (crop,) * 4, mode)[0]
    places = range(2 * crop + 1)
    windows = [padded[:, i : i + 32, j : j + 32] for i in places for j in places]
    allowed = {window.numpy().tobytes() for window in windows} | {
        window.flip(2).numpy().tobytes() for window in windows
    }
    met = {one.numpy().tobytes() for x in noted.images for one in x}
    assert met <= allowed
    assert len(met) > len(allowed) // 4


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


def test_schedules() -> None:
    stage = Stage("pretrain", 10, 1.0, 0.1, warmup=2, ramp=4)
    assert [stage.progress(epoch) for epoch in (0, 1.99, 2, 4, 6, 9)] == [0, 0, 0, 0.5, 1, 1]
    cosine, constant = recipe(decay=0.5), recipe(decay=0.0)
    assert stage.rate(5.0, cosine) == 1.0
    assert stage.rate(7.5, cosine) == pytest.approx(0.505)
    assert stage.rate(10.0, cosine) == pytest.approx(0.01)
    assert stage.rate(9.0, constant) == 1.0
    steps = recipe(lr_schedule="step", lr_milestones=[0.5, 0.8], lr_gamma=0.1)
    assert [stage.rate(epoch, steps) for epoch in (0, 4.9, 5, 7.9, 8, 10)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_the_smoothed_ramp_is_smooth() -> None:
    assert [ramp(share, "smoothed") for share in (-1, 0, 1, 2)] == pytest.approx([0, 0, 1, 1])
    # auto_LiRPA's schedule with its defaults (middle 1/4, power 4): value and slope agree at the joint.
    factor = 1 / (0.25**4 + 4 * 0.25**3 * 0.75)
    assert ramp(0.25, "smoothed") == pytest.approx(factor * 0.25**4)
    assert ramp(0.125, "smoothed") == pytest.approx(factor * 0.125**4)
    step = 1e-6
    slopes = [(ramp(at + step, "smoothed") - ramp(at, "smoothed")) / step for at in (0.25 - step, 0.25, 0.9)]
    assert slopes == pytest.approx([factor * 4 * 0.25**3] * 3, rel=1e-4)
    values = [ramp(share / 100, "smoothed") for share in range(101)]
    assert values == sorted(values)
    assert all(value <= share / 100 + 1e-12 for share, value in enumerate(values)), "it lags behind the linear one"


def test_edge_padding_repeats_the_border() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 32, 32) + 1
    moved = augment(image.expand(60, -1, -1, -1), 2, "edge")
    assert float(moved.min()) >= 1, "no pixel is padded with zero"
    assert bool(torch.isin(moved, image).all()), "every pixel is one of the image's"
    # Cropped from the very corner, the first two rows are the border's twice over.
    assert any(torch.equal(one[:, 0], one[:, 1]) and torch.equal(one[:, 1], one[:, 2]) for one in moved)
    still = augment(image, 0, "edge")
    assert torch.equal(still, image) or torch.equal(still, image.flip(3))


@pytest.mark.parametrize(("crop", "least"), [(4, 100), (1, 18), (0, 2)])
def test_augmentation_moves_and_mirrors_whole_images(crop: int, least: int) -> None:
    torch.manual_seed(0)
    image = torch.arange(1.0, 1 + 3 * 32 * 32).view(1, 3, 32, 32)
    moved = augment(image.expand(400, -1, -1, -1), crop)
    assert moved.shape == (400, 3, 32, 32)
    padded = torch.nn.functional.pad(image[0], (crop,) * 4)
    places = range(2 * crop + 1)
    windows = [padded[:, i : i + 32, j : j + 32] for i in places for j in places]
    crops = {window.numpy().tobytes() for window in windows} | {window.flip(2).numpy().tobytes() for window in windows}
    contents = {one.numpy().tobytes() for one in moved}
    assert contents <= crops
    assert len(contents) >= least


def test_ibp_init_has_the_paper_s_variance() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(500, 400)
    ibp_init(layer)
    assert float(layer.weight.detach().std()) == pytest.approx((2 * torch.pi) ** 0.5 / 500, rel=0.02)
    # The mean absolute row sum, halved, is the growth of an interval: 1.
    assert float(layer.weight.detach().abs().sum(1).mean()) / 2 == pytest.approx(1, rel=0.02)


def test_seeds_differ_between_stages() -> None:
    seed_everything(0, "a")
    first = torch.rand(1)
    seed_everything(0, "b")
    second = torch.rand(1)
    seed_everything(0, "a")
    assert torch.equal(first, torch.rand(1))
    assert not torch.equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 30])
def test_evaluation_orders_its_measures(tmp_path: Path, limit: int | None) -> None:
    torch.manual_seed(0)
    data: Dataset = blobs(60)
    result = evaluate(NETWORKS.get("cnn-small")(), data, 0.02, limit=limit)
    assert result["images"] == (limit or 60)
    assert result["ibp"] <= result["crown_ibp"] <= result["pgd"] <= result["clean"]
    assert set(evaluate(NETWORKS.get("vgg16")(), data, 0.02, limit=4)) == {"images", "clean", "pgd"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"learning_rate": 1}, "Unknown key 'learning_rate'"),
        ({"lr": "fast"}, "lr is 'fast'"),
        ({"lr": -1.0}, "lr is -1.0; it must be a number above 0"),
        ({"augment": 1}, "augment is 1; it must be true or false"),
        ({"crop": -1}, "crop is -1; it must be a whole number from 0"),
        ({"pretrain_epochs": 2.5}, r"pretrain_epochs is 2\.5"),
        ({"ramp_epochs": 50}, "more than pretrain_epochs"),
        ({"average": 1.5}, "average is 1.5; it must be a number from 0 to below 1"),
        ({"init": "kaiming"}, "Unknown init 'kaiming'"),
        ({"precision": "float16"}, "Did you mean 'bfloat16'"),
        ({"allocation": "blanced"}, "Did you mean 'balanced'"),
        ({"objective": {"kapa_end": 1}}, "Did you mean 'kappa_end'"),
        ({"objective": {"kappa_end": "a"}}, "must be a number"),
        ({"objective": 3}, "must be a mapping"),
    ],
)
def test_bad_recipes_are_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe.from_dict(data, "ibp")


def test_recipes_come_back_from_their_dictionary() -> None:
    settings = recipe("ibp", objective={"kappa_end": 0.25})
    assert Recipe.from_dict(settings.to_dict(), "ibp") == settings


class _Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators for which a host must wait for a CUDA device: those whose result's value or size it needs."""

    NAMES = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero", "unique", "item")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        # Indexing with a mask counts its hits.
        by_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        self.count += name.startswith(self.NAMES) or by_mask
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crown-ibp", "mtl-ibp", "trades", "hydra", "drop-grow"])
def test_no_step_waits_for_a_cuda_device(name: str) -> None:
    """As many waits in an epoch of 16 steps as in one of 4; on the CPU, where it can be counted without a device."""
    objective = "crown-ibp" if name in ("hydra", "drop-grow") else name
    waits = []
    for images in (16, 64):
        settings = recipe(objective, batch_size=4, augment=True, optimizer="sgd", average=0.9, addons={"fast-ibp": {}})
        trainer = Trainer(settings, objective, blobs(images), "cpu", quiet, check_every=1000)
        model = NETWORKS.get("cnn-small")()
        stage = Stage("a", 1, 1e-4, 0.01, ramp=2)

        def train(model: nn.Module, epochs: int, trainer: Trainer = trainer, stage: Stage = stage, **more: Any) -> Any:
            # What drop-and-grow does every 100 steps may wait.
            hooks = Hooks(before=lambda _: None) if more["name"] == "sparse" else None
            with _Waits() as mode:
                masks = trainer.run(model, stage, parameters=more.get("scores"), masks=more.get("masks"), hooks=hooks)
            waits.append(mode.count)
            return masks

        if name in PRUNERS:
            train.left, train.learning = 1, 1  # type: ignore[attr-defined]
            PRUNERS.get(name)(model, 10, train=train)
        else:
            train(model, 1, name="plain")
    assert waits[0] == waits[1]
    assert waits[0] > 0, "the mean loss of the epoch is one"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cell_is_trained_on_a_cuda_device(tmp_path: Path) -> None:
    data = blobs(200), blobs(100, "val", 1)
    line = Pipeline(tmp_path, tmp_path / "work", *data, "cuda", quiet)
    card = line.run(job("hydra", pretrain_epochs=4, precision="bfloat16", memory_format="channels-last"))
    assert card.kept == 21_476
    assert card.accuracy["clean"] > 0.5
    assert card.device != "cpu"
