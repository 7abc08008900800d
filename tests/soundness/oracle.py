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
import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_matrix

from prunecert.verifiers.base import OutputSpec
from tests.soundness.networks import Add, Affine, Array, Largest, Network, Node, Relu

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
            case Largest(sources):
                lows, highs = (np.array([bounds[source][side] for source in sources]) for side in range(2))
                bounds.append((lows.max(axis=0), highs.max(axis=0)))
    return bounds


def choices(node: Node, bounds: list[tuple[Array, Array]]) -> list[tuple[int, ...]]:
    """Returns, for each element of a ReLU or maximum, which pieces it may have over the box: one, if it is stable.

    Those of a ReLU are 0 and 1: inactive and active. Those of a maximum are the places of its arguments.
    """
    match node:
        case Relu(source):
            signs = {(True, False): (1,), (False, True): (0,), (False, False): (0, 1), (True, True): (0,)}
            low, high = bounds[source]
            return [signs[bool(a), bool(b)] for a, b in zip(low >= 0, high <= 0, strict=True)]
        case Largest(sources):
            lows, highs = (np.array([bounds[source][side] for source in sources]) for side in range(2))
            return [tuple(np.flatnonzero(column).tolist()) for column in (highs >= lows.max(axis=0)).T]
    return []


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
            case Affine(source, matrix, shift, exact):
                if exact:
                    errors.append(np.abs(matrix) @ errors[source])
                    continue
                terms = np.count_nonzero(matrix, axis=1) + 2
                gamma = terms * _UNIT / (1 - terms * _UNIT)
                grown = sizes[source] + errors[source]
                errors.append(np.abs(matrix) @ errors[source] + gamma * (np.abs(matrix) @ grown + np.abs(shift)))
            case Relu(source):
                errors.append(errors[source])
            case Add(left, right):
                total = errors[left] + errors[right]
                errors.append(total + _UNIT * (sizes[left] + sizes[right] + total))
            case Largest(sources):
                errors.append(np.max([errors[source] for source in sources], axis=0))
    return max(float((np.abs(a) @ errors[-1]).max()) for a, _ in spec.disjuncts)


def evaluated(net: Network, spec: OutputSpec, points: Array) -> Array:
    """Returns min over disjuncts of max over rows of A y - b, at each of the points [n, inputs]."""
    y = net.evaluate(points)
    depths: Array = np.min([np.max(y @ a.T - b, axis=1) for a, b in spec.disjuncts], axis=0)
    return depths


