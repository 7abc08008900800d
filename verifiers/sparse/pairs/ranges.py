"""Intervals of two networks' values and of their difference, carried through the layers together.

ReluDiff (Paulsen, Wang, Wang, ICSE 2020) carries the interval of d = z' - z beside those of z and z'; here each of the
three narrows the other two, and both ways to write d (`network`) are taken.

A difference through a ReLU: let z be in [l, u], z' in [l', u'] and d in [m, n]. For a given z, z' lies between
max(l', z + m) and min(u', z + n), and ReLU is monotone, so that δ = relu(z') - relu(z) is at least

    φ(z) = max(0, l', z + m) - max(0, z),   which grows for z <= 0 and falls for z >= 0,

and at most ψ(z) = max(0, min(u', z + n)) - max(0, z), which likewise grows for z <= 0 and falls for z >= 0. Hence δ is
at least the smaller of φ at the two ends of what z can be, [max(l, l' - n), min(u, u' - m)], and at most ψ at the
point of that interval that is nearest to 0. All cases of stable and unstable neurons are in that formula, and nothing
is lost.

Rounding: bounds are moved outwards by more than the error of what computed them, sums of products by γ (Higham 2002,
section 3.1, see `verifiers.sparse.certify`). What is 0 in all its terms stays exactly 0, so that equal networks have a
difference of 0. A product underflows only where a magnitude is below 1e-200, and is then counted as that much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import BoolArray, Float64Array, Int64Array
from prunecert.verifiers.sparse.node_bounds import gamma
from prunecert.verifiers.sparse.pairs.network import Pair, PairTerm, ReachMatrix, weight_error
from prunecert.verifiers.sparse.walks import TINY, UNIT

#: The first network's values, the second's, and the second's minus the first's: places in arrays of ranges.
FIRST, SECOND, CHANGE = range(3)


def down(values: Float64Array) -> Float64Array:
    """Returns lower bounds of results of one addition, or of what is as exact; exact zeros stay."""
    lower: Float64Array = values - np.abs(values) * (2 * UNIT)
    return lower


def up(values: Float64Array) -> Float64Array:
    """Returns upper bounds, likewise."""
    upper: Float64Array = values + np.abs(values) * (2 * UNIT)
    return upper


@dataclass(frozen=True, eq=False)
class PairRanges:
    """Bounds of a node's values in both networks and of their difference.

    Args:
        lower: [3, size, boxes], in the order `FIRST`, `SECOND`, `CHANGE`.
        upper: Likewise.
    """

    lower: Float64Array
    upper: Float64Array

    def unstable(self) -> BoolArray:
        """Says which neurons may be on either side of 0 in the first network, and in the second: [2, size, boxes]."""
        free: BoolArray = (self.lower[:CHANGE] < 0) & (self.upper[:CHANGE] > 0)
        return free

    def meet(self, other: PairRanges) -> PairRanges:
        """Returns the intersection."""
        return PairRanges(np.maximum(self.lower, other.lower), np.minimum(self.upper, other.upper))

    def narrowed(self) -> PairRanges:
        """Returns what each of the three says of the other two, too."""
        lower, upper = self.lower.copy(), self.upper.copy()
        with np.errstate(invalid="ignore"):
            _more(lower[CHANGE], down(lower[SECOND] - upper[FIRST]), np.fmax)
            _more(upper[CHANGE], up(upper[SECOND] - lower[FIRST]), np.fmin)
            _more(lower[SECOND], down(lower[FIRST] + lower[CHANGE]), np.fmax)
            _more(upper[SECOND], up(upper[FIRST] + upper[CHANGE]), np.fmin)
            _more(lower[FIRST], down(lower[SECOND] - upper[CHANGE]), np.fmax)
            _more(upper[FIRST], up(upper[SECOND] - lower[CHANGE]), np.fmin)
        return PairRanges(lower, upper)

    def columns(self, index: Int64Array) -> PairRanges:
        """Returns the ranges of some of the boxes; of a single box, that one for all."""
        if self.lower.shape[2] == 1:
            return self
        return PairRanges(self.lower[:, :, index], self.upper[:, :, index])

    def neurons(self, index: Int64Array) -> PairRanges:
        """Returns the ranges of some of the neurons, given in rising order."""
        if len(index) == self.lower.shape[1]:
            return self
        return PairRanges(self.lower[:, index], self.upper[:, index])

    def empty(self) -> BoolArray:
        """Says for which boxes nothing is left: [boxes]."""
        return np.asarray((self.lower > self.upper).any(axis=(0, 1)))


def _more(values: Float64Array, other: Float64Array, choose: np.ufunc) -> None:
    # What is not a number says nothing.
    choose(values, other, out=values)


def of_box(lower: Float64Array, upper: Float64Array) -> PairRanges:
    """Returns the ranges of the input where both networks are given the same.

    Args:
        lower: Lower corner, flat float64.
        upper: Upper corner.
    """
    zero = np.zeros_like(lower)
    return PairRanges(np.stack([lower, lower, zero])[:, :, None], np.stack([upper, upper, zero])[:, :, None])


def least_difference(ranges: PairRanges) -> tuple[Float64Array, Float64Array]:
    """Returns the ends of what z can be: `lower` and `upper` narrowed by z' and d, rounded outwards."""
    (low, low2, least), (high, high2, most) = ranges.lower, ranges.upper
    return np.maximum(low, down(low2 - most)), np.minimum(high, up(high2 - least))


