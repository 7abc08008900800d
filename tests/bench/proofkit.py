"""A run with certificates: a tiny network, asked by the sparse engine's verifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from prunecert.bench.run_options import request_of, run_parser
from prunecert.bench.running.certifying import Checking
from prunecert.bench.running.request import RunResult
from prunecert.bench.running.run import run_suite
from prunecert.models.datasets.reading import Part, Pixels
from tests.soundness.networks import Network
from tests.verifiers.checker import kit

#: One of them is broken, one needs a tree, intervals do for the others.
IMAGES, PROVED = 6, 5
CELL = "tiny_own_eps8_own"


def pixels(part: Part, root: Path | None = None, *, download: bool = False) -> Pixels:
    """Returns the images, each with the network's own class for its label; see `prunecert.models.datasets.source`."""
    net = network()
    images = np.random.default_rng(3).random((IMAGES, *net.shape), dtype=np.float32)
    labels = [int(np.argmax(net.evaluate(image.reshape(-1).astype(np.float64)))) for image in images]
    return Pixels(images, np.array(labels), "made up")


def network() -> Network:
    """Returns the network."""
    return kit.questions("conv-pruned-70")[0].question.net


def write(folder: Path) -> Path:
    """Writes network and suite into a folder; returns the suite."""
    net = network()
    net.save(folder / "tiny.onnx")
    suite = folder / "proved.yaml"
    suite.write_text(
        f"""\
name: proved
description: A tiny network whose answers get certificates
data: {{name: tiny, shape: {list(net.shape)}, classes: {net.classes}, reader: 'tests.bench.proofkit:pixels'}}
cells:
  - networks: {{onnx: tiny.onnx}}
    eps: [8/255]
verify:
  images: {IMAGES}
  cascade: [sparse-ibp, sparse-bab]
  timeouts: {{sparse-ibp: 20, sparse-bab: 20}}
"""
    )
    return suite


def run(suite: Path, out: Path, *more: str) -> RunResult:
    """Runs the suite in this process, and its verifiers in theirs."""
    folder = suite.parent
    words = ["--suite", str(suite), "--out", str(out), "--workers", "1", "--data-root", str(folder)]
    words += ["--exports", str(folder / "exports"), *more]
    return run_suite(request_of(run_parser().parse_args(words), words))


def checking(suite: Path, **fields: Any) -> Checking:
    """Returns where the run's networks and images are."""
    return Checking(exports=suite.parent, suite=str(suite), data_root=suite.parent, **fields)
