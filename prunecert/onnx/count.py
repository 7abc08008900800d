"""The one counter of prunable weights, of their zeros, and of what a network costs to evaluate.

What counts is what the given file calls a weight: the constant of a convolution or linear layer, after what the graph
does to constants (masks multiplied in, quantised numbers made real). What the normal form adds, kernels that select
or sum, is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from prunecert.errors import UserError
from prunecert.onnx.constants import Evaluator, constant_value, to_array, to_dense
from prunecert.onnx.graph import Graph, inlined
from prunecert.onnx.io import load_model
from prunecert.onnx.normal import DEFAULT_DOMAINS, Array
from prunecert.onnx.normalise import read_shapes
from prunecert.onnx.values import Shape

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_LINEAR = ("Gemm", "MatMul")
#: What may stand between a constant and the layer that uses it without making another tensor of it.
_PASSED = ("Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True)
class Layer:
    """The weights of one layer.

    Args:
        name: The node's name, or its operator and place where it has none.
        kind: ``Conv``, ``ConvTranspose``, ``Gemm`` or ``MatMul``.
        shape: Shape of the weight tensor, as the layer reads it where the graph computes it, else as stored.
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
        return {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "weights": self.weights,
            "zeros": self.zeros,
        }


@dataclass(frozen=True)
class Shapes:
    """Sizes of one network.

    Args:
        neurons: Outputs of its ReLUs.
        weights: Weights of convolutions and linear layers, zeros included; a folded normalisation counts here.
        nonzero: Those that are not zero.
        macs: Multiply-adds of one forward pass over all weights.
        sparse_macs: Those with a weight that is not zero.
    """

    neurons: int
    weights: int
    nonzero: int
    macs: int
    sparse_macs: int

    def to_json(self) -> dict[str, int]:
        """Returns plain data."""
        return {
            "neurons": self.neurons,
            "weights": self.weights,
            "nonzero": self.nonzero,
            "macs": self.macs,
            "sparse_macs": self.sparse_macs,
        }


@dataclass(frozen=True, eq=False)
class _Use:
    """A layer as the graph has it."""

    layer: Layer
    result: str
    origin: str
    scaling: bool


def count_layers(path: Path) -> list[Layer]:
    """Counts the weights of every convolution and linear layer that an output depends on, in the order of the graph.

    Biases and normalisation don't count, nor does a 1x1 depthwise convolution, which is a folded normalisation. A
    tensor that two layers share counts once.

    Args:
        path: The ONNX file.

    Raises:
        UserError: The file is no ONNX network, or the weights of a layer depend on the network's input.

    A mask that the graph multiplies in counts; the weights that it clears are zeros:

    >>> text = '''<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 3] y)
    ... <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float[3, 2] mask = {1, 0, 0, 1, 0, 0}>
    ... { v = Mul (w, mask) y = Gemm <transB = 1> (x, v) }'''
    >>> onnx.save(onnx.parser.parse_model(text), "masked.onnx")
    >>> count_layers(Path("masked.onnx"))
    [Layer(name='Gemm_1', kind='Gemm', shape=(3, 2), weights=6, zeros=4)]
    >>> totals(count_layers(Path("masked.onnx")))
    (6, 2)
    """
    layers: list[Layer] = []
    origins: set[str] = set()
    for use in _uses(load_model(path), path.name):
        if use.origin not in origins and not use.scaling:
            origins.add(use.origin)
            layers.append(use.layer)
    if not layers:
        raise UserError(f"{path.name} holds no convolution and no linear layer, so that there is nothing to prune.")
    return layers


def totals(layers: Sequence[Layer]) -> tuple[int, int]:
    """Returns the number of weights and of non-zero weights of all layers."""
    weights = sum(layer.weights for layer in layers)
    return weights, weights - sum(layer.zeros for layer in layers)


def count_shapes(path: Path) -> Shapes:
    """Counts what a network costs to evaluate.

    Args:
        path: The ONNX file.

    Raises:
        UserError: See `count_layers`; or the network has no normal form.

    A kernel of four weights, one of them zero, at four places:

    >>> text = '''<ir_version: 8, opset_import: ["": 13]> net (float[1, 1, 3, 3] x) => (float[1, 4] y)
    ... <float[1, 1, 2, 2] w = {1, 0, 2, 3}> { c = Conv (x, w) r = Relu (c) y = Flatten (r) }'''
    >>> onnx.save(onnx.parser.parse_model(text), "small.onnx")
    >>> count_shapes(Path("small.onnx"))
    Shapes(neurons=4, weights=4, nonzero=3, macs=16, sparse_macs=12)
    """
    model = load_model(path)
    shapes, neurons = read_shapes(model, path.name)
    weights = nonzero = macs = sparse = 0
    for use in _uses(model, path.name):
        kept = use.layer.weights - use.layer.zeros
        places = _places(use.layer, shapes.get(use.result, ()))
        weights, nonzero = weights + use.layer.weights, nonzero + kept
        macs, sparse = macs + places * use.layer.weights, sparse + places * kept
    return Shapes(neurons, weights, nonzero, macs, sparse)


