"""Branch and bound with second-order bounds of the last hidden layer.

A subdomain is which neurons' phases are fixed, in any layer. One of the last hidden layer changes its dual variables
only; one before it takes its error out of the affine functions (`phases`). Both parts of a split cover their parent,
and a leaf is a subdomain whose certified bound is above 0, with its dual variables as they are kept (`kept_tree`).
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array, Int8Array
from prunecert.verifiers.sparse.bab.quadratic.affine import NodeLines, affine_forms, lines
from prunecert.verifiers.sparse.bab.quadratic.ascent import Ascended, LayerAscent, begin
from prunecert.verifiers.sparse.bab.quadratic.kept_tree import KeptLeaf, KeptTree
from prunecert.verifiers.sparse.bab.quadratic.last_layer import (
    LastLayer,
    Multipliers,
    certified,
    last_layer,
    last_unstable,
)
from prunecert.verifiers.sparse.bab.quadratic.phases import NeuronRow, Phase, split, without_error
from prunecert.verifiers.sparse.bab.reduced_network import Reduced
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.node_bounds import CheckedBounds

#: Steps of the whole box, and of a part.
_ROOT, _PART = 100, 32
#: What the search's own bound must exceed to be certified.
_MARGIN = 1e-6
#: Parts of the memory for rows, for all else of open subdomains, and for leaves. What is freed may stay with the
#: process while the search that follows takes its own.
_ROWS, _ELSE, _LEAVES = 0.2, 0.15, 0.1


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

    def __post_init__(self) -> None:
        """Refuses neurons in another order than lines, rows and errors have them, which would be unsound."""
        nodes, indices = self.net.nodes, self.net.indices
        if not len(nodes) or np.any(np.diff(nodes) < 0) or nodes[-1] != last_unstable(self.checker, self.bounds):
            raise ValueError("the neurons that are left of the network aren't those of its nodes, from first to last")
        for node in np.unique(nodes).tolist():
            if not np.array_equal(indices[nodes == node], self.bounds.unstable(node)):
                raise ValueError(f"the neurons that are left of node {node} aren't its unstable ones, in order")

    def layer(self) -> LastLayer:
        """Returns it over the whole box."""
        return last_layer(self.checker, self.bounds, self.row, self.constant, self.free_lines)

    def drawn(self, place: int) -> NeuronRow:
        """Returns a neuron before the last hidden layer over the whole box, by its place in [U]."""
        node, index = int(self.net.nodes[place]), int(self.net.indices[place])
        seed = np.zeros((1, len(self.bounds.lower[node])))
        seed[0, index] = 1.0
        apart = last_unstable(self.checker, self.bounds)
        form = affine_forms(self.checker, self.bounds, node, seed, self.free_lines, apart)
        low, high = float(self.bounds.lower[node][index]), float(self.bounds.upper[node][index])
        return NeuronRow(form.coefficients[0], float(form.constants[0]), float(form.errors[0]), low, high)

    def phase(self, place: int, sign: int, row: NeuronRow, fixed: Sequence[Phase]) -> Phase:
        """Returns what fixes such a neuron's phase below a subdomain.

        Args:
            place: In [U].
            sign: 1: z >= 0, -1: z <= 0.
            row: As `drawn`.
            fixed: What is fixed there already, in the order of the splits.
        """
        # A row that was fixed may have errors of what was fixed after it, and none of what was before.
        for phase in fixed:
            row = without_error(row, phase)
        drawn = self.free_lines
        slope, half = (np.concatenate([*part.values()])[place] for part in (drawn.slopes, drawn.halves))
        column = len(row.coefficients) - self.net.levels[-1][0] + place
        return Phase(column, sign, float(slope), float(half), row)

    @functools.cached_property
    def free_lines(self) -> NodeLines:
        """The lines where no phase is fixed."""
        return self.lines(np.zeros(self.net.unstable, dtype=np.int8))

    def lines(self, signs: Int8Array) -> NodeLines:
        """Returns the lines of the neurons before the last hidden layer where these have such phases, [U]."""
        first = self.net.levels[-1][0]
        nodes, slopes, phases = self.net.nodes[:first], {}, {}
        for node in np.unique(nodes).tolist():
            slopes[node], phases[node] = self.slopes[:first][nodes == node], signs[:first][nodes == node]
        return lines(self.bounds, slopes, phases)

    def phases(self, signs: Int8Array, fixed: Sequence[Phase]) -> Int8Array:
        """Returns those of a layer's neurons: the last hidden layer's, then what is fixed before it."""
        own = signs[self.net.levels[-1][0] :]
        return np.concatenate([own, np.array([phase.sign for phase in fixed], dtype=np.int8)])

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
        above, z = np.zeros(first, dtype=np.float32), np.zeros(first, dtype=np.float32)
        t = t.astype(np.float32)
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
    fixed: tuple[Phase, ...]
    #: None: not kept.
    ascent: LayerAscent | None
    ascended: Ascended
    #: Its number in the tree.
    part: int

    @property
    def megabytes(self) -> float:
        """What it takes beside its rows."""
        dual = self.ascended.dual
        row = self.fixed[-1].row.coefficients.nbytes if self.fixed else 0
        return (dual.D.nbytes + dual.v.nbytes + 4 * dual.m.nbytes + self.signs.nbytes + row) / 2**20


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
        worth: Bound of the whole box below which it is not split.
        memory_mb: Of a search; open subdomains take up to a third of it, and rows beyond a fifth are drawn anew.
        attack: Tries a w, [W], as a counterexample, and says whether it is one.
    """

    def __init__(
        self,
        subject: Subject,
        deadline: float,
        most: int,
        worth: float,
        memory_mb: float,
        attack: Callable[[Float64Array], bool],
    ) -> None:
        self._subject, self._deadline, self._most, self._worth = subject, deadline, most, worth
        self._memory_mb, self._attack = memory_mb, attack
        self._open: list[tuple[float, int, _Open]] = []
        self._number = itertools.count()
        self._rows: dict[int, NeuronRow] = {}
        self._proved = np.inf
        self._whole = LayerAscent(subject.layer())
        #: Of open subdomains' rows, of all else of them, and of earlier neurons as they were drawn.
        self._rows_mb, self._else_mb, self._drawn_mb = 0.0, 0.0, 0.0
        self.outcome = TreeOutcome()
        #: Whether `run` has only paused; whether it did so within the whole box's ascent, and when an ascent ends.
        self.paused, self._cut, self._limit = False, False, deadline
        #: What is proved.
        self.kept = KeptTree(_LEAVES * memory_mb)

    def run(self, until: float = math.inf, last: bool = False) -> TreeOutcome:
        """Splits until nothing is open, there is a counterexample, nothing is left to split, or the time is over.

        Args:
            until: Value of `time.monotonic` from which on it pauses, once it has bounded something; then `run` goes on.
            last: Whether it won't be called again, so that what it has begun ends then, too.
        """
        out, before = self.outcome, self.outcome.domains
        if before and not self.paused:
            return out
        self.paused, self._limit = False, min(self._deadline, until) if last else self._deadline
        if self._cut:
            # The whole box again, from where its ascent was.
            _, _, whole = self._open.pop()
            self._else_mb -= whole.megabytes
            self._whole_box(whole.ascended.dual, until)
            out.domains -= 1
        elif not before:
            self._whole_box(begin(self._whole.layer), until)
        while self._open and not out.won:
            out.lowest, now = self._open[0][0], time.monotonic()
            if now > self._deadline or out.domains >= self._most or (out.lowest < self._worth and not self._cut):
                return out
            if now > until and (self._cut or out.domains > before):
                self.paused = True
                return out
            if self._else_mb + self._drawn_mb > _ELSE * self._memory_mb:
                return out
            _, _, worst = heapq.heappop(self._open)
            self._else_mb -= worst.megabytes
            ascent = self._taken(worst)
            if self._attack(worst.ascended.dual.v):
                out.won = True
                return out
            gaps = self._subject.gaps(worst.signs, worst.ascended)
            place = int(np.argmax(gaps))
            if gaps[place] <= 0:
                return out
            for sign, part in zip((1, -1), self.kept.split(worst.part, place), strict=True):
                self._part(worst, ascent, place, sign, part)
        if not out.won:
            out.proved = self._proved
        return out

    def _whole_box(self, dual: Multipliers, until: float) -> None:
        """Bounds the whole box, no longer than until a time, as its steps are those of all rows and many."""
        whole, limit = np.zeros(self._subject.net.unstable, dtype=np.int8), self._limit
        self._limit = min(limit, until)
        self._bound(whole, (), self._whole, dual, 0)
        self._cut, self._limit = time.monotonic() > self._limit, limit

    def _taken(self, subdomain: _Open) -> LayerAscent:
        """Returns an open subdomain's rows, which are open no more."""
        if subdomain.ascent is not None:
            if subdomain.ascent is not self._whole:
                self._rows_mb -= subdomain.ascent.megabytes
            return subdomain.ascent
        layer = self._whole.layer
        for phase in subdomain.fixed:
            layer = split(layer, phase)
        return LayerAscent(layer)

    def _part(self, parent: _Open, ascent: LayerAscent, place: int, sign: int, part: int) -> None:
        """Bounds the part of a subdomain where a neuron has a phase."""
        signs, fixed, dual = parent.signs.copy(), parent.fixed, parent.ascended.dual
        signs[place] = sign
        if place < self._subject.net.levels[-1][0]:
            if place not in self._rows:
                self._rows[place] = self._subject.drawn(place)
                self._drawn_mb += self._rows[place].coefficients.nbytes / 2**20
            phase = self._subject.phase(place, sign, self._rows[place], fixed)
            fixed, ascent = (*fixed, phase), LayerAscent(split(ascent.layer, phase))
            dual = Multipliers(np.append(dual.m, 0.0), np.append(dual.p, 0.0), dual.D, dual.v)
        self._bound(signs, fixed, ascent, dual, part)

    def _bound(
        self, signs: Int8Array, fixed: tuple[Phase, ...], ascent: LayerAscent, dual: Multipliers, part: int
    ) -> None:
        """Bounds a subdomain, and opens it unless that is certified."""
        out, phases = self.outcome, self._subject.phases(signs, fixed)
        steps = _PART if part else _ROOT
        ascended = ascent.climb(phases, dual, steps, 2 * _MARGIN, self._limit, later=part > 0)
        out.domains += 1
        bound = ascended.bound
        if bound > _MARGIN:
            leaf = KeptLeaf.of(ascended.dual)
            rigorous = certified(ascent.layer, phases, leaf.multipliers)
            if rigorous > 0:
                self._proved = min(self._proved, rigorous)
                self.kept.prove(part, leaf)
                out.leaves += 1
                return
            bound = min(bound, rigorous, 0.0)
        kept = ascent is self._whole or self._rows_mb + ascent.megabytes <= _ROWS * self._memory_mb
        if kept and ascent is not self._whole:
            # Children that share their parent's rows are counted each.
            self._rows_mb += ascent.megabytes
        subdomain = _Open(signs, fixed, ascent if kept else None, ascended, part)
        self._else_mb += subdomain.megabytes
        heapq.heappush(self._open, (bound, next(self._number), subdomain))
