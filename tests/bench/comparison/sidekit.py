"""Sides of a comparison for tests, and the instances that they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunecert.bench.comparison.report import record
from prunecert.bench.comparison.sides import Finding, Side
from prunecert.bench.results.vnncomp import Key, Task
from prunecert.verifiers.base import Status

CELL = "cnn-small_ibp_eps2_lwm_x10_s0"


def task(folder: Path, image: int, timeout: float = 5.0) -> Task:
    """Returns a line of `instances.csv` about an image, whose files are there and empty."""
    onnx, vnnlib = folder / f"{CELL}.compact.onnx", folder / f"test{image}_eps2.vnnlib"
    for path in (onnx, vnnlib):
        path.touch()
    return Task("cifar10-4nets", onnx, vnnlib, timeout, f"{CELL}_test{image}")


def side(name: str, wall_s: float, **statuses: str) -> Side:
    """Returns a side that answered so: ``i3="sat"`` for image 3."""
    findings = {Key(CELL, int(key[1:])): Finding(Status(status), 2.0, name) for key, status in statuses.items()}
    return Side(name, "words", ["command"], wall_s, 100.0, findings)


def result_of(sides: Sequence[Side], instances: int) -> dict[str, Any]:
    """Returns the record of a comparison, with one contradiction."""
    return record(
        sides, ["x"], [], options={"images": 3}, command=["c"], limit=20.0, workers=2, instances=instances, version="1"
    )
