"""Exact answers about a float32 network and its quantised form over a small box.

Where inputs are rounded to one lattice point, outputs of the quantised network are constants; so the box falls into few
cells, and over each of them what the float32 network can differ by is a mixed-integer programme
(`tests.soundness.oracle`).
Runtimes that round a tie to different neighbours give several constants, all of which count.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.soundness.networks import Add, Affine, Array, Network, Relu, conv_matrix
from tests.soundness.oracle import Programme


@dataclass(frozen=True, eq=False)
class Cell:
    """Inputs that are rounded to one lattice point.

    Args:
        programme: The float32 network over them.
        constants: What runtimes make of that point in the quantised network, [runtimes, outputs].
    """

    programme: Programme
    constants: Array


def cells(net: Network, lower: Array, upper: Array, scale: float, rounding: Callable[[Array], Array]) -> Iterator[Cell]:
    """Yields the cells of a box.

    Args:
        net: The float32 network.
        lower: Corner of the box, flat.
        upper: Likewise.
        scale: Of the first rounding, whose grid has 0 and covers the box.
        rounding: Returns the quantised network's outputs in each runtime, [runtimes, outputs], of a lattice point.
    """
    axes = [
        range(round(low), round(high) + 1) for low, high in zip(lower / scale + 1e-6, upper / scale - 1e-6, strict=True)
    ]
    for whole in itertools.product(*axes):
        point = np.array(whole) * scale
        low, high = np.maximum(lower, point - 0.5 * scale), np.minimum(upper, point + 0.5 * scale)
        yield Cell(Programme(net, low, high), rounding(point))


def largest_difference(parts: list[Cell]) -> float:
    """Returns the exact largest |y' - y| of any output."""
    most = 0.0
    for part in parts:
        for output, unit in enumerate(np.eye(part.constants.shape[1])):
            least = part.programme.margin(unit[None], np.zeros(1)).high
            largest = -part.programme.margin(-unit[None], np.zeros(1)).high
            values = part.constants[:, output]
            most = max(most, float(values.max() - least), float(largest - values.min()))
    return most


def surest_change(parts: list[Cell], turned: bool) -> float:
    """Returns by how much the first network can prefer a class that the second leaves; 0 if it never leaves one.

    Args:
        parts: The cells.
        turned: Whether the quantised network is the first.
    """
    most = 0.0
    for part in parts:
        count = part.constants.shape[1]
        for constants, label in itertools.product(part.constants, range(count)):
            # Rows: y_k - y_label of all other classes k.
            rows = np.delete(np.eye(count), label, axis=0) - np.eye(count)[label]
            if turned:
                leaves = any(part.programme.margin(-row[None], np.zeros(1)).high < 0 for row in rows)
                sure = -float((rows @ constants).max()) if leaves else 0.0
            else:
                leaves = bool((rows @ constants).max() > 0)
                sure = -part.programme.margin(rows, np.zeros(len(rows))).high if leaves else 0.0
            most = max(most, sure)
    return most


def drawn(model: onnx.ModelProto) -> Network:
    """Returns a float32 network of Conv, Gemm, Relu, Add, Flatten and pooling in the form of the soundness suite."""
    constants = {item.name: numpy_helper.to_array(item).astype(np.float64) for item in model.graph.initializer}
    entry = model.graph.input[0]
    net = Network("plain", tuple(dim.dim_value for dim in entry.type.tensor_type.shape.dim)[1:])
    places = {entry.name: 0}

    def append(node: Affine | Relu | Add, shape: tuple[int, ...]) -> int:
        net.nodes.append(node)
        net.shapes.append(shape)
        return len(net.nodes)

    for node in model.graph.node:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        source = places[node.input[0]]
        shape = net.shapes[source]
        stride, pad = attributes.get("strides", [1])[0], attributes.get("pads", [0])[0]
        match node.op_type:
            case "Gemm":
                weight, bias = (constants[name] for name in node.input[1:])
                places[node.output[0]] = append(Affine(source, weight, bias), (len(bias),))
            case "Conv":
                weight, bias = (constants[name] for name in node.input[1:])
                matrix, size = conv_matrix(weight, shape, stride, pad)
                shift = np.repeat(bias, size[1] * size[2])
                places[node.output[0]] = append(Affine(source, matrix, shift), size)
            case "Relu":
                places[node.output[0]] = append(Relu(source), shape)
            case "Add":
                places[node.output[0]] = append(Add(source, places[node.input[1]]), shape)
            case "Flatten" | "Identity":
                places[node.output[0]] = source
            case "AveragePool" | "MaxPool":
                kernel = attributes["kernel_shape"]
                area = kernel[0] * kernel[1]
                picked = np.einsum("co,kij->kcoij", np.eye(shape[0]), np.eye(area).reshape(area, *kernel))
                windows = [conv_matrix(pick, shape, stride, pad) for pick in picked]
                size, zeros = windows[0][1], np.zeros(len(windows[0][0]))
                if node.op_type == "AveragePool":
                    mean = np.mean([matrix for matrix, _ in windows], axis=0)
                    places[node.output[0]] = append(Affine(source, mean, zeros), size)
                    continue
                largest = append(Affine(source, windows[0][0], zeros), size)
                for matrix, _ in windows[1:]:
                    # max(m, v) = m + relu(v - m).
                    negated = append(Affine(largest, -np.eye(len(zeros)), zeros), size)
                    other = append(Affine(source, matrix, zeros), size)
                    rest = append(Relu(append(Add(other, negated), size)), size)
                    largest = append(Add(largest, rest), size)
                places[node.output[0]] = largest
            case other_operator:
                raise ValueError(other_operator)
    return net
