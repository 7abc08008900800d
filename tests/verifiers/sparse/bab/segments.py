"""Networks of one input over an interval, exactly: piecewise linear functions in rational arithmetic.

Between two neighbouring places all values are linear, so that what holds at all places holds over the interval.
"""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.network import Network, Node, Term
from prunecert.verifiers.sparse.onnx.layers import dense

#: Values at each place.
Values = list[list[Fraction]]


def network(weights: list[Float64Array], biases: list[Float64Array], skips: bool = False) -> Network:
    """Returns linear layers with ReLUs between; with skips, a square layer adds what it is given.

    Args:
        weights: [out, in] of each layer; float32 numbers.
        biases: [out].
        skips: Whether there are such terms.
    """
    nodes = [Node("input", weights[0].shape[1], (weights[0].shape[1],), (), np.zeros(weights[0].shape[1], np.float32),
                  np.zeros(weights[0].shape[1], np.float32))]  # fmt: skip
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        terms = [Term(number, number > 0, dense(weight.astype(np.float32)))]
        if skips and number and weight.shape[0] == weight.shape[1]:
            terms.append(Term(number, False, dense(np.eye(len(weight), dtype=np.float32))))
        size = len(weight)
        zeros = np.zeros(size, dtype=np.float32)
        nodes.append(Node(f"layer {number}", size, (size,), tuple(terms), bias.astype(np.float32), zeros))
    return Network("segments", (weights[0].shape[1],), tuple(nodes))


def _between(one: Fraction, other: Fraction, at: list[Fraction], index: int) -> Fraction:
    """Returns where a value that is linear between two places is 0."""
    return at[index] + (at[index + 1] - at[index]) * one / (one - other)


def _refined(at: list[Fraction], values: Values) -> list[Fraction]:
    """Returns the places, and those where a value changes its sign."""
    places = set(at)
    for index in range(len(at) - 1):
        for one, other in zip(values[index], values[index + 1], strict=True):
            if one * other < 0:
                places.add(_between(one, other, at, index))
    return sorted(places)


def evaluate(net: Network, x: list[Fraction]) -> list[list[Fraction]]:
    """Returns all nodes' values at one point."""
    values = [x]
    for node in net.nodes[1:]:
        total = [Fraction(float(value)) for value in node.bias]
        for term in node.terms:
            matrix = term.matrix
            for row in range(node.size):
                for entry in range(matrix.indptr[row], matrix.indptr[row + 1]):
                    value = values[term.source][matrix.indices[entry]]
                    value = max(value, Fraction(0)) if term.activated else value
                    total[row] += Fraction(float(matrix.data[entry])) * value
        values.append(total)
    return values


def outputs(net: Network, low: float, high: float) -> tuple[list[Fraction], Values]:
    """Returns the places between which the network of one input is linear over [low, high], and its outputs there."""
    at = sorted({Fraction(low), Fraction(high)})
    for node in range(1, len(net.nodes) - 1):
        at = _refined(at, [evaluate(net, [x])[node] for x in at])
    return at, [evaluate(net, [x])[-1] for x in at]


def rows(spec: OutputSpec, values: Values) -> list[Values]:
    """Returns, for each disjunct, its rows a y - b at each place."""
    return [
        [
            [
                sum((Fraction(float(a)) * y for a, y in zip(row, point, strict=True)), Fraction(0)) - Fraction(float(b))
                for row, b in zip(matrix, offsets, strict=True)
            ]
            for point in values
        ]
        for matrix, offsets in spec.disjuncts
    ]


def margin(net: Network, low: float, high: float, spec: OutputSpec) -> Fraction:
    """Returns the least value over an interval of any disjunct's largest row; the property holds if it is above 0."""
    at, values = outputs(net, low, high)
    least: list[Fraction] = []
    for disjunct in rows(spec, values):
        least += [max(point) for point in disjunct]
        for index in range(len(at) - 1):
            for i, j in itertools.combinations(range(len(disjunct[0])), 2):
                here, there = disjunct[index], disjunct[index + 1]
                one, other = here[i] - here[j], there[i] - there[j]
                if one * other < 0:
                    share = one / (one - other)
                    least.append(max(a + share * (b - a) for a, b in zip(here, there, strict=True)))
    return min(least)


def draw(rng: np.random.Generator) -> tuple[Network, np.float32, np.float32]:
    """Draws a network of one input with weights of one size, whole ones, or ones of all sizes; and an interval."""
    exponents = [(0, 0), (-30, 12), (-45, 3), (-8, 8)][int(rng.integers(4))]
    whole = rng.random() < 0.25

    def numbers(*shape: int) -> Float64Array:
        values = (
            rng.integers(-3, 4, shape) if whole else rng.normal(size=shape) * 10.0 ** rng.uniform(*exponents, shape)
        )
        rounded: Float64Array = np.asarray(values, dtype=np.float32).astype(np.float64)
        return rounded

    widths = [1, *rng.integers(1, 5, int(rng.integers(1, 4))).tolist(), int(rng.integers(1, 4))]
    if rng.random() < 0.4:
        widths[1:-1] = [widths[1]] * len(widths[1:-1])
    weights = [numbers(m, n) for n, m in itertools.pairwise(widths)]
    net = network(weights, [numbers(m) * (rng.random(m) < 0.7) for m in widths[1:]], skips=bool(rng.random() < 0.5))
    size = 10.0 ** float(rng.choice([0, 0, 0, -20, 10, -40]))
    low = np.float32(rng.normal() * size)
    high = np.float32(low + np.float32(10.0 ** rng.uniform(-7, 1)) * max(abs(low), np.float32(1e-44)))
    if rng.random() < 0.1:
        low, high = np.float32(-1e-45), np.float32(1e-44)
    return net, low, max(high, np.nextafter(low, np.float32(np.inf)))


def tie(rng: np.random.Generator, net: Network, low: np.float32, high: np.float32) -> tuple[OutputSpec, Fraction]:
    """Draws one to three disjuncts of one to three rows, about at their exact margin; returns that, too."""
    size, spec = net.nodes[-1].size, OutputSpec(())
    for _ in range(int(rng.integers(1, 4))):
        count = int(rng.integers(1, 4))
        matrix = (
            rng.integers(-2, 3, (count, size)).astype(float) if rng.random() < 0.5 else rng.normal(size=(count, size))
        )
        at = Fraction(float(low)) + (Fraction(float(high)) - Fraction(float(low))) * Fraction(rng.random())
        (((point,),),) = [rows(OutputSpec(((matrix, np.zeros(count)),)), [evaluate(net, [at])[-1]])]
        spec = OutputSpec((*spec.disjuncts, (matrix, np.array([float(value) for value in point]))))
    scale = max(float(np.abs(offsets).max()) for _, offsets in spec.disjuncts)
    gap = float(rng.choice([0, 1, -1])) * 10.0 ** float(rng.choice([-16, -12, -9, -6])) * scale
    shift = float(margin(net, float(low), float(high), spec)) - gap
    moved = OutputSpec(tuple((matrix, offsets + shift) for matrix, offsets in spec.disjuncts))
    return moved, margin(net, float(low), float(high), moved)
