"""Normal networks evaluated in float64: onnxruntime's values but for rounding, and intervals that hold them all."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from prunecert.onnx import evaluate as evaluate_module
from prunecert.onnx.evaluate import LargeError, evaluate, intervals
from prunecert.onnx.normalise import normalise
from tests.prunecert.onnx import seeds
from tests.prunecert.onnx.graphs import N, build, run, size, weights


def convolutional() -> onnx.ModelProto:
    """A normal network of all operators but MaxPool."""
    nodes = [
        N("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        N("LeakyRelu", ["c"], ["a"]),
        N("AveragePool", ["a"], ["p"], kernel_shape=[2, 2]),
        N("Add", ["p", "k"], ["q"]),
        N("Relu", ["q"], ["y"]),
    ]
    return normalise(build(nodes, {"w": weights(2, 2, 3, 3), "k": weights(1, 2, 5, 5)})).model


@pytest.mark.parametrize("number", range(len(seeds.models())))
def test_onnxruntime_agrees_to_rounding(number: int) -> None:
    model = normalise(seeds.models()[number], keep={"MaxPool"}).model
    point = np.random.default_rng(number).standard_normal(size(model)).astype(np.float32)
    outputs, largest = evaluate(model, point)
    np.testing.assert_allclose(outputs, run(model, point), rtol=0, atol=1e-5 * largest)
    assert largest >= max(np.abs(outputs).max(), np.abs(point).max())


def test_grouped_strided_and_padded_convolutions() -> None:
    nodes = [N("Conv", ["x", "w", "b"], ["c"], group=2, strides=[2, 1], pads=[2, 1, 2, 1]), N("Flatten", ["c"], ["y"])]
    model = build(nodes, {"w": weights(4, 1, 3, 2), "b": weights(4)})
    point = weights(72)
    np.testing.assert_allclose(evaluate(model, point)[0], run(model, point), rtol=0, atol=1e-5)


def test_intervals_hold_all_outputs() -> None:
    model = convolutional()
    rng = np.random.default_rng(0)
    low, high = -rng.random(72), rng.random(72)
    lowest, highest = intervals(model, low, high)
    for _ in range(50):
        outputs = evaluate(model, low + (high - low) * rng.integers(0, 2, 72))[0]
        assert (lowest - 1e-9 <= outputs).all()
        assert (outputs <= highest + 1e-9).all()
    point = evaluate(model, low)[0]
    np.testing.assert_allclose(intervals(model, low, low), [point, point], atol=1e-9)


def test_large_convolutions_are_refused_before_they_are_spread_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "_LARGEST", 1000)
    with pytest.raises(LargeError, match=r"a convolution of 1,152 columns"):
        evaluate(convolutional(), weights(72))
