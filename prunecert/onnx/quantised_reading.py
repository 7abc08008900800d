"""Reads a QDQ graph into the steps of `prunecert.onnx.quantised`.

What isn't taken is named: operators, and whatever a file could hold that lets nobody say what rounding does: a scale
that is no number, not positive, or computed from the input; a scale for each channel of an activation; a bias that
isn't counted in the unit in which integer kernels add it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from prunecert.errors import UserError
from prunecert.onnx.constants import Evaluator, constant_value, refuse
from prunecert.onnx.graph import Graph, inlined
from prunecert.onnx.nodes import Shape
from prunecert.onnx.normal import ELEMENTS, UnsupportedNetworkError
from prunecert.onnx.quantised import Float64Array, Grid, Step
from prunecert.onnx.quantised_constants import Constant, attributes_of, dequantised, finite, scales_of, windows_of

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
)
#: Types of quantised activations.
TYPES = ("uint8", "int8", "uint16", "int16")
#: How far the unit of a bias may be from that of the products, relatively: scales are products rounded to float32.
_SAME_UNIT = 2.0**-20


@dataclass(frozen=True)
class _Tensor:
    """What depends on the input: a step's value, or the whole numbers that stand for it."""

    step: int
    integers: Grid | None = None


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
        self._evaluator = Evaluator(graph.opset)
        if len(graph.proto.output) != 1:
            raise UnsupportedNetworkError(f"It has {len(graph.proto.output)} outputs; of a quantised network one is.")
        if graph.kind != "float32" or graph.shape[0] != 1 or len(graph.shape) < 2:
            raise UnsupportedNetworkError(
                f"Its input is {graph.kind} {list(graph.shape)}; of a quantised network taken is one sample of float32."
            )
        self._constants: dict[str, Constant] = {k: Constant(v) for k, v in graph.constants.items()}
        self._tensors: dict[str, _Tensor] = {graph.entry.name: _Tensor(0)}
        self._steps = [Step("Input", (), graph.shape, graph.entry.name)]

    def read(self) -> tuple[Step, ...]:
        """Returns the steps."""
        last = self._graph.proto.output[0].name
        alive, _ = self._graph.alive(last)
        for number, node in enumerate(self._graph.proto.node):
            if number in alive:
                self._node(node)
        tensor = self._tensors.get(last)
        if tensor is None or tensor.step == 0:
            raise UnsupportedNetworkError("Its output doesn't depend on its input, or is the input.")
        if tensor.integers is not None:
            raise UnsupportedNetworkError(
                "Its outputs are whole numbers that stand for others; end it with DequantizeLinear."
            )
        used = [number for step in self._steps for number in step.inputs]
        if tensor.step != len(self._steps) - 1 or any(number not in used for number in range(len(self._steps) - 1)):
            # What nobody reads would be bounded for nothing.
            raise UnsupportedNetworkError("A value that its output doesn't need is computed; export it without.")
        if any(self._steps[step.inputs[0]].operator == "Input" and step.operator not in ("Round", "Reshape")
               for step in self._steps[1:]) or used.count(0) != 1:  # fmt: skip
            raise UnsupportedNetworkError(
                "Its input isn't rounded before it is used, so that what float32 does with it has no bound; let "
                "QuantizeLinear be the first operator."
            )
        return tuple(self._steps)

    def _node(self, node: onnx.NodeProto) -> None:
        if node.domain not in ("", "ai.onnx"):
            raise refuse(node, f"its domain is {node.domain!r:.80}; taken are ONNX's own operators")
        if len([name for name in node.output if name]) != 1:
            raise refuse(node, "it has several results")
        names = [name for name in node.input if name]
        if not any(name in self._tensors for name in names):
            self._constants[node.output[0]] = self._folded(node, names)
            return
        handler = _HANDLERS.get(node.op_type)
        if handler is None:
            raise refuse(node, f"of what depends on the input, a quantised network may hold {', '.join(OPERATORS)}")
        self._tensors[node.output[0]] = handler(self, node)

    # What constants are.

    def _folded(self, node: onnx.NodeProto, names: Sequence[str]) -> Constant:
        if node.op_type == "Constant":
            return Constant(constant_value(node))
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
            return Constant(results[0][0], None if scales is None else results[1][0], first.loose)
        if any(item.scales is not None for item in inputs):
            raise refuse(node, "it computes with quantised constants; let them be folded before they are quantised")
        return Constant(self._evaluator.run(node, {k: v.values for k, v in zip(names, inputs, strict=True)})[0])

    # What depends on the input.

    def _tensor(self, node: onnx.NodeProto, place: int = 0, integers: bool = False) -> _Tensor:
        """Returns an input that depends on the network's."""
        tensor = self._tensors.get(node.input[place]) if len(node.input) > place else None
        if tensor is None:
            raise refuse(node, f"its input {place} doesn't depend on the network's, and another does")
        if tensor.integers is not None and not integers:
            raise refuse(node, "it computes with whole numbers that stand for others; put DequantizeLinear before it")
        return tensor

    def _constant(self, node: onnx.NodeProto, place: int) -> Constant:
        constant = self._constants.get(node.input[place])
        if constant is None:
            raise refuse(node, f"its input {node.input[place]!r:.80} depends on the network's input; it must be stored")
        return constant

    def _append(self, step: Step, integers: Grid | None = None) -> _Tensor:
        if math.prod(step.shape) > ELEMENTS:
            raise UnsupportedNetworkError(f"The node {step.name!r} has a result of more than {ELEMENTS:,} elements.")
        self._steps.append(step)
        return _Tensor(len(self._steps) - 1, integers)

    def _shape(self, tensor: _Tensor) -> Shape:
        return self._steps[tensor.step].shape

    def quantize(self, node: onnx.NodeProto) -> _Tensor:
        """Reads a QuantizeLinear."""
        tensor = self._tensor(node)
        grid = self._grid(node)
        before = self._steps[tensor.step]
        while before.operator == "Reshape":
            before = self._steps[before.inputs[0]]
        if before.grid is not None and before.grid != grid:
            raise refuse(
                node,
                "it rounds what has just been rounded by another scale; optimisers make one rounding of two, which is "
                "another function",
            )
        return self._append(Step("Round", (tensor.step,), self._shape(tensor), node.name, grid=grid), grid)

    def dequantize(self, node: onnx.NodeProto) -> _Tensor:
        """Reads a DequantizeLinear of an activation."""
        tensor = self._tensor(node, integers=True)
        if tensor.integers is None:
            raise refuse(node, "it reads numbers that no QuantizeLinear has written")
        if self._grid(node, tensor.integers) != tensor.integers:
            raise refuse(node, "its scale or zero point is another than that with which its numbers were written")
        return _Tensor(tensor.step)

    def _grid(self, node: onnx.NodeProto, like: Grid | None = None) -> Grid:
        attributes = attributes_of(node)
        for place in range(1, len(node.input)):
            if node.input[place] in self._tensors:
                raise refuse(node, "its scale or zero point is computed from the input, so that it has no bound")
        scale = scales_of(node, self._constant(node, 1).values)
        zero = self._constant(node, 2).values if len(node.input) > 2 and node.input[2] else np.zeros(1, dtype=np.uint8)
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

    def keep(self, node: onnx.NodeProto) -> _Tensor:
        """Reads what changes nothing."""
        return self._tensor(node, integers=True)

    def relu(self, node: onnx.NodeProto) -> _Tensor:
        """Reads a ReLU."""
        tensor = self._tensor(node)
        return self._append(Step("Relu", (tensor.step,), self._shape(tensor), node.name))

    def reshape(self, node: onnx.NodeProto) -> _Tensor:
        """Reads a Flatten or Reshape, which keep the order of numbers."""
        tensor = self._tensor(node, integers=True)
        shape = self._shape(tensor)
        if node.op_type == "Flatten":
            if int(attributes_of(node).get("axis", 1)) != 1:
                raise refuse(node, "it doesn't keep the batch axis by itself; its axis must be 1")
            new: Shape = (1, math.prod(shape[1:]))
        else:
            if attributes_of(node).get("allowzero", 0):
                raise refuse(node, "it allows sizes of 0")
            sizes = [int(size) for size in self._constant(node, 1).values.reshape(-1)]
            sizes = [shape[i] if size == 0 and i < len(shape) else size for i, size in enumerate(sizes)]
            product = math.prod(size for size in sizes if size != -1)
            if -1 in sizes and product > 0:
                sizes[sizes.index(-1)] = math.prod(shape) // product
            new = tuple(sizes)
            if min(new, default=0) < 1 or math.prod(new) != math.prod(shape) or new[0] != 1 or len(new) < 2:
                raise refuse(node, f"the shape {list(new)} doesn't fit {list(shape)}, or mixes samples")
        return self._append(Step("Reshape", (tensor.step,), new, node.name), tensor.integers)

    def add(self, node: onnx.NodeProto) -> _Tensor:
        """Reads a sum of two values, or of a value and a constant."""
        if len(node.input) != 2:
            raise refuse(node, f"it has {len(node.input)} inputs")
        if all(name in self._tensors for name in node.input):
            one, other = self._tensor(node, 0), self._tensor(node, 1)
            if self._shape(one) != self._shape(other):
                raise refuse(node, f"it adds the shapes {list(self._shape(one))} and {list(self._shape(other))}")
            return self._append(Step("Add", (one.step, other.step), self._shape(one), node.name))
        place = 0 if node.input[0] in self._tensors else 1
        tensor, constant = self._tensor(node, place), self._constant(node, 1 - place)
        shape = self._shape(tensor)
        try:
            bias = np.broadcast_to(finite(node, constant), shape).reshape(-1)
        except ValueError:
            raise refuse(node, f"it adds the shapes {list(shape)} and {list(constant.values.shape)}") from None
        # Kernels may add whole numbers before their zero points: up to 2**16 steps, each sum rounded to 2**-24.
        loose = 0.0 if constant.scales is None else float(constant.scales.max(initial=0.0)) * 2.0**-4
        error = np.abs(bias) * constant.loose + loose
        return self._append(Step("Shift", (tensor.step,), shape, node.name, bias=bias.copy(), bias_error=error))

    def linear(self, node: onnx.NodeProto) -> _Tensor:
        """Reads a Gemm or MatMul."""
        tensor, constant = self._tensor(node), self._constant(node, 1)
        attributes, weight, shape = attributes_of(node), finite(node, constant), self._shape(tensor)
        scales = constant.scales
        if weight.ndim != 2 or len(shape) != 2:
            raise refuse(node, f"it multiplies the shapes {list(shape)} and {list(weight.shape)}; taken are matrices")
        if node.op_type == "MatMul" or not attributes.get("transB", 0):
            weight, scales = weight.T, None if scales is None else scales.T
        if any(attributes.get(key, plain) != plain for key, plain in (("alpha", 1.0), ("beta", 1.0), ("transA", 0))):
            raise refuse(node, "its alpha, beta or transA are other than 1, 1 and 0")
        if weight.shape[1] != shape[1]:
            raise refuse(node, f"it multiplies {shape[1]} values by weights for {weight.shape[1]}")
        step = Step("Gemm", (tensor.step,), (1, len(weight)), node.name, np.ascontiguousarray(weight))
        return self._append(self._biased(node, step, scales, constant.loose))

    def convolution(self, node: onnx.NodeProto) -> _Tensor:
        """Reads a two-dimensional convolution."""
        tensor, constant = self._tensor(node), self._constant(node, 1)
        attributes, weight, shape = attributes_of(node), finite(node, constant), self._shape(tensor)
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
        step = Step("Conv", (tensor.step,), new, node.name, weight, groups=groups, **geometry)
        return self._append(self._biased(node, step, constant.scales, constant.loose))

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
        if len(node.input) < 3 or not node.input[2]:
            zeros = np.zeros(count)
            return replace(step, bias=zeros, bias_error=zeros, rescaled=zeros)
        constant = self._constant(node, 2)
        values = finite(node, constant)
        try:
            bias = np.broadcast_to(values, (count,) if values.ndim < 2 else (1, count)).reshape(-1).copy()
        except ValueError:
            raise refuse(node, f"its bias has the shape {list(values.shape)}; needed are {count} numbers") from None
        rescaled = np.zeros(count)
        source = self._steps[step.inputs[0]]
        while source.operator in ("Reshape", "MaxPool"):
            source = self._steps[source.inputs[0]]
        unit = np.zeros(count) if source.grid is None else scales.reshape(count, -1)[:, 0] * source.grid.scale
        if constant.scales is None:
            # Optimisers may round it to the products' unit.
            rescaled = 0.5 * unit * (1 + 2.0**-20)
        elif source.grid is not None:
            own = np.broadcast_to(constant.scales.reshape(-1), (count,))
            if np.any((np.abs(own - unit) > _SAME_UNIT * unit) & (bias != 0)):
                raise refuse(
                    node,
                    "its bias isn't counted in the unit of its products (scale of the input times that of the weights)"
                    ", so that integer kernels compute another function than float32 ones",
                )
            rescaled = np.abs(bias / own) * np.abs(own - unit) * (1 + 2.0**-40)
        return replace(step, bias=bias, bias_error=np.abs(bias) * constant.loose, rescaled=rescaled)

    def pool(self, node: onnx.NodeProto) -> _Tensor:
        """Reads a MaxPool, AveragePool or GlobalAveragePool."""
        largest = node.op_type == "MaxPool"
        tensor = self._tensor(node, integers=largest)
        attributes, shape = attributes_of(node), self._shape(tensor)
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
            (tensor.step,),
            new,
            node.name,
            kernel=(int(kernel[0]), int(kernel[1])),
            count_pads=bool(attributes.get("count_include_pad", 0)),
            **geometry,
        )
        return self._append(step, tensor.integers)


_HANDLERS: Mapping[str, Callable[[_Reader, onnx.NodeProto], _Tensor]] = {
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
