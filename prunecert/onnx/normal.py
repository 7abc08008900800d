"""The normal form that every reader takes, and the one walk through a network that has it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from prunecert.errors import UserError
from prunecert.onnx.nodes import Node, Shape
from prunecert.onnx.rounding import WEIGHT, noted

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]

#: What normal networks are written in.
OPSET = 13
IR_VERSION = 7
#: Opsets in which the operators of the normal form mean the same as in `OPSET`.
OPSETS = range(13, 18)
#: Most elements of one value, and of one constant.
ELEMENTS = 2**27
DEFAULT_DOMAINS = ("", "ai.onnx")

Last = Literal["none", "difference", "order"]


class UnsupportedNetworkError(UserError):
    """A valid file holds something that isn't taken: the node, why, and what to do."""


@dataclass(frozen=True, eq=False)
class Normalised:
    """A network in normal form: opset 13, float32, one input [1, n] or [1, C, H, W], one output [1, n].

    Its operators are ``Conv`` (two-dimensional, explicit symmetric pads, no dilation, with a bias), ``Gemm``
    (``transB``, with a bias), ``Relu``, ``Flatten`` and ``Reshape`` (to a constant shape), ``Add`` (of two computed
    values of one shape), ``AveragePool`` (unpadded) and, where it was asked for, ``MaxPool`` (unpadded, windows that
    don't overlap), ``Sigmoid`` and ``Tanh``.

    Args:
        model: The normal network.
        changed: Whether it is another one than the given; if not, the given file itself serves.
        input_order: Flat input i of the normal network is flat input ``input_order[i]`` of the given one; None: the
            same order.
        outputs: How many outputs it has.
        last: What was removed at the end, so that only some properties keep their meaning. ``difference``: a
            LogSoftmax; rows whose coefficients sum to 0 do. ``order``: a Softmax, Sigmoid or Tanh; rows
            a (Y_i - Y_j) <= 0 do, in real arithmetic: in float32 two outputs may both be rounded to the same number.
        notes: One sentence for each rewrite.
        output: Name of the given network's output that this one computes.
        relus: How many ReLU neurons it has; 0 where it is the given network.
        removed: The operator that was removed at the end: ``LogSoftmax``, ``Softmax``, ``Sigmoid`` or ``Tanh``.
    """

    model: onnx.ModelProto
    changed: bool
    input_order: IntArray | None
    outputs: int
    last: Last = "none"
    notes: tuple[str, ...] = ()
    output: str = ""
    removed: str = ""
    relus: int = 0


def is_normal(model: onnx.ModelProto, keep: Collection[str] = ()) -> bool:
    """Says whether a network is in normal form, without evaluating anything.

    Args:
        model: What `prunecert.onnx.io.load_model` returned.
        keep: Operators that are taken besides: ``MaxPool``, ``Sigmoid``, ``Tanh``.

    >>> text = '''<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y)
    ... <float[2, 2] w = {1, 0, 2, -1}, float[2] b = {0, 1}> { h = Gemm <transB = 1> (x, w, b) y = Relu (h) }'''
    >>> is_normal(onnx.parser.parse_model(text)), is_normal(onnx.parser.parse_model(text.replace("Relu", "Elu")))
    (True, False)
    """
    return normal_nodes(model, keep) is not None


def has_relu_on_input(nodes: Sequence[Node]) -> bool:
    """Whether a ReLU stands on the input itself, with no layer between; the sparse engine takes none.

    Args:
        nodes: Of a network in normal form.
    """
    for node in nodes:
        if node.operator == "Relu":
            source = nodes[node.inputs[0]]
            while source.operator in ("Relu", "Reshape", "Flatten"):
                source = nodes[source.inputs[0]]
            if source.operator == "Input":
                return True
    return False


