"""Tiny networks on which arithmetic is hard, and what is certainly wrong about an answer, by rational arithmetic.

Weights of 1e30 and of 1e-30, sums that cancel to the last digit, neurons that are dead or the same twice; boxes that
are points, a few float32 numbers wide, flat in some coordinates or far out; thresholds that an output meets to the last
digits. No oracle decides these; but a point that is a counterexample in real arithmetic (every float is a rational
number) or in onnxruntime refutes an `unsat`, and the points that are tried are those at which one is to be expected.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from prunecert.hashing import sha256_file
from prunecert.verifiers.base import FloatArray, Instance, OutputSpec
from prunecert.verifiers.formats import counterexample

Rng = np.random.Generator
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Tiny:
    """A chain of linear layers with ReLUs between them, some with a skip connection.

    Args:
        layers: Weights [out, in] and biases [out], float32.
        skips: For each hidden layer, whether its input is added to its output (of the same size).
    """

    layers: tuple[tuple[FloatArray, FloatArray], ...]
    skips: tuple[bool, ...]

    def save(self, path: Path) -> Path:
        """Writes ONNX: Gemm or MatMul and Add, Relu, Add."""
        nodes, weights, value = [], [], "input"
        for index, (weight, bias) in enumerate(self.layers):
            weights += [
                numpy_helper.from_array(np.ascontiguousarray(weight.T), f"w{index}"),
                numpy_helper.from_array(bias, f"b{index}"),
            ]
            last = index == len(self.layers) - 1
            out = "output" if last else f"z{index}"
            if index % 2:
                nodes += [
                    helper.make_node("MatMul", [value, f"w{index}"], [f"p{index}"]),
                    helper.make_node("Add", [f"p{index}", f"b{index}"], [out]),
                ]
            else:
                nodes.append(helper.make_node("Gemm", [value, f"w{index}", f"b{index}"], [out]))
            if last:
                break
            nodes.append(helper.make_node("Relu", [out], [f"a{index}"]))
            if self.skips[index]:
                nodes.append(helper.make_node("Add", [f"a{index}", value], [f"s{index}"]))
            value = f"s{index}" if self.skips[index] else f"a{index}"
        sizes = self.layers[0][0].shape[1], len(self.layers[-1][1])
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
            for name, size in zip(("input", "output"), sizes, strict=True)
        ]
        graph = helper.make_graph(nodes, "tiny", values[:1], values[1:], weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), str(path))
        return path

    def exact(self, x: npt.ArrayLike) -> list[Fraction]:
        """Evaluates a point in rational arithmetic."""
        value = [Fraction(float(number)) for number in np.asarray(x).reshape(-1)]
        for index, (weight, bias) in enumerate(self.layers):
            out = [
                sum((Fraction(float(w)) * v for w, v in zip(row, value, strict=True) if w), Fraction(float(shift)))
                for row, shift in zip(weight, bias, strict=True)
            ]
            if index < len(self.skips):
                out = [max(number, Fraction(0)) for number in out]
                if self.skips[index]:
                    out = [a + b for a, b in zip(out, value, strict=True)]
            value = out
        return value


def holds(spec: OutputSpec, output: list[Fraction]) -> bool:
    """Whether an output is unsafe, in rational arithmetic."""
    return any(
        all(
            sum((Fraction(float(f)) * y for f, y in zip(row, output, strict=True) if f), Fraction(0))
            <= Fraction(float(t))
            for row, t in zip(a, b, strict=True)
        )
        for a, b in spec.disjuncts
    )


def _numbers(rng: Rng, shape: tuple[int, ...]) -> FloatArray:
    """Draws weights of one of several kinds."""
    values = rng.normal(size=shape)
    kind = rng.integers(8)
    if kind == 0:
        values *= 10.0 ** rng.uniform(0, 30)
    elif kind == 1:
        values *= 10.0 ** -rng.uniform(0, 30)
    elif kind == 2:
        values *= 10.0 ** rng.uniform(-30, 30, size=shape)
    elif kind == 3:
        values *= 10.0 ** rng.uniform(0, 8)
    elif kind == 4:
        values[rng.random(shape) < 0.6] = 0.0
    elif kind == 5:
        values = np.round(values)
    return np.clip(values, -_LARGEST, _LARGEST).astype(np.float32)


def network(rng: Rng) -> Tiny:
    """Draws a network of one to three hidden layers of up to six neurons."""
    sizes = [int(size) for size in rng.integers(1, 7, size=int(rng.integers(2, 5)))]
    sizes.append(int(rng.integers(1, 4)))
    layers, skips = [], []
    for index, (n, m) in enumerate(itertools.pairwise(sizes)):
        weight, bias = _numbers(rng, (m, n)), _numbers(rng, (m,))
        trick = rng.integers(6)
        if trick == 0 and n > 1:
            # Two inputs cancel but for the last digits.
            weight[:, 1] = -np.nextafter(weight[:, 0], np.float32(rng.choice([0, np.inf])))
        elif trick == 1 and m > 1:
            weight[1], bias[1] = weight[0], np.nextafter(bias[0], np.float32(np.inf))
        elif trick == 2:
            bias[: m // 2 + 1] = -np.abs(weight[: m // 2 + 1]).max(initial=1.0) * 100
        elif trick == 3:
            bias[:] = 0.0
        layers.append((np.clip(weight, -_LARGEST, _LARGEST), np.clip(bias, -_LARGEST, _LARGEST)))
        if index < len(sizes) - 2:
            skips.append(bool(n == m and rng.random() < 0.3))
    return Tiny(tuple(layers), tuple(skips))


def _box(rng: Rng, inputs: int) -> tuple[FloatArray, FloatArray]:
    center = rng.normal(size=inputs) * 10.0 ** rng.choice([-3, 0, 0, 0, 5])
    low = center.astype(np.float32)
    kind = rng.integers(5)
    if kind == 0:
        return low, low.copy()
    if kind == 1:
        high = low.copy()
        for _ in range(int(rng.integers(1, 4))):
            high = np.nextafter(high, np.float32(np.inf))
        return low, high
    radius = 10.0 ** rng.uniform(-6, 0.5) * (rng.random(inputs) < (0.5 if kind == 2 else 1.0))
    return (center - radius).astype(np.float32), np.maximum((center + radius).astype(np.float32), low)


def _spec(rng: Rng, net: Tiny, low: FloatArray, high: FloatArray) -> OutputSpec:
    """Draws disjuncts of one to three rows whose thresholds are met somewhere near the box, some exactly."""
    disjuncts = []
    outputs = len(net.layers[-1][1])
    for _ in range(int(rng.integers(1, 4))):
        share = rng.choice([0.0, 0.5, 1.0, 3.0])
        point = (low + share * (high.astype(np.float64) - low)).astype(np.float32)
        y = np.array([float(min(max(number, Fraction(-(10**300))), Fraction(10**300))) for number in net.exact(point)])
        a = rng.normal(size=(int(rng.integers(1, 4)), outputs))
        b = a @ y
        near = rng.integers(5)
        if near == 1:
            b = np.nextafter(b, rng.choice([-np.inf, np.inf]))
        elif near == 2:
            b = b * (1 + 1e-7 * rng.normal())
        elif near == 3:
            b = b - np.abs(b) * 10.0 ** rng.uniform(-8, 0) - 1e-3 * rng.random()
        elif near == 4:
            b = b + rng.normal(size=b.shape)
        disjuncts.append((a, np.clip(b, -1e305, 1e305)))
    return OutputSpec(tuple(disjuncts))


def questions(seed: int, networks: int, folder: Path, timeout: float = 5.0) -> Iterator[tuple[Tiny, Instance]]:
    """Draws networks, and two questions to each."""
    for number in range(networks):
        rng = np.random.default_rng((seed, number))
        net = network(rng)
        path = net.save(folder / f"tiny-{seed}-{number}.onnx")
        sha256 = sha256_file(path)
        for part in range(2):
            low, high = _box(rng, net.layers[0][0].shape[1])
            spec = _spec(rng, net, low, high)
            outputs = len(net.layers[-1][1])
            yield net, Instance(path, sha256, low, high, spec, timeout, name=f"{seed}-{number}-{part}", classes=outputs)


def refutation(net: Tiny, instance: Instance, draws: int = 12) -> str | None:
    """Returns what refutes an `unsat`, or None: a point of the box that is unsafe, exactly or in onnxruntime."""
    rng = np.random.default_rng(1)
    low, high = instance.lower.astype(np.float64), instance.upper.astype(np.float64)
    shares = rng.random((draws, low.size))
    shares[::2] = np.round(shares[::2])
    shares[:3] = [[0.0] * low.size, [0.5] * low.size, [1.0] * low.size]
    points = np.clip((low + shares * (high - low)).astype(np.float32), instance.lower, instance.upper)
    with np.errstate(all="ignore"):
        for point, output in zip(points, counterexample.outputs(instance.onnx, points), strict=True):
            if holds(instance.spec, net.exact(point)):
                return f"{point} is unsafe in real arithmetic"
            if instance.spec.violated_by(output):
                return f"{point} is unsafe in onnxruntime: {output}"
    return None
