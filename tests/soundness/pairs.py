"""Pairs of small networks, and questions about them whose exact answer is known and lies near the threshold.

The second network is the first with its smallest weights left out and the others changed a little, as pruning and
fine-tuning do. Joined they are one network of the oracle's, whose programmes give the largest difference of an output
over a box, and the most that the first network is sure of a class by where the second leaves it. Thresholds are put a
little above and a little below either, so that every question has a certain answer.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import helper, numpy_helper

from prunecert.verifiers.base import FloatArray, OutputSpec, Status
from prunecert.verifiers.sparse.pairs.specification import difference, same_class
from tests.soundness.networks import Add, Affine, Network, Relu, Rng, conv_matrix
from tests.soundness.oracle import Programme
from tests.soundness.questions import FAMILIES

#: Thresholds, as multiples of the exact one: below 1 the property is broken.
FACTORS = (0.9, 0.99, 1.01, 1.1)
#: Families of the soundness suite whose pairs the oracle solves at once.
CHOSEN = ("fc", "fc-deep", "fc-pruned-80", "fc-dead-units", "conv", "skip", "conv-skip")


def twin(net: Network, rng: Rng, dropped: float, noise: float) -> Network:
    """Returns a network of the same architecture: a share of each layer's weights is 0, the others are changed.

    Args:
        net: The first network.
        rng: For the changes.
        dropped: Share of the smallest weights.
        noise: Deviation of the change, of a weight's mean magnitude.
    """
    other = Network(f"{net.name} twin", net.shape)
    other.nodes, other.shapes, other.onnx_nodes = list(net.nodes), list(net.shapes), list(net.onnx_nodes)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in net.weights}
    for name, value in values.items():
        if value.ndim > 1:
            size = np.abs(value)
            changed = value + noise * size.mean() * rng.normal(size=value.shape)
            changed[size <= np.quantile(size, dropped)] = 0.0
            values[name] = changed.astype(np.float32)
        else:
            values[name] = (value + 0.5 * noise * np.abs(value).mean() * rng.normal(size=value.shape)).astype(np.float32)
    for index, node in enumerate(net.onnx_nodes):
        if node.op_type not in ("Gemm", "Conv"):
            continue
        weight, bias = (values[name].astype(np.float64) for name in node.input[1:])
        old = net.nodes[index]
        assert isinstance(old, Affine)
        if node.op_type == "Conv":
            attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
            shape = net.shapes[int(node.input[0][1:])]
            weight, _ = conv_matrix(weight, shape, attributes["strides"][0], attributes["pads"][0])
            bias = np.repeat(bias, len(old.shift) // len(bias))
        other.nodes[index] = Affine(old.source, weight, bias)
    other.weights = [numpy_helper.from_array(values[tensor.name], tensor.name) for tensor in net.weights]
    return other


def together(first: Network, second: Network) -> Network:
    """Returns both on one input, with the outputs of the first and then those of the second; it can't be saved."""
    both = Network(f"{first.name} pair", first.shape)
    ends = []
    for net in (first, second):
        place = {0: 0}
        for index, node in enumerate(net.nodes, start=1):
            match node:
                case Affine(source, matrix, shift):
                    moved: Affine | Relu | Add = Affine(place[source], matrix, shift)
                case Relu(source):
                    moved = Relu(place[source])
                case Add(left, right):
                    moved = Add(place[left], place[right])
            both.nodes.append(moved)
            both.shapes.append(net.shapes[index])
            place[index] = len(both.nodes)
        ends.append(len(both.nodes))
    for end, start in zip(ends, (0, first.classes), strict=True):
        placed = np.zeros((first.classes + second.classes, first.classes))
        placed[start + np.arange(first.classes), np.arange(first.classes)] = 1.0
        both.nodes.append(Affine(end, placed, np.zeros(len(placed))))
        both.shapes.append((len(placed),))
    both.nodes.append(Add(len(both.nodes) - 1, len(both.nodes)))
    both.shapes.append(both.shapes[-1])
    return both


@dataclass(frozen=True, eq=False)
class PairQuestion:
    """One question with its exact answer.

    Args:
        name: Networks, kind and threshold.
        first: The first network.
        second: The second.
        both: The two as one.
        lower: Float32 corner, flat.
        upper: Likewise.
        spec: Unsafe outputs of both.
        truth: The answer.
    """

    name: str
    first: Network
    second: Network
    both: Network
    lower: FloatArray
    upper: FloatArray
    spec: OutputSpec
    truth: Status

    def files(self, folder: Path) -> tuple[Path, Path]:
        """Writes both networks."""
        stem = f"{zlib.crc32(self.first.name.encode()):08x}"
        first, second = folder / f"{stem}a.onnx", folder / f"{stem}b.onnx"
        return self.first.save(first), self.second.save(second)


def largest_difference(programme: Programme, outputs: int) -> float:
    """Returns the exact largest |y' - y| of any output over the programme's box."""
    spec = difference(1.0, outputs)
    return max(-programme.margin(a, np.zeros(1)).high for a, _ in spec.disjuncts)


def surest_change(programme: Programme, outputs: int) -> float | None:
    """Returns by how much the first network can prefer a class that the second doesn't; None if it never leaves one."""
    e, f = programme.output
    best: float | None = None
    for rows, _ in same_class(outputs).disjuncts:
        cost = programme.unit(programme.objective)
        constraints = [row @ e - cost for row in rows[:-1]] + [rows[-1] @ e]
        solved = programme.solve(constraints, [float(-row @ f) for row in rows])
        if solved is not None and (best is None or -solved[0] > best):
            best = float(-solved[0])
    return best


def questions(count: int, families: Sequence[str] = CHOSEN) -> Iterator[PairQuestion]:
    """Yields so many questions, the same ones each time.

    Args:
        count: How many.
        families: Of networks.
    """
    yielded = 0
    for number in range(10_000):
        for one in _of(families[number % len(families)], number):
            if yielded == count:
                return
            yielded += 1
            yield one


@functools.cache
def _of(family: str, number: int) -> tuple[PairQuestion, ...]:
    """Returns questions about one pair."""
    rng = np.random.default_rng([zlib.crc32(family.encode()), number])
    first = FAMILIES[family](f"{family} {number}", rng).balance(rng)
    second = twin(first, rng, dropped=float(rng.choice([0.0, 0.2, 0.5])), noise=float(rng.choice([0.02, 0.1])))
    both = together(first, second)
    center, radius = rng.random(first.inputs), float(rng.choice([0.03, 0.1]))
    lower = np.clip(center - radius, 0, 1).astype(np.float32)
    upper = np.clip(center + radius, 0, 1).astype(np.float32)
    programme = Programme(both, lower.astype(np.float64), upper.astype(np.float64))
    outputs = first.classes
    result = []

    def add(what: str, factor: float, spec: OutputSpec) -> None:
        truth = Status.UNSAT if factor > 1 else Status.SAT
        result.append(PairQuestion(f"{first.name}: {what} x{factor}", first, second, both, lower, upper, spec, truth))

    exact = largest_difference(programme, outputs)
    # Thresholds that float32 arithmetic can't tell from the exact one are of no use.
    if exact > 1e-2:
        for factor in FACTORS:
            add("difference", factor, difference(exact * factor, outputs))
    sure = surest_change(programme, outputs)
    if sure is not None and sure > 1e-2:
        for factor in FACTORS:
            add("class", factor, same_class(outputs, sure * factor))
    return tuple(result)
