"""A pack of a tiny training, and what the machine that it is brought to makes of it."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

import prunecert.models.data
from prunecert.bench.running.packing import PackRequest, write_pack
from prunecert.bench.running.training import Deadline
from prunecert.bench.running.training_cells import TrainingRequest, train_cells
from prunecert.bench.schema.suite import load_suite
from prunecert.models.data import Dataset
from tests.models.conftest import blobs

SUITE = """
schema_version: 1
name: lease
description: Two cells that begin with one network
data: cifar10
cells:
  - networks: [cnn-small]
    objectives: [natural]
    eps: [2/255]
    pruners: [lwm]
    compression: [10, 1]
    seeds: [0]
verify:
  images: 2
  cascade: [ibp]
  timeouts: {ibp: 10}
recipes:
  default: {pretrain_epochs: 2, warmup_epochs: 0, ramp_epochs: 1, prune_epochs: 1, finetune_epochs: 1, batch_size: 20}
"""
DENSE, PRUNED = "cnn-small_natural_eps2_dense_x1_s0", "cnn-small_natural_eps2_lwm_x10_s0"


def use_blobs(patch: pytest.MonkeyPatch) -> None:
    """Has CIFAR-10 be a few coloured patterns."""

    def load(split: str, root: Path | None = None, **_: Any) -> Dataset:
        return blobs(40 if split == "train" else 10, split)

    patch.setattr(prunecert.models.data, "load", load)


def training(folder: Path, **changes: Any) -> TrainingRequest:
    """Returns what is to be trained; its suite is written into the folder, and its checkpoints lie in ``zoo``."""
    file = folder / "lease.yaml"
    file.write_text(SUITE)
    values = {"suite": load_suite(str(file)), "named": str(file), "out": folder / "zoo", "deadline": Deadline("10m")}
    return TrainingRequest(**{**values, **changes})


def pack(folder: Path, name: str = "lease", **changes: Any) -> Path:
    """Writes a pack, and returns its folder."""
    keys = ("limit", "piece", "wheels")
    own = {key: changes.pop(key) for key in keys if key in changes}
    request = PackRequest(training=training(folder, **changes), folder=folder / name, **own)
    assert write_pack(request, lambda _: None) is not None
    return request.folder


def train(lease: Path, results: Path, deadline: Deadline | None = None) -> list[str]:
    """Trains a pack in this process, as its run.sh does; returns what was said."""
    words = shlex.split(re.sub(r"\\\n", " ", (lease / "run.sh").read_text().rpartition("\nexec ")[2]))
    arguments = dict(itertools.pairwise(words))
    there = lease / "checkpoints"
    there.mkdir(exist_ok=True)
    for file in (lease / "start").rglob("*") if (lease / "start").is_dir() else ():
        target = there / file.relative_to(lease / "start")
        if file.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    lines: list[str] = []
    train_cells(
        TrainingRequest(
            suite=load_suite(str(lease / arguments["--suite"])),
            named=arguments["--suite"],
            cells=arguments["--cells"],
            out=there,
            data_root=lease / arguments["--data-root"],
            deadline=deadline or Deadline("10m"),
            subset=int(arguments["--subset"]) if "--subset" in arguments else None,
            archives=results,
        ),
        lines.append,
    )
    return lines


class Steps(Deadline):
    """A budget of so many epochs.

    Args:
        epochs: How many.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__("10m")
        self._left = epochs

    def late(self, seconds: float = 0.0) -> bool:
        """Asked after every epoch but a stage's last, with its seconds; before a cell, without."""
        if seconds:
            self._left -= 1
        return self._left <= 0


def run(lease: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a pack's run.sh."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "OUT")}
    command = ["bash", str(lease / "run.sh"), *arguments]
    return subprocess.run(command, env={**environment, **variables}, text=True, capture_output=True, check=False)
