"""A normal network evaluated in float64, to tell rounding from mistakes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from prunecert.onnx.normal import Array
from prunecert.onnx.reading import attributes_of

Float64Array = npt.NDArray[np.float64]


def evaluate(model: onnx.ModelProto, point: Array) -> tuple[Float64Array, float]:
    """Returns the outputs, flat, and the largest magnitude of any value on the way.

    Args:
        model: A network in normal form.
        point: Its flat input.
    """
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    entry = model.graph.input[0]
    shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
    values = {entry.name: np.asarray(point, dtype=np.float64).reshape(shape)}
    for node in model.graph.node:
        x, attributes = values[node.input[0]], attributes_of(node)
        match node.op_type:
            case "Relu":
                y = np.maximum(x, 0.0)
            case "Add":
                y = x + values[node.input[1]]
            case "Flatten":
                y = x.reshape(1, -1)
            case "Reshape":
                y = x.reshape(1, *stored[node.input[1]][1:])
            case "Gemm":
                y = x @ stored[node.input[1]].T.astype(np.float64) + stored[node.input[2]]
            case "Conv":
                y = _conv(x, stored[node.input[1]], stored[node.input[2]], attributes)
            case _:
                taken = _taken(x, attributes["kernel_shape"], attributes.get("strides", (1, 1)), (1, 1))
                y = taken.mean(axis=(4, 5)) if node.op_type == "AveragePool" else taken.max(axis=(4, 5))
        values[node.output[0]] = y
    largest = max(float(np.abs(value).max()) for value in values.values())
    return values[model.graph.output[0].name].reshape(-1), largest


def _taken(x: Float64Array, kernel: list[int], strides: list[int], dilations: tuple[int, int]) -> Float64Array:
    """Returns the windows, [1, C, H', W', kh, kw]."""
    reach = [dilations[i] * (kernel[i] - 1) + 1 for i in range(2)]
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))
    taken: Float64Array = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    return taken


def _conv(x: Float64Array, weight: Array, bias: Array, attributes: dict[str, list[int]]) -> Float64Array:
    pads, groups = attributes.get("pads", [0] * 4), int(np.asarray(attributes.get("group", 1)))
    padded = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    dilations = attributes.get("dilations", [1, 1])
    kernel = list(weight.shape[2:])
    taken = _taken(padded, kernel, attributes.get("strides", [1, 1]), (dilations[0], dilations[1]))[0]
    share, outs = weight.shape[1], len(weight) // groups
    sizes = taken.shape[1:3]
    parts = []
    for group in range(groups):
        columns = taken[group * share : (group + 1) * share].transpose(1, 2, 0, 3, 4).reshape(math.prod(sizes), -1)
        rows = weight[group * outs : (group + 1) * outs].reshape(outs, -1).astype(np.float64)
        parts.append((columns @ rows.T).T)
    return (np.concatenate(parts) + bias.astype(np.float64)[:, None]).reshape(1, len(weight), *sizes)
