"""A normal network evaluated in float64, to tell rounding from mistakes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from prunecert.onnx.normal import Array
from prunecert.onnx.reading import attributes_of

Float64Array = npt.NDArray[np.float64]
#: Most elements that a convolution is spread out to.
_LARGEST = 2**27


class LargeError(Exception):
    """The network is too large to be evaluated here."""


def evaluate(model: onnx.ModelProto, point: Array) -> tuple[Float64Array, float]:
    """Returns the outputs, flat, and the largest magnitude of any value on the way.

    Args:
        model: A network in normal form.
        point: Its flat input.
    """
    values = _entry(model, point)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        inputs = [values[name] for name in node.input if name in values]
        values[node.output[0]] = np.maximum(inputs[0], 0.0) if node.op_type == "Relu" else _step(node, inputs, stored)
    largest = max(float(np.abs(value).max()) for value in values.values())
    return values[model.graph.output[0].name].reshape(-1), largest


def intervals(model: onnx.ModelProto, lower: Array, upper: Array) -> tuple[Float64Array, Float64Array]:
    """Returns lowest and highest outputs over a box, by interval arithmetic in float64, its own rounding not charged.

    Args:
        model: A network in normal form, without ``MaxPool``.
        lower: Lowest inputs, flat.
        upper: Highest inputs.
    """
    middles = _entry(model, (np.asarray(lower, dtype=np.float64) + upper) / 2)
    radii = _entry(model, (np.asarray(upper, dtype=np.float64) - lower) / 2)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    absolute = {name: np.abs(value) for name, value in stored.items()}
    for node in model.graph.node:
        one, two = ([side[name] for name in node.input if name in side] for side in (middles, radii))
        if node.op_type == "Relu":
            low, high = np.maximum(one[0] - two[0], 0.0), np.maximum(one[0] + two[0], 0.0)
            middle, radius = (low + high) / 2, (high - low) / 2
        else:
            zero = {name: 0.0 * absolute[name] for name in node.input[2:]}
            middle, radius = _step(node, one, stored), _step(node, two, {**absolute, **zero})
        middles[node.output[0]], radii[node.output[0]] = middle, radius
    name = model.graph.output[0].name
    return (middles[name] - radii[name]).reshape(-1), (middles[name] + radii[name]).reshape(-1)


def _entry(model: onnx.ModelProto, point: Array) -> dict[str, Float64Array]:
    entry = model.graph.input[0]
    shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
    return {entry.name: np.asarray(point, dtype=np.float64).reshape(shape)}


def _step(node: onnx.NodeProto, inputs: list[Float64Array], stored: Mapping[str, Array]) -> Float64Array:
    """Returns the value of any node but a ReLU."""
    x, attributes = inputs[0], attributes_of(node)
    match node.op_type:
        case "Add":
            return x + inputs[-1]
        case "Flatten":
            return x.reshape(1, -1)
        case "Reshape":
            return x.reshape(1, *stored[node.input[1]][1:])
        case "Gemm":
            return np.asarray(x @ stored[node.input[1]].T.astype(np.float64) + stored[node.input[2]])
        case "Conv":
            return _conv(x, stored[node.input[1]], stored[node.input[2]], attributes)
        case _:
            windows = _taken(x, attributes["kernel_shape"], attributes.get("strides", (1, 1)), (1, 1))
            return np.asarray(windows.mean(axis=(4, 5)) if node.op_type == "AveragePool" else windows.max(axis=(4, 5)))


def _taken(x: Float64Array, kernel: list[int], strides: list[int], dilations: tuple[int, int]) -> Float64Array:
    """Returns the windows, [1, C, H', W', kh, kw]."""
    reach = [dilations[i] * (kernel[i] - 1) + 1 for i in range(2)]
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))
    chosen: Float64Array = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    return chosen


def _conv(x: Float64Array, weight: Array, bias: Array, attributes: dict[str, list[int]]) -> Float64Array:
    pads, groups = attributes.get("pads", [0] * 4), int(np.asarray(attributes.get("group", 1)))
    kernel = list(weight.shape[2:])
    wide = math.prod((x.shape[1], x.shape[2] + pads[0] + pads[2], x.shape[3] + pads[1] + pads[3], *kernel))
    if wide > _LARGEST:
        raise LargeError(f"a convolution of {wide:,} columns")
    padded = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    dilations = attributes.get("dilations", [1, 1])
    windows = _taken(padded, kernel, attributes.get("strides", [1, 1]), (dilations[0], dilations[1]))[0]
    share, outs = weight.shape[1], len(weight) // groups
    sizes = windows.shape[1:3]
    parts = []
    for group in range(groups):
        columns = windows[group * share : (group + 1) * share].transpose(1, 2, 0, 3, 4).reshape(math.prod(sizes), -1)
        rows = weight[group * outs : (group + 1) * outs].reshape(outs, -1).astype(np.float64)
        parts.append((columns @ rows.T).T)
    return (np.concatenate(parts) + bias.astype(np.float64)[:, None]).reshape(1, len(weight), *sizes)
