r"""The last hidden layer's unstable neurons over a box, and a second-order bound of what is behind them.

With w in [-1, 1] as in `affine`, z the n unstable neurons of the last hidden layer and c their coefficients behind
their ReLUs, a row of the specification is

    f = base · w + constant + sum over j of c_j relu(z_j) + e_f,      z_j = rows_j · w + constants_j + e_j,

|e| <= error. Each c_j relu(z_j) is at least m_j z_j - p_j z_j² + d_j on [l_j, u_j], where p_j >= 0; p_j = 0 and
m_j = u / (u - l) c_j is the chord of a neuron of c_j < 0, by which each of them is at its worst by itself. They can't
all be at once: the z_j are sums of thousands of numbers, and few neurons' worst cases lie in the same direction. That
is what p says. For any D >= 0 with diag(D) - sum over j of p_j rows_jᵀ rows_j positive semidefinite, any v, and
ζ_j = rows_j · v + constants_j

    sum over j of p_j (z_j - ζ_j)² <= sum over w of D_w (w - v_w)²,

so that f is at least a constant plus the least of G · w - D · (w - v)², G = base + sum over j (m_j - 2 p_j ζ_j) rows_j,
which lies at an end, -1 or 1, of each w. This is the dual of Shor's semidefinite relaxation (Raghunathan et al. 2018)
of one layer, whose multipliers are diagonal; with p = 0 it is that of linear programming. `certified` takes any
dual variables, and charges all rounding:

- R D⁻¹ Rᵀ is summed in float64, each entry off by at most γ times the product of two rows' lengths, so that all of
  it is off by at most γ times its trace, in the order of positive semidefinite matrices;
- that p^½ (R D⁻¹ Rᵀ) p^½ is at most 1 + τ is read off a factor L, whatever computed it: A - L Lᵀ is evaluated, and its
  norm, with what it may be off, is τ; D is taken (1 + τ) times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array, Int8Array
from prunecert.verifiers.sparse.bab.quadratic.affine import NodeLines, affine_forms
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.node_bounds import TINY, CheckedBounds, gamma

_UNIT = 2.0**-53
_HUGE = 1e50
#: Least D: a w that nothing depends on costs that.
LEAST = 1e-13
#: Farthest v, whose best value may lie outside of [-1, 1].
FAR = 8.0


@dataclass(frozen=True, eq=False)
class LastLayer:
    """A row of the specification over a box, W numbers and n neurons.

    Args:
        rows: [n, W] of z.
        constants: [n], likewise.
        errors: [n], likewise.
        reach: [n] no less than rows' sums of magnitudes and the constants' magnitudes.
        low: [n] bounds of z.
        high: Likewise.
        base: [W] of the specification.
        constant: Likewise.
        error: Likewise.
        coefficients: [n] c.
    """

    rows: Float64Array
    constants: Float64Array
    errors: Float64Array
    reach: Float64Array
    low: Float64Array
    high: Float64Array
    base: Float64Array
    constant: float
    error: float
    coefficients: Float64Array


@dataclass(frozen=True, eq=False)
class Multipliers:
    """Dual variables of a subdomain.

    Args:
        m: [n].
        p: [n].
        D: [W].
        v: [W].
    """

    m: Float64Array
    p: Float64Array
    D: Float64Array
    v: Float64Array


def last_layer(
    checker: Checker,
    bounds: CheckedBounds,
    row: Float64Array,
    constant: float,
    drawn: NodeLines,
) -> LastLayer:
    """Returns a row of the outputs over a box in that form.

    Args:
        checker: Of the network.
        bounds: Of all nodes over the box, with an unstable neuron and without cuts.
        row: [outputs] of the specification, taken as exact.
        constant: What is added.
        drawn: The lines before the last hidden layer.
    """
    node = last_unstable(checker, bounds)
    places = bounds.unstable(node)
    seeds = np.zeros((len(places), len(bounds.lower[node])))
    seeds[np.arange(len(places)), places] = 1.0
    neurons = affine_forms(checker, bounds, node, seeds, drawn, node)
    last = affine_forms(checker, bounds, checker.last, row[None], drawn, node)
    total = float(last.constants[0]) + constant
    return LastLayer(
        rows=neurons.coefficients,
        constants=neurons.constants,
        errors=neurons.errors,
        reach=(np.abs(neurons.coefficients).sum(axis=1) + np.abs(neurons.constants)) * (1.0 + 1e-9) + TINY,
        low=bounds.lower[node][places],
        high=bounds.upper[node][places],
        base=last.coefficients[0],
        constant=total,
        error=float(last.errors[0]) + 4 * _UNIT * (abs(total) + abs(constant)),
        coefficients=last.apart[0],
    )


def last_unstable(checker: Checker, bounds: CheckedBounds) -> int:
    """Returns the last node with unstable ReLUs, -1 where there is none."""
    return next((node for node in reversed(checker.activated) if len(bounds.unstable(node))), -1)


def least(layer: LastLayer, m: Float64Array, p: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Returns the least of c relu(z) - m z + p z² on [l, u] for each neuron, and a z at which it is."""
    c, low, high = layer.coefficients, layer.low, layer.high
    value, where = np.zeros(len(m)), np.zeros(len(m))
    # For p = 0 an end, and 0 where nothing falls.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for slope, first, last in ((-m, low, np.zeros(len(m))), (c - m, np.zeros(len(m)), high)):
            bottom = np.where(p > 0, -slope / (2 * p), np.where(slope > 0, -np.inf, np.inf))
            bottom = np.clip(bottom, first, last)
            here = slope * bottom + p * bottom * bottom
            where = np.where(here < value, bottom, where)
            value = np.minimum(value, here)
    return value, where


