"""An ONNX graph as compaction sees it: which tensors share their channels, and which layers mix them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper, shape_inference

Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


class Role(enum.Enum):
    """What a node does to channels."""

    #: A convolution in one group, or a linear layer: every output channel reads all input channels.
    DENSE = enum.auto()
    #: Scales and shifts each channel by constants: batch norm, its folded form, arithmetic with a constant.
    AFFINE = enum.auto()
    RELU = enum.auto()
    POOL = enum.auto()
    #: The sum of two tensors of equal shape.
    ADD = enum.auto()
    #: Flattens all axes but the first, or does nothing.
    RESHAPE = enum.auto()
    #: Anything else: its inputs and outputs keep all their channels.
    BARRIER = enum.auto()


@dataclass(eq=False)
class CompactNode:
    """A node of the graph.

    Args:
        proto: The node.
        role: What it does to channels.
        inputs: Names of its inputs that are computed from the network's input.
        output: Name of its output.
        weight: Of a dense node: float32 ``[outputs, inputs, taps]``, an input's taps being the kernel's or the
            places that a flattened channel has.
        kernel: Of a dense node: shape of its kernel, () for a linear layer.
        bias: Of a dense node: ``[outputs]``, float64.
        factor: Of an affine node: float64, ``[channels, 1]`` or ``[channels, places]``.
        shift: Likewise.
        size: Likewise: magnitude of the terms that `shift` is computed of, for the rounding error.
        attributes: As in the file.
    """

    proto: onnx.NodeProto
    role: Role
    inputs: tuple[str, ...]
    output: str
    weight: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=np.float32))
    kernel: tuple[int, ...] = ()
    bias: Array = field(default_factory=lambda: np.zeros(0))
    factor: Array = field(default_factory=lambda: np.ones((0, 1)))
    shift: Array = field(default_factory=lambda: np.zeros((0, 1)))
    size: Array = field(default_factory=lambda: np.zeros((0, 1)))
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution."""
        return self.proto.op_type == "Conv"

    @property
    def padded(self) -> bool:
        """Whether it sees zeros round its input."""
        return any(self.attributes.get("pads", ()))

    @property
    def label(self) -> str:
        """What a person calls it."""
        return self.proto.name or self.output


