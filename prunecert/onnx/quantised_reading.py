"""Reads a QDQ graph into the steps of `prunecert.onnx.quantised`, operator by operator.

What isn't taken is named: operators, and whatever a file could hold that lets nobody say what rounding does: a scale
that is no number, not positive, or computed from the input; a scale for each channel of an activation; a bias that
isn't counted in the unit in which integer kernels add it. Scales and zero points themselves are read by
`prunecert.onnx.quantised_values`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx

from prunecert.errors import UserError
from prunecert.onnx.constants import refuse
from prunecert.onnx.graph import Graph, inlined
from prunecert.onnx.nodes import Shape
from prunecert.onnx.normal import UnsupportedNetworkError
from prunecert.onnx.quantised import Float64Array, Step
from prunecert.onnx.quantised_constants import (
    Constant,
    attributes_of,
    finite,
    rescaled_bias,
    summed,
    windows_of,
)
from prunecert.onnx.quantised_values import Activation, QuantisedValues

#: Operators that are taken of what depends on the input.
OPERATORS = (
    "Add",
    "AveragePool",
    "Conv",
    "DequantizeLinear",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "Identity",
    "MatMul",
    "MaxPool",
    "QuantizeLinear",
    "Relu",
    "Reshape",
    "Shape",
)


def read_steps(model: onnx.ModelProto, name: str) -> tuple[Step, ...]:
    """Reads a quantised network.

    Args:
        model: What `prunecert.onnx.io.load_model` returned.
        name: What to call it in messages.

    Returns:
        Its steps in order, the input first and the output last; each is read by a later one, or is the last.

    Raises:
        UserError: The file is damaged.
        UnsupportedNetworkError: A node isn't taken, or its rounding can't be bounded; it is named.

    >>> text = '''<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y)
    ... <float s = {0.5}, uint8 z = {0}> { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }'''
    >>> [step.operator for step in read_steps(onnx.parser.parse_model(text), "net")]
    ['Input', 'Round']
    >>> read_steps(onnx.parser.parse_model(text.replace("0.5", "0")), "net.onnx")
    Traceback (most recent call last):
    prunecert.onnx.normal.UnsupportedNetworkError: net.onnx is refused. The node 'q' (QuantizeLinear) isn't taken: ...
    """
    try:
        return _Reader(Graph(inlined(model))).read()
    except UnsupportedNetworkError as error:
        raise UnsupportedNetworkError(f"{name} is refused. {error}") from error
    except UserError as error:
        raise UserError(f"{name} is refused. {error}") from error


class _Reader:
    """Reads one graph, node by node."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        if len(graph.proto.output) != 1:
            raise UnsupportedNetworkError(f"It has {len(graph.proto.output)} outputs; of a quantised network one is.")
        if graph.kind != "float32" or graph.shape[0] != 1 or len(graph.shape) < 2:
            raise UnsupportedNetworkError(
                f"Its input is {graph.kind} {list(graph.shape)}; of a quantised network taken is one sample of float32."
            )
        self._values = QuantisedValues(graph)
        #: Of each layer, the unit in which its products are counted, [out]; 0 where there is none.
        self._units: dict[int, Float64Array] = {}

    def read(self) -> tuple[Step, ...]:
        """Returns the steps."""
        last = self._graph.proto.output[0].name
        alive, _ = self._graph.alive(last)
        for number, node in enumerate(self._graph.proto.node):
            if number in alive:
                self._node(node)
        activation = self._values.activations.get(last)
        if activation is None or activation.step == 0:
            raise UnsupportedNetworkError("Its output doesn't depend on its input, or is the input.")
        if activation.integers is not None:
            raise UnsupportedNetworkError(
                "Its outputs are whole numbers that stand for others; end it with DequantizeLinear."
            )
        steps = self._values.steps
        used = [number for step in steps for number in step.inputs]
        if activation.step != len(steps) - 1 or any(number not in used for number in range(len(steps) - 1)):
            # What nobody reads would be bounded for nothing.
            raise UnsupportedNetworkError("A value that its output doesn't need is computed; export it without.")
        if any(steps[step.inputs[0]].operator == "Input" and step.operator not in ("Round", "Reshape")
               for step in steps[1:]) or used.count(0) != 1:  # fmt: skip
            raise UnsupportedNetworkError(
                "Its input isn't rounded before it is used, so that what float32 does with it has no bound; let "
                "QuantizeLinear be the first operator."
            )
        return tuple(steps)

    def _node(self, node: onnx.NodeProto) -> None:
        if node.domain not in ("", "ai.onnx"):
            raise refuse(node, f"its domain is {node.domain!r:.80}; taken are ONNX's own operators")
        if len([name for name in node.output if name]) != 1:
            raise refuse(node, "it has several results")
        if not any(name in self._values.activations for name in node.input if name):
            self._values.fold(node)
            return
        if node.op_type == "Shape":
            # As exporters write it for a batch of any size.
            self._values.measure(node)
            return
        handler = _HANDLERS.get(node.op_type)
        if handler is None:
            raise refuse(node, f"of what depends on the input, a quantised network may hold {', '.join(OPERATORS)}")
        self._values.activations[node.output[0]] = handler(self, node)

    def quantize(self, node: onnx.NodeProto) -> Activation:
        """Reads a QuantizeLinear."""
        return self._values.quantize(node)

    def dequantize(self, node: onnx.NodeProto) -> Activation:
        """Reads a DequantizeLinear of an activation."""
        return self._values.dequantize(node)

    def keep(self, node: onnx.NodeProto) -> Activation:
        """Reads what changes nothing."""
        return self._values.activation(node, integers=True)

    def relu(self, node: onnx.NodeProto) -> Activation:
        """Reads a ReLU."""
        activation = self._values.activation(node)
        return self._values.append(Step("Relu", (activation.step,), self._values.shape(activation), node.name))

    def reshape(self, node: onnx.NodeProto) -> Activation:
        """Reads a Flatten or Reshape, which keep the order of numbers."""
        activation = self._values.activation(node, integers=True)
        shape = self._values.shape(activation)
        if node.op_type == "Flatten":
            if int(attributes_of(node).get("axis", 1)) != 1:
                raise refuse(node, "it doesn't keep the batch axis by itself; its axis must be 1")
            new: Shape = (1, math.prod(shape[1:]))
        else:
            if attributes_of(node).get("allowzero", 0):
                raise refuse(node, "it allows sizes of 0")
            sizes = [int(size) for size in self._values.constant(node, 1).values.reshape(-1)]
            sizes = [shape[i] if size == 0 and i < len(shape) else size for i, size in enumerate(sizes)]
            product = math.prod(size for size in sizes if size != -1)
            if -1 in sizes and product > 0:
                sizes[sizes.index(-1)] = math.prod(shape) // product
            new = tuple(sizes)
            if min(new, default=0) < 1 or math.prod(new) != math.prod(shape) or new[0] != 1 or len(new) < 2:
                raise refuse(node, f"the shape {list(new)} doesn't fit {list(shape)}, or mixes samples")
        return self._values.append(Step("Reshape", (activation.step,), new, node.name), activation.integers)

    def add(self, node: onnx.NodeProto) -> Activation:
        """Reads a sum of two values, or of a value and a constant."""
        if len(node.input) != 2:
            raise refuse(node, f"it has {len(node.input)} inputs")
        if all(name in self._values.activations for name in node.input):
            one, other = self._values.activation(node, 0), self._values.activation(node, 1)
            shape, another = self._values.shape(one), self._values.shape(other)
            if shape != another:
                raise refuse(node, f"it adds the shapes {list(shape)} and {list(another)}")
            return self._values.append(Step("Add", (one.step, other.step), shape, node.name))
        place = 0 if node.input[0] in self._values.activations else 1
        activation, constant = self._values.activation(node, place), self._values.constant(node, 1 - place)
        shape = self._values.shape(activation)
        try:
            bias = np.broadcast_to(finite(node, constant, "constant"), shape).reshape(-1)
        except ValueError:
            raise refuse(node, f"it adds the shapes {list(shape)} and {list(constant.values.shape)}") from None
        # Kernels may add whole numbers before their zero points: up to 2**16 steps, each sum rounded to 2**-24.
        loose = 0.0 if constant.scales is None else float(constant.scales.max(initial=0.0)) * 2.0**-4
        error = np.abs(bias) * constant.loose + loose + self._adopted(node, activation, constant, bias)
        step = Step("Shift", (activation.step,), shape, node.name, bias=bias.copy(), bias_error=error)
        return self._values.append(step)

    def _adopted(
        self, node: onnx.NodeProto, activation: Activation, constant: Constant, bias: Float64Array
    ) -> Float64Array:
        """Bounds what an added constant changes by where optimisers make it the bias of the layer before."""
        steps, number = self._values.steps, activation.step
        while steps[number].operator == "Reshape":
            number = steps[number].inputs[0]
        if steps[number].operator != "Gemm":
            return np.zeros(len(bias))
        unit = np.repeat(self._units[number], len(bias) // len(self._units[number]))
        shape = self._values.shape(activation)
        scales = None if constant.scales is None else np.broadcast_to(constant.scales, shape).reshape(-1)
        return rescaled_bias(node, bias, scales, unit)

    def linear(self, node: onnx.NodeProto) -> Activation:
        """Reads a Gemm or MatMul."""
        activation, constant = self._values.activation(node), self._values.constant(node, 1)
        attributes, weight, shape = (
            attributes_of(node),
            finite(node, constant, "weight"),
            self._values.shape(activation),
        )
        scales = constant.scales
        if weight.ndim != 2 or len(shape) != 2:
            raise refuse(node, f"it multiplies the shapes {list(shape)} and {list(weight.shape)}; taken are matrices")
        if node.op_type == "MatMul" or not attributes.get("transB", 0):
            weight, scales = weight.T, None if scales is None else scales.T
        if any(attributes.get(key, plain) != plain for key, plain in (("alpha", 1.0), ("beta", 1.0), ("transA", 0))):
            raise refuse(node, "its alpha, beta or transA are other than 1, 1 and 0")
        if weight.shape[1] != shape[1]:
            raise refuse(node, f"it multiplies {shape[1]} values by weights for {weight.shape[1]}")
        grid = self._values.steps[activation.step].grid
        fine = activation.read and grid is not None and grid.high - grid.low < 256
        # A Transpose and transB are one to optimisers, which leave a Gemm without either.
        if (constant.turned or not attributes.get("transB", 0)) and not fine:
            raise refuse(
                node,
                "its input doesn't come from a DequantizeLinear of 8 bits, and then optimisers let kernels multiply "
                "such weights that round it once more (MatMulNBits); store them transposed, as a Gemm with transB has "
                "them, and not behind a Transpose",
            )
        step = Step("Gemm", (activation.step,), (1, len(weight)), node.name, np.ascontiguousarray(weight))
        return self._values.append(self._biased(node, step, scales, constant.loose))

    def convolution(self, node: onnx.NodeProto) -> Activation:
        """Reads a two-dimensional convolution."""
        activation, constant = self._values.activation(node), self._values.constant(node, 1)
        attributes, weight, shape = (
            attributes_of(node),
            finite(node, constant, "weight"),
            self._values.shape(activation),
        )
        groups = int(attributes.get("group", 1))
        if (
            weight.ndim != 4
            or len(shape) != 4
            or groups < 1
            or len(weight) % groups
            or weight.shape[1] * groups != shape[1]
        ):
            raise refuse(node, f"weights {list(weight.shape)} in {groups} groups don't fit the input {list(shape)}")
        geometry = windows_of(node, attributes, shape, (weight.shape[2], weight.shape[3]), dilated=True)
        new = (1, len(weight), *geometry.pop("sizes"))
        step = Step("Conv", (activation.step,), new, node.name, weight, groups=groups, **geometry)
        return self._values.append(self._biased(node, step, constant.scales, constant.loose))

    def _biased(self, node: onnx.NodeProto, step: Step, scales: Float64Array | None, loose: float) -> Step:
        """Gives a layer its bias, and says how far integer kernels are from it."""
        assert step.weight is not None
        if scales is None:
            raise refuse(
                node,
                "its weights are no whole numbers, and optimisers quantise them where what they multiply is quantised; "
                "quantise them in the file",
            )
        if loose:
            raise refuse(node, "its weights are whole numbers of more than 29 bits; taken are int8 and int16")
        count = len(step.weight)
        rows = scales.reshape(count, -1)
        if np.any(rows != rows[:, :1]):
            raise refuse(
                node,
                "its weights have scales along an axis that is summed over, which integer kernels take for those of "
                "its outputs; give each output a scale",
            )
        source = self._values.steps[step.inputs[0]]
        while source.operator in ("Reshape", "MaxPool"):
            source = self._values.steps[source.inputs[0]]
        unit = np.zeros(count) if source.grid is None else rows[:, 0] * source.grid.scale
        self._units[len(self._values.steps)] = unit
        if len(node.input) < 3 or not node.input[2]:
            zeros = np.zeros(count)
            return summed(node, replace(step, bias=zeros, bias_error=zeros, rescaled=zeros), source.grid, rows)
        constant = self._values.constant(node, 2)
        values = finite(node, constant, "bias")
        try:
            bias = np.broadcast_to(values, (count,) if values.ndim < 2 else (1, count)).reshape(-1).copy()
        except ValueError:
            raise refuse(node, f"its bias has the shape {list(values.shape)}; needed are {count} numbers") from None
        own = None if constant.scales is None else np.broadcast_to(constant.scales.reshape(-1), (count,))
        rescaled = rescaled_bias(node, bias, own, unit)
        step = replace(step, bias=bias, bias_error=np.abs(bias) * constant.loose, rescaled=rescaled)
        return summed(node, step, source.grid, rows)

    def pool(self, node: onnx.NodeProto) -> Activation:
        """Reads a MaxPool, AveragePool or GlobalAveragePool."""
        largest = node.op_type == "MaxPool"
        activation = self._values.activation(node, integers=largest)
        attributes, shape = attributes_of(node), self._values.shape(activation)
        if len(shape) != 4:
            raise refuse(node, f"its input has the shape {list(shape)}; taken is [1, C, H, W]")
        kernel = shape[2:] if node.op_type == "GlobalAveragePool" else tuple(attributes.get("kernel_shape", ()))
        if len(kernel) != 2 or min(kernel) < 1 or attributes.get("ceil_mode", 0) or attributes.get("storage_order", 0):
            raise refuse(
                node, f"its window is {list(kernel)}, or it has ceil_mode or storage_order; taken are plain ones"
            )
        geometry = windows_of(node, attributes, shape, (int(kernel[0]), int(kernel[1])), dilated=False)
        new = (1, shape[1], *geometry.pop("sizes"))
        if max(geometry["pads"]) >= min(kernel):
            raise refuse(node, "its padding is as large as its window")
        step = Step(
            "MaxPool" if largest else "AveragePool",
            (activation.step,),
            new,
            node.name,
            kernel=(int(kernel[0]), int(kernel[1])),
            count_pads=bool(attributes.get("count_include_pad", 0)),
            **geometry,
        )
        return self._values.append(step, activation.integers)


_HANDLERS: Mapping[str, Callable[[_Reader, onnx.NodeProto], Activation]] = {
    "Add": _Reader.add,
    "AveragePool": _Reader.pool,
    "Conv": _Reader.convolution,
    "DequantizeLinear": _Reader.dequantize,
    "Flatten": _Reader.reshape,
    "Gemm": _Reader.linear,
    "GlobalAveragePool": _Reader.pool,
    "Identity": _Reader.keep,
    "MatMul": _Reader.linear,
    "MaxPool": _Reader.pool,
    "QuantizeLinear": _Reader.quantize,
    "Relu": _Reader.relu,
    "Reshape": _Reader.reshape,
}
