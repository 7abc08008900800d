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

from .files import RefusedError, need
from .nodes import Node

_UNIT, _TINY, _HUGE = 2.0**-53, 1e-150, 1e60


def _gamma(terms: float) -> float:
    return 1.01 * (terms + 4) * _UNIT


def _among(every: Any, coefs: Any, live: Any) -> Any:
    """Returns coefficients of all neurons of `every`, of which some are live."""
    whole = np.zeros((len(every), coefs.shape[1]))
    whole[np.searchsorted(every, live)] = coefs
    return whole


class Bounds:
    """Bounds lower <= v <= upper of the nodes' values v over a region: `open` a node, improve its bounds, `close` it.

    Args:
        nodes: Of the network, sources first.
        low: Lower corner of a box round the region, float64.
        high: Upper corner.
    """

    def __init__(self, nodes: list[Node], low: Any, high: Any) -> None:
        self._nodes, self._all = nodes, _gamma(2 * sum(node.size for node in nodes))
        self.lower, self.upper, self.largest = [low], [high], [np.maximum(abs(low), abs(high))]
        self._charges: dict[int, Any] = {}
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
                reaches.append(np.stack([radius + 1.01 * error * (abs(center) + radius), self.largest[source]]))
            middle, (reach, size) = node.forward(centers, np.asarray)[0] + node.bias, node.forward(reaches, abs)
            slack = (1 + 8 * error) * (reach + 1.01 * error * abs(node.bias)) + _TINY
            slack += 8 * _UNIT * (abs(middle) + slack)
            low, high = middle - slack, middle + slack
            # What a unit of a coefficient of this node costs in `below`: see there.
            self._charges[at] = 1.05 * (_gamma(node.terms[1]) + node.loose) * size + self._all * abs(node.bias)
        lower.append(low)
        upper.append(high)

    def close(self, at: int, site: bool) -> None:
        """Ends a node; over one that feeds ReLUs, draws lines below and above max(z, 0).

        Where lower >= 0 both lines are z, where upper <= 0 both are 0, and these are exact. Elsewhere any slope in
        [0, 1] gives a line below, through 0; and a line that is above max(z, 0) at both ends is so between them,
        because max(z, 0) is convex: that fixes the shift, which is rounded up.
        """
        low, high = self.lower[at], self.upper[at]
        self.largest.append(np.maximum(abs(low), abs(high)))
        need((self.largest[at] < _HUGE).all(), f"the values of node {at} are not bounded", RefusedError)
        if site:
            free, stable = (low < 0) & (high > 0), (low >= 0).astype(np.float64)
            slope = np.where(free, np.minimum(high / np.where(free, high - low, 1.0), 1.0), stable)
            shift = (1 + 8 * _UNIT) * np.maximum(-slope * low, (1 - slope) * high) + _TINY
            error = 2 * _UNIT * self.largest[at] + self._all * shift
            default = np.where(free, (high >= -low).astype(np.float64), stable)
            self.lines[at] = default, slope, np.where(free, shift, 0.0), np.where(free, error, 0.0)

    def below(self, start: int, rows: Any, stop: int, slopes: Any = None, splits: Any = None, box: Any = None) -> Any:
        """Bounds rows [B, size] of a node's value v from below, over the region or parts of it: CROWN, with α and β.

        Invariant: over its part of the region, in real arithmetic, each row of `rows` times v is at least the sum of
        coefs[k] times the value of node k, over all k, plus a constant C, where C >= constant - error. A column is a
        row's; coefficients of neurons that aren't live are 0. Each step replaces one node's value by its sources':

        - z = W a + b: μ z = (μ W) a + μ b. The computed μ W is off by γ |μ| |W|, and by loose |μ| |W|, which times |a|
          is charged. Constants are one long sum of less than 2**40 products: `_all` of their magnitudes is charged.
        - a = max(z, 0), λ >= 0: λ a >= μ z for 0 <= μ <= λ; slopes in [0, 1] give such a μ, however rounded.
        - λ < 0: λ a >= λ (slope z + shift), line above; λ slope is off by a unit, which times |z| is charged.
        - a = 0 all over the region: λ a = 0, whatever λ is, which is left out.
        - z >= 0 by a split: λ a = λ z >= μ z for any μ <= λ. z <= 0 by a split: λ a = 0 >= μ z for any μ >= 0.
        - Two contributions to a coefficient are added, which is off by a unit of the sum, charged times |v|.

        What is left at `stop` and before takes its least value within the bounds of the nodes.

        Every μ is seen to be below `_HUGE`. So λ, a sum of at most 2**24 products of μ and weights for each node that
        uses a, is finite, and all that is made of it before the next μ is seen.

        Args:
            start: The node.
            rows: Taken as exact.
            stop: Nodes up to this one are not replaced; 0 is the input.
            slopes: [B, S] for the neurons in `slots`, each in [0, 1]; None: default lines.
            splits: For each node that feeds ReLUs: row, neuron, sign and multiplier >= 0 of its splits.
            box: For each row, corners [B, inputs] of a box round its part.
        """
        live, splits = np.flatnonzero(rows.any(axis=0)), splits or {}
        coefs, nothing = {start: (rows.T[live], live)}, (np.zeros((0, len(rows))), np.zeros(0, dtype=int))
        constant, error, most = np.zeros((3, len(rows)))
        for at in range(start, stop, -1):
            (mu, live), node = coefs.pop(at, nothing), self._nodes[at]
            if not len(live) and not (node.relu and node.sources[0] in splits):
                continue
            if node.relu:
                mu, live, more, charge = self._through(node.sources[0], mu, live, slopes, splits)
                constant, error, parts = constant + more, error + charge, [(mu, live)]
            else:
                size = abs(mu)
                most = np.maximum(most, size.max(axis=0, initial=0.0))
                constant, error = constant + node.bias[live] @ mu, error + self._charges[at][live] @ size
                parts = node.backward(mu, live, [self._needed(source, splits) for source in node.sources])
            for source, (part, units) in zip(node.sources, parts, strict=True):
                if source in coefs:
                    other, there = coefs[source]
                    every = np.union1d(there, units)
                    part, units = _among(every, other, there) + _among(every, part, units), every
                    error += _UNIT * self.largest[source][units] @ abs(part)
                if len(units):
                    coefs[source] = part, units
        for at, (mu, live) in coefs.items():
            ends, size = (self.lower[at], self.upper[at]) if at or box is None else box, abs(mu)
            low, high = (end.T[live].reshape(len(live), -1) for end in ends)
            most = np.maximum(most, size.max(axis=0, initial=0.0))
            constant += (mu * np.where(mu > 0, low, high)).sum(axis=0)
            error += self._all * (self.largest[at][live] @ size)
        slack = 1.01 * error + _TINY
        bound = constant - slack - 8 * _UNIT * (abs(constant) + slack)
        return np.where((most < _HUGE) & np.isfinite(bound), bound, -np.inf)

    def _needed(self, at: int, splits: Any) -> Any:
        """Returns which neurons of a node aren't 0 all over the region, as those of a ReLU often are, or are split."""
        node, needed = self._nodes[at], (self.upper[at] > 0) | (not self._nodes[at].relu)
        if node.relu and node.sources[0] in splits:
            needed[splits[node.sources[0]][1]] = True
        return needed

    def _through(self, site: int, mu: Any, live: Any, slopes: Any, splits: Any) -> tuple[Any, Any, Any, Any]:
        """Returns coefficients of z, whose they are, constants and errors, for coefficients `mu` of a = max(z, 0)."""
        (default, slope, shift, charge), (first, own) = self.lines[site], self.slots.get(site, (0, ()))
        alpha, lined = default[:, None], shift > 0
        if slopes is not None and len(own):
            alpha = np.tile(alpha, len(slopes))
            alpha[own], lined[own] = slopes.T[first : first + len(own)], True
        row, neuron, sign, beta = splits.get(site, ((), [], (), ()))
        lined[neuron] = True
        kept = ((default > 0) | lined)[live]
        mu, live = mu[kept], live[kept]
        if site in splits:
            every = np.union1d(live, neuron)
            mu, live, place = _among(every, mu, live), every, np.searchsorted(every, neuron)
            lam, mu[place, row] = mu[place, row], 0.0
        at = np.flatnonzero(lined[live])
        falling, neurons = np.minimum(mu[at], 0.0), live[at]
        through = mu * default[live, None]
        through[at] = (mu[at] - falling) * alpha[neurons] + falling * slope[neurons, None]
        if site in splits:
            through[place, row] = np.where(sign > 0, np.minimum(lam - beta, lam), beta)
        return through, live, shift[neurons] @ falling, charge[neurons] @ abs(falling)
