"""Branch and bound with second-order bounds of the last hidden layer.

A subdomain is which neurons' phases are fixed, in any layer. One of the last hidden layer changes its dual variables
only; one before it makes a line exact, and the affine functions are drawn anew. Both parts of a split cover their
parent, and a leaf is a subdomain whose certified bound is above 0; leaves aren't kept.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array, Int8Array
from prunecert.verifiers.sparse.bab.quadratic.affine import NodeLines, lines
from prunecert.verifiers.sparse.bab.quadratic.ascent import Ascended, ascend, begin
from prunecert.verifiers.sparse.bab.quadratic.last_layer import LastLayer, Multipliers, certified, last_layer
from prunecert.verifiers.sparse.bab.reduced_network import Reduced
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.node_bounds import CheckedBounds

#: Steps of the whole box, and of a part.
_ROOT, _PART = 80, 24
#: What the search's own bound must exceed to be certified.
_MARGIN = 1e-6


@dataclass(frozen=True, eq=False)
class Subject:
    """A row of the specification over one box.

    Args:
        checker: Of the network.
        bounds: Of all nodes over the box.
        net: What is left of the network over the box, as the search has it.
        row: [outputs].
        constant: What is added.
        slopes: [U] lines of free neurons.
    """

    checker: Checker
    bounds: CheckedBounds
    net: Reduced
    row: Float64Array
    constant: float
    slopes: Float64Array

    def layer(self, signs: Int8Array) -> LastLayer:
        """Returns it over the part of the box where neurons before the last hidden layer, [U], have these phases."""
        first, nodes = self.net.levels[-1][0], self.net.nodes
        split = np.flatnonzero(signs[:first])
        fixed = [(int(nodes[place]), int(self.net.indices[place])) for place in split]
        return last_layer(self.checker, self.bounds, self.row, self.constant, self.lines(signs), fixed)

    def lines(self, signs: Int8Array) -> NodeLines:
        """Returns the lines of the neurons before the last hidden layer where these have such phases, [U]."""
        first = self.net.levels[-1][0]
        nodes, slopes, phases = self.net.nodes[:first], {}, {}
        for node in np.unique(nodes).tolist():
            slopes[node], phases[node] = self.slopes[:first][nodes == node], signs[:first][nodes == node]
        return lines(self.bounds, slopes, phases)

    def phases(self, signs: Int8Array) -> Int8Array:
        """Returns those of a layer's neurons: the last hidden layer's, then what is fixed before it."""
        first = self.net.levels[-1][0]
        return np.concatenate([signs[first:], signs[:first][signs[:first] != 0]])

    def gaps(self, signs: Int8Array, ascended: Ascended) -> Float64Array:
        """Returns what each neuron's line costs at the minimiser, [U]; 0 where its phase is fixed."""
        net, first = self.net, self.net.levels[-1][0]
        w, D = ascended.dual.v, ascended.dual.D
        count = len(w) - first
        result = np.zeros(net.unstable)
        result[first:] = ascended.gaps[: net.unstable - first]
        varying = np.flatnonzero(self.bounds.lower[0] < self.bounds.upper[0])
        t = w[:count][np.searchsorted(varying, net.pixels)]
        drawn = self.lines(signs)
        slope, half = (np.concatenate([np.zeros(0), *part.values()]) for part in (drawn.slopes, drawn.halves))
        error = w[count:]
        above, z = np.zeros(first), np.zeros(first)
        for start, stop in net.levels[:-1]:
            z[start:stop] = net.M[start:stop] @ t + net.N[start:stop, :first] @ above + net.c[start:stop]
            mine = slice(start, stop)
            above[mine] = slope[mine] * z[mine] + half[mine] * (1.0 + error[mine])
        # By S w* = -G / 2 the derivative by w of what is linearised at w* is -2 D w*.
        rise = -2.0 * D[count:] * error
        with np.errstate(divide="ignore", invalid="ignore"):
            costs = rise * ((np.maximum(z, 0.0) - slope * z) / half - 1.0 - error)
        result[:first] = np.where(half > 0, costs, 0.0)
        result[signs != 0] = 0.0
        return np.nan_to_num(result, nan=0.0, posinf=0.0, neginf=0.0)


@dataclass(frozen=True, eq=False)
class _Open:
    signs: Int8Array
    layer: LastLayer
    dual: Multipliers
    split: int


@dataclass
class TreeOutcome:
    """What has become of a row of the specification.

    Args:
        proved: The least certified bound of a leaf, above 0; None: not proved.
        lowest: Lowest bound of an open subdomain, by the search's own arithmetic.
        domains: Subdomains bounded.
        leaves: Those certified.
        won: Whether a point that was tried ended the question.
    """

    proved: float | None = None
    lowest: float = -np.inf
    domains: int = 0
    leaves: int = 0
    won: bool = False


class QuadraticTree:
    """Proves one row of the specification over one box.

    Args:
        subject: The row.
        deadline: Value of `time.monotonic` at which to end.
        most: Most subdomains.
        attack: Tries a w, [W], as a counterexample, and says whether it is one.
    """

    def __init__(self, subject: Subject, deadline: float, most: int, attack: Callable[[Float64Array], bool]) -> None:
        self._subject, self._deadline, self._most, self._attack = subject, deadline, most, attack
        self._open: list[tuple[float, int, _Open]] = []
        self._number = itertools.count()
        self._proved = np.inf
        self.outcome = TreeOutcome()

    def run(self) -> TreeOutcome:
        """Splits until nothing is open, there is a counterexample, nothing is left to split, or the time is over."""
        out, first = self.outcome, self._subject.net.levels[-1][0]
        whole = np.zeros(self._subject.net.unstable, dtype=np.int8)
        layer = self._subject.layer(whole)
        self._bound(whole, layer, begin(layer), _ROOT)
        while self._open and not out.won:
            out.lowest = self._open[0][0]
            if time.monotonic() > self._deadline or out.domains >= self._most:
                return out
            _, _, worst = heapq.heappop(self._open)
            if worst.split < 0:
                return out
            for sign in (1, -1):
                signs = worst.signs.copy()
                signs[worst.split] = sign
                layer, dual = worst.layer, worst.dual
                if worst.split < first:
                    layer = self._subject.layer(signs)
                    dual = _inserted(dual, len(whole) - first + int(np.count_nonzero(signs[: worst.split])))
                self._bound(signs, layer, dual, _PART)
        if not out.won:
            out.proved = self._proved
        return out

    def _bound(self, signs: Int8Array, layer: LastLayer, dual: Multipliers, steps: int) -> None:
        """Bounds a subdomain, and opens it unless that is certified."""
        out, phases = self.outcome, self._subject.phases(signs)
        ascended = ascend(layer, phases, dual, steps, 2 * _MARGIN, self._deadline)
        out.domains += 1
        bound = ascended.bound
        if bound > _MARGIN:
            rigorous = certified(layer, phases, ascended.dual)
            if rigorous > 0:
                self._proved = min(self._proved, rigorous)
                out.leaves += 1
                return
            bound = min(bound, rigorous, 0.0)
        if self._attack(ascended.dual.v):
            out.won = True
            return
        gaps = self._subject.gaps(signs, ascended)
        split = int(np.argmax(gaps))
        split = split if gaps[split] > 0 else -1
        heapq.heappush(self._open, (bound, next(self._number), _Open(signs, layer, ascended.dual, split)))


def _inserted(dual: Multipliers, place: int) -> Multipliers:
    """Returns dual variables with those of one more neuron, 0, at a place."""
    return Multipliers(np.insert(dual.m, place, 0.0), np.insert(dual.p, place, 0.0), dual.D, dual.v)
