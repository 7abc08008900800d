"""Bounds that hold in real arithmetic, computed in float64 with every rounding error on the safe side.

**Lemma (sums).** A sum of n products, as a machine computes it, in whatever order, with or without fused multiply-adds,
errs by at most γ_n Σ|x_i y_i| + n η. Here γ_n = n u / (1 - n u), u = 2**-53 (Higham 2002, section 3.1), `gamma(n)` is
above it for n < 2**40, and η = 2**-1021 covers underflow, whether flushed to 0 or not. So a sum of products >= 0 is at
least the exact one after multiplication by 1.01, but for underflow. All underflow together, times what it meets later,
is below `TINY`, because every number in use is below `HUGE` in magnitude (else nothing is proved).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .files import RefusedError, need
from .nodes import Node

UNIT, TINY, HUGE = 2.0**-53, 1e-150, 1e60


def gamma(terms: float) -> float:
    """Returns no less than γ of so many terms."""
    return 1.01 * (terms + 4) * UNIT


def ball(low: Any, high: Any) -> tuple[Any, Any]:
    """Returns centers of intervals, and radii that are at least their distances from both ends."""
    center = 0.5 * low + 0.5 * high
    return center, (1 + 8 * UNIT) * np.maximum(high - center, center - low) + TINY


class Bounds:
    """Bounds lower <= v <= upper of the nodes' values v over a region: `add` a node, improve its bounds, add the next.

    Args:
        nodes: Of the network, sources first.
        low: Lower corner of a box round the region, float64.
        high: Upper corner.
    """

    def __init__(self, nodes: list[Node], low: Any, high: Any) -> None:
        self._nodes, self.every = nodes, gamma(2 * sum(node.size for node in nodes))
        self.lower, self.upper, self._charges = [low], [high], [np.zeros(len(low))]
        need((self.largest(0) < HUGE).all(), "the inputs are not bounded", RefusedError)
        #: Of nodes that feed ReLUs: neurons whose slopes below are given row by row, and where these begin among them.
        self.slots: dict[int, tuple[int, Any]] = {}

    def largest(self, at: int, live: Any = slice(None)) -> Any:
        """Returns a bound on the magnitudes of a node's value, or of some of its neurons."""
        return np.maximum(abs(self.lower[at][live]), abs(self.upper[at][live]))

    def add(self) -> None:
        """Bounds the next node by intervals.

        A ReLU is monotone and rounds nothing. Else let a source's value be c + d with |d| <= r: c is a float, and r is
        at least c's distance from both ends. The node is then within |W| r of W c + b, and the computed W c + b, a sum
        of n + 1 products, within γ (|W| |c| + |b|) of that; weights that are within a relative `loose` of those meant
        add loose |W| (|c| + r). The last lines round, too: 8 units cover it.
        """
        at, node = len(self.lower), self._nodes[len(self.lower)]
        if node.relu:
            low, high = (np.maximum(ends[node.sources[0]], 0.0) for ends in (self.lower, self.upper))
            charge = np.zeros(node.size)
        else:
            error, centers, reaches = gamma(node.terms[0] + 1) + node.loose, [], []
            for source in node.sources:
                center, radius = ball(self.lower[source], self.upper[source])
                centers.append(center[None])
                reaches.append(np.stack([radius + 1.01 * error * (abs(center) + radius), self.largest(source)]))
            middle, (reach, size) = node.forward(centers, np.asarray)[0] + node.bias, node.forward(reaches, abs)
            slack = (1 + 8 * error) * (reach + 1.01 * error * abs(node.bias)) + TINY
            slack += 8 * UNIT * (abs(middle) + slack)
            low, high = middle - slack, middle + slack
            # What a unit of a coefficient of this node costs in `below`: see there.
            charge = 1.05 * (gamma(node.terms[1]) + node.loose) * size + self.every * abs(node.bias)
        self.lower.append(low)
        self.upper.append(high)
        self._charges.append(charge)
        need((self.largest(at) < HUGE).all(), f"the values of node {at} are not bounded", RefusedError)

    def below(self, start: int, rows: Any, stop: int, slopes: Any = None, splits: Any = (), box: Any = None) -> Any:
        """Bounds rows [B, size] of a node's value v from below, over the region or parts of it: CROWN, with α and β.

        Invariant: over its part of the region, in real arithmetic, each row of `rows` times v is at least the sum of
        mu times the value of node k, over all k whose coefficients mu are still among `parts`, plus a constant C, where
        C >= constant - error. A column is a row's; coefficients of neurons that aren't in `live` are 0. Each step
        replaces one node's value by its sources':

        - z = W a + b: μ z = (μ W) a + μ b. The computed μ W is off by γ |μ| |W|, and by loose |μ| |W|, which times |a|
          is charged. Constants are one long sum of less than 2**40 products: `every` of their magnitudes is charged.
        - a = max(z, 0): see `through`. Contributions to a coefficient are added: see `_sum`.
        - z >= 0 by a split, or z <= 0: β z, or -β z, may be taken off for any β >= 0.

        What is left at `stop` and before takes its least value within the bounds of the nodes.

        Every μ is seen to be below `HUGE`. So the next ones, sums of at most 2**24 products of μ and weights for each
        node that uses a value, are finite, and all that is made of them before they are seen.

        Args:
            start: The node.
            rows: Taken as exact.
            stop: Nodes up to this one are not replaced; 0 is the input.
            slopes: [B, S] for the neurons in `slots`, each in [0, 1]; None: default lines.
            splits: For each node that feeds ReLUs: signs of splits, 0 where there is none, and multipliers >= 0, both
                [size, B].
            box: For each row, corners [B, inputs] of a box round its part.
        """
        parts = {}
        for site, (signs, multipliers) in dict(splits).items():
            live = np.flatnonzero(signs.any(axis=1))
            parts[site] = [(-signs[live] * multipliers[live], live)]
        lines = partial(self.through, slopes=slopes, splits=splits)
        constant, error, holds, left = self._back(start, rows, stop, lines, parts)
        for at, mu, live in left:
            ends = (self.lower[at], self.upper[at]) if at or box is None else box
            low, high = (end.T[live].reshape(len(live), -1) for end in ends)
            constant += (mu * np.where(mu > 0, low, high)).sum(axis=0)
            error += self.every * (self.largest(at, live) @ abs(mu))
        slack = 1.01 * error + TINY
        bound = constant - slack - 8 * UNIT * (abs(constant) + slack)
        return np.where(holds & np.isfinite(bound), bound, -np.inf)

    def forms(self, start: int, rows: Any, lines: Callable[..., Any], low: Any, high: Any) -> Any:
        """Writes rows [B, size] of a node's value v as affine functions of t, over the box [low, high] or parts of it.

        The input is x = c + r t with t in [-1, 1]; r is at least c's distance from both ends. What is computed for c
        and r times a coefficient is off by a unit each, and the constants are one long sum. Else it is as in `below`,
        where all steps are equalities but for rounding and ReLUs, which are the business of `lines`.

        Returns:
            Coefficients [B, inputs], constants [B], and how far a row may be from that: infinite if it isn't known.
        """
        constant, error, holds, left = self._back(start, rows, 0, lines, {})
        coefficients, (center, radius) = np.zeros((len(low), len(rows))), ball(low, high)
        for _, mu, live in left:
            coefficients[live] = mu * radius[live, None]
            constant += center[live] @ mu
            error += (2 * self.every + 8 * UNIT) * (np.maximum(abs(low), abs(high))[live] @ abs(mu))
        error = 1.01 * error + TINY
        return coefficients.T, constant, np.where(holds & np.isfinite(error + constant), error, np.inf)

    def _back(self, start: int, rows: Any, stop: int, lines: Callable[..., Any], parts: dict[int, Any]) -> Any:
        """Replaces nodes by their sources, from `start` to `stop`, as `below` says; `parts` are there beforehand.

        Returns:
            Constants, errors and whether the invariant holds, of each row; what is left: nodes, coefficients, whose.
        """
        constant, error, most = np.zeros((3, len(rows)))
        live, nothing = np.flatnonzero(rows.any(axis=0)), (np.zeros((0, len(rows))), np.zeros(0, dtype=int))
        parts, left = {start: [(rows.T[live], live)], **parts}, []
        for at in range(start, -1, -1):
            node, (mu, live, charge) = self._nodes[at], self._sum(at, parts.get(at, [nothing]))
            if not len(live):
                continue
            size = abs(mu)
            error, most = error + charge, np.maximum(most, size.max(axis=0, initial=0.0))
            if at <= stop:
                left.append((at, mu, live))
                continue
            if node.relu:
                through, live, more, charge = lines(node.sources[0], mu, live)
                sources = [(through, live)]
            else:
                more, charge = node.bias[live] @ mu, self._charges[at][live] @ size
                needed = [(self.upper[source] > 0) | (not self._nodes[source].relu) for source in node.sources]
                sources = node.backward(mu, live, needed)
            constant, error = constant + more, error + charge
            for source, part in zip(node.sources, sources, strict=True):
                parts.setdefault(source, []).append(part)
        return constant, error, most < HUGE, left

    def _sum(self, at: int, parts: list[tuple[Any, Any]]) -> tuple[Any, Any, Any]:
        """Adds contributions to coefficients of a node: the sums, whose they are, and what their rounding costs.

        Each addition of n contributions is off by a unit of the sum so far, n units of all their magnitudes in all,
        times |v|; a contribution alone is what it is.
        """
        if len(parts) == 1:
            return *parts[0], 0.0
        live = np.unique(np.concatenate([own for _, own in parts]))
        total, sizes = np.zeros((2, len(live), parts[0][0].shape[1]))
        for part, own in parts:
            place = np.searchsorted(live, own)
            total[place] += part
            sizes[place] += abs(part)
        return total, live, len(parts) * UNIT * (self.largest(at, live) @ sizes)

    def through(self, site: int, mu: Any, live: Any, slopes: Any, splits: Any) -> tuple[Any, Any, Any, Any]:
        """Replaces coefficients λ of a = max(z, 0) by those of z: these, whose they are, constants and errors.

        Where lower >= 0, z is a line below a and above it, where upper <= 0 it is 0. Elsewhere any slope in [0, 1]
        gives a line below, through 0; and a line that is above max(z, 0) at both ends is so between them, because
        max(z, 0) is convex: that fixes the shift, which is rounded up.

        - λ >= 0: λ a >= μ z for 0 <= μ <= λ; slopes in [0, 1] give such a μ, however rounded.
        - λ < 0: λ a >= λ (slope z + shift), line above; λ slope is off by a unit, which times |z| is charged.
        - a = 0 all over the region: λ a = 0, whatever λ is, which is left out.
        - z >= 0 by a split: a = z. z <= 0 by a split: a = 0. Both lines are exact.
        """
        live, mu = (every[self.upper[site][live] > 0] for every in (live, mu))
        alpha = self.slopes(site, slopes)
        free = np.flatnonzero(self.lower[site][live] < 0)
        low, high = self.lower[site][live[free]], self.upper[site][live[free]]
        slope = np.ones((len(live), 1))
        slope[free, 0] = above = np.minimum(high / (high - low), 1.0)
        shift = (1 + 8 * UNIT) * np.maximum(-above * low, (1 - above) * high) + TINY
        charge = 2 * UNIT * np.maximum(-low, high) + self.every * shift
        signs = splits[site][0][live] if site in splits else np.zeros((0, 0))
        place = np.nonzero(signs)
        exact, mu[place] = np.maximum(signs[place], 0.0) * mu[place], 0.0
        through, falling = mu * np.where(mu < 0, slope, alpha[live]), np.minimum(mu[free], 0.0)
        through[place] = exact
        return through, live, shift @ falling, charge @ abs(falling)

    def slopes(self, site: int, slopes: Any) -> Any:
        """Returns slopes of lines below the ReLUs of a node, [size, B] or [size, 1]: those given, else default ones."""
        (first, own), alpha = self.slots.get(site, (0, ())), (self.upper[site] >= -self.lower[site])[:, None] * 1.0
        if slopes is not None and len(own):
            alpha = np.tile(alpha, len(slopes))
            alpha[own] = slopes.T[first : first + len(own)]
        return alpha
