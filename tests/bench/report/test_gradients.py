from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from prunecert.bench.report.gradients import LEAST, gradients
from prunecert.bench.report.impact import section
from prunecert.bench.results.impact.images import ImageOutcomes
from prunecert.models.checkpoint import ZOO, load_card
from prunecert.models.data import Dataset
from tests.bench.results.impact.networks import network, proved

DENSE, PRUNED = (f"cnn-small_ibp_eps2_{name}_s0" for name in ("dense_x1", "hydra_x100"))


def split(images: int = LEAST) -> Dataset:
    rng = np.random.default_rng(0)
    pixels = rng.random((images, 3, 32, 32), dtype=np.float32)
    numbers = np.arange(images)
    return Dataset(pixels, numbers % 10, numbers, "test", "f" * 64, official=True, sample=False, source="CIFAR-10")


def part(name: str, pruner: str, images: int = LEAST, sha256: str | None = None) -> ImageOutcomes:
    one = network(proved(1, of=images), pruner=pruner, checkpoint_sha256=sha256 or load_card(ZOO / name).sha256)
    return replace(one, cell=msgspec.structs.replace(one.cell, name=name))


@pytest.fixture(scope="module")
def parts() -> list[ImageOutcomes]:
    return [part(DENSE, "dense"), part(PRUNED, "hydra")]


def test_a_run_s_pruned_networks_are_measured_beside_their_dense_control(parts: list[ImageOutcomes]) -> None:
    table = gradients(parts, ["a", "b"], [split()], ZOO)
    assert table is not None
    assert (table.images, table.left_out) == (LEAST, 0)
    (row,) = table.table.rows
    assert row[0] == PRUNED
    assert -1 <= float(row[3]) <= 1
    html = section(parts, ["a", "b"], gradients=table)
    assert "Excess loss by class and gradients" in html
    assert "networks are left out" not in html
    assert "Excess loss" not in section(parts, ["a", "b"])


def test_nothing_is_said_of_few_images_other_data_or_other_checkpoints(
    parts: list[ImageOutcomes], tmp_path: Path
) -> None:
    assert gradients(parts, [], [], ZOO) is None
    assert gradients(parts, [], [split()], tmp_path) is None
    few = [part(name, pruner, LEAST - 1) for name, pruner in ((DENSE, "dense"), (PRUNED, "hydra"))]
    assert gradients(few, [], [split()], ZOO) is None
    other = [parts[0], part(PRUNED, "hydra", sha256="0" * 64)]
    assert gradients(other, [], [split()], ZOO) is None


def test_a_checkpoint_that_went_bad_is_no_reason_to_have_no_report(parts: list[ImageOutcomes], tmp_path: Path) -> None:
    for name in (DENSE, PRUNED):
        for file in ZOO.glob(f"{name}.*"):
            shutil.copy(file, tmp_path)
    (tmp_path / f"{PRUNED}.safetensors").write_bytes(b"cut off")
    assert gradients(parts, [], [split()], tmp_path) is None
    (tmp_path / f"{PRUNED}.json").write_text(json.dumps([]))
    assert gradients(parts, [], [split()], tmp_path) is None
