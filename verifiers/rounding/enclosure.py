"""Encloses what any float32 evaluation of a network in normal form may answer: interval arithmetic with all rounding.

Used where two evaluations of one network differ, to tell rounding from another function, and for the range of the
outputs over a box. It is simple and slow, reads the file by itself, and shares no code with a verifier: each value is
a centre and a radius in float64, and each operator adds γ_k (Σ|w||x| + |b|), k summands and some, for float32 sums of
any order (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
_Interval = tuple[Float64Array, Float64Array]

#: Unit roundoff of float32, and a smallest number that a product which underflows may be off by.
UNIT = 2.0**-24
_TINY = 2.0**-149
#: How far a runtime's Sigmoid or Tanh may be from the real one: nothing says so, and some units in the last place, most
#: of them at 1, are what runtimes' rational approximations are off by.
_CURVE = 2.0**-20


class Enclosure:
    """Evaluates a network of Conv, Gemm, Relu, Flatten, Reshape, Add, AveragePool, MaxPool, Sigmoid and Tanh on boxes.

    Args:
        model: An ``onnx.ModelProto`` in normal form, see `prunecert.onnx`.
        unit: Unit roundoff of the evaluations that are enclosed, 2**-24 for float32.
    """

    def __init__(self, model: Any, unit: float = UNIT) -> None:
        import onnx

        self._unit = unit

        self._constants: dict[str, npt.NDArray[Any]] = {
            item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer
        }
        self._nodes = [
            (
                node.op_type,
                list(node.input),
                node.output[0],
                {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute},
            )
            for node in model.graph.node
        ]
        entry = next(item for item in model.graph.input if item.name not in self._constants)
        self._input = entry.name
        self._shape = tuple(dim.dim_value for dim in entry.type.tensor_type.shape.dim)[1:]
        self._output = model.graph.output[0].name

    def __call__(self, lower: npt.ArrayLike, upper: npt.ArrayLike) -> _Interval:
        """Bounds the outputs over boxes.

        Args:
            lower: Lower corners [n, ...] of the network's input size.
            upper: Upper corners.

        Returns:
            Lower and upper bounds [n, outputs] of the real-valued network's outputs and of each float32 evaluation's.

        Raises:
            ValueError: An operator is none of a normal form.
        """
        low, high = (
            np.asarray(corner, dtype=np.float64).reshape(len(np.asarray(corner)), *self._shape)
            for corner in (lower, upper)
        )
        values: dict[str, _Interval] = {self._input: ((low + high) / 2, (high - low) / 2 * (1 + 2.0**-50))}
        # Infinite and undefined numbers are an answer here: nothing is known then.
        with np.errstate(over="ignore", invalid="ignore"):
            for operator, inputs, output, attributes in self._nodes:
                values[output] = self._apply(operator, [name for name in inputs if name], attributes, values)
            center, radius = (part.reshape(len(low), -1) for part in values[self._output])
            return center - radius, center + radius

    def _apply(
        self, operator: str, inputs: list[str], attributes: Mapping[str, Any], values: Mapping[str, _Interval]
    ) -> _Interval:
        center, radius = values[inputs[0]] if inputs[0] in values else values[inputs[1]]
        if operator == "Relu":
            return _between(np.maximum(center - radius, 0.0), np.maximum(center + radius, 0.0))
        if operator in ("Sigmoid", "Tanh"):
            low, high = (self._curve(operator, end) for end in (center - radius, center + radius))
            return _between(low - _CURVE, high + _CURVE)
        if operator in ("Flatten", "Reshape"):
            shape = [-1] if operator == "Flatten" else [int(n) for n in self._constants[inputs[1]][1:]]
            return center.reshape(len(center), *shape), radius.reshape(len(center), *shape)
        if operator == "Add":
            return self._add(inputs, values)
        if operator == "Gemm":
            weight, bias = self._constants[inputs[1]].astype(np.float64), self._bias(inputs)
            return _linear(
                center, radius, self._rate(weight.shape[1]), bias, lambda x, absolute: x @ _size(weight, absolute).T
            )
        if operator == "Conv":
            return self._convolve(center, radius, inputs, attributes)
        if operator in ("AveragePool", "MaxPool"):
            return _pool(operator, center, radius, attributes, self._unit)
        raise ValueError(f"the operator {operator} is none of a network in normal form")

    @staticmethod
    def _curve(operator: str, x: Float64Array) -> Float64Array:
        return np.tanh(x) if operator == "Tanh" else 0.5 * (1.0 + np.tanh(0.5 * x))

    def _rate(self, summands: int) -> tuple[float, float]:
        """Returns γ of a sum, and what may underflow in it."""
        count = (summands + 2) * self._unit
        return (count / (1 - count) if count < 0.5 else np.inf), (summands + 2) * _TINY

    def _bias(self, inputs: Sequence[str]) -> Float64Array:
        return self._constants[inputs[2]].astype(np.float64) if len(inputs) > 2 else np.zeros(1)

    def _add(self, inputs: Sequence[str], values: Mapping[str, _Interval]) -> _Interval:
        parts = [
            values[name] if name in values else (self._constants[name].astype(np.float64), np.zeros(1))
            for name in inputs
        ]
        (first, one), (second, two) = parts
        rounding = self._unit * (np.abs(first) + np.abs(second) + one + two) + _TINY
        return first + second, (one + two + rounding) * (1 + 2.0**-50)

    def _convolve(
        self, center: Float64Array, radius: Float64Array, inputs: Sequence[str], attributes: Mapping[str, Any]
    ) -> _Interval:
        weight = self._constants[inputs[1]].astype(np.float64)
        groups = int(attributes.get("group", 1))
        strides, dilations = attributes.get("strides", (1, 1)), attributes.get("dilations", (1, 1))
        pads = attributes.get("pads", (0, 0, 0, 0))

        def multiply(x: Float64Array, absolute: bool) -> Float64Array:
            kernel = _size(weight, absolute)
            windows = _windows(x, weight.shape[2:], strides, dilations, pads)
            per_group, each = weight.shape[0] // groups, weight.shape[1]
            results = [
                np.einsum(
                    "nchwij,ocij->nohw",
                    windows[:, g * each : (g + 1) * each],
                    kernel[g * per_group : (g + 1) * per_group],
                    optimize=True,
                )
                for g in range(groups)
            ]
            return np.concatenate(results, axis=1)

        bias = self._bias(inputs).reshape(-1, 1, 1)
        return _linear(center, radius, self._rate(int(np.prod(weight.shape[1:]))), bias, multiply)


def _size(weight: Float64Array, absolute: bool) -> Float64Array:
    return np.abs(weight) if absolute else weight


def _between(low: Float64Array, high: Float64Array) -> _Interval:
    # Half a sum may be off by a rounding, which the radius must cover.
    center = (low + high) / 2
    return center, np.maximum(high - center, center - low) * (1 + 2.0**-50)


def _linear(
    center: Float64Array,
    radius: Float64Array,
    rate: tuple[float, float],
    bias: Float64Array,
    multiply: Callable[[Float64Array, bool], Float64Array],
) -> _Interval:
    """Applies x ↦ W x + b; `multiply` multiplies with W, or with |W|; `rate` are its relative and absolute errors."""
    size = multiply(np.abs(center) + radius, True) + np.abs(bias)
    spread = multiply(radius, True) + rate[0] * size + rate[1]
    return multiply(center, False) + bias, spread * (1 + 2.0**-30)


def _windows(
    x: Float64Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int]
) -> Float64Array:
    """Returns what each window of [n, C, H, W] reads: [n, C, H', W', kh, kw]; padding is zero."""
    padded = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    spans = tuple(dilation * (size - 1) + 1 for size, dilation in zip(kernel, dilations, strict=True))
    views = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(2, 3))
    windows: Float64Array = views[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    return windows


def _pool(
    operator: str, center: Float64Array, radius: Float64Array, attributes: Mapping[str, Any], unit: float
) -> _Interval:
    kernel, strides = attributes["kernel_shape"], attributes.get("strides", (1, 1))
    if any(attributes.get("pads", (0,))) or attributes.get("ceil_mode", 0):
        raise ValueError(f"a padded {operator} is none of a network in normal form")

    def windows(x: Float64Array) -> Float64Array:
        return _windows(x, kernel, strides, (1, 1), (0, 0, 0, 0))

    if operator == "MaxPool":
        low, high = (windows(part).max(axis=(-2, -1)) for part in (center - radius, center + radius))
        return _between(low, high)
    size = windows(np.abs(center) + radius).mean(axis=(-2, -1))
    count = int(np.prod(kernel)) + 2
    spread = windows(radius).mean(axis=(-2, -1)) + count * 2 * unit * size + count * _TINY
    return windows(center).mean(axis=(-2, -1)), spread * (1 + 2.0**-30)
