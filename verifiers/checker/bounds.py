"""Bounds that hold in real arithmetic, computed in float64 with every rounding error on the safe side.

**Lemma (sums).** A sum of n products, as a machine computes it, in whatever order, with or without fused multiply-adds,
errs by at most γ_n Σ|x_i y_i| + n η. Here γ_n = n u / (1 - n u), u = 2**-53 (Higham 2002, section 3.1), `_gamma(n)` is
above it for n < 2**40, and η = 2**-1021 covers underflow, whether flushed to 0 or not. So a sum of products >= 0 is at
least the exact one after multiplication by 1.01, but for underflow. All underflow together, times what it meets later,
is below `_TINY`, because every number in use is below `_HUGE` in magnitude (else nothing is proved).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .files import RefusedError
from .nodes import Node

_UNIT, _TINY, _HUGE = 2.0**-53, 1e-150, 1e60


def _gamma(terms: float) -> float:
    return 1.01 * (terms + 4) * _UNIT


class Bounds:
    """Bounds lower <= v <= upper of the nodes' values v over a region: `open` a node, improve its bounds, `close` it.

    Args:
        nodes: Of the network, sources first.
        low: Lower corner of a box round the region, float64.
        high: Upper corner.
    """

    def __init__(self, nodes: list[Node], low: Any, high: Any) -> None:
        self._nodes, self._all = nodes, _gamma(2 * sum(node.size for node in nodes))
        self.lower, self.upper, self.largest, self._charges = [low], [high], [np.maximum(abs(low), abs(high))], [low]
        #: Of nodes that feed ReLUs: slopes of lines below, slopes and shifts of lines above, errors of the latter.
        self.lines: dict[int, tuple[Any, Any, Any, Any]] = {}
        #: Of those, neurons whose slopes below are given row by row, and where these begin among the given ones.
        self.slots: dict[int, tuple[int, Any]] = {}

    def open(self, at: int) -> None:
        """Bounds a node by intervals.

        A ReLU is monotone and rounds nothing. Else let a source's value be c + d with |d| <= r: c is a float, and r is
        at least c's distance from both ends. The node is then within |W| r of W c + b, and the computed W c + b, a sum
        of n + 1 products, within γ (|W| |c| + |b|) of that; weights that are within a relative `loose` of those meant
        add loose |W| (|c| + r). The last lines round, too: 8 units cover it.
        """
        node, lower, upper = self._nodes[at], self.lower, self.upper
        if node.relu:
            low, high = np.maximum(lower[node.sources[0]], 0.0), np.maximum(upper[node.sources[0]], 0.0)
        else:
            error, centers, reaches = _gamma(node.terms[0] + 1) + node.loose, [], []
            for source in node.sources:
                center = 0.5 * lower[source] + 0.5 * upper[source]
                radius = (1 + 8 * _UNIT) * np.maximum(upper[source] - center, center - lower[source]) + _TINY
                centers.append(center[None])
                reaches.append((radius + 1.01 * error * (abs(center) + radius))[None])
            middle = node.forward(centers, np.asarray)[0] + node.bias
            slack = (1 + 8 * error) * (node.forward(reaches, abs)[0] + 1.01 * error * abs(node.bias)) + _TINY
            slack += 8 * _UNIT * (abs(middle) + slack)
            low, high = middle - slack, middle + slack
        lower.append(low)
        upper.append(high)
        # What a unit of a coefficient of this node costs in `below`: see there.
        sizes = [self.largest[source][None] for source in node.sources]
        error = 1.05 * (_gamma(node.terms[1]) + node.loose)
        self._charges.append(low if node.relu else error * node.forward(sizes, abs)[0] + self._all * abs(node.bias))

    def close(self, at: int, site: bool) -> None:
        """Ends a node; over one that feeds ReLUs, draws lines below and above max(z, 0).

        Where lower >= 0 both lines are z, where upper <= 0 both are 0, and these are exact. Elsewhere any slope in
        [0, 1] gives a line below, through 0; and a line that is above max(z, 0) at both ends is so between them,
        because max(z, 0) is convex: that fixes the shift, which is rounded up.
        """
        low, high = self.lower[at], self.upper[at]
        self.largest.append(np.maximum(abs(low), abs(high)))
        if not (self.largest[at] < _HUGE).all():
            raise RefusedError(f"the values of node {at} are not bounded")
        if site:
            free, stable = (low < 0) & (high > 0), (low >= 0).astype(np.float64)
            slope = np.where(free, np.minimum(high / np.where(free, high - low, 1.0), 1.0), stable)
            shift = (1 + 8 * _UNIT) * np.maximum(-slope * low, (1 - slope) * high) + _TINY
            error = 2 * _UNIT * self.largest[at] + self._all * shift
            default = np.where(free, (high >= -low).astype(np.float64), stable)
            self.lines[at] = default, slope, np.where(free, shift, 0.0), np.where(free, error, 0.0)

    def below(
        self,
        start: int,
        rows: Any,
        stop: int,
        slopes: Any = None,
        splits: dict[int, Any] | None = None,
        box: Any = None,
    ) -> Any:
        """Bounds rows [B, size] of a node's value v from below, over the region or parts of it: CROWN, with α and β.

        Invariant: over its part of the region, in real arithmetic, each row of `rows` times v is at least the sum of
        coefs[k] times the value of node k, over all k, plus a constant C, where C >= constant - error. Each step
        replaces one node's value by its sources':

        - z = W a + b: μ z = (μ W) a + μ b. The computed μ W is off by γ |μ| |W|, and by loose |μ| |W|, which times |a|
          is charged. Constants are one long sum of less than 2**40 products: `_all` of their magnitudes is charged.
        - a = max(z, 0), λ >= 0: λ a >= μ z for 0 <= μ <= λ; slopes in [0, 1] give such a μ, however rounded.
        - λ < 0: λ a >= λ (slope z + shift), line above; λ slope is off by a unit, which times |z| is charged.
        - z >= 0 by a split: λ a = λ z >= μ z for any μ <= λ. z <= 0 by a split: λ a = 0 >= μ z for any μ >= 0.
        - Two contributions to a coefficient are added, which is off by a unit of the sum, charged times |v|.

        What is left at `stop` and before takes its least value within the bounds of the nodes.

        Args:
            start: The node.
            rows: Taken as exact.
            stop: Nodes up to this one are not replaced; 0 is the input.
            slopes: [B, S] for the neurons in `slots`, each in [0, 1]; None: default lines.
            splits: For each node that feeds ReLUs: row, neuron, sign and multiplier >= 0 of its splits.
            box: For each row, corners [B, inputs] of a box round its part.
        """
        coefs, node_sizes = {start: rows}, self.largest
        constant, error, most = np.zeros((3, len(rows)))
        for at in range(start, stop, -1):
            if at not in coefs:
                continue
            mu, node = coefs.pop(at), self._nodes[at]
            most = np.maximum(most, abs(mu).max(axis=1))
            if node.relu:
                default, slope, shift, charge = self.lines[node.sources[0]]
                falling, first, own = np.minimum(mu, 0.0), *self.slots.get(node.sources[0], (0, ()))
                if slopes is not None and len(own):
                    default = np.tile(default, (len(rows), 1))
                    default[:, own] = slopes[:, first : first + len(own)]
                through = (mu - falling) * default + falling * slope
                if splits and node.sources[0] in splits:
                    row, neuron, sign, beta = splits[node.sources[0]]
                    lam, falling[row, neuron] = mu[row, neuron], 0.0
                    through[row, neuron] = np.where(sign > 0, np.minimum(lam - beta, lam), beta)
                constant, error, parts = constant + falling @ shift, error + abs(falling) @ charge, [through]
            else:
                parts = node.backward(mu)
                constant, error = constant + mu @ node.bias, error + abs(mu) @ self._charges[at]
            for source, part in zip(node.sources, parts, strict=True):
                if source in coefs:
                    part = coefs[source] + part
                    error += _UNIT * abs(part) @ node_sizes[source]
                coefs[source] = part
        for at, mu in coefs.items():
            low, high = (self.lower[at], self.upper[at]) if at or box is None else box
            most = np.maximum(most, abs(mu).max(axis=1))
            constant += np.where(mu > 0, mu * low, mu * high).sum(axis=1)
            error += self._all * (abs(mu) @ node_sizes[at])
        slack = 1.01 * error + _TINY
        bound = constant - slack - 8 * _UNIT * (abs(constant) + slack)
        return np.where((most < _HUGE) & np.isfinite(bound), bound, -np.inf)
