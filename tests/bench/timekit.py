"""Plans of timed runs."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from prunecert.bench.planning.exports import Export
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.stages import Stage
from prunecert.bench.schema.cell import Cell, Protocol
from prunecert.models.data import Dataset
from prunecert.verifiers.base import Kind


def stage(name: str, batch: int) -> Stage:
    """Returns a verifier's part in a timed plan, with this many questions at a time."""
    return Stage(name, Kind.INCOMPLETE, "1", "", {}, 1.0, "cpu", True, batch, None, repeat=1)


def plan(compression: float, stages: Sequence[Stage], images: int) -> CellPlan:
    """Returns a cell of `images` images at this compression; 1 is dense."""
    cell = Cell("cnn-small", "ibp", Fraction(2, 255), "lwm" if compression > 1 else "dense", compression, 0)
    data = Dataset(
        np.zeros((images, 3, 2, 2), np.float32),
        np.zeros(images, np.int64),
        np.arange(images) * 3,
        "test",
        "f",
        True,
        False,
        "",
    )
    export = Export(Path(f"{compression}.onnx"), f"{compression}" * 5, 0.0, 1.0, "c", {})
    return CellPlan(cell, Protocol(), export, tuple(stages), {}, data, images)
