"""Plans of timed runs."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from prunecert.bench.planning.exports import Export
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.stages import Stage
from prunecert.bench.results.session_types import SessionCell
from prunecert.bench.results.timing_observations import Observation, Observations
from prunecert.bench.schema.cell import Cell, Protocol
from prunecert.models.data import Dataset
from prunecert.verifiers.base import Kind
from tests.bench import rowkit


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


def cell(name: str, pruner: str, compression: float, variant: str) -> SessionCell:
    """Returns a session's cell of a timing run, on two images and asked of one verifier."""
    return rowkit.cell(
        name=name,
        pruner=pruner,
        compression=compression,
        variant=variant,
        measured_sparsity=1 - 1 / compression,
        shapes={"neurons": 9, "weights": 90, "nonzero": 9, "macs": 900, "sparse_macs": 90},
        onnx_sha256=name,
        group="cnn-small, ibp, ε = 2/255",
        common=5,
        images=2,
        indices=[4, 7],
        timing={},
        batches={"slow": 1},
        keys={"slow": [name]},
        stages=[{"verifier": "slow", "timeout": 10.0}],
    )


def observations(load: float) -> Observations:
    """Returns what a run of three networks has measured, whose load average was `load` at most."""
    machine = {"cores": 2, "cpu": "a processor", "memory_gib": 8.0}
    session = rowkit.typed({"type": "session", "machine": machine, "workers": 1, "threads": 2})
    cells = [
        cell("dense", "dense", 1, "masked"),
        cell("thin", "lwm", 10, "masked"),
        cell("small", "lwm", 10, "compact"),
    ]
    run = Observations(session, {c.name: c for c in cells}, load_averages=[0.5, load], finished=True)
    for name, seconds, statuses in (
        ("dense", (4.0, 12.0), "ut"),
        ("thin", (2.0, 2.0), "uu"),
        ("small", (1.0, 1.0), "us"),
    ):
        run.times[name, "slow"] = {
            (1, image): Observation(s, {"u": "unsat", "t": "timeout", "s": "sat"}[w], 6, 2)
            for image, s, w in zip((4, 7), seconds, statuses, strict=True)
        }
    return run
