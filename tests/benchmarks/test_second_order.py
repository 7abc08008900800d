"""What the benchmark calls bounds are below every value, and it counts open classes only."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prunecert.hashing import sha256_file
from prunecert.verifiers.base import Instance, OutputSpec
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine
from prunecert.verifiers.sparse.network import Network
from tests.benchmarks.second_order import gains
from tests.soundness.oracle import exact_margin
from tests.verifiers.sparse.searching import draw


def open_question(seed: int, folder: Path) -> tuple[Network, Instance, float]:
    """Returns a network, a row a little below whose least value bounds leave it open, and by how much that is."""
    drawn, network = draw("fc", seed, folder)
    rng = np.random.default_rng(seed)
    center, path = rng.random(drawn.inputs), folder / "net.onnx"
    low, high = ((center + side * 0.4).astype(np.float32) for side in (-1, 1))
    row = rng.normal(size=(1, drawn.classes))
    outputs = network.evaluate(rng.uniform(low, high, (200, drawn.inputs)))
    margin = exact_margin(drawn, low.astype(float), high.astype(float), OutputSpec(((row, np.zeros(1)),)))
    apart = 0.01 * float(np.ptp(outputs @ row[0]))
    spec = OutputSpec(((row, np.array([margin.low - apart])),))
    return network, Instance(path, sha256_file(path), low, high, spec, 20, "test", 0, drawn.classes), apart


def test_bounds_are_below_values(tmp_path: Path) -> None:
    count = 0
    for seed in range(8):
        network, question, apart = open_question(seed, tmp_path)
        for gain in gains(Engine(network, 1), Checker(network), question, 60, 20):
            count += 1
            assert gain.linear <= 0
            assert gain.second <= apart + 1e-6
            assert gain.neurons > 0
    assert count
