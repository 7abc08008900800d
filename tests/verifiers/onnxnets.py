"""Small ONNX networks written node by node: the file is what the test says, and nothing heavy is imported."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from prunecert.hashing import sha256_file
from prunecert.onnx.io import load_model
from prunecert.onnx.normalise import normalise
from prunecert.verifiers.base import Instance, Norm, OutputSpec, Verdict
from prunecert.verifiers.formats import counterexample

Rng = np.random.Generator


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, NDArray[Any]],
    shape: tuple[int, ...],
    outputs: int = 10,
    opset: int = 13,
) -> Path:
    """Writes a network from ``input`` (a batch of one and `shape`) to ``output``."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, *shape])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, outputs])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    onnx.save(model, str(path))
    return path


def _random(rng: Rng, *shape: int) -> NDArray[np.float32]:
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 10
    values: NDArray[np.float32] = (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
    return values


def linear(path: Path, shape: tuple[int, ...] = (3, 2, 2), outputs: int = 10, seed: int = 0) -> Path:
    """One linear layer."""
    rng = np.random.default_rng(seed)
    constants = {"w": _random(rng, outputs, int(np.prod(shape))), "b": _random(rng, outputs)}
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w", "b"], ["output"], name="gemm", transB=1),
    ]
    return write(path, nodes, constants, shape, outputs)


