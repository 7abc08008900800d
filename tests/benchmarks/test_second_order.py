"""What the benchmark calls bounds are below every value, and it counts open classes only."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prunecert.hashing import sha256_file
from prunecert.verifiers.base import Instance, OutputSpec
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine
from tests.benchmarks.second_order import gains
from tests.verifiers.sparse.searching import draw


def test_bounds_are_below_values(tmp_path: Path) -> None:
    seen = 0
    for seed in range(8):
        drawn, network = draw("conv", seed, tmp_path)
        rng = np.random.default_rng(seed)
        center, path = rng.random(drawn.inputs), tmp_path / "net.onnx"
        low, high = ((center + side * 0.12).astype(np.float32) for side in (-1, 1))
        outputs = network.evaluate(rng.uniform(low, high, (2000, drawn.inputs)))
        row = rng.normal(size=(1, drawn.classes))
        values = outputs @ row[0]
        # A little below all values that were seen, so that bounds leave it open.
        spec = OutputSpec(((row, values.min(keepdims=True) - 0.1 * np.ptp(values)),))
        question = Instance(path, sha256_file(path), low, high, spec, 20, "test", 0, drawn.classes)
        for gain in gains(Engine(network, 1), Checker(network), question, 60, 20):
            seen += 1
            assert gain.linear <= 0
            assert gain.second <= 0.1 * np.ptp(values)
            assert gain.neurons > 0
    assert seen
