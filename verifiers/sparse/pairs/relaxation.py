"""Linear bounds of a ReLU in two networks at once.

A backward walk brings a coefficient λ for relu(z) and κ for δ = relu(z') - relu(z) to each neuron. Sought are μ, ν, c
with

    λ relu(z) + κ δ >= μ z + ν d + c,   d = z' - z,

wherever l <= z <= u, l' <= z' <= u', m <= d <= n. Whatever μ and ν are, the best c is the minimum of the difference of
the two sides, h(z, d). In each quadrant of signs of z and z' that is linear, E z + F d:

    z >= 0, z' >= 0: E = λ - μ,      F = κ - ν          z >= 0, z' <= 0: E = λ - κ - μ, F = -ν
    z <= 0, z' >= 0: E = κ - μ,      F = κ - ν          z <= 0, z' <= 0: E = -μ,        F = -ν

and what is left of the set in a quadrant has the form that the whole has. There, for a given z, the best d is an end of
[max(m, l' - z), min(n, u' - z)], so that a convex function of z with one kink remains: its minimum is at the kink or at
an end of [max(l, l' - n), min(u, u' - m)]. Twelve points, then, and a bound that is exact for these μ, ν (no set of
inequalities for z, z', d alone gives more). Where one of the networks is stable these are the usual triangles.

The choice of μ and ν is free; three are had:

- *apart*: each network by the triangle of CROWN (Zhang et al. 2018);
- *together*: relu(z) by its triangle, δ by its chord over d: from below min(0, d), from above max(0, d)
  (NeuroDiff, Paulsen et al., ASE 2020, relaxes differences so);
- *mixed*: for each neuron and row, the one of the two that loses less on average at the corners of the set.

Rounding: E and F are within 8 u of the magnitudes that they are sums of, the points within 8 u of themselves, and h
changes by at most |E| + |F| times what z changes by; c is lowered by more than that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array
from prunecert.verifiers.sparse.pairs.ranges import CHANGE, FIRST, SECOND, PairRanges, least_difference
from prunecert.verifiers.sparse.walks import TINY, UNIT

Choice = Literal["apart", "together", "mixed"]


@dataclass(frozen=True, eq=False)
class PairPlanes:
    """What is below λ relu(z) + κ δ.

    Args:
        value: Coefficients μ of z, [size, rows].
        change: Coefficients ν of d, [size, rows].
        constant: What is added for the neurons of `index`, [neurons, rows]; 0 or less in most cases.
        index: Neurons that are unstable in one of the networks, and those that round; [neurons].
    """

    value: Float64Array
    change: Float64Array
    constant: Float64Array
    index: Int64Array


def relax(lam: Float64Array, kappa: Float64Array, ranges: PairRanges, choice: Choice) -> PairPlanes:
    """Bounds a layer of ReLUs from below.

    Args:
        lam: Coefficients of relu(z), [size, rows].
        kappa: Coefficients of relu(z') - relu(z), likewise.
        ranges: Of the layer before its ReLU; of one box, or a box for each row.
        choice: Of the slopes.
    """
    low, high = ranges.lower, ranges.upper
    on, on2 = low[FIRST] >= 0, low[SECOND] >= 0
    off, off2 = high[FIRST] <= 0, high[SECOND] <= 0
    equal = (low[CHANGE] == 0) & (high[CHANGE] == 0)
    # Equal neurons have no difference behind the ReLU either.
    kappa = np.where(equal, 0.0, kappa)
    # Stable in both: exact, but for the rounding of λ - κ. What is 0 is both on and off, and the first case counts.
    cases = [on & on2, off & off2, off & on2]
    value, change = np.zeros_like(lam), np.zeros_like(lam)
    if low.shape[2] == 1:
        both, second = cases[0][:, 0], (cases[2] & ~cases[0] & ~cases[1])[:, 0]
        value[both], change[both] = lam[both], kappa[both]
        value[second] = change[second] = kappa[second]
    else:
        value, change = np.select(cases, [lam, value, kappa]), np.select(cases, [kappa, change, kappa])
    inexact = ~(cases[0] | cases[1] | cases[2])
    index = np.flatnonzero(inexact.any(axis=1))
    if not len(index):
        return PairPlanes(value, change, np.zeros((0, lam.shape[1])), index)
    few = PairRanges(low[:, index], high[:, index])
    # What is infinite, or no number, becomes a constant of minus infinity.
    with np.errstate(invalid="ignore", over="ignore"):
        mu, nu, constant = _planes(lam[index], kappa[index], few, choice)
    # What is stable in some boxes of the row and not in others.
    exact = np.broadcast_to(~inexact[index], mu.shape)
    value[index] = np.where(exact, value[index], mu)
    change[index] = np.where(exact, change[index], nu)
    return PairPlanes(value, change, np.where(exact, 0.0, constant), index)


def _planes(
    lam: Float64Array, kappa: Float64Array, ranges: PairRanges, choice: Choice
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Returns μ, ν and c of neurons, [neurons, rows] each."""
    low, high = ranges.lower, ranges.upper
    apart, free = _apart(lam, kappa, ranges), ranges.unstable().all(axis=0)
    if choice == "apart" or not free.any():
        return (*apart, _constant(lam, kappa, *apart, ranges))
    together = (
        np.where(free, _triangle(lam, low[FIRST], high[FIRST]), apart[0]),
        np.where(free, _chord(kappa, low[CHANGE], high[CHANGE]), apart[1]),
    )
    if choice == "together":
        return (*together, _constant(lam, kappa, *together, ranges))
    constants = [_constant(lam, kappa, mu, nu, ranges) for mu, nu in (apart, together)]
    losses = [
        _at_corners(lam, kappa, mu, nu, ranges) - constant
        for (mu, nu), constant in zip((apart, together), constants, strict=True)
    ]
    with np.errstate(invalid="ignore"):
        better = losses[1] < losses[0]
    chosen = (np.where(better, b, a) for a, b in zip((*apart, constants[0]), (*together, constants[1]), strict=True))
    mu, nu, constant = chosen
    return mu, nu, constant


def _slope(low: Float64Array, high: Float64Array) -> Float64Array:
    """Returns the slope of the chord of a ReLU over [low, high]: in [0, 1]."""
    width = np.maximum(high, 0.0) - np.minimum(low, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.where(width > 0, np.maximum(high, 0.0) / width, 0.0)
    return np.where(np.isfinite(slope), slope, 1.0)


def _triangle(factor: Float64Array, low: Float64Array, high: Float64Array) -> Float64Array:
    """Returns CROWN's slope of factor * relu(z) from below."""
    rising = (low >= 0) | ((high > 0) & (high >= -low))
    return factor * np.where(factor >= 0, rising.astype(np.float64), _slope(low, high))


def _chord(factor: Float64Array, least: Float64Array, most: Float64Array) -> Float64Array:
    """Returns the slope over d of factor * δ from below."""
    return factor * np.where(factor >= 0, _slope(-most, -least), _slope(least, most))


def _apart(lam: Float64Array, kappa: Float64Array, ranges: PairRanges) -> tuple[Float64Array, Float64Array]:
    low, high = ranges.lower, ranges.upper
    nu = _triangle(kappa, low[SECOND], high[SECOND])
    return _triangle(lam - kappa, low[FIRST], high[FIRST]) + nu, nu


def _constant(
    lam: Float64Array, kappa: Float64Array, mu: Float64Array, nu: Float64Array, ranges: PairRanges
) -> Float64Array:
    """Returns the largest c, rounded down."""
    (low, low2, least), (high, high2, most) = ranges.lower, ranges.upper
    best = np.full(np.broadcast_shapes(lam.shape, low.shape), np.inf)
    for first in (True, False):
        for second in (True, False):
            ends = (np.maximum(low, 0.0), high) if first else (low, np.minimum(high, 0.0))
            ends2 = (np.maximum(low2, 0.0), high2) if second else (low2, np.minimum(high2, 0.0))
            quadrant = PairRanges(np.stack([ends[0], ends2[0], least]), np.stack([ends[1], ends2[1], most]))
            # relu(z') - relu(z) is d, -z, z + d and 0 in the four.
            slope = lam if first and second else lam - kappa if first else kappa if second else np.zeros_like(lam)
            best = np.minimum(best, smallest(slope - mu, (kappa if second else 0.0) - nu, quadrant))
    size = np.maximum(np.abs(ranges.lower), np.abs(ranges.upper))
    values = np.maximum(size[FIRST], size[SECOND])
    slopes = np.abs(lam) + np.abs(kappa) + np.abs(mu)
    changes = np.abs(kappa) + np.abs(nu)
    # No point lies further apart than the two values, nor than what d can be.
    rounding = 64 * UNIT * (slopes * values + changes * (values + size[CHANGE])) + TINY * (slopes + changes > 0)
    constant = best - rounding
    # An empty set of values has no minimum, and anything holds.
    result: Float64Array = np.where(best == np.inf, 0.0, np.where(np.isnan(constant), -np.inf, constant))
    return result


def smallest(slope: Float64Array, change: Float64Array, quadrant: PairRanges) -> Float64Array:
    """Returns the minimum of slope * z + change * d over a set of the form of `PairRanges`; infinite if it is empty."""
    (_, low2, least), (_, high2, most) = quadrant.lower, quadrant.upper
    start, end = least_difference(quadrant)
    empty = (start > end) | (quadrant.lower > quadrant.upper).any(axis=0)
    rising = change >= 0
    kink = np.where(rising, low2 - least, high2 - most)
    best = np.full(np.broadcast_shapes(slope.shape, start.shape), np.inf)
    for point in (start, end, np.minimum(np.maximum(kink, start), end)):
        d = np.where(rising, np.maximum(least, low2 - point), np.minimum(most, high2 - point))
        best = np.minimum(best, slope * point + change * d)
    result: Float64Array = np.where(empty, np.inf, best)
    return result


def _at_corners(
    lam: Float64Array, kappa: Float64Array, mu: Float64Array, nu: Float64Array, ranges: PairRanges
) -> Float64Array:
    """Returns the mean of h at four corners of the set; it only chooses slopes."""
    (_, low2, least), (_, high2, most) = ranges.lower, ranges.upper
    start, end = least_difference(ranges)
    total = np.zeros(np.broadcast_shapes(lam.shape, start.shape))
    for z in (start, end):
        for d in (np.maximum(least, low2 - z), np.minimum(most, high2 - z)):
            delta = np.maximum(z + d, 0.0) - np.maximum(z, 0.0)
            total += lam * np.maximum(z, 0.0) + kappa * delta - mu * z - nu * d
    return total / 4
