"""Small networks with Sigmoid and Tanh, and questions whose exact answer is known and lies near the threshold.

No solver knows such networks exactly; three kinds of them need none, or bring their own proof:

- *monotone*: behind the first layer all weights have the sign that makes the margin grow with every neuron, and the
  first layer's have one sign for each input. The least margin is that of one corner.
- *hill*, *valley*: each input x has two neurons f(a x + b) and f(b - a x). As f' is even and falls with the distance
  from 0, their sum falls with |x| where b > 0, and grows where b < 0; what follows is monotone. The least margin is
  where every |x| is largest, or where it is least, inside of the box.
- *drawn*: two inputs and two hidden layers of any weights. The box is cut into smaller ones until bounds by intervals
  of those that may hold the least margin are near to a value that a point has.

Values at points are computed in decimal arithmetic with 60 digits, whose exponential rounds correctly; intervals in
float64, moved outwards by far more than anything there rounds. Both share nothing with the engine.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import helper

from prunecert.hashing import sha256_file
from prunecert.verifiers.base import Instance, OutputSpec, Status
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array
from tests.verifiers import onnxnets
from tests.verifiers.sparse.smooth.smoothnets import DIGITS, above, curve

Operator = Literal["Sigmoid", "Tanh"]
Kind = Literal["monotone", "hill", "valley", "drawn"]

#: How far thresholds are below and above the least margin, as a share of the margin's range.
SHARES = (0.1, 1e-5)
#: Within which float32 may tip an answer, since outputs of some ten are some units in the last place off.
NEAR = 2e-5
#: By how much an interval is moved outwards, relative to the magnitudes that are summed; sums have at most 16 terms.
_OUTWARDS = 1e-13
#: Of a drawn network's range, between the largest and the least that its least margin may be; sub-boxes of one round.
_CLOSE, _MOST = 2e-6, 400_000


@dataclass(frozen=True, eq=False)
class CurvedNetwork:
    """Linear layers with activations between them.

    Args:
        name: Of the file.
        weights: Of each layer, [out, in] float32.
        biases: [out] float32.
        operators: After each layer but the last.
    """

    name: str
    weights: tuple[Float32Array, ...]
    biases: tuple[Float32Array, ...]
    operators: tuple[Operator, ...]

    @property
    def classes(self) -> int:
        """Number of outputs."""
        return len(self.biases[-1])

    def save(self, folder: Path) -> Path:
        """Writes it as an ONNX file."""
        constants = {f"w{layer}": weight for layer, weight in enumerate(self.weights)}
        constants |= {f"b{layer}": bias for layer, bias in enumerate(self.biases)}
        nodes: list[onnx.NodeProto] = []
        value = "input"
        for layer in range(len(self.weights)):
            last = layer == len(self.operators)
            result = "output" if last else f"g{layer}"
            nodes.append(helper.make_node("Gemm", [value, f"w{layer}", f"b{layer}"], [result], transB=1))
            if not last:
                value = f"a{layer}"
                nodes.append(helper.make_node(self.operators[layer], [result], [value]))
        return onnxnets.write(folder / f"{self.name}.onnx", nodes, constants, (self.weights[0].shape[1],), self.classes)

    def margin(self, point: Float32Array | Float64Array) -> Decimal:
        """Returns by how much class 0 is ahead at a point, to about `DIGITS` digits."""
        with localcontext() as context:
            context.prec = DIGITS
            values = [Decimal(float(x)) for x in point]
            for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
                values = [
                    sum((Decimal(float(w)) * x for w, x in zip(row, values, strict=True)), Decimal(float(shift)))
                    for row, shift in zip(weight, bias, strict=True)
                ]
                if layer < len(self.operators):
                    values = [curve(self.operators[layer], x) for x in values]
            return min(values[0] - other for other in values[1:])

    def margins(self, low: Float64Array, high: Float64Array) -> Float64Array:
        """Bounds from below by how much class 0 is ahead over boxes, [boxes, inputs] to [boxes]."""
        for layer in range(len(self.weights)):
            wide, bias = (items[layer].astype(np.float64) for items in (self.weights, self.biases))
            if layer == len(self.operators):
                # Of the differences, so that what the classes have in common cancels.
                wide, bias = wide[:1] - wide[1:], bias[:1] - bias[1:]
            center, radius = 0.5 * low + 0.5 * high, 0.5 * high - 0.5 * low
            middle, half = center @ wide.T + bias, radius @ np.abs(wide).T
            half += _OUTWARDS * ((np.abs(center) + radius) @ np.abs(wide).T + np.abs(bias))
            low, high = middle - half, middle + half
            if layer < len(self.operators):
                low, high = (_curve(self.operators[layer], end) for end in (low, high))
                low, high = low - _OUTWARDS, high + _OUTWARDS
        least: Float64Array = low.min(axis=1) - _OUTWARDS
        return least


def _curve(operator: Operator, x: Float64Array) -> Float64Array:
    half = np.tanh(x if operator == "Tanh" else 0.5 * x)
    return half if operator == "Tanh" else 0.5 + 0.5 * half


@dataclass(frozen=True, eq=False)
class CurvedCase:
    """A network over a box.

    Args:
        net: The network.
        lower: Float32 corner.
        upper: Likewise.
        least: Two numbers between which the least margin of class 0 is; of most kinds they are within 1e-23.
        scale: Of margins: from the least to the largest of some points, or 0.01.
    """

    net: CurvedNetwork
    lower: Float32Array
    upper: Float32Array
    least: tuple[Decimal, Decimal]
    scale: float

    def thresholds(self, truth: Status, shares: Sequence[float] = SHARES) -> list[float]:
        """Returns thresholds that class 0 is ahead by everywhere (`unsat`), or somewhere not (`sat`)."""
        if truth is Status.UNSAT:
            return [np.nextafter(float(self.least[0] - Decimal(share * self.scale)), -np.inf) for share in shares]
        return [np.nextafter(float(self.least[1] + Decimal(share * self.scale)), np.inf) for share in shares]

    def ask(self, path: Path, threshold: float, timeout: float) -> Instance:
        """Returns the question whether class 0 is ahead by more than a threshold."""
        spec: OutputSpec = above(0, threshold, self.net.classes)
        box = (self.lower, self.upper)
        return Instance(path, sha256_file(path), *box, spec, timeout, self.net.name, None, self.net.classes)


def _layers(widths: Sequence[int], rng: np.random.Generator) -> tuple[list[Float32Array], list[Float32Array]]:
    weights = [
        (2 * rng.standard_normal((after, before)) / np.sqrt(before)).astype(np.float32)
        for before, after in itertools.pairwise(widths)
    ]
    return weights, [rng.standard_normal(len(weight)).astype(np.float32) for weight in weights]


def _rising(weights: list[Float32Array]) -> None:
    """Makes the margin of class 0 grow with every neuron before these layers."""
    for weight in weights:
        np.abs(weight, out=weight)
    weights[-1][1:] *= -1


def _operators(seed: int, count: int) -> tuple[Operator, ...]:
    both: tuple[Operator, Operator] = ("Sigmoid", "Tanh")
    return tuple(both[(seed + layer) % 2] for layer in range(count))


def _box(seed: int, inputs: int, rng: np.random.Generator) -> tuple[Float32Array, Float32Array]:
    center, radius = rng.uniform(-0.3, 0.3, inputs), (0.05, 0.4, 1.5)[seed % 3] * rng.uniform(0.5, 1.0, inputs)
    return (center - radius).astype(np.float32), (center + radius).astype(np.float32)


def _case(net: CurvedNetwork, lower: Float32Array, upper: Float32Array, worst: Float64Array) -> CurvedCase:
    """Returns a case whose least margin is at a point that is known."""
    least = net.margin(worst)
    # Far more than decimals of the usual 28 digits round.
    error = Decimal("1e-24")
    some: list[Float32Array] = [0.5 * lower + 0.5 * upper, lower, upper]
    scale = max(float(net.margin(point) - least) for point in some)
    return CurvedCase(net, lower, upper, (least - error, least + error), max(scale, 1e-2))


def monotone(seed: int) -> CurvedCase:
    """Draws a network whose least margin is in a corner."""
    rng, inputs = np.random.default_rng(seed), 1 + seed % 2
    weights, biases = _layers((inputs, 4, 4, 2 + seed % 2), rng)
    _rising(weights)
    signs = rng.choice(np.array([-1.0, 1.0], dtype=np.float32), inputs)
    weights[0] *= signs
    net = CurvedNetwork(f"monotone-{seed}", tuple(weights), tuple(biases), _operators(seed, 2))
    lower, upper = _box(seed, inputs, rng)
    return _case(net, lower, upper, np.where(signs > 0, lower, upper).astype(np.float64))


def hill(seed: int, side: Literal[1, -1] = 1) -> CurvedCase:
    """Draws a network whose margin falls with every |x|, or grows (a valley): see the module.

    Args:
        seed: Of all that is drawn.
        side: 1 for a hill, -1 for a valley.
    """
    rng, inputs = np.random.default_rng(seed), 1 + seed % 2
    slopes, shifts = rng.uniform(0.5, 3.0, inputs), side * rng.uniform(0.2, 2.0, inputs)
    first = np.zeros((2 * inputs, inputs), dtype=np.float32)
    first[::2][np.diag_indices(inputs)] = slopes
    first[1::2][np.diag_indices(inputs)] = -slopes
    weights, biases = _layers((2 * inputs, 3, 2), rng)
    _rising(weights)
    # Both neurons of an input count alike.
    weights[0][:, 1::2] = weights[0][:, ::2]
    bias = np.repeat(shifts, 2).astype(np.float32)
    name = f"{'hill' if side > 0 else 'valley'}-{seed}"
    net = CurvedNetwork(name, (first, *weights), (bias, *biases), _operators(seed, 2))
    lower, upper = _box(seed, inputs, rng)
    far = np.where(-lower > upper, lower, upper)
    near = np.clip(np.zeros(inputs, dtype=np.float32), lower, upper)
    return _case(net, lower, upper, (far if side > 0 else near).astype(np.float64))


def drawn(seed: int) -> CurvedCase:
    """Draws a network of any weights, and encloses its least margin by cutting the box into smaller ones."""
    rng = np.random.default_rng(seed)
    weights, biases = _layers((2, 5, 5, 3), rng)
    net = CurvedNetwork(f"drawn-{seed}", tuple(weights), tuple(biases), _operators(seed, 2))
    lower, upper = _box(seed, 2, rng)
    low, high = lower[None].astype(np.float64), upper[None].astype(np.float64)
    axes = [np.linspace(a, b, 9) for a, b in zip(lower.astype(np.float64), upper.astype(np.float64), strict=True)]
    grid = [net.margin(point) for point in np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)]
    scale = max(float(max(grid) - min(grid)), 1e-2)
    best, proved = min(grid), -np.inf
    while float(best) - proved > _CLOSE * scale:
        axis = (high - low).argmax(axis=1)
        place = np.arange(len(low)), axis
        middle = 0.5 * (low + high)
        left, right = high.copy(), low.copy()
        left[place], right[place] = middle[place], middle[place]
        low, high = np.concatenate([low, right]), np.concatenate([left, high])
        bounds = net.margins(low, high)
        best = min(best, net.margin(0.5 * (low + high)[bounds.argmin()]))
        # All others are above the least margin that a point has.
        keep = bounds <= np.nextafter(float(best), np.inf)
        low, high, proved = low[keep], high[keep], float(bounds.min())
        assert len(low) < _MOST, "bounds by intervals are too wide for this network"
    return CurvedCase(net, lower, upper, (Decimal(proved), best), scale)


@functools.cache
def cases(kind: Kind) -> tuple[CurvedCase, ...]:
    """Returns the cases of one kind, the same every time."""
    if kind == "monotone":
        return tuple(monotone(seed) for seed in range(5))
    if kind == "drawn":
        return tuple(drawn(seed) for seed in range(3))
    side: Literal[1, -1] = 1 if kind == "hill" else -1
    return tuple(hill(seed, side) for seed in range(5))