class Programme:
    """The network over a box as constraints on (x, a, d, t): inputs, unstable elements, their binaries, objective.

    Args:
        net: The network.
        lower: Lower corner of the box.
        upper: Upper corner.
    """

    def __init__(self, net: Network, lower: Array, upper: Array) -> None:
        self.net = net
        bounds = interval_bounds(net, lower, upper)
        pieces = [choices(node, bounds) for node in net.nodes]
        self.count = sum(len(piece) > 1 for node in pieces for piece in node)
        # A ReLU's two pieces share a binary; each argument of a maximum has its own.
        decided = sum(
            1 if isinstance(node, Relu) else len(piece)
            for node, parts in zip(net.nodes, pieces, strict=True)
            for piece in parts
            if len(piece) > 1
        )
        n = net.inputs
        self.binaries = n + self.count
        self.objective = self.binaries + decided
        self.size = self.objective + 1
        self.low = np.concatenate([lower, np.zeros(self.objective - n), [-np.inf]])
        self.high = np.concatenate([upper, np.full(self.count, np.inf), np.ones(decided), [np.inf]])
        self.rows: list[Array] = []
        self.limits: list[float] = []
        # Each node's value as an affine function of the variables.
        values: list[tuple[Array, Array]] = [(np.eye(n, self.size), np.zeros(n))]
        position, binary = n, self.binaries
        for node, parts in zip(net.nodes, pieces, strict=True):
            match node:
                case Affine(source, matrix, shift):
                    e, f = values[source]
                    values.append((matrix @ e, matrix @ f + shift))
                case Add(left, right):
                    values.append((values[left][0] + values[right][0], values[left][1] + values[right][1]))
                case Relu(source):
                    e, f = values[source][0].copy(), values[source][1].copy()
                    low, high = bounds[source]
                    for neuron, piece in enumerate(parts):
                        if piece == (0, 1):
                            limits = float(low[neuron]), float(high[neuron])
                            self._relu(e[neuron], float(f[neuron]), *limits, position, binary)
                            e[neuron], f[neuron] = self.unit(position), 0.0
                            position, binary = position + 1, binary + 1
                        elif piece == (0,):
                            e[neuron], f[neuron] = 0.0, 0.0
                    values.append((e, f))
                case Largest(sources):
                    e, f = values[sources[0]][0].copy(), values[sources[0]][1].copy()
                    for place, piece in enumerate(parts):
                        arguments = [(values[sources[i]][0][place], float(values[sources[i]][1][place])) for i in piece]
                        if len(piece) == 1:
                            e[place], f[place] = arguments[0]
                            continue
                        lows = [float(bounds[sources[i]][0][place]) for i in piece]
                        self.low[position] = max(lows)
                        self.high[position] = max(float(bounds[sources[i]][1][place]) for i in piece)
                        self._largest(arguments, lows, position, binary)
                        e[place], f[place] = self.unit(position), 0.0
                        position, binary = position + 1, binary + len(piece)
                    values.append((e, f))
        self.output = values[-1]

    def _relu(self, e: Array, f: float, low: float, high: float, a: int, d: int) -> None:
        """Adds a = max(e v + f, 0) with the binary d: a >= p, a <= p - low (1 - d), a <= high d."""
        self._at_most(e - self.unit(a), -f)
        self._at_most(self.unit(a) - e - low * self.unit(d), f - low)
        self._at_most(self.unit(a) - high * self.unit(d), 0.0)

    def _largest(self, arguments: list[tuple[Array, float]], lows: list[float], a: int, d: int) -> None:
        """Adds a = max of e v + f with a binary each: a >= p, a <= p + (highest - low) (1 - d), sum of d = 1."""
        highest = float(self.high[a])
        for number, ((e, f), low) in enumerate(zip(arguments, lows, strict=True)):
            self._at_most(e - self.unit(a), -f)
            self._at_most(self.unit(a) - e + (highest - low) * self.unit(d + number), f + highest - low)
        one = np.sum([self.unit(d + number) for number in range(len(arguments))], axis=0)
        self._at_most(one, 1.0)
        self._at_most(-one, -1.0)

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
    """Returns the margin by one linear programme for each pattern of the unstable ReLUs and maxima.

    In a pattern the network is affine; the pattern's region is where the pre-activations have its signs, and where the
    chosen arguments are the largest.
    """
    bounds = interval_bounds(net, lower, upper)
    pieces = [choices(node, bounds) for node in net.nodes]
    free = [(index, place) for index, parts in enumerate(pieces) for place, piece in enumerate(parts) if len(piece) > 1]
    patterns = math.prod(len(pieces[index][place]) for index, place in free)
    assert patterns <= most, f"{patterns} patterns are too many to enumerate"
    best = np.inf
    for chosen in itertools.product(*(pieces[index][place] for index, place in free)):
        best = min(best, _margin_in(net, dict(zip(free, chosen, strict=True)), pieces, (lower, upper), spec))
    return best


def _margin_in(
    net: Network,
    pattern: dict[tuple[int, int], int],
    pieces: list[list[tuple[int, ...]]],
    box: tuple[Array, Array],
    spec: OutputSpec,
) -> float:
    """Returns the margin where the elements that aren't stable have the pieces of a pattern; inf if that is nowhere."""
    values: list[tuple[Array, Array]] = [(np.eye(net.inputs), np.zeros(net.inputs))]
    rows: list[Array] = []
    limits: list[float] = []
    for index, node in enumerate(net.nodes):
        match node:
            case Affine(source, matrix, shift):
                values.append((matrix @ values[source][0], matrix @ values[source][1] + shift))
            case Add(left, right):
                values.append((values[left][0] + values[right][0], values[left][1] + values[right][1]))
            case Relu() | Largest():
                if isinstance(node, Relu):
                    e, f = values[node.source]
                    parts = [(np.zeros_like(e), np.zeros_like(f)), (e, f)]
                else:
                    parts = [values[source] for source in node.sources]
                e, f = parts[0][0].copy(), parts[0][1].copy()
                for place, piece in enumerate(pieces[index]):
                    own = pattern.get((index, place), piece[0])
                    e[place], f[place] = parts[own][0][place], parts[own][1][place]
                    for other in piece:
                        if other != own:
                            rows.append(parts[other][0][place] - e[place])
                            limits.append(float(f[place] - parts[other][1][place]))
                values.append((e, f))
    e, f = values[-1]
    best = np.inf
    for a, b in spec.disjuncts:
        result = linprog(
            np.append(np.zeros(net.inputs), 1.0),
            A_ub=np.array([*(np.append(row, 0.0) for row in rows), *(np.append(row @ e, -1.0) for row in a)]),
            b_ub=np.array([*limits, *(b - a @ f)]),
            bounds=[*zip(*box, strict=True), (None, None)],
        )
        if result.status == 0:
            best = min(best, float(result.fun))
    return best
