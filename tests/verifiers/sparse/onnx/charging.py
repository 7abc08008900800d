"""Whether what a file computes in rational arithmetic is within what its sparse network may stand for."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np

from prunecert.onnx.normal import UnsupportedNetworkError, normal_nodes
from prunecert.onnx.normalise import normalise
from prunecert.verifiers.sparse.network import WEIGHT_ERROR, Network
from prunecert.verifiers.sparse.onnx.reader import build as read_nodes
from tests.prunecert.onnx.graphs import build
from tests.prunecert.onnx.rationals import Exact, Harsh, SkippedError


def enclosed(network: Network, point: Any) -> list[tuple[Fraction, Fraction]]:
    """Returns the lowest and highest outputs of all networks that a sparse one may stand for, at one point."""
    values = [[(Fraction(float(x)), Fraction(float(x))) for x in point]]
    share, tiny = Fraction(WEIGHT_ERROR) / (1 - Fraction(WEIGHT_ERROR)), Fraction(2) ** -149
    for node in network.nodes[1:]:
        errors = [Fraction(float(error)) for error in node.bias_error]
        low = [Fraction(float(bias)) - error for bias, error in zip(node.bias, errors, strict=True)]
        high = [Fraction(float(bias)) + error for bias, error in zip(node.bias, errors, strict=True)]
        for term in node.terms:
            source = values[term.source]
            if term.activated:
                source = [(max(a, Fraction(0)), max(b, Fraction(0))) for a, b in source]
            for row, (begin, end) in enumerate(itertools.pairwise(term.matrix.indptr)):
                for entry in range(begin, end):
                    weight = Fraction(float(term.matrix.data[entry]))
                    off = Fraction(0) if term.exact else abs(weight) * share + tiny
                    ends = [w * x for w in (weight - off, weight + off) for x in source[term.matrix.indices[entry]]]
                    low[row], high[row] = low[row] + min(ends), high[row] + max(ends)
        values.append(list(zip(low, high, strict=True)))
    return values[-1]


def charged(seed: int, steps: int, largest: int = 30) -> bool:
    """Compares one random graph with its network; returns whether there was something to compare.

    Raises:
        AssertionError: What the file computes in rational arithmetic is outside of what the network may stand for.
    """
    writer = Harsh(np.random.default_rng(seed), largest)
    for _ in range(steps):
        writer.step()
    if not writer.nodes:
        return False
    name, rng = writer.nodes[-1].output[0], writer.rng
    point = np.where(rng.random(writer.entry) < 0.5, rng.standard_normal(writer.entry), rng.choice([0, 1, -1, 1e5]))
    point = point.astype(np.float32)
    try:
        form = normalise(build(writer.nodes, writer.constants, writer.entry, outputs=[name]))
        exact = Exact(writer, point).values[name].reshape(-1)
    except (UnsupportedNetworkError, ZeroDivisionError, SkippedError):
        return False
    nodes = normal_nodes(form.model)
    assert nodes is not None
    flat = point.reshape(-1) if form.input_order is None else point.reshape(-1)[form.input_order]
    for value, (low, high) in zip(exact, enclosed(read_nodes("random", nodes), flat), strict=True):
        assert low <= value <= high
    return True
