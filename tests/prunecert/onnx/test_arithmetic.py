"""Sums, products with constants, normalisation: the normal form is the network, as onnxruntime has both."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from prunecert.onnx.normalise import UnsupportedNetworkError, normalise
from tests.prunecert.onnx.graphs import CONV, N, assert_same, build, operators, weights


@pytest.mark.parametrize("shape", [(1, 2, 3, 3), (1, 5), (5,), (1, 2, 4)])
@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (N("Neg", ["x"], ["y"]), {}),
        (N("Add", ["x", "x"], ["y"]), {}),
        (N("Sub", ["x", "x"], ["y"]), {}),
        (N("Sub", ["l", "x"], ["y"]), {"l": np.float32(0.5)}),
        (N("Mul", ["l", "x"], ["y"]), {"l": np.float32(-0.5)}),
        (N("Mul", ["l", "x"], ["y"]), {"l": np.float32(0)}),
        (N("Div", ["x", "l"], ["y"]), {"l": np.float32(3)}),
        (N("Sum", ["x", "l", "x"], ["y"]), {"l": np.float32(3)}),
        (N("Mean", ["x", "l", "x"], ["y"]), {"l": np.float32(3)}),
        (N("Identity", ["x"], ["y"]), {}),
        (N("Cast", ["x"], ["y"], to=TensorProto.FLOAT), {}),
        (N("Pow", ["x", "l"], ["y"]), {"l": np.float32(1)}),
    ],
)
def test_element_by_element(shape: tuple[int, ...], node: onnx.NodeProto, constants: dict[str, Any]) -> None:
    assert_same(build([node], constants, shape))


@pytest.mark.parametrize("rank", [2, 4])
@pytest.mark.parametrize("epsilon", [{}, {"epsilon": 0.1}])
def test_batch_norm(rank: int, epsilon: dict[str, Any]) -> None:
    shape = (1, 3, 2, 2)[:rank]
    constants = {"s": weights(3), "b": weights(3, seed=1), "m": weights(3, seed=2), "v": np.abs(weights(3, seed=3))}
    nodes = [N("BatchNormalization", ["x", *constants], ["n"], **epsilon), N("Relu", ["n"], ["y"])]
    assert_same(build(nodes, constants, shape))


def test_batch_norm_goes_into_the_convolution_that_nothing_else_reads() -> None:
    norm = {"s": weights(3), "t": weights(3, seed=1), "m": weights(3, seed=2), "v": np.abs(weights(3, seed=3))}
    nodes = [N("Conv", ["x", "w", "b"], ["c"]), N("BatchNormalization", ["c", *norm], ["n"]), N("Relu", ["n"], ["y"])]
    assert operators(assert_same(build(nodes, CONV | norm))) == ["Conv", "Relu", "Flatten"]
    nodes[2:] = [N("Relu", ["n"], ["r"]), N("Add", ["r", "c"], ["y"])]
    assert operators(assert_same(build(nodes, CONV | norm))) == ["Conv", "Conv", "Relu", "Add", "Flatten"]


def test_dropout_and_batch_norm_in_training_mode_are_refused() -> None:
    norm = {"s": weights(3), "b": weights(3, seed=1), "m": weights(3, seed=2), "v": np.abs(weights(3, seed=3))}
    nodes = [N("BatchNormalization", ["x", *norm], ["y"], training_mode=1)]
    with pytest.raises(UnsupportedNetworkError, match=r"training mode; call model\.eval\(\)"):
        normalise(build(nodes, norm, (1, 3, 2, 2), opset=14))
    drop = {"r": np.float32(0.5), "t": np.array(True)}
    with pytest.raises(UnsupportedNetworkError, match="drops values at random"):
        normalise(build([N("Dropout", ["x", "r", "t"], ["y"])], drop, (1, 5)))
    # With nothing to drop it does nothing, whatever its mode.
    assert_same(build([N("Dropout", ["x", "r", "t"], ["y"])], drop | {"r": np.float32(0)}, (1, 5)))


def test_statistics_that_do_not_fit_are_refused() -> None:
    norm = {"s": weights(3), "b": weights(3), "m": weights(3), "v": np.full(3, -1, np.float32)}
    with pytest.raises(UnsupportedNetworkError, match="a variance is negative"):
        normalise(build([N("BatchNormalization", ["x", *norm], ["y"])], norm, (1, 3, 2, 2)))
    with pytest.raises(UnsupportedNetworkError, match="don't fit 2 channels"):
        normalise(build([N("BatchNormalization", ["x", *norm], ["y"])], norm, (1, 2, 2, 2)))
