"""Gradients are those of the network, and what is found is confirmed by float32."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from prunecert.verifiers.base import FloatArray
from prunecert.verifiers.sparse.arrays import Float32Array
from prunecert.verifiers.sparse.smooth.attack import SmoothAttack
from tests.verifiers.sparse.smooth import smoothnets


def test_gradients_are_differences(tmp_path: Path) -> None:
    path = smoothnets.convolutional(tmp_path / "c.onnx")
    checker = smoothnets.load(path)
    lower = np.zeros(32, np.float32)
    spec = smoothnets.above(0, 0.0)
    subject = SmoothAttack(checker, lower, lower + 1, spec, smoothnets.runtime(path, (2, 4, 4)))
    x = np.random.default_rng(0).random((2, 32))
    gradient = subject.gradient(checker.smooth.forward(x), np.array([0, 1]))
    for place in range(2):
        row = spec.disjuncts[place][0][0]
        for pixel in (0, 7, 31):
            step = np.zeros(32)
            step[pixel] = 1e-6
            rise = (
                checker.smooth.evaluate((x[place] + step)[None]) - checker.smooth.evaluate((x[place] - step)[None])
            )[0]
            assert abs(row @ rise / 2e-6 - gradient[place, pixel]) < 1e-5


def test_a_counterexample_is_one_of_the_runtimes(tmp_path: Path) -> None:
    path = smoothnets.small(tmp_path, 1)
    checker = smoothnets.load(path)
    lower, upper = np.full(2, -1, np.float32), np.full(2, 1, np.float32)
    outputs = checker.smooth.evaluate(smoothnets.points(lower.astype(float), upper.astype(float), 2000))
    margins = outputs[:, [0]] - outputs[:, 1:]
    threshold = float(margins.min() + 0.05 * (margins.max() - margins.min()))
    spec, run = smoothnets.above(0, threshold), smoothnets.runtime(path, (2,))
    point = SmoothAttack(checker, lower, upper, spec, run).from_center(np.arange(2), 8, 20, 0, math.inf)
    assert point is not None
    assert spec.violated_by(run(point))

    def denying(x: Float32Array) -> FloatArray:
        return np.array([100.0, 0.0, 0.0], np.float32)

    assert SmoothAttack(checker, lower, upper, spec, denying).from_center(np.arange(2), 8, 20, 0, math.inf) is None
