"""Steps of a quantised network as sparse matrices, and how far runtimes may be from what they compute.

Two kinds of runtime execute a QDQ file. *Integer kernels* sum products of whole numbers exactly and multiply the sum by
the quotient of scales, in float32. *Float32 kernels* (onnxruntime without graph optimisation, by which counterexamples
are judged) multiply and add the numbers that the whole ones stand for. Either gives y for Σ w a + b with

    |y - (Σ w a + b)| <= γ_(n+8) (Σ |w| |a| + |b|) + r,      γ_k = k u / (1 - k u), u = 2**-24,

n being the number of weights that are not 0: in any order of summation, with or without fused multiply-add, one
rounding each for a weight, an activation and a bias that are made of whole numbers, and the few of a requantisation
(Higham 2002, section 3.1). r is what a bias differs by whose unit was rounded (`Step.rescaled`). Here a stands for a
number that the runtime may hold rounded once more, as fl((q - z) s). Zero weights add exact zeros. What holds for y and
is proved with this allowance therefore holds for both kinds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from prunecert.onnx.quantised import Step
from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array
from prunecert.verifiers.sparse.onnx import layers

UNIT = 2.0**-24
#: What underflow may cost a sum, with room to spare: scales and so all products of whole numbers are far above.
TINY = 2.0**-100
#: Roundings of a number beside those of its sum.
_MORE = 8.0


@dataclass(frozen=True, eq=False)
class Linear:
    """A step as matrix @ source + bias.

    Args:
        matrix: [size, size of source] float64, each weight within a relative 2**-53 of the real one.
        magnitude: Its absolute values.
        bias: [size].
        bias_error: How far each may be from the real number.
        gamma: γ of each row's sum.
        fixed: What runtimes may differ by whatever the source is, [size].
    """

    matrix: scipy.sparse.csr_array
    magnitude: scipy.sparse.csr_array
    bias: Float64Array
    bias_error: Float64Array
    gamma: Float64Array
    fixed: Float64Array

    def drift(self, magnitudes: Float64Array) -> Float64Array:
        """Bounds how far a runtime is from the real number, given those of the source's values; [size]."""
        reach: Float64Array = self.magnitude @ magnitudes + np.abs(self.bias)
        return (self.gamma * reach + self.fixed) * (1 + 2.0**-40) + TINY


def linear(step: Step, source: tuple[int, ...]) -> Linear:
    """Returns a Conv, Gemm or AveragePool as a matrix.

    Args:
        step: The step.
        source: Shape of what it reads, [1, ...].
    """
    if step.operator == "AveragePool":
        matrix, _ = layers.average(_image(source), step.kernel, step.strides, step.pads, step.count_pads)
        zeros = np.zeros(matrix.shape[0])
        return _linear(matrix, zeros, zeros, zeros)
    assert step.weight is not None
    assert step.bias is not None
    assert step.bias_error is not None
    assert step.rescaled is not None
    if step.operator == "Gemm":
        return _linear(layers.dense(step.weight), step.bias, step.bias_error, step.rescaled)
    matrix, shape = layers.convolution(
        step.weight, _image(source), step.strides, step.pads, step.dilations, step.groups
    )
    area = shape[1] * shape[2]
    return _linear(matrix, *(np.repeat(item, area) for item in (step.bias, step.bias_error, step.rescaled)))


def _linear(matrix: scipy.sparse.csr_array, bias: Float64Array, error: Float64Array, rescaled: Float64Array) -> Linear:
    terms = np.diff(matrix.indptr) + _MORE
    gamma = terms * UNIT / (1 - terms * UNIT)
    return Linear(matrix, abs(matrix), bias, error, gamma, error + rescaled)


def windows(step: Step, source: tuple[int, ...]) -> Int64Array:
    """Returns which numbers each window of a MaxPool reads, [size, places]; what lies in the padding repeats another.

    Args:
        step: The step.
        source: Shape of what it reads, [1, C, H, W].
    """
    channels, height, width = _image(source)
    down = layers.windows(height, step.kernel[0], step.strides[0], (step.pads[0], step.pads[2]), 1)
    across = layers.windows(width, step.kernel[1], step.strides[1], (step.pads[1], step.pads[3]), 1)
    # Padding is smaller than the window, so that each has a row and a column that are there.
    down, across = (np.where(axis < 0, axis.max(axis=1, keepdims=True), axis) for axis in (down, across))
    places = (down[:, None, :, None] * width + across[None, :, None, :]).reshape(len(down) * len(across), -1)
    whole: Int64Array = np.concatenate([places + channel * height * width for channel in range(channels)])
    return whole


def _image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return shape[1], shape[2], shape[3]
