"""The normal network while it is built: nodes with shapes, weights not yet rounded, written out at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from prunecert.onnx.nodes import Node, Shape
from prunecert.onnx.normal import ELEMENTS, IR_VERSION, OPSET, Array, IntArray, UnsupportedNetworkError
from prunecert.onnx.rounding import LOOSEST, STEP, Float64Array, Rounding, keeps_digits, note
from prunecert.onnx.values import check_products, check_size

#: Most weights of one layer that isn't in the given file.
DENSE = 2**25
#: Most numbers of a flat input that a layer of its own hands on.
COPIED = 2_048


class ReorderError(Exception):
    """The network is to be read anew, with its input in another order or shape.

    Args:
        order: For each flat input of the normal network, the flat input of the given one; None: the same.
        shape: Shape of the normal network's input, [1, ...].
    """

    def __init__(self, order: IntArray | None, shape: Shape) -> None:
        super().__init__("the input is in another order")
        self.order = order
        self.shape = shape


@dataclass
class Layers:
    """The nodes so far; node 0 is the input.

    Args:
        shape: Shape of the input, [1, n] or [1, C, H, W].
        dense: Weights of matrices that are not in the given file.
        reorder: Whether the input may still be put in another order or shape, by `ReorderError`.
    """

    shape: Shape
    reorder: bool = True
    dense: int = field(init=False, default=0)
    nodes: list[Node] = field(init=False)
    _known: dict[tuple[object, ...], int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.nodes = [Node("Input", (), self.shape)]

    def _append(self, node: Node) -> int:
        if math.prod(node.shape) > ELEMENTS:
            raise UnsupportedNetworkError(
                f"A value of shape {list(node.shape)} isn't taken: allowed are {ELEMENTS:,} elements."
            )
        if node.loose > LOOSEST:
            raise UnsupportedNetworkError("So many factors in a row aren't taken: their rounding adds up.")
        self.nodes.append(node)
        return len(self.nodes) - 1

    def reshape(self, source: int, shape: Shape) -> int:
        """Returns a node with the same values in another shape."""
        while self.nodes[source].operator == "Reshape":
            source = self.nodes[source].inputs[0]
        old = self.nodes[source]
        if old.shape == shape:
            return source
        if source == 0 and self.reorder and len(shape) == 4:
            raise ReorderError(None, shape)
        key = ("Reshape", source, shape)
        if key not in self._known:
            self._known[key] = self._append(Node("Reshape", (source,), shape, positive=old.positive))
        return self._known[key]

    def starts(self, number: int) -> bool:
        """Whether a node is the input, reshaped at most."""
        while self.nodes[number].operator == "Reshape":
            number = self.nodes[number].inputs[0]
        return self.nodes[number].operator == "Input"

    def relu(self, source: int) -> int:
        """Returns max(x, 0)."""
        if self.nodes[source].positive:
            return source
        if self.starts(source):
            source = self._copied(source)
        key = ("Relu", source)
        if key not in self._known:
            self._known[key] = self._append(Node("Relu", (source,), self.nodes[source].shape, positive=True))
        return self._known[key]

    def _copied(self, source: int) -> int:
        """Returns a layer that changes nothing, behind the input: not every reader takes a ReLU on the input itself."""
        key = ("Copy", source)
        if key not in self._known:
            shape = self.nodes[source].shape
            if len(shape) == 4:
                eye = np.eye(shape[1], dtype=np.float32)[:, :, None, None]
                self._known[key] = self.conv(source, eye, np.zeros(shape[1], np.float32))
            elif math.prod(shape) <= COPIED:
                size = math.prod(shape)
                number = self.gemm(source, np.eye(size, dtype=np.float32), np.zeros(size, np.float32))
                self._known[key] = self.reshape(number, shape)
            else:
                self._known[key] = source
        return self._known[key]

    def curve(self, operator: str, source: int) -> int:
        """Returns the Sigmoid or Tanh of a node."""
        key = (operator, source)
        if key not in self._known:
            shape = self.nodes[source].shape
            self._known[key] = self._append(Node(operator, (source,), shape, positive=operator == "Sigmoid"))
        return self._known[key]

    def add(self, first: int, second: int) -> int:
        """Returns the sum of two nodes of one shape."""
        one, two = self.nodes[first], self.nodes[second]
        return self._append(Node("Add", (first, second), one.shape, positive=one.positive and two.positive))

    def gemm(
        self, source: int, weight: Array, bias: Array, loose: float = 0.0, error: Float64Array | None = None
    ) -> int:
        """Returns a linear layer; the source may have any shape.

        Args:
            source: The node.
            weight: [out, n].
            bias: [out].
            loose: Relative error of the weights.
            error: Of the biases, [out].
        """
        flat = self.reshape(source, (1, math.prod(self.nodes[source].shape)))
        return self._append(
            Node("Gemm", (flat,), (1, len(weight)), weight, bias, loose=_needed(weight, loose), bias_error=error)
        )

    def constant(self, values: Array, error: Float64Array | None = None) -> int:
        """Returns a node that has these values, [1, ...], whatever the input is: layers of zeros with a bias.

        Some readers take constants only where they are of certain shapes; all take a linear layer.

        Args:
            values: The values.
            error: How far they may be off, flat.
        """
        key = ("one",)
        if key not in self._known:
            inputs = math.prod(self.shape)
            self._known[key] = self.gemm(0, np.zeros((1, inputs), np.float32), np.zeros(1, np.float32))
        number = self.gemm(self._known[key], np.zeros((values.size, 1), np.float32), values.reshape(-1), error=error)
        return self.reshape(number, values.shape)

    def conv(
        self,
        source: int,
        weight: Array,
        bias: Array,
        strides: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        dilations: tuple[int, int] = (1, 1),
        groups: int = 1,
        *,
        loose: float = 0.0,
        error: Float64Array | None = None,
    ) -> int:
        """Returns a convolution of a node of shape [1, C, H, W].

        Args:
            source: The node.
            weight: [out, C / groups, kh, kw].
            bias: [out].
            strides: Of both axes.
            pads: Zeros at the top, left, bottom, right; where two differ, the kernel grows by zeros so that the
                longer serves for both.
            dilations: Of both axes; the kernel grows by zeros that do the same.
            groups: Number of groups.
            loose: Relative error of the weights.
            error: Of the biases, [out].
        """
        shape = self.nodes[source].shape
        even = list(pads[:2])
        for axis in range(2):
            before, after, dilation = pads[axis], pads[axis + 2], dilations[axis]
            even[axis] = max(before, after)
            if before == after and (dilation == 1 or weight.shape[axis + 2] == 1):
                continue
            longer = dilation * (weight.shape[axis + 2] - 1) + 1 + abs(after - before)
            _check_kernel((*weight.shape[:2], longer, weight.shape[3 - axis]))
            weight = _inflated(weight, axis + 2, dilation)
            grown = [(0, 0)] * 4
            grown[axis + 2] = (even[axis] - before, even[axis] - after)
            weight = np.pad(weight, grown)
        sizes = [(shape[2 + i] + 2 * even[i] - weight.shape[2 + i]) // strides[i] + 1 for i in range(2)]
        if min(sizes) < 1:
            raise UnsupportedNetworkError(f"A kernel {weight.shape[2:]} is larger than its padded input {shape[2:]}.")
        node = Node(
            "Conv",
            (source,),
            (1, len(weight), *sizes),
            weight,
            bias,
            strides,
            (even[0], even[1]),
            groups,
            loose=_needed(weight, loose),
            bias_error=error,
        )
        return self._append(node)

    def pool(self, operator: str, source: int, kernel: tuple[int, int], strides: tuple[int, int]) -> int:
        """Returns an unpadded pooling."""
        old = self.nodes[source]
        sizes = [(old.shape[2 + i] - kernel[i]) // strides[i] + 1 for i in range(2)]
        shape = (*old.shape[:2], *sizes)
        return self._append(Node(operator, (source,), shape, strides=strides, kernel=kernel, positive=old.positive))

    def rescaled(
        self, number: int, factor: Array, shift: Array, loose: float = 0.0, error: Float64Array | None = None
    ) -> int:
        """Returns a copy of a convolution or linear layer whose outputs are multiplied and shifted.

        Args:
            number: The node.
            factor: For each output (channel).
            shift: For each output (channel).
            loose: Relative error of the factors.
            error: Of the shift, for each output (channel).
        """
        old = self.nodes[number]
        weight, bias = old.layer()
        if not np.all(factor == 1):
            along = factor.reshape(-1, *[1] * (weight.ndim - 1))
            product = weight.astype(np.float64) * along
            check_products(product, weight, along)
            weight = product
        multiplied = bias.astype(np.float64) * factor
        check_products(multiplied, bias, factor)
        loose = loose + (0.0 if keeps_digits(factor) else STEP)
        bias = multiplied + shift
        added = STEP * np.abs(bias) * ((multiplied != 0) & (shift != 0)) + loose * np.abs(multiplied)
        if old.bias_error is not None:
            added = added + np.abs(factor) * old.bias_error
        added = (added if error is None else added + error) * (1 + 2.0**-40)
        node = Node(
            old.operator,
            old.inputs,
            old.shape,
            weight,
            bias,
            old.strides,
            old.pads,
            old.groups,
            loose=_needed(weight, old.loose + loose),
            bias_error=added if added.any() else None,
        )
        return self._append(node)

    def _alive(self, output: int) -> set[int]:
        alive = {0, output}
        for number in range(output, 0, -1):
            if number in alive:
                alive.update(self.nodes[number].inputs)
        return alive

    def relus(self, output: int) -> int:
        """Returns how many ReLU neurons an output depends on."""
        alive = [self.nodes[number] for number in self._alive(output)]
        return sum(math.prod(node.shape) for node in alive if node.operator == "Relu")

    def write(self, output: int, notes: Sequence[str]) -> onnx.ModelProto:
        """Writes the network that ends in a node of shape [1, n]; what doesn't lead there is left out."""
        alive = self._alive(output)
        names = {number: f"v{number}" for number in alive}
        names[0], names[output] = "x", "y"
        nodes: list[onnx.NodeProto] = []
        stored: list[TensorProto] = []
        roundings: dict[int, Rounding] = {}
        for number in sorted(alive - {0}):
            node = self.nodes[number]
            inputs = [names[i] for i in node.inputs]
            attributes: dict[str, Any] = {}
            if node.weight is not None and node.bias is not None:
                changes = []
                for word, values in (("weight", node.weight), ("bias", node.bias)):
                    rounded = _rounded(values)
                    changes.append(not np.array_equal(rounded, values))
                    stored.append(numpy_helper.from_array(rounded, f"{names[number]}_{word}"))
                    inputs.append(stored[-1].name)
                error = 0.0 if node.bias_error is None else float(node.bias_error.max(initial=0.0))
                if node.loose or error or any(changes):
                    roundings[len(nodes)] = Rounding(bool(node.loose) or changes[0], changes[1], error)
            operator = node.operator
            if operator == "Conv":
                assert node.weight is not None
                attributes = {
                    "dilations": [1, 1],
                    "group": node.groups,
                    "kernel_shape": list(node.weight.shape[2:]),
                    "pads": list(node.pads) * 2,
                    "strides": list(node.strides),
                }
            elif operator == "Gemm":
                attributes = {"transB": 1}
            elif operator in ("AveragePool", "MaxPool"):
                attributes = {"kernel_shape": list(node.kernel), "strides": list(node.strides)}
            elif operator == "Reshape" and len(node.shape) == 2 and len(self.nodes[node.inputs[0]].shape) > 2:
                operator, attributes = "Flatten", {"axis": 1}
            elif operator == "Reshape":
                # -1 leaves the batch axis to readers that take many points at once.
                stored.append(numpy_helper.from_array(np.array([-1, *node.shape[1:]]), f"{names[number]}_shape"))
                inputs.append(stored[-1].name)
            nodes.append(helper.make_node(operator, inputs, [names[number]], name=f"{operator}_{number}", **attributes))
        graph = helper.make_graph(
            nodes,
            "normal",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(self.shape))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(self.nodes[output].shape))],
            stored,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model.producer_name = "prunecert"
        model.doc_string = "\n".join(notes)
        note(model, roundings)
        return model


