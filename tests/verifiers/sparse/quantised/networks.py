"""Small random quantised networks, as onnxruntime's quantiser writes them and in other forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FloatArray = npt.NDArray[np.float32]
Kind = Literal["dense", "conv", "residual", "pooled", "signed"]
KINDS: tuple[Kind, ...] = ("dense", "conv", "residual", "pooled", "signed")


class Builder:
    """Appends quantised layers; scales are chosen by what random inputs give, so that some values saturate.

    Args:
        shape: Of one sample.
        rng: Random numbers.
        coarse: Whether scales are powers of 2, so that ties are frequent and float32 is exact.
        levels: Input levels between 0 and 1.
        signed: Whether activations are int8.
    """

    def __init__(
        self,
        shape: Sequence[int],
        rng: np.random.Generator,
        coarse: bool = False,
        levels: int = 255,
        signed: bool = False,
    ) -> None:
        self.rng, self.coarse, self.type = rng, coarse, np.int8 if signed else np.uint8
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.shape = tuple(shape)
        self.samples = rng.random((64, *shape), dtype=np.float32)
        scale = np.float32(1 / levels)
        self.scale = scale
        self.scales: dict[str, np.float32] = {}
        self.value = self.pair("input", scale, np.iinfo(self.type).min)

    def store(self, name: str, array: npt.NDArray[Any]) -> str:
        """Stores a constant."""
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Appends a node; returns its value's name."""
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def pair(self, name: str, scale: np.float32, zero: int) -> str:
        """Appends QuantizeLinear and DequantizeLinear."""
        parameters = [
            self.store(f"{name}_s", np.array(scale, np.float32)),
            self.store(f"{name}_z", np.array(zero, self.type)),
        ]
        result = self.node("DequantizeLinear", [self.node("QuantizeLinear", [name, *parameters]), *parameters])
        self.scales[result] = scale
        return result

    def rounded(self, name: str, share: float = 0.8) -> str:
        """Rounds a value to a grid that holds this share of the range that random inputs give."""
        values = self.run(name)
        low, high = min(0.0, float(values.min())) * share, max(0.0, float(values.max())) * share
        limits = np.iinfo(self.type)
        scale = np.float32(max(high - low, 1e-3) / 255)
        if self.coarse:
            scale = np.float32(2.0 ** np.ceil(np.log2(scale)))
        zero = int(np.clip(round(limits.min - low / float(scale)), limits.min, limits.max))
        return self.pair(name, scale, zero)

    def layer(self, operator: str, name: str, outputs: int, inputs: int, kernel: int = 0, **attributes: Any) -> str:
        """Appends a Conv or Gemm with int8 weights, half of which are 0, a scale for each output, and an int32 bias."""
        shape = (outputs, inputs, kernel, kernel) if kernel else (outputs, inputs)
        whole = self.rng.integers(-127, 128, shape).astype(np.int8) * self.rng.integers(0, 2, shape, dtype=np.int8)
        scales = (self.rng.random(outputs) * 0.01 + 0.002).astype(np.float32)
        if self.coarse:
            scales = np.exp2(np.round(np.log2(scales))).astype(np.float32)
        unit = (scales * self.scales[name]).astype(np.float32)
        bias = np.round(self.rng.normal(0, 0.5, outputs) / unit).astype(np.int32)
        tag = f"{len(self.nodes)}"
        weight = self.node(
            "DequantizeLinear",
            [
                self.store(f"w{tag}", whole),
                self.store(f"ws{tag}", scales),
                self.store(f"wz{tag}", 0 * scales.astype(np.int8)),
            ],
            axis=0,
        )
        added = self.node(
            "DequantizeLinear",
            [self.store(f"b{tag}", bias), self.store(f"bs{tag}", unit), self.store(f"bz{tag}", 0 * bias)],
            axis=0,
        )
        extra = {"transB": 1} if operator == "Gemm" else {"kernel_shape": [kernel, kernel]}
        return self.node(operator, [name, weight, added], **extra, **attributes)

    def model(self, name: str, outputs: Sequence[int | str] | None = None) -> onnx.ModelProto:
        """Returns the network up to a value."""
        graph = helper.make_graph(
            self.nodes,
            "quantised",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *self.shape])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, outputs)],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)

    def run(self, name: str) -> FloatArray:
        """Returns a value for the random inputs."""
        return run(self.model(name), self.samples)


