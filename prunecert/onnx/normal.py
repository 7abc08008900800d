"""The normal form that every reader takes, and the cheap test whether a network has it already."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from prunecert.errors import UserError

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
#: What a stored tensor says of itself (``doc_string``) if its numbers are what they should be, and weren't rounded.
EXACT = "exact"

Last = Literal["none", "difference", "order"]


class UnsupportedNetworkError(UserError):
    """A valid file holds something that isn't taken: the node, why, and what to do."""


@dataclass(frozen=True, eq=False)
class Normalised:
    """A network in normal form: opset 13, float32, one input [1, n] or [1, C, H, W], one output [1, n].

    Its operators are ``Conv`` (two-dimensional, explicit symmetric pads, no dilation, with a bias), ``Gemm``
    (``transB``, with a bias), ``Relu``, ``Flatten`` and ``Reshape`` (to a constant shape), ``Add`` (of two computed
    values of one shape), ``AveragePool`` (unpadded) and, where it was asked for, ``MaxPool`` (unpadded, windows that
    don't overlap).

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
        keep: Operators that are taken besides: ``MaxPool``.

    >>> text = '''<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y)
    ... <float[2, 2] w = {1, 0, 2, -1}, float[2] b = {0, 1}> { h = Gemm <transB = 1> (x, w, b) y = Relu (h) }'''
    >>> is_normal(onnx.parser.parse_model(text)), is_normal(onnx.parser.parse_model(text.replace("Relu", "Elu")))
    (True, False)
    """
    graph = model.graph
    opsets = [item.version for item in model.opset_import if item.domain in DEFAULT_DOMAINS]
    if len(opsets) != 1 or opsets[0] not in OPSETS or len(model.opset_import) != 1 or model.ir_version > 8:
        return False
    if model.functions or graph.sparse_initializer or len(graph.input) != 1 or len(graph.output) != 1:
        return False
    constants = {tensor.name: tensor for tensor in graph.initializer}
    shape, output = _static(graph.input[0]), _static(graph.output[0])
    if shape is None or output is None or len(shape) not in (2, 4) or shape[0] != 1 or graph.input[0].name in constants:
        return False
    shapes = {graph.input[0].name: shape}
    used: set[str] = {graph.output[0].name}
    for node in graph.node:
        result = _result(node, shapes, constants, keep) if node.domain in DEFAULT_DOMAINS else None
        if result is None or len(node.output) != 1:
            return False
        shapes[node.output[0]] = result
        used.update(node.input)
    if any(name not in used for name in shapes):
        return False
    last = shapes.get(graph.output[0].name)
    return last is not None and last == output and len(last) == 2 and graph.output[0].name != graph.input[0].name


