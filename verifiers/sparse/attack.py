"""Counterexamples: projected gradient descent on the reduced network, confirmed on the original one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verifiers.base import OutputSpec
from verifiers.sparse.network import Network
from verifiers.sparse.reduce import Reduced

Single = npt.NDArray[np.float32]

#: A point counts only if its margin is below 0 by so much of the outputs' scale: onnxruntime rounds otherwise. Nearer
#: to 0, float32 and float64 arithmetic must agree.
_MARGIN = 1e-6


def rows_at(net: Reduced, t: Single) -> tuple[Single, Single]:
    """Evaluates the reduced network at [n, P]: z [n, U] and the specification's rows [n, R]."""
    width = net.unstable
    z = t @ net.M.T
    z += net.c
    for start, stop in net.levels:
        if start:
            z[:, start:stop] += np.maximum(z[:, :start], 0) @ net.N[start:stop, :start].T
    z[:, width:] += np.maximum(z[:, :width], 0) @ net.N[width:].T
    return z[:, :width], z[:, width:]


def _gradient(net: Reduced, z: Single, weights: Single) -> Single:
    """Returns the gradient [n, P] of the weighted rows [n, R] at points with pre-activations z."""
    width = net.unstable
    mu = np.zeros((len(z), width + weights.shape[1]), dtype=np.float32)
    mu[:, width:] = weights
    for start, stop in reversed(net.levels):
        mu[:, start:stop] = (mu[:, stop:] @ net.N[stop:, start:stop]) * (z[:, start:stop] > 0)
    return mu @ net.M


def descend(
    net: Reduced, disjuncts: list[tuple[int, int]], t: Single, target: npt.NDArray[np.int64], steps: int
) -> tuple[Single, Single]:
    """Runs PGD with signs and a shrinking step on the largest row of each point's disjunct.

    Args:
        net: The network.
        disjuncts: Rows (start, stop) of each disjunct.
        t: Starts, [n, P] in [-1, 1].
        target: [n] the disjunct that each point is to fall into.
        steps: Gradient steps.

    Returns:
        The best points [n, P] and their margins [n]: least over all disjuncts of the largest row.
    """
    spans = np.array(disjuncts).reshape(-1, 2)
    t = t.copy()
    best, best_margin = t.copy(), np.full(len(t), np.inf, dtype=np.float32)
    row = np.arange(len(net.c) - net.unstable)
    member = (row >= spans[target][:, :1]) & (row < spans[target][:, 1:])
    for step in range(steps + 1):
        z, rows = rows_at(net, t)
        margin = np.min([rows[:, start:stop].max(axis=1) for start, stop in disjuncts], axis=0)
        better = margin < best_margin
        best[better], best_margin[better] = t[better], margin[better]
        if step == steps or best_margin.min() < 0:
            break
        largest = np.where(member, rows, -np.inf).argmax(axis=1)
        weights = np.zeros_like(rows)
        weights[np.arange(len(t)), largest] = 1.0
        size = np.float32(0.6 * (1 - step / max(steps, 1)) + 0.05)
        t = np.clip(t - size * np.sign(_gradient(net, z, weights)), -1, 1)
    return best, best_margin


def confirm(
    network: Network, spec: OutputSpec, lower: Single, upper: Single, points: npt.NDArray[np.float64]
) -> Single | None:
    """Returns the first point that, rounded to float32 in the box, is unsafe for the original network.

    Args:
        network: The original.
        spec: The unsafe set.
        lower: Lower corner, flat float32.
        upper: Upper corner.
        points: Candidates [n, inputs].
    """
    for point in points:
        x: Single = np.clip(point.astype(np.float32), lower, upper)
        y = network.evaluate(x[None])[0]
        scale = 1.0
        for a, b in spec.disjuncts:
            scale = max(scale, float((np.abs(a) @ np.abs(y) + np.abs(b)).max(initial=0.0)))
        values = [float((a @ y - b).max(initial=-np.inf)) for a, b in spec.disjuncts]
        lowest = min(values, default=np.inf)
        if lowest < -_MARGIN * scale or (lowest <= 0 and spec.violated_by(_single(network, x))):
            return x
    return None


def _single(network: Network, x: Single) -> Single:
    """Evaluates the network in float32."""
    values = [x]
    for node in network.nodes[1:]:
        total = node.bias.copy()
        for term in node.terms:
            value = values[term.source]
            total += term.matrix @ (np.maximum(value, 0) if term.activated else value)
        values.append(total)
    return values[-1]
