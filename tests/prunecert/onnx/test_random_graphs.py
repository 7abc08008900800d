"""Random graphs of all operators: the normal form is the graph, as onnxruntime evaluates both."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.onnx.check import check
from prunecert.onnx.normalise import normalise
from tests.prunecert.onnx.graphs import Array, N, build, run, session, size

Rng = np.random.Generator


class Writer:
    """Appends random nodes; every value is computed by onnxruntime for zeros, so that its shape is known."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.largest = 400
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        shapes = [(1, 2, 5, 4), (1, 3, 4, 4), (1, 6), (5,), (1, 2, 6), (4, 1), (1, 4, 3, 2)]
        self.entry = shapes[int(rng.integers(len(shapes)))]
        self.values: dict[str, tuple[int, ...]] = {"x": self.entry}

    def constant(self, *shape: int) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = np.asarray(self.rng.standard_normal(shape), dtype=np.float32)
        return name

    def integers(self, *values: int) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = np.array(values, dtype=np.int64)
        return name

    def some(self, *items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def step(self) -> None:
        """Tries one node; keeps it if onnxruntime takes it."""
        # What was made last is read most often, so that graphs are deep, and some values are read twice.
        names = list(self.values)
        name = names[-1] if self.rng.random() < 0.7 else self.some(*names)
        node = self.node(name, self.values[name])
        if node is None:
            return
        model = build([*self.nodes, node], self.constants, self.entry, outputs=list(node.output))
        try:
            results = session(model).run(None, {"x": np.zeros(self.entry, np.float32)})
        except Exception:
            return
        if any(item.size > self.largest or item.size == 0 or item.ndim == 0 for item in results):
            return
        self.nodes.append(node)
        self.values.update(zip(node.output, (item.shape for item in results), strict=True))

    def node(self, name: str, shape: tuple[int, ...]) -> onnx.NodeProto | None:
        out, rank, rng = [f"v{len(self.nodes)}"], len(shape), self.rng
        kinds = ["unary", "constant", "binary", "move", "matmul", "reduce"] + (["window"] * 3 if rank == 4 else [])
        kind = self.some(*kinds)
        if kind == "unary":
            operator = self.some("Relu", "Relu", "LeakyRelu", "Abs", "Neg", "HardSigmoid", "Identity", "Clip")
            return N(operator, [name], out)
        if kind == "constant":
            whole = [size if rng.random() < 0.6 else 1 for size in shape][int(rng.integers(rank + 1)) :]
            operator = self.some("Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu")
            inputs = [name, self.constant(*whole)]
            return N(operator, inputs if operator in ("Div", "PRelu") or rng.random() < 0.7 else inputs[::-1], out)
        if kind == "binary":
            return N(self.some("Add", "Sub", "Max", "Min"), [name, self.some(*self.values)], out)
        if kind == "move":
            return self.move(name, shape, out)
        if kind == "matmul":
            if rng.random() < 0.7:
                return N("MatMul", [name, self.constant(shape[-1], int(rng.integers(1, 5)))], out)
            return N("MatMul", [self.constant(int(rng.integers(1, 5)), shape[max(0, rank - 2)]), name], out)
        if kind == "reduce":
            operator = self.some("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
            axis = int(rng.integers(rank))
            keep = int(rng.integers(2)) if rank > 1 else 1
            if operator == "ReduceSum":
                return N(operator, [name, self.integers(axis)], out, keepdims=keep)
            return N(operator, [name], out, axes=[axis], keepdims=keep)
        return self.window(name, shape, out)

    def move(self, name: str, shape: tuple[int, ...], out: list[str]) -> onnx.NodeProto:
        rank, rng = len(shape), self.rng
        axis = int(rng.integers(rank))
        match self.some(
            "Transpose", "Flatten", "Reshape", "Slice", "Gather", "Concat", "Pad", "Unsqueeze", "Squeeze", "Tile"
        ):
            case "Transpose":
                return N("Transpose", [name], out, perm=[int(i) for i in rng.permutation(rank)])
            case "Flatten":
                return N("Flatten", [name], out, axis=axis)
            case "Reshape":
                return N("Reshape", [name, self.integers(1, *[int(s) for s in rng.permutation(shape)])], out)
            case "Slice":
                step = self.some(1, 1, 2, -1)
                low, high = (int(rng.integers(shape[axis])), shape[axis]) if step > 0 else (shape[axis] - 1, -99)
                return N("Slice", [name, *(self.integers(i) for i in (low, high, axis, step))], out)
            case "Gather":
                return N("Gather", [name, self.integers(*rng.integers(0, shape[axis], 2))], out, axis=axis)
            case "Concat":
                alike = [key for key, value in self.values.items() if len(value) == rank]
                others = [self.some(*alike), self.constant(*shape)]
                return N("Concat", [name, *others[: int(rng.integers(1, 3))]], out, axis=axis)
            case "Pad":
                pads = self.integers(*[0] * (2 * rank - 1), int(rng.integers(1, 3)))
                self.constants[pads] = np.roll(self.constants[pads], -axis)
                return N("Pad", [name, pads, *([self.constant()] if rng.random() < 0.3 else [])], out)
            case "Unsqueeze":
                return N("Unsqueeze", [name, self.integers(axis)], out)
            case "Squeeze":
                return N("Squeeze", [name], out)
            case _:
                return N("Tile", [name, self.integers(*[2 if i == axis else 1 for i in range(rank)])], out)

    def window(self, name: str, shape: tuple[int, ...], out: list[str]) -> onnx.NodeProto:
        rng = self.rng
        more: dict[str, Any] = {"strides": [int(s) for s in rng.integers(1, 3, 2)]}
        kernel = [int(s) for s in rng.integers(1, 4, 2)]
        if rng.random() < 0.5:
            more["pads"] = [int(rng.integers(kernel[i % 2])) for i in range(4)]
        elif rng.random() < 0.4:
            more["auto_pad"] = self.some("SAME_UPPER", "SAME_LOWER", "VALID")
        operator = self.some("Conv", "Conv", "MaxPool", "AveragePool", "BatchNormalization", "GlobalAveragePool")
        channels = shape[1]
        if operator == "Conv":
            groups = channels if rng.random() < 0.2 else 1
            outs = channels * int(rng.integers(1, 3)) if groups > 1 else int(rng.integers(1, 4))
            if "auto_pad" not in more and rng.random() < 0.3:
                more["dilations"] = [int(s) for s in rng.integers(1, 3, 2)]
            inputs = [name, self.constant(outs, channels // groups, *kernel)]
            inputs += [self.constant(outs)] if rng.random() < 0.5 else []
            return N("Conv", inputs, out, group=groups, **more)
        if operator == "BatchNormalization":
            parts = [self.constant(channels) for _ in range(4)]
            self.constants[parts[3]] = np.abs(self.constants[parts[3]]) + np.float32(0.1)
            return N(operator, [name, *parts], out)
        if operator == "GlobalAveragePool":
            return N(operator, [name], out)
        if operator == "AveragePool":
            more["count_include_pad"] = int(rng.integers(2))
        if "auto_pad" not in more and rng.random() < 0.3:
            more["ceil_mode"] = 1
        return N(operator, [name], out, kernel_shape=kernel, **more)


def random_model(seed: int, steps: int) -> onnx.ModelProto | None:
    """Returns a random network, or None if nothing came of it."""
    writer = Writer(np.random.default_rng(seed))
    for _ in range(steps):
        writer.step()
    if not writer.nodes:
        return None
    return build(writer.nodes, writer.constants, writer.entry, outputs=[writer.nodes[-1].output[0]])


def compare(seed: int, steps: int) -> str:
    """Compares one random network with its normal form; returns what happened."""
    model = random_model(seed, steps)
    if model is None:
        return "empty"
    try:
        normal = normalise(model)
    except UserError as error:
        return f"refused: {error}"
    low, high = -2.0 * np.ones(size(model)), 1.5 * np.ones(size(model))
    gap = check(model, normal, low, high, points=6)
    flat = np.linspace(-1.0, 1.0, size(model), dtype=np.float32)
    expected = run(model, flat)
    outputs = run(normal.model, flat if normal.input_order is None else flat[normal.input_order])
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-4 * max(1.0, float(np.abs(expected).max())))
    return f"compared: {gap}"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9))
def test_random_graphs(seed: int, steps: int) -> None:
    compare(seed, steps)


def test_most_random_graphs_are_taken() -> None:
    """Else the test above would say little."""
    outcomes = [compare(seed, 6) for seed in range(40)]
    assert sum(outcome.startswith("compared") for outcome in outcomes) >= 25, outcomes


@pytest.mark.parametrize("seed", range(3))
def test_the_check_sees_a_mistake(seed: int) -> None:
    model = random_model(seed, 6)
    assert model is not None
    normal = normalise(model)
    wrong = build(
        [N("Flatten", ["x"], ["f"]), N("Gemm", ["f", "w", "b"], ["y"], transB=1)],
        {
            "w": np.zeros((normal.outputs, size(model)), np.float32),
            "b": np.full(normal.outputs, 1e6, np.float32),
        },
        (1, size(model)),
    )
    object.__setattr__(normal, "model", wrong)
    object.__setattr__(normal, "input_order", None)
    with pytest.raises(RuntimeError, match="differ from the network's"):
        check(model, normal, -np.ones(size(model)), np.ones(size(model)))