def _least_rigorous(layer: LastLayer, m: Float64Array, p: Float64Array) -> Float64Array:
    """Returns no more than `least`, for all neurons."""
    c, low, high = layer.coefficients, layer.low, layer.high
    value, size = np.zeros(len(m)), np.zeros(len(m))
    for slope, end in ((-m, low), (c - m, high)):
        ends = slope * end + p * end * end
        bottom = -slope / (2 * p)
        # The parabola's lowest point is no higher than any of it; beyond the end by more than rounding it isn't there.
        inside = (p > 0) & (slope * end < 0) & (np.abs(bottom) <= np.abs(end) * (1.0 + 1e-9))
        # Not a square, which could underflow where the quotient doesn't.
        lowest = np.where(inside, 0.5 * slope * bottom, ends)
        value = np.minimum(value, lowest)
        size = np.maximum(size, np.abs(slope * end) + p * end * end + np.abs(np.where(inside, lowest, 0.0)))
        size = np.maximum(size, (np.abs(c) + np.abs(m)) * np.abs(end))
    result: Float64Array = value - 32 * _UNIT * size - TINY
    return result


def admissible(
    layer: LastLayer, signs: Int8Array, m: Float64Array, p: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Returns the nearest m and p that a subdomain allows.

    Args:
        layer: The neurons.
        signs: [n] 1: z >= 0, -1: z <= 0, 0: either.
        m: [n].
        p: [n].
    """
    c = layer.coefficients
    convex = np.clip(m, 0.0, np.maximum(c, 0.0))
    free = np.where(c < 0, m, convex)
    m = np.where(signs > 0, np.minimum(m, c), np.where(signs < 0, np.maximum(m, 0.0), free))
    return m, np.where((signs == 0) & (c < 0), np.maximum(p, 0.0), 0.0)


def certified(layer: LastLayer, signs: Int8Array, dual: Multipliers) -> float:
    """Returns a lower bound of the row over a subdomain, in real arithmetic; minus infinity where none can be had.

    Args:
        layer: The row.
        signs: [n] 1: z >= 0, -1: z <= 0, 0: either.
        dual: Any numbers.

    Raises:
        ValueError: There are more or fewer of them than the row has neurons and w.
    """
    count, width = layer.rows.shape
    shapes = (signs.shape, dual.m.shape, dual.p.shape, dual.D.shape, dual.v.shape)
    if shapes != ((count,), (count,), (count,), (width,), (width,)):
        raise ValueError(f"phases and dual variables of {shapes} for {count} neurons and {width} numbers")
    with np.errstate(all="ignore"):
        bound = _certified(layer, signs, dual)
    return bound if np.isfinite(bound) else -np.inf


def _certified(layer: LastLayer, signs: Int8Array, dual: Multipliers) -> float:
    rows, constants, errors, reach = layer.rows, layer.constants, layer.errors, layer.reach
    count, width = rows.shape
    m, p = admissible(layer, signs, dual.m, dual.p)
    D, v = np.maximum(dual.D, LEAST), np.clip(dual.v, -FAR, FAR)
    far = max(1.0, float(np.abs(v).max(initial=0.0)))
    D = D * (1.0 + _excess(rows, p, D)) * (1.0 + 4 * _UNIT)
    curved = (signs == 0) & (layer.coefficients < 0)
    d = np.where(curved, _least_rigorous(layer, m, p), 0.0)
    zeta = rows @ v + constants
    off = gamma(width + 1) * reach * far
    slope = m - 2 * p * zeta
    through = slope @ rows
    G = layer.base + through
    ends = np.minimum(G - D * (1.0 - v) ** 2, -G - D * (1.0 + v) ** 2)
    terms = np.concatenate([ends, slope * constants, p * zeta * zeta, d])
    sizes = np.concatenate([np.abs(G) + (1 + far) ** 2 * D, np.abs(slope * constants), p * zeta * zeta, np.abs(d)])
    size = float(sizes.sum()) + abs(layer.constant)
    kinds = np.abs(m) + 2 * p * np.abs(zeta)
    charge = (
        # z is not quite the affine function, nor ζ its value at v, nor the slope what it is to be.
        float((np.abs(m) * errors + p * (2 * reach * errors + errors * errors)).sum())
        + float((p * (2 * (1 + far) * reach * off + off * off)).sum())
        + float((4 * _UNIT * kinds * reach).sum())
        # Sums for G, each times a w of at most 1.
        + float(gamma(count + 1) * (np.abs(layer.base).sum() + (np.abs(slope) * reach).sum()))
        + layer.error
    )
    slack = 1.01 * (float(gamma(len(terms) + 8)) * size + charge) + TINY
    total = float(terms.sum()) + layer.constant
    sides = np.maximum(np.abs(layer.low), np.abs(layer.high)), np.abs(layer.coefficients)
    # What is no number stays the largest.
    largest = np.max([size, *(part.max(initial=0.0) for part in (D, kinds, p, reach, *sides))])
    if not largest < _HUGE:
        return -np.inf
    return total - slack - 4 * _UNIT * (abs(total) + slack)


def _excess(rows: Float64Array, p: Float64Array, D: Float64Array) -> float:
    """Returns τ >= 0 with sum over j of p_j rows_jᵀ rows_j <= (1 + τ) diag(D), as semidefinite matrices are ordered."""
    mine = np.flatnonzero(p > 0)
    if not len(mine):
        return 0.0
    # No less than p^½ and D^-½: a larger one makes the matrix larger, in that order.
    left = np.sqrt(p[mine]) * (1.0 + 4 * _UNIT)
    right = (1.0 / np.sqrt(D)) * (1.0 + 8 * _UNIT)
    scaled = (rows[mine] * left[:, None]) * right
    gram = scaled @ scaled.T
    gram = 0.5 * (gram + gram.T)
    count, width = scaled.shape
    trace = float(np.trace(gram)) * (1.0 + 1e-6)
    # Entries and sums are rounded.
    loose = 2.0 * float(gamma(width + 16)) * trace
    target = np.eye(count) - gram
    try:
        factor = np.linalg.cholesky(target)
    except np.linalg.LinAlgError:
        return np.inf
    rest = target - factor @ factor.T
    # Any factor will do: what is left over is no more than its norm below 0.
    norm = float(np.sqrt((rest * rest).sum())) * (1.0 + 1e-9)
    lengths = float((factor * factor).sum()) + count + trace
    excess: float = 1.01 * (loose + norm + float(gamma(count + 8)) * lengths) + TINY
    return excess
