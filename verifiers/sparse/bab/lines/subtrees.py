"""Subtrees below some open subdomains, level by level, over lines that all of them share."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array
from prunecert.verifiers.sparse.bab.dual import Batch, Dual, Look
from prunecert.verifiers.sparse.bab.lines import kernels
from prunecert.verifiers.sparse.bab.lines.kernels import Splits
from prunecert.verifiers.sparse.bab.lines.shared_lines import SharedLines

#: Writes children of a disjunct into the tree: parents' entries, neurons and signs; returns their own entries.
Plant = Callable[[int, Int64Array, Int64Array, Int64Array], Int64Array]

#: Open subdomains whose subtrees share lines.
SHARING = 16
#: Most levels of a subtree, and open subdomains of a level from which on none follows: deeper down, lines that were
#: drawn for its top cost more than a walk does.
_LEVELS, _WIDE = 10, 2048


@dataclass(frozen=True)
class Growth:
    """How a subtree grows.

    Args:
        steps: Gradient steps of a child.
        rate: First step size, relative to the neuron's coefficient.
        decay: Of it, a step.
        margin: What a bound must exceed to be certified.
        deadline: Value of `time.monotonic` after which no level follows.
    """

    steps: int
    rate: float
    decay: float
    margin: float
    deadline: float


@dataclass(frozen=True, eq=False)
class Grown:
    """What has become of the subdomains that subtrees began with: all of them are in these, or their parts are.

    Args:
        proved: Subdomains with bounds above the margin.
        left: Those without.
        stuck: Those of the first ones for which no neuron to split is known, as they were.
        places: Which ones these are.
        domains: How many children there were.
    """

    proved: Batch
    left: Batch
    stuck: Batch
    places: Int64Array
    domains: int


@dataclass(frozen=True, eq=False)
class _Level:
    """D subdomains of a level."""

    splits: Splits
    bounds: Float64Array
    places: Int64Array

    def take(self, index: Int64Array) -> _Level:
        """Returns some of them, copied."""
        count, neurons, signs, values = self.splits
        splits = Splits(count[index], neurons[index], signs[index], values[index])
        return _Level(splits, self.bounds[index], self.places[index])


def worth(dual: Dual, share_from: float) -> bool:
    """Says whether walks through all layers cost so much more than sums of a few rows.

    Args:
        dual: Of the reduced network.
        share_from: Multiply-adds of such a walk for each column of a row.
    """
    unstable, pixels = dual.net.unstable, len(dual.net.pixels)
    return unstable > 0 and dual.cost >= share_from * (unstable + pixels)


def grow(dual: Dual, batch: Batch, look: Look, growth: Growth, plant: Plant) -> Grown:
    """Splits neurons below some subdomains, those of a disjunct over shared lines.

    Args:
        dual: Of the reduced network, which has unstable neurons.
        batch: Open subdomains, at least one.
        look: What the walk of their bounds saw.
        growth: How far.
        plant: Takes the splits.
    """
    parts = []
    for disjunct in np.unique(batch.disjunct).tolist():
        some = np.flatnonzero(batch.disjunct == disjunct)
        planted = functools.partial(plant, disjunct)
        parts.append(_Subtrees(dual, batch.take(some), look.take(some), growth, planted).grown(some))
    return Grown(
        Batch.join([part.proved for part in parts]),
        Batch.join([part.left for part in parts]),
        Batch.join([part.stuck for part in parts]),
        np.concatenate([part.places for part in parts]),
        sum(part.domains for part in parts),
    )


class _Subtrees:
    """Subtrees of one disjunct."""

    def __init__(
        self,
        dual: Dual,
        batch: Batch,
        look: Look,
        growth: Growth,
        plant: Callable[[Int64Array, Int64Array, Int64Array], Int64Array],
    ) -> None:
        self._dual, self._batch, self._growth, self._plant = dual, batch, growth, plant
        self._lines = SharedLines(dual, batch, look)

    def grown(self, places: Int64Array) -> Grown:
        """Grows them.

        Args:
            places: Of the subdomains among those of all disjuncts.
        """
        growth, lines, batch = self._growth, self._lines, self._batch
        numba.set_num_threads(self._dual.threads)
        level = _Level(lines.splits(batch, _LEVELS), np.zeros(len(batch)), batch.place)
        self._bound(level)
        proved, left, stuck, domains = [], [], np.arange(0), 0
        for number in range(_LEVELS + 1):
            good = level.bounds > growth.margin
            proved.append(level.take(np.flatnonzero(good)))
            level = level.take(np.flatnonzero(~good))
            late = number > 0 and time.monotonic() > growth.deadline
            if number == _LEVELS or len(level.bounds) > _WIDE or late or not len(level.bounds):
                break
            chosen = np.empty(len(level.bounds), dtype=np.int32)
            kernels.choose(lines.problem, level.splits, chosen)
            if number:
                left.append(level.take(np.flatnonzero(chosen < 0)))
            else:
                stuck = np.flatnonzero(~good)[chosen < 0]
            level = self._children(level.take(np.flatnonzero(chosen >= 0)), chosen[chosen >= 0].astype(np.int64))
            self._bound(level)
            domains += len(level.bounds)
        left.append(level)
        return Grown(self._joined(proved), self._joined(left), batch.take(stuck), places[stuck], domains)

    def _bound(self, level: _Level) -> None:
        g = self._growth
        kernels.ascend(self._lines.problem, level.splits, g.steps, g.rate, g.decay, g.margin, level.bounds)

    def _children(self, level: _Level, chosen: Int64Array) -> _Level:
        """Returns the active children of all subdomains, then the inactive ones."""
        count, lines = len(chosen), self._lines
        both = level.take(np.tile(np.arange(count), 2))
        numbers, signs = np.tile(chosen, 2), np.repeat(np.array([1, -1]), count)
        rows, place = np.arange(2 * count), both.splits.counts.astype(np.int64)
        both.splits.neurons[rows, place] = numbers
        both.splits.signs[rows, place] = signs
        # With a multiplier of 0; earlier neurons' coefficients are 0.
        both.splits.values[rows, place] = np.where(signs > 0, lines.problem.coefficients[numbers], 0)
        both.splits.counts[:] += 1
        return _Level(_ordered(both.splits), both.bounds, self._plant(both.places, lines.neurons[numbers], signs))

    def _joined(self, parts: list[_Level]) -> Batch:
        """Returns all subdomains of several levels, with their dual variables."""
        splits = Splits(*(np.concatenate(arrays) for arrays in zip(*(part.splits for part in parts), strict=True)))
        bounds, places = (np.concatenate([getattr(part, name) for part in parts]) for name in ("bounds", "places"))
        return self._lines.batch(splits, bounds, places)


def _ordered(splits: Splits) -> Splits:
    """Returns the same splits, those of each subdomain in the order of the problem's rows."""
    inside = np.arange(splits.neurons.shape[1]) < splits.counts[:, None]
    order = np.argsort(np.where(inside, splits.neurons, np.iinfo(np.int32).max), axis=1, kind="stable")
    rows = np.arange(len(order))[:, None]
    return Splits(splits.counts, splits.neurons[rows, order], splits.signs[rows, order], splits.values[rows, order])
