"""Two small networks of one architecture, read by the sparse engine, and a box."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.crown.engine import Engine
from prunecert.verifiers.sparse.network import Network, Node, Term
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.pairs.bounds import Bounder, PairBounds
from prunecert.verifiers.sparse.pairs.network import Pair
from tests.soundness.pairs import twin
from tests.soundness.questions import FAMILIES


@dataclass(frozen=True, eq=False)
class Case:
    """A pair over a box."""

    first: Network
    second: Network
    lower: Float64Array
    upper: Float64Array

    @property
    def pair(self) -> Pair:
        return Pair(self.first, self.second)

    def bounds(self, walks: bool = True) -> PairBounds:
        """Bounds all nodes over the box."""
        engines = Engine(self.first, 1), Engine(self.second, 1)
        return Bounder(self.pair, engines, walks).bound(self.lower, self.upper)

    def points(self, count: int = 400, seed: int = 0) -> Float64Array:
        """Returns inputs of the box, half of them corners."""
        rng = np.random.default_rng(seed)
        points = rng.uniform(self.lower, self.upper, (count, len(self.lower)))
        points[::2] = np.where(rng.random((len(points[::2]), len(self.lower))) < 0.5, self.lower, self.upper)
        return points

    def values(self, points: Float64Array) -> list[Float64Array]:
        """Returns every node's values at points: [3, points, size], the last of the three the difference."""
        both = zip(self.first.forward(points), self.second.forward(points), strict=True)
        return [np.stack([one, other, other - one]) for one, other in both]


def case(
    folder: Path, family: str, seed: int = 0, dropped: float = 0.3, noise: float = 0.05, radius: float = 0.1
) -> Case:
    """Returns a network of the soundness suite's families with its twin."""
    rng = np.random.default_rng([seed, 7])
    net = FAMILIES[family](f"{family} {seed}", rng).balance(rng)
    other = twin(net, rng, dropped, noise)
    networks = [read_network(item.save(folder / f"{name}.onnx")) for name, item in (("a", net), ("b", other))]
    center = rng.random(net.inputs)
    lower, upper = np.clip(center - radius, 0, 1), np.clip(center + radius, 0, 1)
    return Case(
        networks[0], networks[1], lower.astype(np.float32).astype(float), upper.astype(np.float32).astype(float)
    )


def awkward(seed: int) -> Case:
    """Returns networks of small round weights: units of 0, ties, neurons that are 0 at a corner, fixed inputs."""
    rng = np.random.default_rng(seed)
    sizes = (3, 5, 5, 3) if seed % 2 else (2, 6, 3)
    weights = [rng.choice([-1, -0.5, 0, 0, 0, 0.5, 1, 2], (m, n)) for n, m in itertools.pairwise(sizes)]
    biases = [rng.choice([-1, 0, 0, 0, 0.5], m) for m in sizes[1:]]
    others = [np.where(rng.random(weight.shape) < 0.4, 0, weight) for weight in weights]
    shifts = [np.where(rng.random(bias.shape) < 0.3, 0, bias) for bias in biases]
    # A unit that pruning has left without weights.
    others[0][0], shifts[0][0] = 0, 0
    lower = rng.choice([-1, -0.5, 0, 0, 0.25], sizes[0]).astype(float)
    upper = lower + rng.choice([0, 0.5, 1, 1], sizes[0])
    networks = layers(weights, biases), layers(others, shifts)
    return Case(*(networks if seed % 3 else networks[::-1]), lower, upper)


def cancelling(seed: int) -> Case:
    """Returns networks at a point, whose outputs are small differences of large sums: nothing but rounding is lost."""
    rng, half = np.random.default_rng(seed), 12

    def twice(rows: int, columns: int) -> list[NDArray[Any]]:
        weight = rng.uniform(0.5, 1, (rows, columns)) * 2.0 ** -rng.integers(0, 12, (rows, columns))
        weight = weight.astype(np.float32)
        return [weight, weight * (1 + rng.integers(-4, 5, weight.shape) * 2.0**-23)]

    networks = []
    for _ in range(2):
        plus, minus = twice(3, half)
        weights = [np.vstack(twice(half, 3)), np.hstack([plus, -minus])]
        networks.append(layers(weights, [np.zeros(2 * half), np.zeros(3)]))
    point = rng.uniform(0.5, 1, 3).astype(np.float32).astype(np.float64)
    return Case(networks[0], networks[1], point, point)


def exactly(network: Network, point: Float64Array) -> list[Fraction]:
    """Returns a network's outputs at a point, in exact arithmetic."""
    values = [[Fraction(number) for number in point]]
    for node in network.nodes[1:]:
        sums = [Fraction(float(number)) for number in node.bias]
        for term in node.terms:
            matrix = term.matrix.tocoo()
            for row, column, weight in zip(matrix.row, matrix.col, matrix.data, strict=True):
                value = values[term.source][column]
                sums[row] += Fraction(float(weight)) * (max(value, Fraction(0)) if term.activated else value)
        values.append(sums)
    return values[-1]


def layers(weights: Sequence[NDArray[Any]], biases: Sequence[NDArray[Any]]) -> Network:
    """Returns a network of layers of these weights, with a ReLU between each two."""

    def node(name: str, size: int, terms: tuple[Term, ...], bias: NDArray[Any]) -> Node:
        return Node(name, size, (size,), terms, bias.astype(np.float32), np.zeros(size, dtype=np.float32))

    inputs = weights[0].shape[1]
    nodes = [node("input", inputs, (), np.zeros(inputs))]
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        matrix = scipy.sparse.csr_array(weight.astype(np.float32))
        matrix.indptr, matrix.indices = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
        nodes.append(node(f"layer {index}", len(bias), (Term(index, index > 0, matrix),), bias))
    return Network("awkward", (inputs,), tuple(nodes))


FAMILY_NAMES = ("fc", "fc-dead-units", "conv", "skip", "conv-skip")