def connected(path: Path, seed: int = 0, hidden: int = 12, shape: tuple[int, ...] = (3, 2, 2)) -> Path:
    """Two hidden layers, written as MatMul and Add as VNN-COMP's fully connected networks are."""
    rng = np.random.default_rng(seed)
    sizes = [int(np.prod(shape)), hidden, hidden, 10]
    constants: dict[str, NDArray[Any]] = {"shape": np.array([1, -1], dtype=np.int64)}
    nodes = [helper.make_node("Reshape", ["input", "shape"], ["x0"])]
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        constants[f"w{i}"] = np.ascontiguousarray(_random(rng, after, before).T)
        constants[f"b{i}"] = _random(rng, after)
        last = i == len(sizes) - 2
        nodes.append(helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"m{i}"]))
        nodes.append(helper.make_node("Add", [f"m{i}", f"b{i}"], ["output" if last else f"p{i}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"p{i}"], [f"x{i + 1}"]))
    return write(path, nodes, constants, shape)


def residual(path: Path, seed: int = 0, sparsity: float = 0.0, shape: tuple[int, ...] = (3, 6, 6)) -> Path:
    """Normalisation, convolutions, batch norm, a skip connection, average pooling: what the adapters must all take."""
    rng = np.random.default_rng(seed)
    constants: dict[str, NDArray[Any]] = {
        "mean": np.array([0.4, 0.5, 0.6], dtype=np.float32).reshape(1, 3, 1, 1),
        "std": np.array([0.5, 0.6, 0.7], dtype=np.float32).reshape(1, 3, 1, 1),
        "w1": _random(rng, 4, 3, 3, 3),
        "b1": _random(rng, 4),
        "w2": _random(rng, 4, 4, 3, 3),
        "scale": rng.uniform(0.5, 1.5, 4).astype(np.float32),
        "shift": _random(rng, 4),
        "bn_mean": _random(rng, 4),
        "bn_var": rng.uniform(0.5, 1.5, 4).astype(np.float32),
        "w3": _random(rng, 10, 4 * (shape[1] // 2) * (shape[2] // 2)),
        "b3": _random(rng, 10),
    }
    for name in ("w1", "w2", "w3"):
        constants[name] *= (rng.random(constants[name].shape) >= sparsity).astype(np.float32)
    pads = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Sub", ["input", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normed"]),
        helper.make_node("Conv", ["normed", "w1", "b1"], ["c1"], kernel_shape=[3, 3], pads=pads),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], kernel_shape=[3, 3], pads=pads),
        helper.make_node("BatchNormalization", ["c2", "scale", "shift", "bn_mean", "bn_var"], ["n2"]),
        helper.make_node("Add", ["r1", "n2"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["r2"]),
        helper.make_node("AveragePool", ["r2"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["output"], transB=1),
    ]
    return write(path, nodes, constants, shape)


def convolutional(path: Path, seed: int = 0, sparsity: float = 0.0, shape: tuple[int, ...] = (3, 8, 8)) -> Path:
    """The layers of `cnn-small`, smaller: two strided convolutions and two linear layers."""
    rng = np.random.default_rng(seed)
    flat = 6 * (shape[1] // 4) * (shape[2] // 4)
    constants: dict[str, NDArray[Any]] = {
        "w1": _random(rng, 4, 3, 4, 4),
        "b1": _random(rng, 4),
        "w2": _random(rng, 6, 4, 4, 4),
        "b2": _random(rng, 6),
        "w3": _random(rng, 16, flat),
        "b3": _random(rng, 16),
        "w4": _random(rng, 10, 16),
        "b4": _random(rng, 10),
    }
    for name in ("w1", "w2", "w3", "w4"):
        constants[name] *= (rng.random(constants[name].shape) >= sparsity).astype(np.float32)
    stride: dict[str, Any] = {"kernel_shape": [4, 4], "pads": [1, 1, 1, 1], "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["c1"], **stride),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], **stride),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Flatten", ["r2"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["g3"], transB=1),
        helper.make_node("Relu", ["g3"], ["r3"]),
        helper.make_node("Gemm", ["r3", "w4", "b4"], ["output"], transB=1),
    ]
    return write(path, nodes, constants, shape)


def normal_form(path: Path, keep: frozenset[str] = frozenset()) -> Path:
    """Returns a network's normal form, as a worker hands it to an adapter; written beside the network."""
    normal = normalise(load_model(path), keep=keep)
    if not normal.changed:
        return path
    target = path.with_suffix(".normal.onnx")
    onnx.save(normal.model, str(target))
    return target


def input_shape(path: Path) -> tuple[int, ...]:
    """Returns the shape of one input."""
    dims = onnx.load(str(path)).graph.input[0].type.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims[1:])


def instance(
    path: Path,
    eps: float,
    seed: int = 0,
    *,
    norm: Norm = "linf",
    timeout: float = 60.0,
    name: str = "",
    spec: OutputSpec | None = None,
) -> Instance:
    """Returns a robustness question (or `spec`) about a random image."""
    image = np.random.default_rng(seed).random(input_shape(path), dtype=np.float32)
    logits = counterexample.outputs(path, image[None])[0]
    label = int(logits.argmax())
    return Instance(
        onnx=path,
        onnx_sha256=sha256_file(path),
        lower=np.clip(image - np.float32(eps), 0, 1),
        upper=np.clip(image + np.float32(eps), 0, 1),
        spec=spec if spec is not None else OutputSpec.robustness(label, len(logits)),
        timeout=timeout,
        name=name or f"image {seed}",
        label=label if spec is None else None,
        classes=len(logits),
        eps=eps,
        norm=norm,
        center=image,
    )


def samples(question: Instance, count: int, seed: int = 0) -> NDArray[np.float32]:
    """Returns points of the input set: a third at random, a third at corners, a third on faces (or on the sphere)."""
    rng = np.random.default_rng(seed)
    lower, upper = question.lower, question.upper
    if question.norm == "l2":
        assert question.center is not None
        assert question.eps is not None
        direction = rng.standard_normal((count, *lower.shape))
        length = np.sqrt((direction**2).sum(axis=tuple(range(1, direction.ndim)), keepdims=True))
        radius = rng.random(length.shape) ** (1 / lower.size)
        radius[: count // 2] = 1.0
        points = question.center + direction / length * radius * question.eps * (1 - 1e-6)
        clipped: NDArray[np.float32] = np.clip(points, lower, upper).astype(np.float32)
        return clipped
    weights = rng.random((count, *lower.shape))
    third = count // 3
    weights[:third] = rng.integers(0, 2, weights[:third].shape)
    faces = rng.random(weights[third : 2 * third].shape) < 0.5
    weights[third : 2 * third][faces] = np.round(weights[third : 2 * third][faces])
    inside: NDArray[np.float32] = np.clip(lower + weights * (upper - lower), lower, upper).astype(np.float32)
    return inside


def check_counterexample(question: Instance, verdict: Verdict) -> None:
    """Fails unless a verdict's witness is a counterexample to the file itself, and its replay said so."""
    assert verdict.witness is not None
    assert question.contains(verdict.witness)
    assert question.spec.violated_by(counterexample.outputs(question.onnx, verdict.witness[None])[0])
    assert verdict.witness_check is not None
    assert verdict.witness_check["ok"]
    assert not verdict.witness_check["clipped"]