def normal_nodes(model: onnx.ModelProto, keep: Collection[str] = ()) -> tuple[Node, ...] | None:
    """Reads a network in normal form, without evaluating anything.

    Args:
        model: What `prunecert.onnx.io.load_model` returned.
        keep: Operators that are taken besides: ``MaxPool``, ``Sigmoid``, ``Tanh``.

    Returns:
        Its nodes in the graph's order, the input first and the output last, with what was rounded to get there
        (`prunecert.onnx.rounding`); None if it isn't in normal form.

    Raises:
        UserError: What its metadata say of rounding isn't understood.

    >>> text = '''<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y)
    ... <float[2, 2] w = {1, 0, 2, -1}, float[2] b = {0, 1}> { h = Gemm <transB = 1> (x, w, b) y = Relu (h) }'''
    >>> [(node.operator, node.inputs, node.shape) for node in normal_nodes(onnx.parser.parse_model(text))]
    [('Input', (), (1, 2)), ('Gemm', (0,), (1, 2)), ('Relu', (1,), (1, 2))]
    """
    graph = model.graph
    opsets = [item.version for item in model.opset_import if item.domain in DEFAULT_DOMAINS]
    if len(opsets) != 1 or opsets[0] not in OPSETS or len(model.opset_import) != 1 or model.ir_version > 8:
        return None
    if model.functions or graph.sparse_initializer or len(graph.input) != 1 or len(graph.output) != 1:
        return None
    constants = {tensor.name: tensor for tensor in graph.initializer}
    entry, last = graph.input[0], graph.output[0]
    shape, output = _static(entry), _static(last)
    if shape is None or output is None or len(shape) not in (2, 4) or shape[0] != 1 or entry.name in constants:
        return None
    nodes, numbers = [Node("Input", (), shape, name=entry.name)], {entry.name: 0}
    roundings = noted(model) or {}
    for index, proto in enumerate(graph.node):
        node = _read(proto, nodes, numbers, constants, keep) if proto.domain in DEFAULT_DOMAINS else None
        if node is None or len(proto.output) != 1 or proto.output[0] in numbers:
            return None
        numbers[proto.output[0]] = len(nodes)
        if index in roundings and node.bias is not None:
            rounding = roundings[index]
            error = rounding.bias_error(node.bias)
            node = replace(node, loose=WEIGHT if rounding.weights else 0.0, bias_error=error if error.any() else None)
        nodes.append(replace(node, name=proto.name or f"number {index}"))
    # Where every value is read, the last one can only be the output.
    used = {last.name, *(name for proto in graph.node for name in proto.input)}
    if any(name not in used for name in numbers) or numbers.get(last.name, 0) == 0:
        return None
    return tuple(nodes) if len(output) == 2 and nodes[-1].shape == output else None


def _static(value: onnx.ValueInfoProto) -> Shape | None:
    kind = value.type.tensor_type
    if kind.elem_type != TensorProto.FLOAT or not kind.HasField("shape"):
        return None
    sizes = tuple(dim.dim_value for dim in kind.shape.dim)
    return sizes if all(size > 0 for size in sizes) and math.prod(sizes) <= ELEMENTS else None


def _read(
    proto: onnx.NodeProto,
    nodes: Sequence[Node],
    numbers: Mapping[str, int],
    constants: Mapping[str, TensorProto],
    keep: Collection[str],
) -> Node | None:
    """Returns a node, or None for one that isn't normal."""
    if not proto.input or proto.input[0] not in numbers:
        return None
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in proto.attribute}
    number = numbers[proto.input[0]]
    shape = nodes[number].shape
    node: Node | None = None
    match proto.op_type:
        case "Relu" if len(proto.input) == 1:
            node = Node("Relu", (number,), shape)
        case "Sigmoid" | "Tanh" if len(proto.input) == 1 and proto.op_type in keep:
            node = Node(proto.op_type, (number,), shape)
        case "Add" if len(proto.input) == 2 and proto.input[1] in numbers:
            other = numbers[proto.input[1]]
            node = Node("Add", (number, other), shape) if nodes[other].shape == shape else None
        case "Flatten" if attributes.get("axis", 1) == 1 and len(shape) >= 2:
            node = Node("Reshape", (number,), (1, math.prod(shape[1:])))
        case "Reshape":
            node = _reshape(proto, number, shape, constants, attributes)
        case "Gemm":
            node = _gemm(proto, number, shape, constants, attributes)
        case "Conv":
            node = _conv(proto, number, shape, constants, attributes)
        case "AveragePool" | "MaxPool" if proto.op_type == "AveragePool" or "MaxPool" in keep:
            node = _pool(proto, number, shape, attributes)
        case _:
            pass
    return node if node is not None and 0 not in node.shape and math.prod(node.shape) <= ELEMENTS else None