def run(model: onnx.ModelProto, points: FloatArray, fused: bool = False) -> FloatArray:
    """Runs a network in onnxruntime.

    Args:
        model: The network.
        points: [n, …].
        fused: Whether its optimiser may put integer kernels in place of pairs; without, all is float32.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: FloatArray = session.run(None, {"input": points})[0]
    return result


def network(kind: Kind, seed: int, coarse: bool = False, levels: int = 255, outputs: int = 3) -> onnx.ModelProto:
    """Returns a network of two or three quantised layers.

    Args:
        kind: ``dense``: Gemm alone, its outputs rounded, too. ``conv``: convolutions with a stride and a ReLU that is
            the rounding's. ``residual``: a sum of two values. ``pooled``: MaxPool and AveragePool. ``signed``: int8
            activations with a zero point, and ReLUs as nodes.
        seed: Of its weights.
        coarse: See `Builder`.
        levels: See `Builder`.
        outputs: How many.
    """
    rng = np.random.default_rng(seed)
    if kind == "dense":
        net = Builder((4,), rng, coarse, levels)
        hidden = net.rounded(net.layer("Gemm", net.value, 6, 4))
        hidden = net.rounded(net.node("Relu", [net.layer("Gemm", hidden, 5, 6)]))
        # Every other one has outputs beyond the ends of their grid.
        last = net.rounded(net.layer("Gemm", hidden, outputs, 5), share=1.1 if seed % 2 else 0.6)
        return net.model(last, ["N", outputs])
    net = Builder((2, 4, 4), rng, coarse, levels, signed=kind == "signed")
    first = net.layer("Conv", net.value, 3, 2, 3, pads=[1, 1, 1, 1], strides=[1, 1])
    hidden = net.rounded(net.node("Relu", [first]) if kind != "residual" else first)
    if kind == "residual":
        second = net.rounded(net.layer("Conv", hidden, 3, 3, 3, pads=[1, 1, 1, 1]))
        hidden = net.rounded(net.node("Relu", [net.node("Add", [second, hidden])]))
    elif kind == "pooled":
        pooled = net.node("MaxPool", [hidden], kernel_shape=[2, 2], strides=[1, 1])
        # As the quantiser writes it: onto the grid on which it is already.
        pooled = net.pair(pooled, net.scales[hidden], -128 if net.type is np.int8 else 0)
        hidden = net.rounded(net.node("AveragePool", [pooled], kernel_shape=[2, 2], strides=[1, 1]))
    else:
        second = net.layer("Conv", hidden, 2, 3, 2, strides=[2, 2])
        hidden = net.rounded(net.node("Relu", [second]) if kind == "signed" else second)
    scale = net.scales[hidden]
    flat = net.node("Flatten", [hidden])
    net.scales[flat] = scale
    size = {"conv": 8, "signed": 8, "residual": 48, "pooled": 12}[kind]
    return net.model(net.layer("Gemm", flat, outputs, size), ["N", outputs])


def unrounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the float32 network of which a quantised one may have been made: nothing is rounded, and a batch is 1.

    A rounding to numbers that aren't negative leaves a ReLU behind.
    """
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    real: dict[str, npt.NDArray[np.float32]] = {}
    renamed = {model.graph.input[0].name: model.graph.input[0].name}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        first = node.input[0]
        if node.op_type == "QuantizeLinear":
            scale, zero = (constants[name] for name in node.input[1:])
            source = renamed[first]
            if zero == np.iinfo(zero.dtype).min and source != model.graph.input[0].name:
                nodes.append(helper.make_node("Relu", [source], [node.output[0]], name=node.output[0]))
                source = node.output[0]
            renamed[node.output[0]] = source
        elif node.op_type == "DequantizeLinear" and first in constants:
            scale = constants[node.input[1]]
            shape = (-1,) + (1,) * (constants[first].ndim - 1) if scale.size > 1 else ()
            real[node.output[0]] = (constants[first] * scale.astype(np.float64).reshape(shape)).astype(np.float32)
        elif node.op_type == "DequantizeLinear":
            renamed[node.output[0]] = renamed[first]
        else:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [renamed.get(name, name) for name in node.input]
            nodes.append(copy)
            renamed[node.output[0]] = node.output[0]
    nodes.append(helper.make_node("Identity", [renamed[model.graph.output[0].name]], ["real output"], name="last"))
    dims = [dim.dim_value or 1 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    size = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    graph = helper.make_graph(
        nodes,
        "unrounded",
        [helper.make_tensor_value_info(model.graph.input[0].name, TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("real output", TensorProto.FLOAT, [1, size])],
        [numpy_helper.from_array(value, name) for name, value in real.items()],
    )
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
