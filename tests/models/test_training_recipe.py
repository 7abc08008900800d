"""What a recipe says reaches the loss: radii, rates, formats, averages, crops."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import prunecert.models.pipeline
import prunecert.models.training
from prunecert.models import OBJECTIVES
from prunecert.models.schedules import Stage
from prunecert.models.training import Trainer, augment
from tests.models.conftest import blobs
from tests.models.training_kit import job, pipeline, quiet, recipe


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
