"""Small rows of a specification in second-order form, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.arrays import Float64Array, Int8Array, Int64Array
from prunecert.verifiers.sparse.bab.quadratic.last_layer import LastLayer
from prunecert.verifiers.sparse.bab.quadratic.phases import Phase, split
from prunecert.verifiers.sparse.bab.quadratic.tree import Subject
from prunecert.verifiers.sparse.network import Network
from tests.verifiers.sparse.searching import Prepared, draw

KINDS = ("fc", "conv", "skip", "conv-skip")


class Small(NamedTuple):
    """A question, its network and its box."""

    subject: Subject
    network: Network
    low: Float64Array
    high: Float64Array

    def points(self, rng: np.random.Generator, count: int) -> Float64Array:
        """Draws points of the box, half of them at corners."""
        points = rng.uniform(self.low, self.high, (count, len(self.low)))
        corners = rng.random((count // 2, len(self.low))) < 0.5
        points[: count // 2] = np.where(corners, self.low, self.high)
        return points

    def values(self, points: Float64Array) -> Float64Array:
        """Returns the row's values there."""
        result: Float64Array = self.network.evaluate(points) @ self.subject.row + self.subject.constant
        return result

    def neurons(self, points: Float64Array) -> Float64Array:
        """Returns the unstable neurons' values there, [points, U]."""
        nodes = self.network.forward(points)
        net = self.subject.net
        return np.stack([nodes[node][:, place] for node, place in zip(net.nodes, net.indices, strict=True)], axis=1)


def small(kind: str, seed: int, folder: Path, radius: float = 0.3) -> Small:
    """Draws a question with unstable neurons."""
    drawn, network = draw(kind, seed, folder)
    rng = np.random.default_rng(seed)
    center = rng.random(drawn.inputs)
    low, high = ((center + side * radius).astype(np.float32).astype(np.float64) for side in (-1, 1))
    prepared = Prepared(network, low, high, OutputSpec.robustness(0, drawn.classes))
    row = rng.normal(size=drawn.classes)
    # Chords, which are the best lines for half of them.
    slopes = (prepared.net.upper / (prepared.net.upper - prepared.net.lower)).astype(np.float64)
    subject = Subject(prepared.checker, prepared.bounds, prepared.net, row, float(rng.normal()), slopes)
    return Small(subject, network, low, high)


def parted(subject: Subject, signs: Int8Array, order: Int64Array | None = None) -> tuple[LastLayer, Int8Array]:
    """Returns the layer where some phases are fixed, [U], and its neurons' phases; splits in this order of places."""
    layer, fixed = subject.layer(), list[Phase]()
    places = np.flatnonzero(signs[: subject.net.levels[-1][0]]) if order is None else order
    for place in places.tolist():
        fixed.append(subject.phase(place, int(signs[place]), subject.drawn(place), fixed))
        layer = split(layer, fixed[-1])
    return layer, subject.phases(signs, fixed)


def phases(rng: np.random.Generator, values: Float64Array, share: float = 0.4) -> Int8Array:
    """Draws phases that a point has, of some neurons; others are 0."""
    signs = np.where(values > 0, 1, -1) * (rng.random(len(values)) < share)
    return signs.astype(np.int8)
