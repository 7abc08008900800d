"""Prunable weights counted in anybody's ONNX file: constants of convolutions and linear layers, zeros as they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError

_LINEAR = ("Gemm", "MatMul")
#: What may stand between a constant and the layer that uses it; none of these changes a zero.
_PASSED = ("Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True)
class Layer:
    """The weights of one layer.

    Args:
        name: The node's name, or its operator and place where it has none.
        kind: ``Conv``, ``Gemm`` or ``MatMul``.
        shape: Shape of the weight tensor as stored.
        weights: How many weights.
        zeros: How many of them are exactly zero.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    weights: int
    zeros: int

    def to_json(self) -> dict[str, Any]:
        """Returns plain data."""
        return {**asdict(self), "shape": list(self.shape)}


def count_layers(path: Path) -> list[Layer]:
    """Counts the weights of every convolution and linear layer, in the order of the graph.

    Biases and normalisation don't count, nor does a 1x1 depthwise convolution, which is a folded normalisation. A
    tensor that two layers share counts once.

    Args:
        path: The ONNX file.

    Raises:
        UserError: The file is no ONNX network, or the weights of a layer are computed rather than stored.
    """
    import onnx

    from verifiers.support import load_model

    graph = load_model(path).graph
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    layers: list[Layer] = []
    origin = {name: name for name in constants}
    seen: set[str] = set()
    for number, node in enumerate(graph.node):
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    constants[node.output[0]] = onnx.numpy_helper.to_array(attribute.t)
                    origin[node.output[0]] = node.output[0]
        elif node.op_type in _PASSED and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
            origin[node.output[0]] = origin[node.input[0]]
        elif node.op_type == "Conv" or node.op_type in _LINEAR:
            label = node.name or f"{node.op_type}_{number}"
            stored = [name for name in node.input[:2] if name in constants]
            if node.op_type == "Conv":
                stored = [name for name in node.input[1:2] if name in constants]
            if len(stored) != 1:
                raise UserError(
                    f"{path.name}: the weights of {label!r} ({node.op_type}) are not stored as a constant, so that "
                    "their zeros cannot be counted; export the network with its weights folded."
                )
            values = constants[stored[0]]
            if origin[stored[0]] in seen or (node.op_type == "Conv" and _is_scaling(node, values)):
                continue
            seen.add(origin[stored[0]])
            layers.append(_layer(label, node.op_type, values))
    if not layers:
        raise UserError(f"{path.name} holds no convolution and no linear layer, so that there is nothing to prune.")
    return layers


def _is_scaling(node: Any, values: npt.NDArray[Any]) -> bool:
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return bool(groups == values.shape[0] and values.size == groups)


def _layer(name: str, kind: str, values: npt.NDArray[Any]) -> Layer:
    return Layer(name, kind, tuple(values.shape), int(values.size), int(np.count_nonzero(values == 0)))


def totals(layers: Sequence[Layer]) -> tuple[int, int]:
    """Returns the number of weights and of non-zero weights of all layers."""
    weights = sum(layer.weights for layer in layers)
    return weights, weights - sum(layer.zeros for layer in layers)