def _places(layer: Layer, shape: Shape) -> int:
    """Returns how often each weight is used, given the shape of the layer's result."""
    if layer.kind == "Conv":
        return math.prod(shape[2:])
    if layer.kind == "ConvTranspose":
        return math.prod(shape) // max(1, layer.weights)
    columns = [size for size in layer.shape if size in shape]
    return 1 if len(shape) < 2 or not columns else max(1, math.prod(shape) // max(columns))


def _uses(model: onnx.ModelProto, file: str) -> list[_Use]:
    graph = Graph(inlined(model), inputs=None)
    alive: set[int] = set()
    for output in graph.proto.output:
        alive |= graph.alive(output.name)[0]
    constants = _Constants(graph)
    uses = []
    for number, node in enumerate(graph.proto.node):
        constants.add(node)
        if number not in alive or node.op_type not in _CONVOLUTIONS + _LINEAR or node.domain not in DEFAULT_DOMAINS:
            continue
        operands = list(node.input[1:2] if node.op_type in _CONVOLUTIONS else node.input[:2])
        stored = [name for name in operands if constants.holds(name)]
        if len(stored) == 2 and len(operands) == 2:
            # A product of constants is a constant, no layer.
            continue
        label = node.name or f"{node.op_type}_{number}"
        if len(stored) != 1:
            raise UserError(
                f"{file}: the weights of {label!r} ({node.op_type}) are not stored as a constant, so that "
                "their zeros cannot be counted; export the network with its weights folded."
            )
        values = constants.value(stored[0])
        zeros = int(np.count_nonzero(values == 0))
        layer = Layer(label, node.op_type, tuple(values.shape), int(values.size), zeros)
        uses.append(_Use(layer, node.output[0], constants.origin(stored[0]), _is_scaling(node, values)))
    return uses


def _is_scaling(node: onnx.NodeProto, values: Array) -> bool:
    groups = next((item.i for item in node.attribute if item.name == "group"), 1)
    return bool(node.op_type == "Conv" and groups == values.shape[0] and values.size == groups)


class _Constants:
    """Constants of a graph, computed only where they are asked for.

    Args:
        graph: The graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._evaluator = Evaluator(graph.opset)
        self._values: dict[str, Array] = {}
        self._tensors = {item.name: item for item in graph.proto.initializer}
        self._sparse = {item.values.name: item for item in graph.proto.sparse_initializer}
        self._makers: dict[str, onnx.NodeProto] = {}

    def add(self, node: onnx.NodeProto) -> None:
        """Remembers a node if it is computed from constants alone."""
        graphs = any(item.HasField("g") or item.graphs for item in node.attribute)
        if graphs or node.domain not in DEFAULT_DOMAINS or not all(self.holds(name) for name in node.input if name):
            return
        self._makers.update((name, node) for name in node.output if name)

    def holds(self, name: str) -> bool:
        """Says whether a value is constant."""
        return name in self._tensors or name in self._sparse or name in self._makers

    def origin(self, name: str) -> str:
        """Returns the name of the tensor that a constant is, whatever its shape has become."""
        while name in self._makers and self._makers[name].op_type in _PASSED:
            name = self._makers[name].input[0]
        return name

    def value(self, name: str) -> Array:
        """Returns a constant.

        Raises:
            UserError: It can't be computed.
        """
        waiting = [name]
        while waiting:
            top = waiting[-1]
            if top in self._values:
                waiting.pop()
            elif top in self._tensors:
                self._values[top] = to_array(self._tensors[top])
            elif top in self._sparse:
                self._values[top] = to_dense(self._sparse[top])
            else:
                node = self._makers[top]
                missing = [item for item in node.input if item and item not in self._values]
                if missing:
                    waiting.extend(missing)
                elif node.op_type == "Constant":
                    self._values[top] = constant_value(node)
                else:
                    arrays = {item: self._values[item] for item in node.input if item}
                    results = self._evaluator.run(node, arrays)
                    self._values.update(zip([item for item in node.output if item], results, strict=False))
        return self._values[name]
