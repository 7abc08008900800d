"""A run that asks about pairs: a tiny dense network, one pruned lightly and one heavily."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prunecert.models.datasets.reading import Part, Pixels
from tests.soundness.networks import Network
from tests.soundness.pairs import twin
from tests.soundness.questions import FAMILIES

IMAGES, EPS = 4, 0.02
#: Share of the smallest weights that are dropped, and how much the others change.
PRUNED = {"light": (0.1, 0.002), "heavy": (0.7, 0.3)}


def networks() -> dict[str, Network]:
    """Returns the networks by name."""
    rng = np.random.default_rng(5)
    dense = FAMILIES["conv"]("dense", rng).balance(rng)
    return {"dense": dense, **{name: twin(dense, rng, *how) for name, how in PRUNED.items()}}


def pixels(part: Part, root: Path | None = None, *, download: bool = False) -> Pixels:
    """Returns the images, each with the dense network's class for its label; see `models.datasets.source`."""
    dense = networks()["dense"]
    images = np.random.default_rng(3).random((IMAGES, *dense.shape), dtype=np.float32)
    outputs = dense.evaluate(images.reshape(IMAGES, -1).astype(np.float64))
    return Pixels(images, outputs.argmax(axis=1).astype(np.int64), "made up")


def write(folder: Path, pair: str) -> Path:
    """Writes networks and a suite into a folder; returns the suite.

    Args:
        folder: Where.
        pair: What the suite says of pairs, as YAML on one line.
    """
    nets = networks()
    for name, net in nets.items():
        net.save(folder / f"{name}.onnx")
    dense = nets["dense"]
    suite = folder / "pairs.yaml"
    suite.write_text(
        f"""\
name: pairs
description: Tiny networks, each asked about together with the one that it was pruned from
data: {{name: tiny, shape: {list(dense.shape)}, classes: {dense.classes}, reader: 'tests.bench.pairkit:pixels'}}
cells:
  - networks:
      - {{onnx: light.onnx, dense: dense.onnx, name: light}}
      - {{onnx: heavy.onnx, dense: dense.onnx, name: heavy}}
      - {{onnx: heavy.onnx, name: alone, pruner: lwm}}
    eps: ['{EPS}']
verify:
  images: {IMAGES}
  cascade: [sparse-bab]
  timeouts: {{sparse-bab: 20, sparse-pair: 20}}
  pair: {pair}
"""
    )
    return suite
