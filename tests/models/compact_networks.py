"""Random pruned networks for the tests of compaction: every structure that it knows, written with `onnx.helper`.

The weights are multiples of 1/4 and the inputs multiples of 1/8, all small, so that float32 computes without rounding
and two networks that are the same function give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]
Rng = np.random.Generator


@dataclass
class Builder:
    """A network under construction; every method adds a node and returns its output's name.

    Args:
        rng: Draws everything.
        zeros: Share of weights that are zero.
        rows: Share of units with no input at all.
        columns: Share of units with no output at all.
    """

    rng: Rng
    zeros: float = 0.5
    rows: float = 0.3
    columns: float = 0.2
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def start(self, *shape: int) -> str:
        """Returns the input's name."""
        self.shapes["input"] = shape
        return "input"

    def constant(self, values: npt.ArrayLike) -> str:
        """Stores a constant and returns its name."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=np.float32), name))
        return name

    def node(self, kind: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> str:
        """Adds a node."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        self.shapes[name] = shape
        return name

    def weight(self, outputs: int, inputs: int, *kernel: int) -> Floats:
        """Returns weights with zeros among them, and units without input or output."""
        values = self.rng.integers(-3, 4, (outputs, inputs, *kernel)) / 4
        values[self.rng.random(values.shape) < self.zeros] = 0
        values[self.rng.random(outputs) < self.rows] = 0
        values[:, self.rng.random(inputs) < self.columns] = 0
        return values.astype(np.float32)

    def bias(self, count: int) -> Floats:
        """Returns biases of either sign, more often positive, and zeros."""
        return (self.rng.integers(-3, 7, count) / 4).astype(np.float32)

    def conv(self, x: str, outputs: int, size: int, stride: int = 1, pad: int = 0, bias: bool = True) -> str:
        """Adds a convolution."""
        inputs, height, width = self.shapes[x]
        names = [x, self.constant(self.weight(outputs, inputs, size, size))]
        if bias:
            names.append(self.constant(self.bias(outputs)))
        shape = tuple((n + 2 * pad - size) // stride + 1 for n in (height, width))
        return self.node(
            "Conv", names, (outputs, *shape), kernel_shape=[size, size], strides=[stride, stride], pads=[pad] * 4
        )

    def grouped(self, x: str) -> str:
        """Adds a convolution in two groups, which is not understood."""
        inputs, height, width = self.shapes[x]
        names = [x, self.constant(self.weight(4, inputs // 2, 1, 1)), self.constant(self.bias(4))]
        return self.node("Conv", names, (4, height, width), kernel_shape=[1, 1], group=2)

    def scaling(self, x: str) -> str:
        """Adds a folded normalisation: a 1x1 depthwise convolution, some of whose factors are zero."""
        channels = self.shapes[x][0]
        factor = self.rng.integers(-2, 3, (channels, 1, 1, 1)) / 2
        names = [x, self.constant(factor), self.constant(self.bias(channels))]
        return self.node("Conv", names, self.shapes[x], kernel_shape=[1, 1], group=channels)

    def norm(self, x: str) -> str:
        """Adds a batch norm whose arithmetic is exact."""
        channels = self.shapes[x][0]
        names = [self.constant(values) for values in (self.bias(channels), self.bias(channels), self.bias(channels))]
        names.append(self.constant(np.full(channels, 0.25)))
        return self.node("BatchNormalization", [x, *names], self.shapes[x], epsilon=0.0)

    def arithmetic(self, x: str, kind: str, first: bool = False) -> str:
        """Adds arithmetic with a constant for each channel, or for each unit."""
        shape = self.shapes[x]
        each = (1, shape[0], *(1 for _ in shape[1:])) if self.rng.random() < 0.5 else (1, *shape)
        name = self.constant(self.rng.integers(1, 3, each))
        return self.node(kind, [name, x] if first else [x, name], shape)

    def relu(self, x: str) -> str:
        """Adds a ReLU."""
        return self.node("Relu", [x], self.shapes[x])

    def pool(self, x: str, kind: str, pad: int = 0, **attributes: Any) -> str:
        """Adds a 2x2 pooling; `count_include_pad` may be given."""
        channels, height, width = self.shapes[x]
        shape = (channels, *((n + 2 * pad - 2) // 2 + 1 for n in (height, width)))
        return self.node(kind, [x], shape, kernel_shape=[2, 2], strides=[2, 2], pads=[pad] * 4, **attributes)

    def flatten(self, x: str, reshape: bool = False) -> str:
        """Flattens, with the size written out if `reshape`."""
        size = int(np.prod(self.shapes[x]))
        if not reshape:
            return self.node("Flatten", [x], (size,))
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array([1, size], dtype=np.int64), name))
        return self.node("Reshape", [x, name], (size,))

    def linear(self, x: str, outputs: int, kind: str = "Gemm", **attributes: Any) -> str:
        """Adds a linear layer as ``Gemm`` or ``MatMul``; `transB` may be given."""
        weight = self.weight(outputs, self.shapes[x][0])
        if kind == "MatMul":
            return self.node("MatMul", [x, self.constant(weight.T)], (outputs,))
        names = [x, self.constant(weight if attributes.get("transB") else weight.T), self.constant(self.bias(outputs))]
        return self.node("Gemm", names, (outputs,), **attributes)

    def add(self, a: str, b: str) -> str:
        """Adds a sum."""
        return self.node("Add", [a, b], self.shapes[a])

    def model(self, last: str) -> onnx.ModelProto:
        """Returns the network that ends there."""
        model = helper.make_model(
            helper.make_graph(
                self.nodes,
                "random",
                [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, *self.shapes["input"]])],
                [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, *self.shapes[last]])],
                self.constants,
            ),
            opset_imports=[helper.make_opsetid("", 13)],
            ir_version=7,
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def connected(rng: Rng, zeros: float = 0.5, rows: float = 0.3, columns: float = 0.2) -> onnx.ModelProto:
    """Linear layers in all the ways to write them."""
    builder = Builder(rng, zeros, rows, columns)
    x = builder.start(5)
    for _ in range(int(rng.integers(1, 4))):
        kind = ("Gemm", "MatMul")[int(rng.integers(2))]
        x = builder.linear(
            x, int(rng.integers(2, 9)), kind, **({"transB": int(rng.integers(2))} if kind == "Gemm" else {})
        )
        if kind == "MatMul":
            x = builder.arithmetic(x, ("Add", "Sub")[int(rng.integers(2))], first=bool(rng.integers(2)))
        x = builder.relu(x)
        if rng.random() < 0.3:
            x = builder.node(("Identity", "Dropout")[int(rng.integers(2))], [x], builder.shapes[x])
    return builder.model(builder.linear(x, 3, transB=1))


def convolutional(rng: Rng, zeros: float = 0.5, rows: float = 0.3, columns: float = 0.2) -> onnx.ModelProto:
    """Convolutions with strides and paddings of all kinds, poolings, normalisations, and linear layers behind them."""
    builder = Builder(rng, zeros, rows, columns)
    x = builder.start(2, 8, 8)
    for _ in range(int(rng.integers(1, 4))):
        size = int(rng.integers(1, 4))
        stride, pad = int(rng.integers(1, 3)), int(rng.integers(0, 2))
        if builder.shapes[x][1] + 2 * pad < size:
            break
        x = builder.conv(x, int(rng.integers(2, 6)), size, stride, pad, bias=bool(rng.integers(4)))
        match int(rng.integers(10)):
            case 0:
                x = builder.scaling(x)
            case 1:
                x = builder.norm(x)
            case 2:
                x = builder.arithmetic(x, ("Add", "Sub", "Mul", "Div")[int(rng.integers(4))])
        x = builder.relu(x)
        if builder.shapes[x][0] == 4 and rng.random() < 0.3:
            x = builder.grouped(x)
        if builder.shapes[x][1] >= 2 and rng.random() < 0.4:
            if rng.integers(2):
                x = builder.pool(x, "MaxPool", int(rng.integers(2)))
            else:
                x = builder.pool(x, "AveragePool", int(rng.integers(2)), count_include_pad=int(rng.integers(2)))
    if builder.shapes[x][1] in (1, 2, 4) and rng.random() < 0.3:
        x = builder.node("GlobalAveragePool", [x], (builder.shapes[x][0], 1, 1))
    x = builder.flatten(x, reshape=bool(rng.integers(2)))
    if rng.random() < 0.7:
        x = builder.relu(builder.linear(x, int(rng.integers(2, 7)), transB=1))
    return builder.model(builder.linear(x, 3))


def residual(rng: Rng, zeros: float = 0.5, rows: float = 0.3, columns: float = 0.2) -> onnx.ModelProto:
    """Blocks as of a pre-activation residual network, with and without a convolution in the shortcut."""
    builder = Builder(rng, zeros, rows, columns)
    x = builder.conv(builder.start(2, 6, 6), int(rng.integers(2, 5)), 3, 1, 1, bias=bool(rng.integers(2)))
    for _ in range(int(rng.integers(1, 3))):
        stride = int(rng.integers(1, 3))
        outputs = builder.shapes[x][0] if stride == 1 else int(rng.integers(2, 5))
        activated = builder.relu(builder.scaling(x) if rng.random() < 0.6 else x)
        inner = builder.relu(builder.conv(activated, int(rng.integers(2, 5)), 3, stride, 1))
        inner = builder.conv(inner, outputs, 3, 1, 1, bias=bool(rng.integers(2)))
        x = builder.add(inner, x if stride == 1 else builder.conv(activated, outputs, 1, stride, bias=False))
    x = builder.flatten(builder.relu(x))
    return builder.model(builder.linear(x, 3, transB=1))


FAMILIES = {"connected": connected, "convolutional": convolutional, "residual": residual}


def shape_of(model: onnx.ModelProto) -> tuple[int, ...]:
    """Returns the shape of one input."""
    return tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)[1:]


def points(model: onnx.ModelProto, count: int, rng: Rng, low: int = 0, high: int = 8) -> Floats:
    """Returns inputs that are multiples of 1/8, corners of the range among them."""
    inputs = rng.integers(low, high + 1, (count, *shape_of(model)))
    corners = rng.random(inputs.shape) < 0.5
    inputs[::2] = np.where(corners, low, high)[::2]
    return (inputs / 8).astype(np.float32)


def run(model: onnx.ModelProto | Path, inputs: Floats) -> Floats:
    """Runs a network in onnxruntime as it is written, input by input."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[None]})[0] for x in inputs])
