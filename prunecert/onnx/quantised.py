"""Quantised networks as files have them (QDQ): onto which grid each value is rounded, and exact weights.

``QuantizeLinear`` writes a value as the whole number clamp(round(x / s) + z, low, high), halves to the even one, and
``DequantizeLinear`` reads it as (q - z) s: together they round x to the nearest multiple of s between two ends. A
network of such pairs has no normal form, as rounding is no piecewise linear function of few pieces. So it is read into
steps of its own, of which those that round say where to. Weights are whole numbers times a float32 scale: float64 holds
them exactly, and biases, of 32 bits, within 2**-53 of themselves.

`prunecert.onnx.quantised_reading` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from prunecert.onnx.nodes import Shape

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """The numbers to which an activation is rounded: (q - zero) scale, low <= q <= high.

    >>> grid = Grid(scale=0.5, zero=10, low=0, high=255)
    >>> grid.floor, grid.ceiling
    (-5.0, 122.5)
    """

    scale: float
    zero: int
    low: int
    high: int

    @property
    def floor(self) -> float:
        """The least of them, at most 0."""
        return (self.low - self.zero) * self.scale

    @property
    def ceiling(self) -> float:
        """The largest, at least 0."""
        return (self.high - self.zero) * self.scale

    @property
    def positive(self) -> bool:
        """Whether whole numbers are those that they stand for: no zero point is subtracted, and no optimiser adds one.

        onnxruntime's makes int8 activations uint8 ones, whose zero points are 128 more.
        """
        return self.low == self.zero == 0

    @property
    def width(self) -> float:
        """How far these are apart."""
        return (self.high - self.low) * self.scale


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a quantised network; step 0 is the input.

    Args:
        operator: ``Input``, ``Round``, ``Conv``, ``Gemm``, ``Relu``, ``Add``, ``Shift`` (a constant is added),
            ``AveragePool``, ``MaxPool`` or ``Reshape``.
        inputs: Numbers of the steps that it reads.
        shape: Of its value, [1, ...].
        name: Of the file's node.
        weight: [out, in] or [out, in / groups, kh, kw], exact.
        bias: [out]; of a ``Shift`` [size].
        bias_error: How far each may be from the file's number.
        rescaled: How far a bias is from the one that integer kernels add, whose unit is the products' own.
        kernel: Window of a pooling.
        strides: Of both axes.
        pads: At the top, left, bottom, right.
        dilations: Of both axes.
        groups: Of a convolution.
        count_pads: Whether padding counts in an average's divisor.
        grid: Where a ``Round`` rounds to.
    """

    operator: str
    inputs: tuple[int, ...]
    shape: Shape
    name: str
    weight: Float64Array | None = None
    bias: Float64Array | None = None
    bias_error: Float64Array | None = None
    rescaled: Float64Array | None = None
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    count_pads: bool = False
    grid: Grid | None = None


def holds_quantisation(model: onnx.ModelProto) -> bool:
    """Whether a file rounds anything, be it a constant."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)
