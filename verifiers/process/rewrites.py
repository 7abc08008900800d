"""Networks written otherwise for a verifier or a measurement: without average pools, or without their last operator."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from prunecert.onnx.normal import Normalised
from prunecert.onnx.types import moving_names


def write_without(model: Any, output: str, operator: str, path: Path) -> Path | None:
    """Writes a network whose last operator does nothing, wherever it stands; what follows, and the outputs, stay.

    Args:
        model: An ``onnx.ModelProto``, local functions written out; it is not changed.
        output: The output that counts.
        operator: The last operator that computes something, element by element or of all elements.
        path: Where to.

    Returns:
        The path, or None where on some way from the input it isn't found in the graph itself, but in a branch, say.
    """
    import onnx

    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    makers = {name: node for node in plain.graph.node for name in node.output if name}
    moving, names = moving_names(plain.graph), [output]
    places: list[Any] = []
    while names:
        # What is moved to the output may be put together of several.
        node = makers.get(names.pop())
        if node is not None and node.op_type == operator:
            places.append(node)
            continue
        read = [] if node is None else [name for name in node.input if name in moving]
        if not read:
            return None
        names += read
    for node in places:
        node.CopyFrom(onnx.helper.make_node("Identity", [node.input[0]], [node.output[0]], name=node.name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(plain.SerializeToString())
    return path


def without_averages(normal: Normalised) -> Normalised:
    """Writes average pools as convolutions, for a verifier that takes none.

    Args:
        normal: A network in normal form.
    """
    import onnx

    if all(node.op_type != "AveragePool" for node in normal.model.graph.node):
        return normal
    model = onnx.ModelProto()
    model.CopyFrom(normal.model)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for graph in [onnx.shape_inference.infer_shapes(model).graph]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    for index, node in enumerate(model.graph.node):
        if node.op_type != "AveragePool":
            continue
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        kernel, channels = attributes["kernel_shape"], shapes[node.input[0]][1]
        weight = np.zeros((channels, channels, *kernel), dtype=np.float32)
        weight[range(channels), range(channels)] = 1 / math.prod(kernel)
        names = [f"prunecert average {index} {part}" for part in ("weight", "bias")]
        for name, value in zip(names, (weight, np.zeros(channels, dtype=np.float32)), strict=True):
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        convolution = onnx.helper.make_node(
            "Conv",
            [node.input[0], *names],
            list(node.output),
            name=node.name,
            kernel_shape=kernel,
            strides=attributes.get("strides", [1, 1]),
        )
        node.CopyFrom(convolution)
    return replace(normal, model=model, changed=True, notes=(*normal.notes, "Averages are written as convolutions."))