class CompactGraph:
    """A network's nodes in order, the shapes of its tensors, and the classes of tensors that share channels.

    Args:
        model: An ONNX model; not changed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        graph = model.graph
        self.constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        self.shapes = _shapes(model)
        self.nodes: list[CompactNode] = []
        self._parent: dict[str, str] = {}
        #: Channels of each tensor, and the places a channel has in it.
        self.channels: dict[str, int] = {}
        self.places: dict[str, int] = {}
        self.locked_tensors: set[str] = set()
        self.entries = [item.name for item in graph.input if item.name not in self.constants]
        for name in self.entries:
            self._new(name, locked=True)
        for proto in graph.node:
            self._read(proto)
        self.exits = [item.name for item in graph.output]
        self.locked_tensors.update(name for name in self.exits if name in self._parent)
        self.locked = {self.find(name) for name in self.locked_tensors}

    def find(self, tensor: str) -> str:
        """Returns the tensor that stands for the class of a tensor."""
        while self._parent[tensor] != tensor:
            self._parent[tensor] = self._parent[self._parent[tensor]]
            tensor = self._parent[tensor]
        return tensor

    @property
    def tensors(self) -> tuple[str, ...]:
        """The computed tensors, in order."""
        return tuple(self._parent)

    @property
    def dense(self) -> list[CompactNode]:
        """The dense nodes, in order."""
        return [node for node in self.nodes if node.role is Role.DENSE]

    def classes(self) -> dict[str, int]:
        """Returns the classes with their number of channels."""
        return {name: self.channels[name] for name in self._parent if self.find(name) == name}

    def _new(self, name: str, *, locked: bool = False) -> None:
        shape = self.shapes.get(name, ())
        self._parent[name] = name
        self.channels[name] = shape[1] if len(shape) > 1 else 0
        self.places[name] = int(np.prod(shape[2:])) if len(shape) > 2 else 1
        if locked:
            self.locked_tensors.add(name)

    def _join(self, name: str, other: str) -> None:
        """Makes `name` a tensor of the class of `other`."""
        shape = self.shapes[name]
        self._parent[name] = self.find(other)
        self.channels[name] = self.channels[other]
        self.places[name] = int(np.prod(shape[1:])) // self.channels[other]

    def _read(self, proto: onnx.NodeProto) -> None:
        computed = tuple(name for name in proto.input if name in self._parent)
        if proto.op_type == "Constant" and proto.attribute[0].name == "value":
            self.constants[proto.output[0]] = numpy_helper.to_array(proto.attribute[0].t)
            self.nodes.append(CompactNode(proto, Role.BARRIER, (), proto.output[0]))
            return
        node = CompactNode(proto, Role.BARRIER, computed, proto.output[0] if proto.output else "")
        node.attributes = {item.name: helper.get_attribute_value(item) for item in proto.attribute}
        if len(proto.output) == 1 and computed and all(self._known(name) for name in (*computed, *proto.output)):
            node.role = self._role(node)
        if node.role is Role.ADD and not self._addable(*node.inputs):
            node.role = Role.BARRIER
        self.nodes.append(node)
        if node.role is Role.BARRIER:
            self.locked_tensors.update(computed)
            for name in proto.output:
                self._new(name, locked=True)
        elif node.role is Role.DENSE:
            self._new(node.output)
        else:
            self._join(node.output, node.inputs[0])
            for other in node.inputs[1:]:
                self._parent[self.find(other)] = self.find(node.output)

    def _known(self, name: str) -> bool:
        shape = self.shapes.get(name, ())
        return len(shape) >= 2 and all(shape[1:])

    def _addable(self, first: str, second: str) -> bool:
        return self.shapes[first] == self.shapes[second] and self.channels[first] == self.channels[second]

    def _constant(self, name: str) -> Array | None:
        values = self.constants.get(name)
        return None if values is None else values.astype(np.float64)

    def _role(self, node: CompactNode) -> Role:
        kind, x = node.proto.op_type, node.inputs[0]
        rank = len(self.shapes[x])
        if len(node.inputs) == 2:
            return Role.ADD if kind == "Add" else Role.BARRIER
        match kind:
            case "Relu":
                return Role.RELU
            case "MaxPool" | "AveragePool" | "GlobalAveragePool" if rank == 4:
                return Role.POOL
            case "Identity":
                return Role.RESHAPE
            case "Dropout" if len(node.proto.input) < 3:
                return Role.RESHAPE
            case "Flatten" | "Reshape":
                return self._flatten_role(node)
            case "Conv" if rank == 4:
                return self._conv_role(node)
            case "Gemm" | "MatMul" if rank == 2:
                return self._linear_role(node)
            case "BatchNormalization":
                return self._norm_role(node)
            case "Add" | "Sub" | "Mul" | "Div":
                return self._arithmetic_role(node)
        return Role.BARRIER

    def _flatten_role(self, node: CompactNode) -> Role:
        before, after = self.shapes[node.inputs[0]], self.shapes[node.output]
        axis_ok = node.proto.op_type == "Reshape" or node.attributes.get("axis", 1) == 1
        flat = len(after) == 2 and after[1] == int(np.prod(before[1:])) and after[0] == before[0]
        return Role.RESHAPE if axis_ok and flat and node.proto.input[0] == node.inputs[0] else Role.BARRIER

    def _conv_role(self, node: CompactNode) -> Role:
        weight = self.constants.get(node.proto.input[1])
        bias = self._constant(node.proto.input[2]) if len(node.proto.input) > 2 and node.proto.input[2] else None
        has_bias = len(node.proto.input) > 2 and node.proto.input[2] != ""
        if weight is None or weight.dtype != np.float32 or (has_bias and bias is None):
            return Role.BARRIER
        if node.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            return Role.BARRIER
        groups, channels = int(node.attributes.get("group", 1)), self.channels[node.inputs[0]]
        if self.places[node.inputs[0]] != int(np.prod(self.shapes[node.inputs[0]][2:])):
            return Role.BARRIER
        node.bias = np.zeros(len(weight)) if bias is None else bias
        plain = weight.shape[2:] == (1, 1) and not node.padded and set(node.attributes.get("strides", (1,))) == {1}
        # With one channel left, a normalisation looks like a convolution in one group.
        if groups == channels == len(weight) and plain:
            node.factor = weight.astype(np.float64).reshape(-1, 1)
            node.shift = node.bias.reshape(-1, 1)
            node.size = np.abs(node.shift)
            return Role.AFFINE
        if groups == 1:
            node.weight, node.kernel = weight.reshape(*weight.shape[:2], -1), weight.shape[2:]
            return Role.DENSE
        return Role.BARRIER

    def _linear_role(self, node: CompactNode) -> Role:
        proto, attributes = node.proto, node.attributes
        weight = self.constants.get(proto.input[1])
        if weight is None or weight.dtype != np.float32 or weight.ndim != 2 or proto.input[0] != node.inputs[0]:
            return Role.BARRIER
        if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
            return Role.BARRIER
        if not attributes.get("transB", 0):
            weight = weight.T
        node.bias = np.zeros(len(weight))
        if len(proto.input) > 2 and proto.input[2]:
            bias = self._constant(proto.input[2])
            if bias is None or bias.size not in (1, len(weight)):
                return Role.BARRIER
            node.bias = node.bias + bias.reshape(-1)
        node.weight = np.ascontiguousarray(weight).reshape(len(weight), self.channels[node.inputs[0]], -1)
        return Role.DENSE

    def _norm_role(self, node: CompactNode) -> Role:
        values = [self._constant(name) for name in node.proto.input[1:5]]
        if node.attributes.get("training_mode", 0) or len(values) != 4 or any(v is None for v in values):
            return Role.BARRIER
        scale, shift, mean, variance = (v.reshape(-1, 1) for v in values if v is not None)
        if len(scale) != self.channels[node.inputs[0]]:
            # A flattened convolution: one value for each unit, not for each channel.
            return Role.BARRIER
        node.factor = scale / np.sqrt(variance + float(node.attributes.get("epsilon", 1e-5)))
        node.shift = shift - mean * node.factor
        node.size = np.abs(shift) + np.abs(mean * node.factor)
        return Role.AFFINE

    def _arithmetic_role(self, node: CompactNode) -> Role:
        x, kind = node.inputs[0], node.proto.op_type
        first = node.proto.input[0] != x
        constant = self._constant(node.proto.input[0 if first else 1])
        shape = self.shapes[x]
        if constant is None or (first and kind == "Div") or self.shapes[node.output][1:] != shape[1:]:
            return Role.BARRIER
        constant = constant.reshape((1,) * (len(shape) - constant.ndim) + constant.shape)
        if constant.ndim != len(shape) or constant.shape[0] != 1:
            return Role.BARRIER
        full = np.broadcast_to(constant[0], shape[1:]).reshape(self.channels[x], self.places[x])
        ones, zeros = np.ones_like(full), np.zeros_like(full)
        if kind == "Div" and not np.all(full):
            return Role.BARRIER
        node.factor = {"Mul": full, "Div": 1 / np.where(full, full, 1)}.get(
            kind, -ones if first and kind == "Sub" else ones
        )
        node.shift = {"Add": full, "Sub": full if first else -full}.get(kind, zeros)
        node.size = np.abs(node.shift)
        return Role.AFFINE


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Returns the shapes that are known; 0 for a free dimension."""
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes: dict[str, tuple[int, ...]] = {}
    for item in (*inferred.input, *inferred.value_info, *inferred.output):
        if item.type.tensor_type.HasField("shape"):
            shapes[item.name] = tuple(dim.dim_value for dim in item.type.tensor_type.shape.dim)
    return shapes


def windows(
    shape: Sequence[int], node: CompactNode
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]:
    """Returns strides, dilations and padding (top, left, bottom, right) of a convolution or pooling."""
    strides = tuple(int(v) for v in node.attributes.get("strides", (1, 1)))
    dilations = tuple(int(v) for v in node.attributes.get("dilations", (1, 1)))
    pads = tuple(int(v) for v in node.attributes.get("pads", (0, 0, 0, 0)))
    return (strides[0], strides[1]), (dilations[0], dilations[1]), (pads[0], pads[1], pads[2], pads[3])
