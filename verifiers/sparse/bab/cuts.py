"""Which part of a neuron that is rounded walks take for what it is made of, and which for any number in its range.

Rounding adds an error of up to half a step on either side of z, what a neuron is made of, so that its value v is within
[z - s/2, z + s/2]; and it is within its own bounds [l, u]. Where l >= 0 the ReLU leaves it as it is, and for a share c
in [0, 1]

    λ v = (1 - c) λ v + c λ v >= (1 - c) (λ z - |λ| s/2) + c min(λ l, λ u).

Where its bounds are a step apart, they say more themselves, and c is 1; further up that depends on how much of z
cancels with what others are made of. Derivatives of the bound by the shares are found as those by slopes are
(`sparse.bab.dual`): by what the walk's minimiser makes of z and of the range.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.node_bounds import CheckedBounds

#: Widths, in steps of a rounding, up to which neurons are cut before shares are optimised: none, those with two
#: neighbouring numbers, and all.
_WIDTHS = (-1.0, 1.5, np.inf)
#: Gradient steps, the size of the first, and how it decays.
_STEPS, _RATE, _DECAY = 16, 0.3, 0.85
#: Rows that the shares are optimised for: all walk through the network together.
_ROWS = 16


def cut(
    checker: Checker, bounds: CheckedBounds, rows: Float64Array, offsets: Float64Array, deadline: float = np.inf
) -> Float64Array:
    """Chooses, for each neuron that is rounded, which share of it is cut (`CheckedBounds.cuts`).

    Args:
        checker: Of the network.
        bounds: Of all nodes over the box; what is best is left in its `cuts`.
        rows: Of the specification, [R, outputs].
        offsets: [R].
        deadline: `time.monotonic` after which nothing more is tried.

    Returns:
        The best lower bounds of rows @ y - offsets, [R]; they hold whatever is chosen.
    """
    values = np.full(len(rows), -np.inf)
    if not len(rows):
        return values
    chosen, best = _narrow(checker, bounds, _WIDTHS[0]), -np.inf

    def attempt(shares: dict[int, Float64Array]) -> None:
        nonlocal chosen, best
        bounds.cuts.clear()
        bounds.cuts.update(shares)
        certified = checker.lower(checker.last, rows, bounds, constant=-offsets)
        np.maximum(values, certified, out=values)
        if float(certified.min()) > best:
            best, chosen = float(certified.min()), shares

    for width in _WIDTHS:
        attempt(_narrow(checker, bounds, width))
    open_ = np.flatnonzero(~(values > 0))
    if len(open_) and np.isfinite(best) and time.monotonic() < deadline:
        worst = open_[np.argsort(values[open_])[:_ROWS]]
        attempt(_ascend(_Walk(checker, bounds, rows[worst], offsets[worst]), chosen, deadline))
    bounds.cuts.clear()
    bounds.cuts.update(chosen)
    return values


def _narrow(checker: Checker, bounds: CheckedBounds, steps: float) -> dict[int, Float64Array]:
    """Cuts the neurons of each node that are active and have bounds at most so many steps apart."""
    shares = {}
    for node in checker.network.roundings:
        width = 2.0 * steps * checker.network.nodes[node].bias_error.astype(np.float64)
        low, high = bounds.lower[node], bounds.upper[node]
        shares[node] = ((low >= 0) & (high > 0) & (high - low <= width)).astype(np.float64)
    return shares


def _ascend(walk: _Walk, start: dict[int, Float64Array], deadline: float) -> dict[int, Float64Array]:
    """Returns the best shares of some gradient steps (Adam, Kingma and Ba 2015, with projection)."""
    shares = {node: share.copy() for node, share in start.items()}
    first = {node: np.zeros(len(share)) for node, share in shares.items()}
    second = {node: np.zeros(len(share)) for node, share in shares.items()}
    best, most, rate = start, -np.inf, _RATE
    for step in range(_STEPS + 1):
        values = walk.backward(shares)
        if float(values.min()) > most:
            best, most = {node: share.copy() for node, share in shares.items()}, float(values.min())
        if most > 0 or step == _STEPS or time.monotonic() > deadline:
            break
        # Rows that are above 0 ask for no more.
        for node, gradient in walk.forward((values <= 0).astype(np.float64)).items():
            first[node] += 0.1 * (gradient - first[node])
            second[node] += 0.01 * (gradient * gradient - second[node])
            move = (first[node] / (1 - 0.9 ** (step + 1))) / (np.sqrt(second[node] / (1 - 0.99 ** (step + 1))) + 1e-12)
            shares[node] = np.clip(shares[node] + rate * move, 0.0, 1.0)
        rate *= _DECAY
    return best


@dataclass(frozen=True, eq=False)
class _Met:
    """What a walk has met at a node whose ReLU is taken: coefficients [rows, neurons] of some of its neurons.

    Args:
        active: Neurons that are never below 0 and may be above.
        lam: Coefficients of their ReLUs.
        ends: The ends of their ranges that these choose.
        share: Their cuts.
        free: Unstable neurons.
        slope: Of their lines.
        shift: Constants of their lines.
    """

    active: Int64Array
    lam: Float64Array
    ends: Float64Array
    share: Float64Array
    free: Int64Array
    slope: Float64Array
    shift: Float64Array


class _Walk:
    """CROWN's bounds of rows with cuts, in float64 without an account of rounding, and their gradients.

    Args:
        checker: Of the network.
        bounds: Of all nodes over the box.
        rows: [rows, outputs].
        offsets: [rows].
    """

    def __init__(self, checker: Checker, bounds: CheckedBounds, rows: Float64Array, offsets: Float64Array) -> None:
        self._checker, self._bounds, self._rows, self._offsets = checker, bounds, rows, offsets
        self._errors = [node.bias_error.astype(np.float64) for node in checker.network.nodes]
        self._biases = [node.bias.astype(np.float64) for node in checker.network.nodes]
        self._met: dict[int, _Met] = {}
        #: Coefficients of nodes' values, and the minimiser.
        self._mu: dict[int, Float64Array] = {}
        self._x: Float64Array = rows

    def backward(self, shares: dict[int, Float64Array]) -> Float64Array:
        """Returns lower bounds of the rows, [rows]."""
        checker, bounds = self._checker, self._bounds
        linear: dict[int, Float64Array] = {checker.last: self._rows}
        relu: dict[int, Float64Array] = {}
        value = -self._offsets
        self._met, self._mu = {}, {}
        for node in range(checker.last, 0, -1):
            mu = linear.pop(node, None)
            if node in relu:
                through, constant = self._relaxed(node, relu.pop(node), shares.get(node))
                value = value + constant
                mu = through if mu is None else mu + through
            if mu is None:
                continue
            self._mu[node] = mu
            value = value + mu @ self._biases[node] - np.abs(mu) @ self._errors[node]
            for product in checker.products[node]:
                target = relu if product.activated else linear
                pushed = (product.matrix.T @ mu.T).T
                target[product.source] = pushed + target.get(product.source, 0.0)
        low, high = bounds.lower[0], bounds.upper[0]
        inputs = linear.get(0, np.zeros((len(value), len(low))))
        self._x = np.where(inputs > 0, low, high)
        result: Float64Array = value + (inputs * self._x).sum(axis=1)
        return result

    def _relaxed(self, node: int, lam: Float64Array, share: Float64Array | None) -> tuple[Float64Array, Float64Array]:
        """Replaces a node's ReLU by its value: coefficients [rows, size] and constants [rows]."""
        low, high = self._bounds.lower[node], self._bounds.upper[node]
        active, free = np.flatnonzero((low >= 0) & (high > 0)), self._bounds.unstable(node)
        own = np.zeros(len(active)) if share is None else share[active]
        upward, coefficients = lam[:, active], lam[:, free]
        ends = np.where(upward > 0, low[active], high[active])
        chord = high[free] / (high[free] - low[free])
        slope = np.where(coefficients < 0, chord, (high[free] >= -low[free]).astype(np.float64))
        shift = np.where(coefficients < 0, -chord * low[free], 0.0)
        through = np.zeros_like(lam)
        through[:, active] = (1 - own) * upward
        through[:, free] = slope * coefficients
        self._met[node] = _Met(active, upward, ends, own, free, slope, shift)
        return through, (own * upward * ends).sum(axis=1) + (coefficients * shift).sum(axis=1)

    def forward(self, weights: Float64Array) -> dict[int, Float64Array]:
        """Returns derivatives of the weighted sum of the rows' bounds by the shares, by node that rounds.

        Args:
            weights: [rows].
        """
        checker = self._checker
        values: dict[int, Float64Array] = {0: self._x}
        lines: dict[int, Float64Array] = {}
        gradients = {}
        for node in range(1, checker.last):
            z = np.tile(self._biases[node], (len(weights), 1))
            for product in checker.products[node]:
                source = (lines if product.activated else values)[product.source]
                z += (product.matrix @ source.T).T
            if node in self._mu:
                z -= np.sign(self._mu[node]) * self._errors[node]
            values[node] = z
            line = lines[node] = np.zeros_like(z)
            if node not in self._met:
                continue
            met = self._met[node]
            line[:, met.active] = (1 - met.share) * z[:, met.active] + met.share * met.ends
            line[:, met.free] = met.slope * z[:, met.free] + met.shift
            if node in checker.network.roundings:
                gradient = np.zeros(z.shape[1])
                gradient[met.active] = weights @ (met.lam * (met.ends - z[:, met.active]))
                gradients[node] = gradient
        return gradients