def _layer(
    proto: onnx.NodeProto, constants: Mapping[str, TensorProto], rank: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
    """Returns a layer's weight and bias, if both are stored float32 numbers that are finite, one bias an output."""
    if len(proto.input) != 3 or any(name not in constants for name in proto.input[1:]):
        return None
    tensors = [constants[name] for name in proto.input[1:]]
    if any(tensor.data_type != TensorProto.FLOAT for tensor in tensors):
        return None
    weight, bias = (numpy_helper.to_array(tensor) for tensor in tensors)
    if weight.ndim != rank or 0 in weight.shape or bias.shape != weight.shape[:1]:
        return None
    return (weight, bias) if np.isfinite(weight).all() and np.isfinite(bias).all() else None


def _reshape(
    proto: onnx.NodeProto,
    number: int,
    shape: Shape,
    constants: Mapping[str, TensorProto],
    attributes: Mapping[str, Any],
) -> Node | None:
    if len(proto.input) != 2 or proto.input[1] not in constants or attributes:
        return None
    sizes = [int(size) for size in numpy_helper.to_array(constants[proto.input[1]]).reshape(-1)]
    if len(sizes) not in (2, 4) or sizes[0] not in (1, -1) or min(sizes[1:]) < 1:
        return None
    result = (1, *sizes[1:])
    return Node("Reshape", (number,), result) if math.prod(result) == math.prod(shape) else None


def _gemm(
    proto: onnx.NodeProto,
    number: int,
    shape: Shape,
    constants: Mapping[str, TensorProto],
    attributes: Mapping[str, Any],
) -> Node | None:
    if attributes.get("transB", 0) != 1 or attributes.get("transA", 0) != 0 or len(shape) != 2:
        return None
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        return None
    layer = _layer(proto, constants, 2)
    if layer is None or layer[0].shape[1] != shape[1]:
        return None
    return Node("Gemm", (number,), (1, len(layer[0])), *layer)


def _conv(
    proto: onnx.NodeProto,
    number: int,
    shape: Shape,
    constants: Mapping[str, TensorProto],
    attributes: Mapping[str, Any],
) -> Node | None:
    layer = _layer(proto, constants, 4)
    if layer is None or len(shape) != 4:
        return None
    weight, groups = layer[0].shape, int(attributes.get("group", 1))
    if groups < 1 or weight[0] % groups or weight[1] * groups != shape[1]:
        return None
    if tuple(attributes.get("kernel_shape", ())) != weight[2:] or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    pads = tuple(attributes.get("pads", (0, 0, 0, 0)))
    strides, dilations = tuple(attributes.get("strides", (1, 1))), tuple(attributes.get("dilations", (1, 1)))
    if (len(pads), len(strides), len(dilations)) != (4, 2, 2) or pads[:2] != pads[2:] or min(pads) < 0:
        return None
    # Where the kernel has one place, a dilation changes nothing.
    if min(strides) < 1 or any(dilations[i] != 1 and weight[2 + i] > 1 for i in range(2)):
        return None
    sizes = [(shape[2 + i] + 2 * pads[i] - weight[2 + i]) // strides[i] + 1 for i in range(2)]
    if min(sizes) < 1:
        return None
    return Node("Conv", (number,), (1, weight[0], *sizes), *layer, strides, (pads[0], pads[1]), groups)


def _pool(proto: onnx.NodeProto, number: int, shape: Shape, attributes: Mapping[str, Any]) -> Node | None:
    kernel = tuple(attributes.get("kernel_shape", ()))
    strides = tuple(attributes.get("strides", (1,) * len(kernel)))
    plain = (
        len(proto.input) == len(proto.output) == 1
        and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
        and not any(attributes.get("pads", ()))
        and not attributes.get("ceil_mode", 0)
        and not attributes.get("storage_order", 0)
        and set(attributes.get("dilations", (1,))) == {1}
    )
    if not plain or len(shape) != 4 or len(kernel) != 2 or len(strides) != 2 or min(*kernel, *strides) < 1:
        return None
    if proto.op_type == "MaxPool" and strides != kernel:
        return None
    sizes = [(shape[2 + i] - kernel[i]) // strides[i] + 1 for i in range(2)]
    if min(sizes) < 1:
        return None
    return Node(proto.op_type, (number,), (1, shape[1], *sizes), strides=strides, kernel=kernel)
