"""The exact answer, by a method that shares nothing with the verifiers.

The network's real-valued function (float32 weights, no rounding) is written as a mixed-integer linear programme with
one binary for each ReLU that interval arithmetic leaves unstable (Tjeng et al. 2019, "Evaluating Robustness of Neural
Networks with Mixed Integer Programming") and solved by HiGHS through `scipy.optimize.milp`. The *margin* of an
instance is the least t for which some input of the box makes all rows of some disjunct A y - b <= t: above 0 the
property holds, at or below 0 it does not.

A solver works with tolerances (1e-7 on constraints, 1e-6 on integrality), so the margin is enclosed from both sides:
from above by running the network in float64 at the input that was found, from below by the solver's dual bound.
`enumerated_margin` does the same by one linear programme for each activation pattern, to check it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_matrix

from prunecert.verifiers.base import OutputSpec
from tests.soundness.networks import Add, Affine, Array, Network, Relu

#: Unit round-off of float32.
_UNIT = 2.0**-24
#: Dual bounds are trusted to this; HiGHS's feasibility tolerance is 1e-7.
_DUAL_SLACK = 2e-7


@dataclass(frozen=True)
class Margin:
    """An enclosure of the exact margin, and the input that shows its upper end."""

    low: float
    high: float
    point: Array


def interval_bounds(net: Network, lower: Array, upper: Array) -> list[tuple[Array, Array]]:
    """Returns bounds of every node's value over a box, in float64."""
    bounds = [(lower, upper)]
    for node in net.nodes:
        match node:
            case Affine(source, matrix, shift):
                low, high = bounds[source]
                positive, negative = np.maximum(matrix, 0), np.minimum(matrix, 0)
                bounds.append((positive @ low + negative @ high + shift, positive @ high + negative @ low + shift))
            case Relu(source):
                low, high = bounds[source]
                bounds.append((np.maximum(low, 0), np.maximum(high, 0)))
            case Add(left, right):
                bounds.append((bounds[left][0] + bounds[right][0], bounds[left][1] + bounds[right][1]))
    return bounds


def rounding(net: Network, lower: Array, upper: Array, spec: OutputSpec) -> float:
    """Bounds the rounding of the margin when the network runs in float32, for any input of the box.

    A sum of n products in any order errs by at most gamma_n = n u / (1 - n u) times the sum of the absolute products
    (Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 3.1); errors go through the layers by |W|.
    """
    bounds = interval_bounds(net, lower, upper)
    sizes = [np.maximum(np.abs(low), np.abs(high)) for low, high in bounds]
    errors = [np.zeros_like(lower)]
    for node in net.nodes:
        match node:
            case Affine(source, matrix, shift):
                terms = np.count_nonzero(matrix, axis=1) + 2
                gamma = terms * _UNIT / (1 - terms * _UNIT)
                grown = sizes[source] + errors[source]
                errors.append(np.abs(matrix) @ errors[source] + gamma * (np.abs(matrix) @ grown + np.abs(shift)))
            case Relu(source):
                errors.append(errors[source])
            case Add(left, right):
                total = errors[left] + errors[right]
                errors.append(total + _UNIT * (sizes[left] + sizes[right] + total))
    return max(float((np.abs(a) @ errors[-1]).max()) for a, _ in spec.disjuncts)


def evaluated(net: Network, spec: OutputSpec, points: Array) -> Array:
    """Returns min over disjuncts of max over rows of A y - b, at each of the points [n, inputs]."""
    y = net.evaluate(points)
    depths: Array = np.min([np.max(y @ a.T - b, axis=1) for a, b in spec.disjuncts], axis=0)
    return depths


class Programme:
    """The network over a box as constraints on (x, a, d, t): inputs, unstable ReLUs, their binaries, objective.

    Args:
        net: The network.
        lower: Lower corner of the box.
        upper: Upper corner.
    """

    def __init__(self, net: Network, lower: Array, upper: Array) -> None:
        self.net = net
        bounds = interval_bounds(net, lower, upper)
        unstable = {
            index: np.flatnonzero((bounds[node.source][0] < 0) & (bounds[node.source][1] > 0))
            for index, node in enumerate(net.nodes, start=1)
            if isinstance(node, Relu)
        }
        self.count = sum(len(neurons) for neurons in unstable.values())
        n = net.inputs
        self.binaries = n + self.count
        self.objective = n + 2 * self.count
        self.size = self.objective + 1
        self.low = np.concatenate([lower, np.zeros(2 * self.count), [-np.inf]])
        self.high = np.concatenate([upper, np.full(self.count, np.inf), np.ones(self.count), [np.inf]])
        self.rows: list[Array] = []
        self.limits: list[float] = []
        # Each node's value as an affine function of the variables.
        values: list[tuple[Array, Array]] = [(np.eye(n, self.size), np.zeros(n))]
        position = n
        for index, node in enumerate(net.nodes, start=1):
            match node:
                case Affine(source, matrix, shift):
                    e, f = values[source]
                    values.append((matrix @ e, matrix @ f + shift))
                case Add(left, right):
                    values.append((values[left][0] + values[right][0], values[left][1] + values[right][1]))
                case Relu(source):
                    e, f = values[source][0].copy(), values[source][1].copy()
                    low, high = bounds[source]
                    e[high <= 0], f[high <= 0] = 0.0, 0.0
                    for neuron in unstable[index]:
                        self._relu(e[neuron], float(f[neuron]), float(low[neuron]), float(high[neuron]), position)
                        e[neuron], f[neuron] = 0.0, 0.0
                        e[neuron, position] = 1.0
                        position += 1
                    values.append((e, f))
        self.output = values[-1]

    def _relu(self, e: Array, f: float, low: float, high: float, a: int) -> None:
        """Adds a = max(e v + f, 0) with the binary d: a >= p, a <= p - low (1 - d), a <= high d."""
        d = a + self.count
        self._at_most(e - self.unit(a), -f)
        self._at_most(self.unit(a) - e - low * self.unit(d), f - low)
        self._at_most(self.unit(a) - high * self.unit(d), 0.0)

    def unit(self, index: int) -> Array:
        """Returns the row that picks one variable."""
        row = np.zeros(self.size)
        row[index] = 1.0
        return row

    def _at_most(self, row: Array, limit: float) -> None:
        self.rows.append(row)
        self.limits.append(limit)

    def solve(self, rows: list[Array], limits: list[float]) -> tuple[float, Array] | None:
        """Minimises the last variable under more constraints; returns (dual bound, input), None if infeasible."""
        cost = self.unit(self.objective)
        integrality = np.zeros(self.size)
        integrality[self.binaries : self.objective] = 1
        result = milp(
            cost,
            constraints=LinearConstraint(csr_matrix(np.array(self.rows + rows)), -np.inf, self.limits + limits),
            integrality=integrality,
            bounds=Bounds(self.low, self.high),
            options={"mip_rel_gap": 0.0},
        )
        if result.status == 2:
            return None
        assert result.status == 0, f"HiGHS did not solve the oracle's programme: {result.message}"
        dual = result.mip_dual_bound if self.count else result.fun
        x = np.clip(result.x[: self.net.inputs], self.low[: self.net.inputs], self.high[: self.net.inputs])
        return float(dual), x

    def margin(self, a: Array, b: Array) -> Margin:
        """Minimises max over rows of a y - b."""
        e, f = self.output
        rows = [row @ e - self.unit(self.objective) for row in a]
        solved = self.solve(rows, [float(limit - row @ f) for row, limit in zip(a, b, strict=True)])
        assert solved is not None, "a margin always exists"
        dual, x = solved
        high = float(np.max(self.net.evaluate(x)[0] @ a.T - b))
        return Margin(min(dual - _DUAL_SLACK, high), high, x)


