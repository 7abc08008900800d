"""Networks as people's exporters write them, asked of real verifiers: right answers, or `unknown` from the incomplete.

What is right comes from onnxruntime on the file as it was given: `sat` where a sampled point is unsafe by a tenth of
the outputs' spread, `unsat` where the threshold is three spreads below every sampled point of a small box.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from prunecert.onnx.io import identity
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, Kind, OutputSpec, Status
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.formats.support import network_info
from prunecert.verifiers.process.worker import Worker
from tests.verifiers.process.test_reading import build, layers, perceptron

Node = helper.make_node
Rng = np.random.Generator


def _weights(rng: Rng, *shape: int) -> NDArray[np.float32]:
    drawn: NDArray[np.float32] = (rng.standard_normal(shape) / math.sqrt(max(1, math.prod(shape[1:])))).astype(
        np.float32
    )
    return drawn


def _hidden(operator: str, **attributes: Any) -> Callable[[Path, Rng], Path]:
    """A perceptron whose activation is another one."""

    def make(path: Path, rng: Rng) -> Path:
        nodes, constants = perceptron(), layers(rng)
        nodes[1] = Node(operator, ["g"], ["r"], **attributes)
        return build(path, nodes, constants)

    return make


def _images(rng: Rng) -> dict[str, NDArray[Any]]:
    return {"k": _weights(rng, 3, 2, 3, 3), "kb": _weights(rng, 3)}


def _head(size: int, rng: Rng, source: str) -> tuple[list[Any], dict[str, NDArray[Any]]]:
    nodes = [Node("Flatten", [source], ["f"]), Node("Gemm", ["f", "m", "mb"], ["y"], transB=1)]
    return nodes, {"m": _weights(rng, 3, size), "mb": _weights(rng, 3)}


def _convolution(middle: list[Any], size: int, **attributes: Any) -> Callable[[Path, Rng], Path]:
    """Conv ``c``, Relu ``r``, what is in the middle, from ``r`` to ``p``, and a linear layer on [1, 2, 6, 6]."""

    def make(path: Path, rng: Rng) -> Path:
        nodes, constants = _head(size, rng, "p")
        first = [Node("Conv", ["x", "k", "kb"], ["c"], **attributes), Node("Relu", ["c"], ["r"])]
        return build(path, [*first, *middle, *nodes], {**_images(rng), **constants}, (1, 2, 6, 6))

    return make


def constant_nodes(path: Path, rng: Rng) -> Path:
    stack = layers(rng)
    constants = [Node("Constant", [], [name], value=numpy_helper.from_array(value)) for name, value in stack.items()]
    return build(path, [*constants, *perceptron()], {})


def without_bias(path: Path, rng: Rng) -> Path:
    stack = layers(rng)
    nodes = [*perceptron()[:2], Node("MatMul", ["r", "w"], ["y"])]
    return build(path, nodes, {"w1": stack["w1"], "b1": stack["b1"], "w": np.ascontiguousarray(stack["w2"].T)})


def transposed_weights(path: Path, rng: Rng) -> Path:
    nodes = [*perceptron()[:2], Node("Transpose", ["w2"], ["t"], perm=[1, 0]), Node("MatMul", ["r", "t"], ["m"])]
    return build(path, [*nodes, Node("Add", ["m", "b2"], ["y"])], layers(rng))


def without_batch(path: Path, rng: Rng) -> Path:
    stack = layers(rng)
    nodes = [Node("MatMul", ["w1", "x"], ["m"]), Node("Add", ["m", "b1"], ["a"]), Node("Relu", ["a"], ["r"])]
    nodes += [Node("MatMul", ["w2", "r"], ["n"]), Node("Add", ["n", "b2"], ["y"])]
    return build(path, nodes, stack, (4,), (("y", (3,)),))


def free_batch(path: Path, rng: Rng) -> Path:
    return build(path, perceptron(), layers(rng), ("batch", 4))


def float64(path: Path, rng: Rng) -> Path:
    return build(path, perceptron(), layers(rng, np.float64), kind=TensorProto.DOUBLE)


def opset_21(path: Path, rng: Rng) -> Path:
    return build(path, perceptron(), layers(rng), opset=21)


def channels_last(path: Path, rng: Rng) -> Path:
    nodes, constants = _head(3 * 4 * 5, rng, "b")
    first = [Node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), Node("Conv", ["t", "k", "kb"], ["c"])]
    first += [Node("Relu", ["c"], ["r"]), Node("Transpose", ["r"], ["b"], perm=[0, 2, 3, 1])]
    return build(path, [*first, *nodes], {**_images(rng), **constants}, (1, 6, 7, 2))


def pooled_output(path: Path, rng: Rng) -> Path:
    nodes = [Node("Conv", ["x", "k", "kb"], ["c"]), Node("Relu", ["c"], ["r"]), Node("GlobalAveragePool", ["r"], ["y"])]
    return build(path, nodes, _images(rng), (1, 2, 6, 6), (("y", (1, 3, 1, 1)),))


def position_bias(path: Path, rng: Rng) -> Path:
    nodes, constants = _head(3 * 16, rng, "r")
    first = [Node("Conv", ["x", "k", "kb"], ["c"]), Node("Add", ["c", "p"], ["a"]), Node("Relu", ["a"], ["r"])]
    return build(path, [*first, *nodes], {**_images(rng), **constants, "p": _weights(rng, 1, 3, 4, 4)}, (1, 2, 6, 6))


def concatenated(path: Path, rng: Rng) -> Path:
    stack = layers(rng)
    nodes = [
        *perceptron()[:2],
        Node("Concat", ["r", "x"], ["z"], axis=1),
        Node("Gemm", ["z", "w", "b2"], ["y"], transB=1),
    ]
    return build(path, nodes, {**stack, "w": _weights(rng, 3, 10)})


def two_outputs(path: Path, rng: Rng) -> Path:
    return build(path, perceptron(), layers(rng), outputs=(("g", (1, 6)), ("y", (1, 3))))


def softmax_last(path: Path, rng: Rng) -> Path:
    return build(path, [*perceptron("z"), Node("Softmax", ["z"], ["y"], axis=1)], layers(rng))


CASES: dict[str, Callable[[Path, Rng], Path]] = {
    "constant nodes": constant_nodes,
    "last layer without bias": without_bias,
    "transposed weights": transposed_weights,
    "no batch axis": without_batch,
    "free batch": free_batch,
    "float64": float64,
    "opset 21": opset_21,
    "channels last": channels_last,
    "pooled output": pooled_output,
    "bias by position": position_bias,
    "concatenation": concatenated,
    "two outputs": two_outputs,
    "softmax": softmax_last,
    "leaky": _hidden("LeakyRelu", alpha=0.2),
    "absolute values": _hidden("Abs"),
    "hard sigmoid": _hidden("HardSigmoid"),
    "same": _convolution([Node("Identity", ["r"], ["p"])], 3 * 9, auto_pad="SAME_UPPER", strides=[2, 2]),
    "asymmetric": _convolution([Node("Identity", ["r"], ["p"])], 3 * 5 * 6, pads=[0, 1, 1, 1]),
    "valid": _convolution([Node("Identity", ["r"], ["p"])], 3 * 16, auto_pad="VALID"),
    "averages": _convolution(
        [Node("AveragePool", ["r"], ["p"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])], 3 * 4
    ),
    "maxima": _convolution([Node("MaxPool", ["r"], ["p"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)], 3 * 4),
    "maxima apart": _convolution([Node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2])], 3 * 4),
    "mean": _convolution([Node("ReduceMean", ["r"], ["p"], axes=[2, 3])], 3),
}


def questions(path: Path, rng: Rng) -> list[tuple[Instance, Status]]:
    """Returns a question whose answer is `unsat`, and one whose answer is `sat`."""
    shape = network_info(path).sample_shape
    center = rng.random(shape, dtype=np.float32)
    table = []
    for eps, status in ((0.01, Status.UNSAT), (0.3, Status.SAT)):
        lower, upper = center - np.float32(eps), center + np.float32(eps)
        weights = rng.random((200, *shape), dtype=np.float32)
        weights[:100] = np.round(weights[:100])
        points = np.clip(lower + weights * (upper - lower), lower, upper)
        outputs = counterexample.outputs(path, points, 3).astype(np.float64)
        gaps = outputs[:, 0] - outputs[:, 1]
        order = 1 if gaps.mean() > 0 else -1
        spread = float(np.ptp(gaps))
        row = np.array([[order, -order, 0.0]])
        limit = float((order * gaps).min()) + (0.1 * spread if status is Status.SAT else -3 * spread - 1e-3)
        if path.stem == "softmax":
            # Comparisons alone keep their meaning.
            row, limit = (row if status is Status.UNSAT else -row), 0.0
        instance = Instance(
            path, identity(path), lower, upper, OutputSpec(((row, np.array([limit])),)), 30.0, path.stem
        )
        table.append((Instance(**{**instance.__dict__, "classes": 3}), status))
    return table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Instance, Status]]:
    folder = tmp_path_factory.mktemp("foreign")
    return [
        pair
        for number, (name, make) in enumerate(CASES.items())
        for pair in questions(make(folder / f"{name}.onnx", np.random.default_rng(number)), np.random.default_rng(7))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("verifier", ["sparse-bab", "neuralsat", "crown", "ibp", "pgd", "sparse-crown", "marabou"])
def test_foreign_networks_are_answered(verifier: str, table: list[tuple[Instance, Status]]) -> None:
    if not VERIFIERS.get(verifier).availability().installed:
        pytest.skip(f"{verifier} is not installed")
    # Seconds each: NeuralSAT gets every sixth network. All get what the same code has read.
    pairs = [pair for number, pair in enumerate(table) if verifier != "neuralsat" or number // 2 % 6 == 0]
    with Worker(verifier, threads=1, memory_limit_mb=3000) as subject:
        verdicts = subject.verify([instance for instance, _ in pairs])
    complete = VERIFIERS.get(verifier).kind is Kind.COMPLETE
    wrong = [
        f"{instance.name}: {verdict.status} for {expectation}: {verdict.detail}"
        for (instance, expectation), verdict in zip(pairs, verdicts, strict=True)
        if verdict.status is not expectation and (complete or verdict.status is not Status.UNKNOWN)
    ]
    assert wrong == []
    assert any(verdict.status.decided for verdict in verdicts)