def _static(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    kind = value.type.tensor_type
    if kind.elem_type != TensorProto.FLOAT or not kind.HasField("shape"):
        return None
    sizes = tuple(dim.dim_value for dim in kind.shape.dim)
    return sizes if all(size > 0 for size in sizes) and math.prod(sizes) <= ELEMENTS else None


def _weights(
    node: onnx.NodeProto, constants: Mapping[str, TensorProto], rank: int
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Returns the shapes of a layer's weight and bias, if both are stored float32 numbers that are finite."""
    if len(node.input) != 3 or any(name not in constants for name in node.input[1:]):
        return None
    tensors = [constants[name] for name in node.input[1:]]
    if any(tensor.data_type != TensorProto.FLOAT for tensor in tensors):
        return None
    weight, bias = (numpy_helper.to_array(tensor) for tensor in tensors)
    if weight.ndim != rank or 0 in weight.shape or not np.isfinite(weight).all() or not np.isfinite(bias).all():
        return None
    return weight.shape, bias.shape


def _result(
    node: onnx.NodeProto,
    shapes: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, TensorProto],
    keep: Collection[str],
) -> tuple[int, ...] | None:
    """Returns the shape of a node's result, or None for a node that isn't normal."""
    if not node.input or node.input[0] not in shapes:
        return None
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    shape = shapes[node.input[0]]
    result: tuple[int, ...] | None = None
    match node.op_type:
        case "Relu" if len(node.input) == 1:
            result = shape
        case "Add" if len(node.input) == 2 and shapes.get(node.input[1]) == shape:
            result = shape
        case "Flatten" if attributes.get("axis", 1) == 1 and len(shape) >= 2:
            result = (1, math.prod(shape[1:]))
        case "Reshape":
            result = _reshaped(node, shape, constants, attributes)
        case "Gemm":
            result = _gemm(node, shape, constants, attributes)
        case "Conv":
            result = _conv(node, shape, constants, attributes)
        case "AveragePool" | "MaxPool" if node.op_type == "AveragePool" or "MaxPool" in keep:
            result = _pool(node, shape, attributes)
        case _:
            pass
    return result if result is not None and 0 not in result and math.prod(result) <= ELEMENTS else None


def _reshaped(
    node: onnx.NodeProto, shape: tuple[int, ...], constants: Mapping[str, TensorProto], attributes: Mapping[str, Any]
) -> tuple[int, ...] | None:
    if len(node.input) != 2 or node.input[1] not in constants or attributes:
        return None
    sizes = [int(size) for size in numpy_helper.to_array(constants[node.input[1]]).reshape(-1)]
    if len(sizes) not in (2, 4) or sizes[0] not in (1, -1) or min(sizes[1:]) < 1:
        return None
    result = (1, *sizes[1:])
    return result if math.prod(result) == math.prod(shape) else None


def _gemm(
    node: onnx.NodeProto, shape: tuple[int, ...], constants: Mapping[str, TensorProto], attributes: Mapping[str, Any]
) -> tuple[int, ...] | None:
    if attributes.get("transB", 0) != 1 or attributes.get("transA", 0) != 0 or len(shape) != 2:
        return None
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        return None
    layer = _weights(node, constants, 2)
    if layer is None or layer[0][1] != shape[1] or layer[1] != layer[0][:1]:
        return None
    return 1, layer[0][0]


def _conv(
    node: onnx.NodeProto, shape: tuple[int, ...], constants: Mapping[str, TensorProto], attributes: Mapping[str, Any]
) -> tuple[int, ...] | None:
    layer = _weights(node, constants, 4)
    if layer is None or len(shape) != 4 or layer[1] != layer[0][:1]:
        return None
    weight, groups = layer[0], int(attributes.get("group", 1))
    if groups < 1 or weight[0] % groups or weight[1] * groups != shape[1]:
        return None
    if tuple(attributes.get("kernel_shape", ())) != weight[2:] or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    pads = tuple(attributes.get("pads", (0, 0, 0, 0)))
    strides, dilations = tuple(attributes.get("strides", (1, 1))), tuple(attributes.get("dilations", (1, 1)))
    if (len(pads), len(strides), len(dilations)) != (4, 2, 2) or pads[:2] != pads[2:] or min(pads) < 0:
        return None
    if min(strides) < 1 or any(dilations[i] != 1 and weight[2 + i] > 1 for i in range(2)):
        return None
    sizes = tuple(
        (shape[2 + i] + 2 * pads[i] - dilations[i] * (weight[2 + i] - 1) - 1) // strides[i] + 1 for i in range(2)
    )
    return (1, weight[0], *sizes) if min(sizes) > 0 else None


def _pool(node: onnx.NodeProto, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[int, ...] | None:
    kernel = tuple(attributes.get("kernel_shape", ()))
    strides = tuple(attributes.get("strides", (1,) * len(kernel)))
    plain = (
        len(node.input) == len(node.output) == 1
        and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
        and not any(attributes.get("pads", ()))
        and not attributes.get("ceil_mode", 0)
        and not attributes.get("storage_order", 0)
        and set(attributes.get("dilations", (1,))) == {1}
    )
    if not plain or len(shape) != 4 or len(kernel) != 2 or len(strides) != 2 or min(*kernel, *strides) < 1:
        return None
    if node.op_type == "MaxPool" and strides != kernel:
        return None
    sizes = tuple((shape[2 + i] - kernel[i]) // strides[i] + 1 for i in range(2))
    return (1, shape[1], *sizes) if min(sizes) > 0 else None
