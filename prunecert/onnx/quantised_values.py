"""Values of a quantised graph while it is read: constants, activations, and the grids that these are rounded to.

What scales and zero points say is read here; what operators make of the values, in `prunecert.onnx.quantised_reading`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx

from prunecert.onnx.constants import Evaluator, constant_value, refuse
from prunecert.onnx.graph import Graph
from prunecert.onnx.nodes import Shape
from prunecert.onnx.normal import ELEMENTS, UnsupportedNetworkError
from prunecert.onnx.quantised import Grid, Step
from prunecert.onnx.quantised_constants import Constant, attributes_of, check_float32, dequantised, scales_of

#: Types of quantised activations.
TYPES = ("uint8", "int8", "uint16", "int16")


@dataclass(frozen=True)
class Activation:
    """What depends on the input: a step's value, or the whole numbers that stand for it.

    Args:
        step: Number of the step.
        integers: The grid of the whole numbers, None where it is the value itself.
        read: Whether DequantizeLinear has just written it.
    """

    step: int
    integers: Grid | None = None
    read: bool = False


class QuantisedValues:
    """All values of a graph by their names: those read so far, with the steps that compute them.

    Args:
        graph: The graph, without functions. Its input is step 0.

    Attributes:
        activations: What depends on the input.
        steps: In order, the input first.
    """

    def __init__(self, graph: Graph) -> None:
        self._evaluator = Evaluator(graph.opset)
        self._constants: dict[str, Constant] = {k: Constant(v) for k, v in graph.constants.items()}
        self.activations: dict[str, Activation] = {graph.entry.name: Activation(0)}
        self.steps = [Step("Input", (), graph.shape, graph.entry.name)]

    def fold(self, node: onnx.NodeProto) -> None:
        """Reads a node that doesn't depend on the input: its result is a constant.

        Raises:
            UserError: It can't be evaluated.
            UnsupportedNetworkError: It computes with quantised constants, or has scales that aren't taken.
        """
        self._constants[node.output[0]] = self._folded(node)

    def measure(self, node: onnx.NodeProto) -> None:
        """Reads a Shape, which is a constant whatever its input is: one sample's."""
        attributes, shape = attributes_of(node), self.shape(self.activation(node, integers=True))
        part = shape[attributes.get("start", 0) : attributes.get("end")]
        self._constants[node.output[0]] = Constant(np.array(part, dtype=np.int64))

    def _folded(self, node: onnx.NodeProto) -> Constant:
        if node.op_type == "Constant":
            return Constant(constant_value(node))
        names = [name for name in node.input if name]
        inputs = [self._constants[name] for name in names]
        if node.op_type == "DequantizeLinear":
            return dequantised(node, inputs)
        if node.op_type in ("Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze", "Flatten"):
            first, scales = inputs[0], inputs[0].scales
            moved = [first.values] if scales is None else [first.values, np.ascontiguousarray(scales)]
            results = [
                self._evaluator.run(node, {**{k: v.values for k, v in zip(names, inputs, strict=True)}, names[0]: item})
                for item in moved
            ]
            turned = first.turned or (node.op_type == "Transpose" and scales is not None)
            return Constant(results[0][0], None if scales is None else results[1][0], first.loose, turned)
        if any(item.scales is not None for item in inputs):
            raise refuse(node, "it computes with quantised constants; let them be folded before they are quantised")
        return Constant(self._evaluator.run(node, {k: v.values for k, v in zip(names, inputs, strict=True)})[0])

    def activation(self, node: onnx.NodeProto, place: int = 0, integers: bool = False) -> Activation:
        """Returns a node's input that depends on the network's.

        Args:
            node: The node.
            place: Of the input, from 0.
            integers: Whether whole numbers that stand for others are taken.

        Raises:
            UnsupportedNetworkError: It is a constant, or isn't taken.
        """
        activation = self.activations.get(node.input[place]) if len(node.input) > place else None
        if activation is None:
            raise refuse(node, f"its input {place} doesn't depend on the network's, and another does")
        if activation.integers is not None and not integers:
            raise refuse(node, "it computes with whole numbers that stand for others; put DequantizeLinear before it")
        return activation

    def constant(self, node: onnx.NodeProto, place: int) -> Constant:
        """Returns a node's input that doesn't depend on the network's.

        Raises:
            UnsupportedNetworkError: It does.
        """
        constant = self._constants.get(node.input[place])
        if constant is None:
            raise refuse(node, f"its input {node.input[place]!r:.80} depends on the network's input; it must be stored")
        return constant

    def shape(self, activation: Activation) -> Shape:
        """Returns an activation's shape, [1, ...]."""
        return self.steps[activation.step].shape

    def append(self, step: Step, integers: Grid | None = None) -> Activation:
        """Appends a step, and returns its value.

        Args:
            step: The step.
            integers: The grid of the whole numbers that stand for its value, where these are the result.

        Raises:
            UnsupportedNetworkError: It is too large.
        """
        if math.prod(step.shape) > ELEMENTS:
            raise UnsupportedNetworkError(f"The node {step.name!r} has a result of more than {ELEMENTS:,} elements.")
        self.steps.append(step)
        return Activation(len(self.steps) - 1, integers)

    def quantize(self, node: onnx.NodeProto) -> Activation:
        """Reads a QuantizeLinear.

        Raises:
            UnsupportedNetworkError: Its rounding can't be bounded, or isn't taken.
        """
        activation = self.activation(node)
        grid = self._grid(node)
        before = self.steps[activation.step]
        while before.operator == "Reshape":
            before = self.steps[before.inputs[0]]
        if before.grid is not None and before.grid != grid:
            raise refuse(
                node,
                "it rounds what has just been rounded by another scale; optimisers make one rounding of two, which is "
                "another function",
            )
        return self.append(Step("Round", (activation.step,), self.shape(activation), node.name, grid=grid), grid)

    def dequantize(self, node: onnx.NodeProto) -> Activation:
        """Reads a DequantizeLinear of an activation.

        Raises:
            UnsupportedNetworkError: It reads something else than what was written.
        """
        activation = self.activation(node, integers=True)
        if activation.integers is None:
            raise refuse(node, "it reads numbers that no QuantizeLinear has written")
        if self._grid(node, activation.integers) != activation.integers:
            raise refuse(node, "its scale or zero point is another than that with which its numbers were written")
        return Activation(activation.step, read=True)

    def _grid(self, node: onnx.NodeProto, like: Grid | None = None) -> Grid:
        attributes = attributes_of(node)
        check_float32(node, attributes)
        for place in range(1, len(node.input)):
            if node.input[place] in self.activations:
                raise refuse(node, "its scale or zero point is computed from the input, so that it has no bound")
        scale = scales_of(node, self.constant(node, 1).values)
        zero = self.constant(node, 2).values if len(node.input) > 2 and node.input[2] else np.zeros(1, dtype=np.uint8)
        if scale.size != 1 or zero.size != 1 or attributes.get("block_size", 0):
            raise refuse(
                node, "it rounds each channel or block of an activation by its own scale; taken is one for all"
            )
        if like is None:
            written = onnx.helper.tensor_dtype_to_np_dtype(attributes["output_dtype"]) if attributes.get(
                "output_dtype") else zero.dtype  # fmt: skip
            if len(node.input) < 3 or not node.input[2]:
                zero = zero.astype(written)
            if str(zero.dtype) not in TYPES or written != zero.dtype:
                raise refuse(node, f"it writes {zero.dtype}; taken are {', '.join(TYPES)}")
        whole = np.iinfo(zero.dtype) if zero.dtype.kind in "iu" else None
        if whole is None:
            raise refuse(node, f"its zero point is of the type {zero.dtype}; taken are {', '.join(TYPES)}")
        return Grid(float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]), int(whole.min), int(whole.max))
