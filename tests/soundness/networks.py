"""Small random networks for the soundness suite: as exact affine maps for the oracle, and as ONNX for the verifiers.

A network is a list of nodes over flat float64 vectors, node 0 being the input. The weights are float32 values, so that
both forms speak of the same real-valued function. The ONNX form is written with `onnx.helper` and has no operators
but Conv, Gemm, Relu, Flatten and Add; `tests.soundness.operators` has the others.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Affine:
    """matrix @ value(source) + shift.

    Args:
        source: The node.
        matrix: [out, in].
        shift: [out].
        exact: Whether a runtime rounds nothing there: constants, and what is moved, left out or negated.
    """

    source: int
    matrix: Array
    shift: Array
    exact: bool = False


@dataclass(frozen=True)
class Relu:
    """max(value(source), 0)."""

    source: int


@dataclass(frozen=True)
class Add:
    """value(left) + value(right)."""

    left: int
    right: int


@dataclass(frozen=True)
class Largest:
    """The largest of the values of several nodes of one size, element by element."""

    sources: tuple[int, ...]


Node = Affine | Relu | Add | Largest


@dataclass
class Network:
    """A network under construction; every method adds a layer and returns the index of its value."""

    name: str
    shape: tuple[int, ...]
    nodes: list[Node] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    onnx_nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shapes.append(self.shape)

    @property
    def inputs(self) -> int:
        return int(np.prod(self.shape))

    @property
    def classes(self) -> int:
        return int(np.prod(self.shapes[-1]))

    def _add(self, node: Node | None, operator: str, sources: list[int], shape: tuple[int, ...], **more: Any) -> int:
        names = [f"v{source}" for source in sources]
        for key in ("weight", "bias"):
            if key in more:
                value = more.pop(key)
                name = f"{key}{len(self.shapes)}"
                self.weights.append(numpy_helper.from_array(value.astype(np.float32), name))
                names.append(name)
        index = len(self.shapes)
        self.onnx_nodes.append(helper.make_node(operator, names, [f"v{index}"], **more))
        # Flatten changes the shape and not the flat vector: an identity for the oracle.
        size = int(np.prod(shape))
        self.nodes.append(node if node is not None else Affine(sources[0], np.eye(size), np.zeros(size)))
        self.shapes.append(shape)
        return index

    def gemm(self, source: int, weight: Array, bias: Array) -> int:
        weight, bias = as32(weight), as32(bias)
        return self._add(
            Affine(source, weight, bias), "Gemm", [source], (len(bias),), weight=weight, bias=bias, transB=1
        )

    def conv(self, source: int, weight: Array, bias: Array, stride: int, pad: int) -> int:
        weight, bias = as32(weight), as32(bias)
        matrix, shape = conv_matrix(weight, self.shapes[source], stride, pad)
        shift = np.repeat(bias, shape[1] * shape[2])
        return self._add(
            Affine(source, matrix, shift), "Conv", [source], shape, weight=weight, bias=bias,
            kernel_shape=list(weight.shape[2:]), strides=[stride, stride], pads=[pad] * 4,
        )  # fmt: skip

    def relu(self, source: int) -> int:
        return self._add(Relu(source), "Relu", [source], self.shapes[source])

    def flatten(self, source: int) -> int:
        return self._add(None, "Flatten", [source], (int(np.prod(self.shapes[source])),), axis=1)

    def add(self, left: int, right: int) -> int:
        return self._add(Add(left, right), "Add", [left, right], self.shapes[left])

    def evaluate(self, x: npt.ArrayLike, index: int = -1) -> Array:
        """Runs the network in float64 on a batch of shape [n, inputs]; returns [n, classes], or the value `index`."""
        values = [np.atleast_2d(np.asarray(x, dtype=np.float64))]
        for node in self.nodes:
            match node:
                case Affine(source, matrix, shift):
                    values.append(values[source] @ matrix.T + shift)
                case Relu(source):
                    values.append(np.maximum(values[source], 0.0))
                case Add(left, right):
                    values.append(values[left] + values[right])
                case Largest(sources):
                    values.append(np.max([values[source] for source in sources], axis=0))
        return values[index]

    def balance(self, rng: Rng) -> Network:
        """Shifts the last biases so that no class wins everywhere in [0, 1]; returns the network."""
        last = self.nodes[-1]
        assert isinstance(last, Affine)
        shift = as32(last.shift - self.evaluate(rng.random((500, self.inputs))).mean(axis=0))
        self.nodes[-1] = Affine(last.source, last.matrix, shift)
        self.weights[-1] = numpy_helper.from_array(shift.astype(np.float32), self.weights[-1].name)
        return self

    def save(self, path: Path) -> Path:
        """Writes the network as ONNX."""
        names = {0: "input", len(self.shapes) - 1: "output"}

        def renamed(name: str) -> str:
            return names.get(int(name[1:]), name) if name[0] == "v" else name

        nodes = []
        for node in self.onnx_nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [renamed(name) for name in node.input]
            copy.output[:] = [renamed(name) for name in node.output]
            nodes.append(copy)
        graph = helper.make_graph(
            nodes,
            self.name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, *self.shape])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, self.classes])],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
        return path


def as32(values: Array) -> Array:
    """Returns float64 values that are float32 numbers."""
    return values.astype(np.float32).astype(np.float64)


def conv_matrix(weight: Array, shape: tuple[int, ...], stride: int, pad: int) -> tuple[Array, tuple[int, ...]]:
    """Writes a convolution as a matrix over the flat input, straight from its definition.

    Args:
        weight: [out, in, k, k].
        shape: Input's [C, H, W].
        stride: Of both axes.
        pad: Zeros on all sides.

    Returns:
        Matrix [out * H' * W', C * H * W], and (out, H', W').
    """
    outs, ins, k, _ = weight.shape
    _, height, width = shape
    rows, columns = (height + 2 * pad - k) // stride + 1, (width + 2 * pad - k) // stride + 1
    matrix = np.zeros((outs, rows, columns, ins, height, width))
    for r in range(rows):
        for c in range(columns):
            for i in range(k):
                for j in range(k):
                    y, x = r * stride + i - pad, c * stride + j - pad
                    if 0 <= y < height and 0 <= x < width:
                        matrix[:, r, c, :, y, x] = weight[:, :, i, j]
    return matrix.reshape(outs * rows * columns, -1), (outs, rows, columns)


def _weight(rng: Rng, *shape: int, sparsity: float = 0.0) -> Array:
    """Draws He-scaled weights; the smallest `sparsity` of them are zero, and the rest keep the variance."""
    fan_in = int(np.prod(shape[1:]))
    w: Array = rng.normal(size=shape) * np.sqrt(2.0 / (fan_in * (1 - sparsity)))
    if sparsity:
        w[np.abs(w) < np.quantile(np.abs(w), sparsity)] = 0.0
    return w


def fully_connected(name: str, rng: Rng, widths: list[int], sparsity: float = 0.0, bias: float = 0.0) -> Network:
    """Gemm-Relu-...-Gemm; biases are normal round `bias` with deviation 0.3."""
    net = Network(name, (widths[0],))
    value = 0
    for n, m in itertools.pairwise(widths):
        value = net.relu(value) if value else value
        value = net.gemm(value, _weight(rng, m, n, sparsity=sparsity), bias + 0.3 * rng.normal(size=m))
    return net


def convolutional(name: str, rng: Rng, sparsity: float = 0.0, channels: int = 2) -> Network:
    """Conv k3 s1 p1, Conv k3 s2 p1, Gemm, with ReLUs between, on [channels, 4, 4]."""
    net = Network(name, (channels, 4, 4))
    value = net.conv(0, _weight(rng, 2, channels, 3, 3, sparsity=sparsity), 0.1 * rng.normal(size=2), 1, 1)
    value = net.relu(value)
    value = net.conv(value, _weight(rng, 3, 2, 3, 3, sparsity=sparsity), 0.1 * rng.normal(size=3), 2, 1)
    value = net.flatten(net.relu(value))
    net.gemm(value, _weight(rng, 4, 12, sparsity=sparsity), 0.3 * rng.normal(size=4))
    return net


def residual(name: str, rng: Rng, sparsity: float = 0.0) -> Network:
    """Gemm-Relu, a block Gemm-Relu-Gemm with the identity round it, Relu-Gemm."""
    net = Network(name, (4,))
    stem = net.relu(net.gemm(0, _weight(rng, 7, 4, sparsity=sparsity), 0.3 * rng.normal(size=7)))
    inner = net.relu(net.gemm(stem, _weight(rng, 7, 7, sparsity=sparsity), 0.3 * rng.normal(size=7)))
    block = net.add(net.gemm(inner, _weight(rng, 7, 7, sparsity=sparsity), 0.3 * rng.normal(size=7)), stem)
    net.gemm(net.relu(block), _weight(rng, 3, 7, sparsity=sparsity), 0.3 * rng.normal(size=3))
    return net


def residual_conv(name: str, rng: Rng, sparsity: float = 0.0) -> Network:
    """Conv-Relu, Conv with a 1x1 convolution round it, Relu, Gemm: the block of a wide ResNet in small."""
    net = Network(name, (1, 4, 4))
    stem = net.relu(net.conv(0, _weight(rng, 2, 1, 3, 3, sparsity=sparsity), 0.1 * rng.normal(size=2), 1, 1))
    main = net.conv(stem, _weight(rng, 3, 2, 3, 3, sparsity=sparsity), 0.1 * rng.normal(size=3), 2, 1)
    short = net.conv(stem, _weight(rng, 3, 2, 1, 1), np.zeros(3), 2, 0)
    value = net.flatten(net.relu(net.add(main, short)))
    net.gemm(value, _weight(rng, 3, 12, sparsity=sparsity), 0.3 * rng.normal(size=3))
    return net


def dead_units(name: str, rng: Rng) -> Network:
    """Hidden units that never fire, that always fire, and whose weights are all zero, as pruning leaves them."""
    net = Network(name, (3,))
    first, first_bias = _weight(rng, 9, 3), 0.3 * rng.normal(size=9)
    first_bias[:2], first_bias[2:4] = -20.0, 20.0
    first[4:6] = 0.0
    first_bias[4], first_bias[5] = 0.5, -0.5
    second, second_bias = _weight(rng, 6, 9), 0.3 * rng.normal(size=6)
    # The always-firing units are huge; their effect is kept in proportion.
    second[:, 2:4] *= 0.02
    second[0] = 0.0
    second[:, 8] = 0.0
    value = net.relu(net.gemm(0, first, first_bias))
    value = net.relu(net.gemm(value, second, second_bias))
    net.gemm(value, _weight(rng, 3, 6), 0.3 * rng.normal(size=3))
    return net


def tied(name: str, rng: Rng) -> Network:
    """The last two logits have the same weights, so that they are equal everywhere."""
    net = Network(name, (3,))
    value = net.relu(net.gemm(0, _weight(rng, 6, 3), 0.3 * rng.normal(size=6)))
    last, last_bias = _weight(rng, 3, 6), 0.3 * rng.normal(size=3)
    last[2], last_bias[2] = last[1], last_bias[1]
    last_bias[1:] += 3.0
    net.gemm(value, last, last_bias)
    return net
