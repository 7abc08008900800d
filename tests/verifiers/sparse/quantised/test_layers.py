"""Steps as matrices, windows of a maximum, and what runtimes may differ by."""

from __future__ import annotations

import numpy as np
import pytest

from prunecert.onnx.quantised import Step
from prunecert.verifiers.sparse.quantised.layers import UNIT, linear, windows


def test_a_layer_is_its_matrix_and_zeros_cost_no_rounding() -> None:
    zeros = np.zeros(2)
    weight = np.array([[1.0, 0.0, -2.0], [0.0, 0.0, 0.0]])
    step = Step("Gemm", (0,), (1, 2), "layer", weight, np.array([1.0, 4.0]), zeros, np.array([0.0, 0.5]))
    layer = linear(step, (1, 3))
    assert layer.matrix.toarray().tolist() == weight.tolist()
    drift = layer.drift(np.array([1.0, 100.0, 3.0]))
    assert drift[0] == pytest.approx(10 * UNIT * (1 + 6 + 1), rel=1e-5)
    assert drift[1] == pytest.approx(0.5 + 8 * UNIT * 4, rel=1e-5)


def test_an_average_divides_by_what_is_there() -> None:
    step = Step("AveragePool", (0,), (1, 1, 2, 2), "pool", kernel=(2, 2), strides=(1, 1), pads=(0, 0, 1, 1))
    layer = linear(step, (1, 1, 2, 2))
    assert (layer.matrix @ np.array([4.0, 8.0, 12.0, 16.0])).tolist() == [10.0, 12.0, 14.0, 16.0]


def test_windows_repeat_what_is_there_in_place_of_padding() -> None:
    step = Step("MaxPool", (0,), (1, 2, 2, 2), "pool", kernel=(2, 2), strides=(2, 2), pads=(1, 1, 1, 1))
    places = windows(step, (1, 2, 2, 2))
    assert [sorted(set(row)) for row in places.tolist()] == [[0], [1], [2], [3], [4], [5], [6], [7]]
