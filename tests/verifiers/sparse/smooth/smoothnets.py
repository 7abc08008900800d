"""Small random networks with Sigmoids and Tanhs, and their exact values in decimal arithmetic."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from prunecert.onnx.normal import normal_nodes
from prunecert.verifiers.base import FloatArray, OutputSpec
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array
from prunecert.verifiers.sparse.bab.attack import Replay
from prunecert.verifiers.sparse.onnx.reader import build_curved
from prunecert.verifiers.sparse.smooth.curves import SMOOTH
from prunecert.verifiers.sparse.smooth.network import SmoothNetwork, read_smooth
from prunecert.verifiers.sparse.smooth.walk import SmoothChecker
from tests.verifiers import onnxnets

#: Digits of exact values.
DIGITS = 60
MIXED = ("Sigmoid", "Tanh"), ("Tanh", "Tanh"), ("Relu", "Sigmoid")


def perceptron(path: Path, seed: int, widths: Sequence[int], activations: Sequence[str], scale: float = 2.0) -> Path:
    """Writes linear layers with activations between them."""
    rng = np.random.default_rng(seed)
    constants, nodes, value = {}, [], "input"
    for layer, (before, after) in enumerate(itertools.pairwise(widths)):
        constants[f"w{layer}"] = (scale * rng.standard_normal((after, before)) / np.sqrt(before)).astype(np.float32)
        constants[f"b{layer}"] = rng.standard_normal(after).astype(np.float32)
        last = layer == len(widths) - 2
        result = "output" if last else f"g{layer}"
        nodes.append(helper.make_node("Gemm", [value, f"w{layer}", f"b{layer}"], [result], transB=1))
        if not last:
            value = f"a{layer}"
            nodes.append(helper.make_node(activations[layer], [result], [value]))
    return onnxnets.write(path, nodes, constants, (widths[0],), widths[-1])


def small(folder: Path, seed: int, inputs: int = 2) -> Path:
    """Writes a network with two hidden layers of five."""
    return perceptron(folder / f"small-{seed}.onnx", seed, (inputs, 5, 5, 3), MIXED[seed % len(MIXED)])


def convolutional(path: Path, seed: int = 0) -> Path:
    """Writes normalisation, a convolution, Tanh, a skip with a Sigmoid of the same value, and a linear layer."""
    rng = np.random.default_rng(seed)
    constants = {
        "mean": np.full((1, 2, 1, 1), 0.5, np.float32),
        "w": rng.standard_normal((2, 2, 3, 3)).astype(np.float32),
        "b": rng.standard_normal(2).astype(np.float32),
        "v": rng.standard_normal((3, 32)).astype(np.float32),
        "c": rng.standard_normal(3).astype(np.float32),
    }
    nodes = [
        helper.make_node("Sub", ["input", "mean"], ["centred"]),
        helper.make_node("Conv", ["centred", "w", "b"], ["h"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("Sigmoid", ["h"], ["s"]),
        helper.make_node("Relu", ["t"], ["r"]),
        helper.make_node("Add", ["r", "s"], ["sum"]),
        helper.make_node("Add", ["sum", "h"], ["all"]),
        helper.make_node("Flatten", ["all"], ["flat"]),
        helper.make_node("Gemm", ["flat", "v", "c"], ["output"], transB=1),
    ]
    return onnxnets.write(path, nodes, constants, (2, 4, 4), 3)


def load(path: Path) -> SmoothChecker:
    network = read_smooth(path)
    assert network is not None
    return SmoothChecker(network)


def runtime(path: Path, shape: tuple[int, ...]) -> Replay:
    def run(x: Float32Array) -> FloatArray:
        outputs: FloatArray = counterexample.outputs(path, x.reshape(1, *shape))[0]
        return outputs

    return run


def curve(name: str, x: Decimal) -> Decimal:
    """Returns an activation to `DIGITS` digits."""
    if name == "Relu":
        return max(x, Decimal(0))
    with localcontext() as context:
        context.prec = DIGITS
        q = (-2 * abs(x) if name == "Tanh" else -abs(x)).exp()
        if name == "Tanh":
            return (1 - q) / (1 + q) * (1 if x >= 0 else -1)
        return (q if x < 0 else Decimal(1)) / (1 + q)


def exact(network: SmoothNetwork, x: Float64Array) -> list[list[Decimal]]:
    """Returns the values of all nodes at one point to about `DIGITS` digits."""
    with localcontext() as context:
        context.prec = DIGITS
        values = [[Decimal(float(item)) for item in x]]
        for node in network.affine.nodes[1:]:
            total = [Decimal(float(item)) for item in node.bias]
            for term in node.terms:
                before = values[term.source]
                if term.activated:
                    before = [curve(network.curves[term.source], item) for item in before]
                matrix = term.matrix.tocoo()
                for row, column, weight in zip(*matrix.coords, matrix.data, strict=True):
                    total[row] += Decimal(float(weight)) * before[column]
            values.append(total)
    return values


def points(low: Float64Array, high: Float64Array, count: int, seed: int = 0) -> Float64Array:
    """Returns points of a box, corners and others."""
    shares = np.random.default_rng(seed).random((count, len(low)))
    shares[::2] = np.round(shares[::2])
    return np.clip(low + shares * (high - low), low, high)


def above(label: int, threshold: float, classes: int = 3) -> OutputSpec:
    """Returns the unsafe set where another class comes within a threshold of the label."""
    return OutputSpec(tuple((a, b + threshold) for a, b in OutputSpec.robustness(label, classes).disjuncts))


def chain(operators: Sequence[str]) -> tuple[onnx.ModelProto, SmoothNetwork]:
    """Returns activations in a row on two inputs, with a linear layer at the end, as a file and as it is read."""
    constants = {"w": np.array([[1.0, -2.0], [0.5, 3.0]], np.float32), "b": np.array([0.1, -0.2], np.float32)}
    nodes, value = [], "input"
    for index, operator in enumerate(operators):
        nodes.append(helper.make_node(operator, [value], [f"a{index}"]))
        value = f"a{index}"
    nodes.append(helper.make_node("Gemm", [value, "w", "b"], ["output"], transB=1))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(item, name) for name, item in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    read = normal_nodes(model, SMOOTH)
    assert read is not None
    network, curves = build_curved("chain", read)
    return model, SmoothNetwork(network, {node: item for node, item in enumerate(curves) if item})  # type: ignore[misc]