def check_dense(layers: Layers, outputs: int, inputs: int, what: str) -> None:
    """Refuses a matrix that is too large, or is so together with those before.

    Args:
        layers: The network so far.
        outputs: Its rows.
        inputs: Its columns.
        what: What it would be for.
    """
    check_size(outputs)
    layers.dense += outputs * inputs
    if layers.dense > DENSE:
        raise UnsupportedNetworkError(
            f"{what} of {outputs:,} elements would need a matrix of {outputs * inputs:,} weights; allowed in all are "
            f"{DENSE:,}. Export the network without that operator, or with smaller layers."
        )


def _needed(weight: Array, loose: float) -> float:
    """Returns the relative error of weights, which zeros have not."""
    return loose if weight.any() else 0.0


def _inflated(weight: Array, axis: int, dilation: int) -> Array:
    """Returns the kernel that does without dilation on an axis what this one does with it."""
    if dilation == 1 or weight.shape[axis] == 1:
        return weight
    shape = list(weight.shape)
    shape[axis] = dilation * (shape[axis] - 1) + 1
    wide = np.zeros(shape, weight.dtype)
    place: list[slice] = [slice(None)] * weight.ndim
    place[axis] = slice(None, None, dilation)
    wide[tuple(place)] = weight
    return wide


def _check_kernel(shape: Shape) -> None:
    if math.prod(shape) > DENSE:
        raise UnsupportedNetworkError(
            f"A kernel that grows to {list(shape)} weights, because it is dilated or its pads differ, isn't taken: "
            f"allowed are {DENSE:,}."
        )


def _rounded(values: Array) -> Array:
    """Rounds to float32; what would become 0 stays as the smallest number, so that who charges rounding sees it."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = np.array(values, dtype=np.float32, order="C")
    lost = (rounded == 0) & (values != 0)
    if lost.any():
        rounded[lost] = np.copysign(np.finfo(np.float32).smallest_subnormal, values[lost])
    if not np.isfinite(rounded).all():
        raise UnsupportedNetworkError(
            f"{int((~np.isfinite(rounded)).sum())} weights of the network, folded, are infinite or not a number in "
            "float32; allowed are finite ones: rescale its layers."
        )
    return rounded
