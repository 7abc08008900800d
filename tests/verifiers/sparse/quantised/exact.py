"""A QDQ network in exact integer arithmetic, read on its own: what rounding means, whatever the engine thinks of it.

A value is a sum of whole numbers times rational scales. Products and sums are sums of whole numbers; quotients by a
scale are compared with halves in floating point where they are far from one, and as fractions where they are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Whole = npt.NDArray[np.int64]
#: Distance of a quotient, in float64, from a half or from 0 within which it is looked at as a fraction.
_NEAR = 1e-6


@dataclass(frozen=True)
class Summand:
    """Whole numbers [n, …] times scales, fractions of the shape of one sample."""

    whole: Whole
    scale: npt.NDArray[Any]


Sum = list[Summand]


class Reference:
    """A network of QuantizeLinear, DequantizeLinear, Conv, Gemm, MatMul, Relu, Add, pooling and moves.

    Args:
        model: The network.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}

    def run(self, points: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Returns the outputs for points [n, …], each rounded to float64 once."""
        return _floats(self._outputs(points))

    def fractions(self, point: npt.NDArray[np.float32]) -> list[Fraction]:
        """Returns the outputs for one point."""
        total = self._outputs(point[None])
        return [_fraction(total, (0, k)) for k in range(total[0].whole.shape[1])]

    def _outputs(self, points: npt.NDArray[np.float32]) -> Sum:
        graph = self._model.graph
        values: dict[str, Any] = {}
        for node in graph.node:
            attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            name, first = node.output[0], node.input[0]
            match node.op_type:
                case "QuantizeLinear":
                    scale, zero = (self._constants[k] for k in node.input[1:3])
                    limits = np.iinfo(zero.dtype)
                    entry = first == graph.input[0].name
                    whole = _round_input(points, scale) if entry else _round(values[first], scale)
                    values[name] = np.clip(whole + int(zero), limits.min, limits.max)
                case "DequantizeLinear":
                    scale, zero = (self._constants[k] for k in node.input[1:3])
                    if first in self._constants:
                        shape = [
                            -1 if i == attributes.get("axis", 1) else 1 for i in range(self._constants[first].ndim)
                        ]
                        fractions = _fractions(scale).reshape(shape if scale.size > 1 else ())
                        offset = zero.astype(np.int64).reshape(shape if zero.size > 1 else ())
                        values[name] = (self._constants[first].astype(np.int64) - offset, fractions)
                    else:
                        values[name] = [Summand(values[first] - int(zero), _fractions(scale))]
                case "Conv" | "Gemm" | "MatMul":
                    values[name] = self._layer(node, attributes, values)
                case "Relu":
                    values[name] = _relu(values[first])
                case "Add":
                    values[name] = [item for k in node.input for item in self._either(values, k)]
                case "MaxPool":
                    (only,) = values[first]
                    values[name] = [Summand(_windows(only.whole, attributes, -(2**40)).max(axis=(4, 5)), only.scale)]
                case "AveragePool":
                    area = int(np.prod(attributes["kernel_shape"]))
                    values[name] = [
                        Summand(_windows(item.whole, attributes, 0).sum(axis=(4, 5)), np.asarray(item.scale / area))
                        for item in values[first]
                    ]
                case "Flatten":
                    values[name] = [
                        Summand(item.whole.reshape(len(item.whole), -1), _spread(item).reshape(-1))
                        for item in values[first]
                    ]
                case other:
                    raise ValueError(other)
        total: Sum = values[graph.output[0].name]
        return total

    def _either(self, values: dict[str, Any], name: str) -> Sum:
        value = values[name]
        if isinstance(value, tuple):
            return [Summand(value[0][None], value[1])]
        total: Sum = value
        return total

    def _layer(self, node: onnx.NodeProto, attributes: dict[str, Any], values: dict[str, Any]) -> Sum:
        weight, scale = values[node.input[1]]
        if node.op_type == "MatMul" or (node.op_type == "Gemm" and not attributes.get("transB", 0)):
            weight, scale = weight.T, scale.T
        channels = np.broadcast_to(scale, weight.shape).reshape(len(weight), -1)[:, 0]
        total: Sum = []
        for item in values[node.input[0]]:
            if node.op_type == "Conv":
                # Scales of what is read are the same everywhere, so that products keep their channel's alone.
                one = item.scale.reshape(-1)[0]
                assert (item.scale == one).all()
                windows = _windows(item.whole, {**attributes, "kernel_shape": weight.shape[2:]}, 0)
                whole = np.einsum("nchwij,ocij->nohw", windows, weight)
                total.append(Summand(whole, (channels * one)[:, None, None]))
            else:
                one = item.scale.reshape(-1)[0]
                assert (item.scale == one).all()
                total.append(Summand(item.whole @ weight.T, channels * one))
        if len(node.input) > 2:
            bias, unit = values[node.input[2]]
            shape = (-1, 1, 1) if node.op_type == "Conv" else (-1,)
            total.append(Summand(bias.reshape(shape)[None], np.broadcast_to(unit, bias.shape).reshape(shape)))
        return total


def _fractions(scale: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    return np.array([Fraction(float(item)) for item in scale.reshape(-1)], dtype=object).reshape(scale.shape)


def _spread(item: Summand) -> npt.NDArray[Any]:
    return np.broadcast_to(item.scale, item.whole.shape[1:])


def _floats(total: Sum) -> npt.NDArray[np.float64]:
    return np.asarray(sum(item.whole * np.asarray(item.scale, dtype=np.float64) for item in total), dtype=np.float64)


def _fraction(total: Sum, place: tuple[int, ...]) -> Fraction:
    shape = np.broadcast_shapes(*(item.whole.shape for item in total))
    return sum(
        (
            int(np.broadcast_to(item.whole, shape)[place]) * Fraction(np.broadcast_to(item.scale, shape[1:])[place[1:]])
            for item in total
        ),
        Fraction(0),
    )


def _round(total: Sum, scale: npt.NDArray[np.float32]) -> Whole:
    unit = Fraction(float(scale))
    quotient = _floats(total) / float(unit)
    whole: Whole = np.rint(quotient).astype(np.int64)
    for place in zip(*np.nonzero(np.abs(np.abs(quotient - whole) - 0.5) < _NEAR), strict=True):
        # Python rounds fractions half to even, too.
        whole[place] = round(_fraction(total, place) / unit)
    return whole


def _round_input(points: npt.NDArray[np.float32], scale: npt.NDArray[np.float32]) -> Whole:
    unit = Fraction(float(scale))
    quotient = points.astype(np.float64) / float(unit)
    whole: Whole = np.rint(quotient).astype(np.int64)
    for place in zip(*np.nonzero(np.abs(np.abs(quotient - whole) - 0.5) < _NEAR), strict=True):
        whole[place] = round(Fraction(float(points[place])) / unit)
    return whole


def _relu(total: Sum) -> Sum:
    value = _floats(total)
    positive = value > 0
    for place in zip(*np.nonzero(np.abs(value) < _NEAR), strict=True):
        positive[place] = _fraction(total, place) > 0
    return [Summand(item.whole * positive, item.scale) for item in total]


def _windows(whole: Whole, attributes: dict[str, Any], outside: int) -> Whole:
    """Returns the windows of [n, c, h, w] as [n, c, h', w', kh, kw]."""
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    padded = np.pad(whole, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=outside)
    windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(attributes["kernel_shape"]), (2, 3))
    down, across = attributes.get("strides", (1, 1))
    chosen: Whole = windows[:, :, ::down, ::across]
    return chosen