def exact_margin(net: Network, lower: Array, upper: Array, spec: OutputSpec) -> Margin:
    """Returns the margin of an instance."""
    programme = Programme(net, lower, upper)
    margins = [programme.margin(a, b) for a, b in spec.disjuncts]
    best = min(margins, key=lambda margin: margin.high)
    return Margin(min(margin.low for margin in margins), best.high, best.point)


def exact_radius(net: Network, center: Array, spec: OutputSpec, limit: float) -> float:
    """Returns the least l-infinity radius, inside [0, 1], at which an unsafe output is reached; inf beyond `limit`."""
    lower, upper = np.clip(center - limit, 0, 1), np.clip(center + limit, 0, 1)
    programme = Programme(net, lower, upper)
    programme.low[programme.objective], programme.high[programme.objective] = 0.0, limit
    rows, limits = [], []
    for i, value in enumerate(center):
        for sign in (1.0, -1.0):
            rows.append(sign * programme.unit(i) - programme.unit(programme.objective))
            limits.append(float(sign * value))
    e, f = programme.output
    radii = []
    for a, b in spec.disjuncts:
        solved = programme.solve(
            [*rows, *(row @ e for row in a)],
            [*limits, *(float(limit - row @ f) for row, limit in zip(a, b, strict=True))],
        )
        if solved is not None:
            radii.append(float(np.max(np.abs(solved[1] - center))))
    return min(radii, default=np.inf)


def enumerated_margin(net: Network, lower: Array, upper: Array, spec: OutputSpec, most: int = 2**10) -> float:
    """Returns the margin by one linear programme for each activation pattern of the unstable ReLUs.

    In a pattern the network is affine; the pattern's region is where the pre-activations have its signs.
    """
    bounds = interval_bounds(net, lower, upper)
    free = [
        (index, int(neuron))
        for index, node in enumerate(net.nodes, start=1)
        if isinstance(node, Relu)
        for neuron in np.flatnonzero((bounds[node.source][0] < 0) & (bounds[node.source][1] > 0))
    ]
    assert 2 ** len(free) <= most, f"{len(free)} unstable ReLUs are too many to enumerate"
    best = np.inf
    for signs in itertools.product((False, True), repeat=len(free)):
        pattern = dict(zip(free, signs, strict=True))
        values: list[tuple[Array, Array]] = [(np.eye(net.inputs), np.zeros(net.inputs))]
        rows: list[Array] = []
        limits: list[float] = []
        for index, node in enumerate(net.nodes, start=1):
            match node:
                case Affine(source, matrix, shift):
                    values.append((matrix @ values[source][0], matrix @ values[source][1] + shift))
                case Add(left, right):
                    values.append((values[left][0] + values[right][0], values[left][1] + values[right][1]))
                case Relu(source):
                    e, f = values[source][0].copy(), values[source][1].copy()
                    for neuron in range(len(f)):
                        active = pattern.get((index, neuron))
                        if active is not None:
                            rows.append(-e[neuron] if active else e[neuron].copy())
                            limits.append(float(f[neuron] if active else -f[neuron]))
                        elif bounds[source][1][neuron] > 0:
                            active = True
                        if not active:
                            e[neuron], f[neuron] = 0.0, 0.0
                    values.append((e, f))
        e, f = values[-1]
        for a, b in spec.disjuncts:
            result = linprog(
                np.append(np.zeros(net.inputs), 1.0),
                A_ub=np.array([*(np.append(row, 0.0) for row in rows), *(np.append(row @ e, -1.0) for row in a)]),
                b_ub=np.array([*limits, *(b - a @ f)]),
                bounds=[*zip(lower, upper, strict=True), (None, None)],
            )
            if result.status == 0:
                best = min(best, float(result.fun))
    return best
