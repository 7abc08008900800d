"""Short trainings for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunecert.models.pipeline import Job, Pipeline
from prunecert.models.recipe import Recipe
from prunecert.models.reports import EpochReport
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