def through_relu(ranges: PairRanges) -> PairRanges:
    """Returns the ranges behind the ReLU, see the module's docstring."""
    low2, high2 = ranges.lower[SECOND], ranges.upper[SECOND]
    least, most = ranges.lower[CHANGE], ranges.upper[CHANGE]
    with np.errstate(invalid="ignore"):
        ends = least_difference(ranges)
        # Both are rounded twice, by an addition and a subtraction of numbers that are not below 0.
        below = [
            down(np.maximum(0.0, np.maximum(low2, down(end + least))) - np.maximum(0.0, end)) for end in ends
        ]  # fmt: skip
        top = np.clip(0.0, *ends)
        above = up(np.maximum(0.0, np.minimum(high2, up(top + most))) - np.maximum(0.0, top))
        # Where the ends have crossed the box is empty, and anything holds; a difference is within d's range and 0.
        change = np.fmax(np.minimum(*below), np.minimum(least, 0.0)), np.fmin(above, np.maximum(most, 0.0))
    values = np.maximum(ranges.lower[:CHANGE], 0.0), np.maximum(ranges.upper[:CHANGE], 0.0)
    return PairRanges(*(np.concatenate([value, one[None]]) for value, one in zip(values, change, strict=True)))


@dataclass(frozen=True, eq=False)
class _Summand:
    """A matrix, and bounds of what it is multiplied by."""

    factor: ReachMatrix
    lower: Float64Array
    upper: Float64Array


def affine(pair: Pair, node: int, before: Sequence[PairRanges]) -> PairRanges:
    """Returns interval bounds of a node from those of the nodes before it.

    Args:
        pair: The networks.
        node: The node.
        before: Ranges of the earlier nodes.
    """
    first: list[_Summand] = []
    second: list[_Summand] = []
    change: tuple[list[_Summand], list[_Summand]] = ([], [])
    boxes = max(ranges.lower.shape[2] for ranges in before)
    loose = np.zeros((3, pair.sizes[node], boxes))
    for term in pair.terms[node]:
        ranges = before[term.source]
        if term.activated:
            ranges = through_relu(ranges)
        of = [(low, high) for low, high in zip(ranges.lower, ranges.upper, strict=True)]
        first.append(_Summand(term.first, *of[FIRST]))
        second.append(_Summand(term.second, *of[SECOND]))
        change[0].extend((_Summand(term.second, *of[CHANGE]), _Summand(term.change, *of[FIRST])))
        change[1].extend((_Summand(term.first, *of[CHANGE]), _Summand(term.change, *of[SECOND])))
        if not term.exact:
            loose += inexact(term, ranges)
    shift = pair.shifts[node]
    error = shift.error[:, :, None] + loose
    lower, upper = zip(
        *(
            _summed(summands, shift.value[place], error[place])
            for place, summands in ((FIRST, first), (SECOND, second), (CHANGE, change[0]), (CHANGE, change[1]))
        ),
        strict=True,
    )
    return PairRanges(
        np.stack([lower[0], lower[1], np.maximum(*lower[2:])]), np.stack([upper[0], upper[1], np.minimum(*upper[2:])])
    )


def inexact(term: PairTerm, ranges: PairRanges) -> Float64Array:
    """Bounds what a term's weights, which aren't the files' own, change in both values and the difference."""
    size = np.maximum(np.abs(ranges.lower), np.abs(ranges.upper))
    one = weight_error(term.first.magnitude @ size[FIRST], size[FIRST])
    other = weight_error(term.second.magnitude @ size[SECOND], size[SECOND])
    return np.stack([one, other, (one + other) * (1 + 4 * UNIT)])


def _summed(summands: Sequence[_Summand], bias: Float64Array, error: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Bounds a sum of products and a constant: lower and upper, [size, boxes]."""
    middle, reach = (
        np.repeat(bias[:, None], error.shape[1], axis=1),
        np.repeat(np.abs(bias)[:, None], error.shape[1], axis=1),
    )
    radius = error.copy()
    terms = np.ones(len(bias))
    for item in summands:
        center = 0.5 * item.lower + 0.5 * item.upper
        # At least the distance of either end from the computed centre.
        half = np.maximum(item.upper - center, center - item.lower) * (1.0 + 4 * UNIT)
        size = np.abs(center) + half
        size = np.where(size > 0, np.maximum(size, TINY), size)
        middle += item.factor.matrix @ center
        radius += item.factor.magnitude @ half
        reach += item.factor.magnitude @ size
        terms += np.diff(item.factor.matrix.indptr)
    slack = (
        radius
        + 2.0 * gamma(2.0 * terms)[:, None] * (reach + TINY * (reach > 0))
        + radius * ((8 + 4 * len(summands)) * UNIT)
    )
    edge = 4 * UNIT * (np.abs(middle) + slack)
    lower, upper = middle - slack - edge, middle + slack + edge
    return np.where(np.isnan(lower), -np.inf, lower), np.where(np.isnan(upper), np.inf, upper)
