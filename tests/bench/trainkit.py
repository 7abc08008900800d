"""A tiny suite that is trained in a moment, and searches on it."""

from __future__ import annotations

from pathlib import Path

from prunecert.bench.running import training
from prunecert.bench.schema.suite import load_suite
from prunecert.models.pipeline import Job

SUITE = """
schema_version: 1
name: tiny
description: A tiny suite
data: cifar10
cells:
  - networks: [cnn-small]
    objectives: [natural]
    eps: [2/255]
    pruners: [lwm, drop-grow]
    compression: [1, 2, 10]
    seeds: [0, 1]
verify:
  images: 2
  cascade: [ibp]
  timeouts: {ibp: 10}
recipes:
  default: {pretrain_epochs: 2, warmup_epochs: 0, ramp_epochs: 1, prune_epochs: 1, finetune_epochs: 1, batch_size: 20}
  cnn-small: {augment: false, pruners: {drop-grow: {every: 2}}}
"""


def jobs(suite: str, pattern: str = "*") -> list[Job]:
    """Returns the jobs of a suite's cells that fit a pattern."""
    return training.plan(load_suite(suite), pattern, suite)


def written(folder: Path, text: str) -> Path:
    """Writes the space of a search."""
    file = folder / "space.yaml"
    file.write_text(text)
    return file


def command(folder: Path, *more: str) -> list[str]:
    """Returns the arguments of a search for a learning rate, one of which learns nothing."""
    (folder / "tiny.yaml").write_text(SUITE)
    space = written(folder, "lr: [0.003, 1.0e-6]\n")
    paths = ["--suite", str(folder / "tiny.yaml"), "--cells", "*natural_eps2_dense_x1_s?", "--space", str(space)]
    return [*paths, "--out", str(folder / "out"), "--criterion", "clean", *more]
