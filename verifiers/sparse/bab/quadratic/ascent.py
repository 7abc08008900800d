r"""Finds dual variables for second-order bounds of the last hidden layer.

In the letters of `last_layer`, with v = 0 and S = diag(D) - sum over j of p_j rows_jᵀ rows_j positive definite, the
bound to be raised is

    Φ(m, p, D) = constants + sum over j of d_j(m_j, p_j) - sum of D + least over w of (G · w + wᵀ S w),

which is jointly concave. Its derivatives are values at two minimisers, w* = -S⁻¹ G / 2 and z°_j of d_j: by m_j
z_j(w*) - z°_j, by p_j z°_j² - z_j(w*)², by D_w w*_w² - 1. m and p climb by Adam's steps; D, of which there are
thousands, is multiplied by |w*|, which stands still where the derivative is 0 and, where p = 0, ends at |G| / 2, the
best. The set where S is positive semidefinite is convex, so that halving a step that leaves it leads back. S⁻¹ takes a
system of as many equations as neurons have p > 0. Nothing here is believed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array, Int8Array
from prunecert.verifiers.sparse.bab.quadratic.last_layer import LEAST, LastLayer, Multipliers, admissible, least

#: Adam's memory, and its first step and decay a step.
_FIRST, _SECOND, _RATE, _DECAY = 0.9, 0.99, 0.1, 0.99
#: Least and largest factor of D in a step.
_RANGE = (0.7, 1.4)
#: What D is made larger than it must be where it is too small to begin with.
_ROOM = 1.05
#: Part of what chords cost by which a bound may fall in a step, and how often a step is halved for it.
_FALL, _HALVINGS = 0.025, 6
#: Part of a concave neuron's coefficient that its parabola begins with.
_PART = 0.6


@dataclass(frozen=True, eq=False)
class Ascended:
    """What an ascent has come to.

    Args:
        bound: The best one, by its own arithmetic.
        dual: Where it was.
        z: [n] the neurons' values at its w*.
        gaps: [n] what lies between c relu(z) there and what stands for it: what a split may gain.
    """

    bound: float
    dual: Multipliers
    z: Float64Array
    gaps: Float64Array


def begin(layer: LastLayer) -> Multipliers:
    """Returns where to begin over the whole box."""
    c, low, high = layer.coefficients, layer.low, layer.high
    curved = c < 0
    width = _PART * np.minimum(high, -low)
    p = np.where(curved, -c * _PART / (4 * width), 0.0)
    chord = c * high / (high - low)
    m = np.where(curved, (1 - _PART) * chord + _PART * 0.5 * c, c * (high >= -low))
    G = layer.base + (m - 2 * p * layer.constants) @ layer.rows
    D = np.sqrt(np.einsum("j,jw,jw->w", p, layer.rows, layer.rows)) + LEAST
    return Multipliers(m, p, 0.5 * np.abs(G) + D * _largest(layer.rows, p, D), np.zeros(len(D)))


def _largest(rows: Float64Array, p: Float64Array, D: Float64Array) -> float:
    """Returns the least factor of D at which S is positive semidefinite, about."""
    scaled = np.sqrt(p)[:, None] * rows / np.sqrt(D)
    gram = scaled @ scaled.T
    if not np.isfinite(gram).all():
        return np.inf
    return float(np.linalg.eigvalsh(gram)[-1]) if len(p) else 0.0


def ascend(
    layer: LastLayer, signs: Int8Array, dual: Multipliers, steps: int, target: float, deadline: float
) -> Ascended:
    """Climbs in one subdomain.

    Args:
        layer: The row.
        signs: [n] what is split.
        dual: Where to begin.
        steps: Most steps.
        target: Bound at which to stop.
        deadline: Value of `time.monotonic` at which to stop.
    """
    # What float64 doesn't hold has no bound.
    with np.errstate(all="ignore"):
        return _ascend(layer, signs, dual, steps, target, deadline)


def _ascend(
    layer: LastLayer, signs: Int8Array, dual: Multipliers, steps: int, target: float, deadline: float
) -> Ascended:
    m, p = admissible(layer, signs, dual.m, dual.p)
    D = dual.D.copy()
    size = np.maximum(np.abs(layer.coefficients), 1e-12)
    scales = size, size / (4 * np.minimum(layer.high, -layer.low))
    chord = np.where(layer.coefficients < 0, size * layer.high * -layer.low / (layer.high - layer.low), 0.0)
    fall = _FALL * float(chord.sum())
    moments = [np.zeros((2, len(m))) for _ in scales]
    best = here = _evaluate(layer, signs, m, p, D)
    if here is None:
        best = here = _evaluate(layer, signs, m, p, D * (_largest(layer.rows, p, D) * _ROOM))
    if here is None or best is None or not np.isfinite(here.bound):
        none = np.zeros(len(m))
        return Ascended(-np.inf, dual, none, none)
    for step in range(steps):
        if best.bound > target or time.monotonic() > deadline:
            break
        proposed = _step(layer, signs, here, scales, moments, step)
        state = _evaluate(layer, signs, *proposed)
        for _ in range(_HALVINGS):
            if state is not None and state.bound >= here.bound - fall:
                break
            old = here.dual.m, here.dual.p, here.dual.D
            proposed = tuple(0.5 * (a + b) for a, b in zip(old, proposed, strict=True))
            state = _evaluate(layer, signs, *proposed)
        if state is None or not np.isfinite(state.bound):
            break
        here = state
        if here.bound > best.bound:
            best = here
    return best


def _step(
    layer: LastLayer,
    signs: Int8Array,
    here: Ascended,
    scales: tuple[Float64Array, Float64Array],
    moments: list[Float64Array],
    step: int,
) -> tuple[Float64Array, ...]:
    """Returns the next m, p and D; moments are overwritten."""
    m, p, D, z = here.dual.m, here.dual.p, here.dual.D, here.z
    curved = (signs == 0) & (layer.coefficients < 0)
    where = np.where(curved, least(layer, m, p)[1], 0.0)
    slopes = z - where, np.where(curved, where * where - z * z, 0.0)
    moved = []
    for value, slope, scale, moment in zip((m, p), slopes, scales, moments, strict=True):
        by = slope * scale
        moment[0] = _FIRST * moment[0] + (1 - _FIRST) * by
        moment[1] = _SECOND * moment[1] + (1 - _SECOND) * by * by
        mean, spread = moment[0] / (1 - _FIRST ** (step + 1)), moment[1] / (1 - _SECOND ** (step + 1))
        moved.append(value + _RATE * _DECAY**step * scale * mean / (np.sqrt(spread) + 1e-12))
    return (*admissible(layer, signs, *moved), D * np.clip(np.abs(here.dual.v), *_RANGE) + LEAST)


def _evaluate(layer: LastLayer, signs: Int8Array, m: Float64Array, p: Float64Array, D: Float64Array) -> Ascended | None:
    """Returns Φ and its w* as v; None where S isn't positive definite."""
    rows, constants = layer.rows, layer.constants
    G = layer.base + (m - 2 * p * constants) @ rows
    mine = np.flatnonzero(p > 0)
    curved = np.sqrt(p[mine])[:, None] * rows[mine]
    over = curved / D
    matrix = np.eye(len(mine)) - over @ curved.T
    try:
        factor = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return None
    part = np.linalg.solve(factor.T, np.linalg.solve(factor, over @ G))
    w = -0.5 * (G / D + part @ over)
    d = np.where((signs == 0) & (layer.coefficients < 0), least(layer, m, p)[0], 0.0)
    bound = layer.constant + float((m * constants - p * constants**2 + d).sum() - D.sum() + 0.5 * (G @ w))
    z = rows @ w + constants
    relu = np.where(signs == 0, np.maximum(z, 0.0), np.where(signs > 0, z, 0.0))
    gaps = np.where(signs == 0, layer.coefficients * relu - (m * z - p * z * z + d), 0.0)
    return Ascended(bound, Multipliers(m, p, D, w), z, gaps)
