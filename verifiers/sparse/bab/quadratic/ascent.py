r"""Finds dual variables for second-order bounds of the last hidden layer.

In the letters of `last_layer`, with v = 0 and S = diag(D) - sum over j of p_j rows_jᵀ rows_j positive definite, the
bound to be raised is

    Φ(m, p, D) = constants + sum over j of d_j(m_j, p_j) - sum of D + least over w of (G · w + wᵀ S w),

which is jointly concave. Its derivatives are values at two minimisers, w* = -S⁻¹ G / 2 and z°_j of d_j: by m_j
z_j(w*) - z°_j, by p_j z°_j² - z_j(w*)², by D_w w*_w² - 1. m and p climb by Adam's steps; D, of which there are
thousands, is multiplied by a power of w*², averaged over some steps, since at the best D there are many minimisers.
Where S is not positive definite by some room, which shrinks, D is made larger as a whole: p^½ R D⁻¹ Rᵀ p^½, which says
so, is only divided by the factor. That product of as many rows as neurons are curved by as many columns as there are w
takes most of a step; it is done in float32, and neurons whose chords cost next to nothing keep them. Nothing here is
believed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array, Int8Array, Int64Array
from prunecert.verifiers.sparse.bab.quadratic.last_layer import LEAST, LastLayer, Multipliers, admissible, least

#: Adam's memory, its first step, that of an ascent which goes on from another's end, and decay a step.
_FIRST, _SECOND, _RATE, _LATER, _DECAY = 0.9, 0.99, 0.1, 0.02, 0.98
#: Memory of w*², its power, and how far it may be from 1 in a step.
_MEMORY, _POWER, _RANGE = 0.5, 0.25, (0.6, 1.7)
#: Part of D by which S is positive definite: at first, its decay a step, and at least.
_ROOM, _SHRINK, _LEAST_ROOM = 0.03, 0.97, 0.002
#: Factors of D that are tried, small ones first, and where it is given up.
_FACTORS, _MOST = (1.02, 1.1), 1e6
#: Part of what all chords cost that is curved, the largest first.
_SHARE = 0.99
#: Scale of the multipliers of what is fixed before the last hidden layer, in mean coefficients.
_FIXED = 0.3
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
    return Multipliers(m, p, 0.5 * np.abs(G) + D * _largest(layer.rows, p, D) + LEAST, np.zeros(len(D)))


def _largest(rows: Float64Array, p: Float64Array, D: Float64Array) -> float:
    """Returns the least factor of D at which S is positive semidefinite, about."""
    scaled = np.sqrt(p)[:, None] * rows / np.sqrt(D)
    gram = scaled @ scaled.T
    if not np.isfinite(gram).all():
        return np.inf
    return float(np.linalg.eigvalsh(gram)[-1]) if len(p) else 0.0


@dataclass(eq=False)
class _State:
    """Where an ascent is: m, [n]; p, [curved]; D and w*, [W]; z at w*, d and z°, [n]; Φ."""

    m: Float64Array
    p: Float64Array
    D: Float32Array
    w: Float32Array
    z: Float64Array
    d: Float64Array
    where: Float64Array
    bound: float


class _Adam:
    """Adam's steps of one vector, in units of `scale`."""

    def __init__(self, scale: Float64Array) -> None:
        self._scale = scale
        self._mean, self._square = np.zeros_like(scale), np.zeros_like(scale)

    def step(self, slope: Float64Array, rate: float, number: int) -> Float64Array:
        """Returns by how much to move; steps are numbered from 1."""
        by = slope * self._scale
        self._mean = _FIRST * self._mean + (1 - _FIRST) * by
        self._square = _SECOND * self._square + (1 - _SECOND) * by * by
        mean, spread = self._mean / (1 - _FIRST**number), self._square / (1 - _SECOND**number)
        return rate * self._scale * mean / (np.sqrt(spread) + 1e-12)


class LayerAscent:
    """Climbs in subdomains of one layer.

    Args:
        layer: The row of the specification.
    """

    def __init__(self, layer: LastLayer) -> None:
        self.layer = layer
        self._rows: Float32Array = layer.rows.astype(np.float32)
        self._base: Float32Array = layer.base.astype(np.float32)
        c, low, high = layer.coefficients, layer.low, layer.high
        size = np.abs(c)
        # What is fixed before the last hidden layer has a coefficient of 0, and multipliers of its phase.
        own = _FIXED * size[size > 0].mean() if size.any() else 1.0
        self._size = np.where(size > 0, size, own)
        self._chord = c * high / (high - low)
        self._cost = np.where(c < 0, self._chord * low, 0.0)

    @property
    def megabytes(self) -> float:
        """What its rows take."""
        return (self.layer.rows.nbytes + self._rows.nbytes + self.layer.base.nbytes + self._base.nbytes) / 2**20

    def climb(
        self,
        signs: Int8Array,
        dual: Multipliers,
        steps: int,
        target: float,
        deadline: float,
        later: bool = False,
    ) -> Ascended:
        """Climbs in one subdomain.

        Args:
            signs: [n] what is split.
            dual: Where to begin.
            steps: Most steps.
            target: Bound at which to stop.
            deadline: Value of `time.monotonic` at which to stop.
            later: Whether it begins where another ascent has ended.
        """
        # What float64 doesn't hold has no bound.
        with np.errstate(all="ignore"):
            return self._climb(signs, dual, steps, target, deadline, _LATER if later else _RATE)

    def _climb(
        self, signs: Int8Array, dual: Multipliers, steps: int, target: float, deadline: float, rate: float
    ) -> Ascended:
        layer, curved = self.layer, self._curved(signs)
        flat = (signs == 0) & (layer.coefficients < 0)
        flat[curved] = False
        rows, D = self._rows[curved], dual.D.astype(np.float32)
        m, p = self._project(signs, flat, dual.m), np.maximum(dual.p[curved], 0.0)
        adams = _Adam(self._size), _Adam((self._size / (4 * np.minimum(layer.high, -layer.low)))[curved])
        best: _State | None = None
        square: Float32Array | None = None
        for number in range(steps + 1):
            here = self._evaluate(signs, curved, rows, m, p, D, max(_ROOM * _SHRINK**number, _LEAST_ROOM))
            if here is None or not np.isfinite(here.bound):
                break
            if best is None or here.bound > best.bound:
                best = here
            if best.bound > target or number == steps or time.monotonic() > deadline:
                break
            now = here.w * here.w
            square = now if square is None else np.float32(_MEMORY) * square + np.float32(1 - _MEMORY) * now
            D = here.D * np.clip(square, *_RANGE) ** np.float32(_POWER) + np.float32(LEAST)
            where = np.zeros(len(m))
            where[curved] = here.where[curved]
            z, rate_now = here.z, rate * _DECAY**number
            m = self._project(signs, flat, m + adams[0].step(z - where, rate_now, number + 1))
            p = np.maximum(p + adams[1].step(where[curved] ** 2 - z[curved] ** 2, rate_now, number + 1), 0.0)
        if best is None:
            none = np.zeros(len(signs))
            return Ascended(-np.inf, dual, none, none)
        return self._ascended(signs, curved, best)

    def _curved(self, signs: Int8Array) -> Int64Array:
        """Returns the neurons that have parabolas."""
        cost = np.where(signs == 0, self._cost, 0.0)
        order = np.argsort(-cost, kind="stable")
        total = np.cumsum(cost[order])
        count = int(np.searchsorted(total, _SHARE * total[-1])) + 1 if len(total) and total[-1] > 0 else 0
        return np.sort(order[:count])

    def _project(self, signs: Int8Array, flat: Float64Array, m: Float64Array) -> Float64Array:
        """Returns the nearest m that a subdomain allows; neurons without parabolas have their chords."""
        c = self.layer.coefficients
        admitted, _ = admissible(self.layer, signs, m, np.zeros(len(m)))
        return np.where(flat, self._chord, np.where((signs == 0) & (c < 0), np.clip(m, c, 0.0), admitted))

    def _spread(self, p: Float64Array, curved: Int64Array) -> Float64Array:
        result = np.zeros(len(self._size))
        result[curved] = p
        return result

    def _evaluate(
        self,
        signs: Int8Array,
        curved: Int64Array,
        rows: Float32Array,
        m: Float64Array,
        p: Float64Array,
        D: Float32Array,
        room: float,
    ) -> _State | None:
        """Returns Φ and w*, with D as large as it must be; None where no factor of D does."""
        layer, constants = self.layer, self.layer.constants
        root = np.sqrt(p).astype(np.float32)
        scaled = rows * root[:, None] / np.sqrt(D)
        gram = (scaled @ scaled.T).astype(np.float64)
        factor = _factor(gram, room)
        if factor is None:
            return None
        D = (D * np.float32(factor)).astype(np.float32)
        slope = m.copy()
        slope[curved] -= 2 * p * constants[curved]
        G: Float32Array = (self._base + slope.astype(np.float32) @ self._rows).astype(np.float32)
        alone: Float32Array = G / D
        part = np.linalg.solve(np.eye(len(p)) - gram / factor, (root * (rows @ alone)).astype(np.float64))
        through = ((part.astype(np.float32) * root) @ rows).astype(np.float32)
        w: Float32Array = np.float32(-0.5) * (alone + through / D)
        spread = self._spread(p, curved)
        d, where = least(layer, m, spread)
        d = np.where((signs == 0) & (layer.coefficients < 0), d, 0.0)
        bound = layer.constant + float((m * constants - spread * constants**2 + d).sum())
        bound += 0.5 * float(G @ w) - float(D.sum(dtype=np.float64))
        return _State(m, p, D, w, (self._rows @ w).astype(np.float64) + constants, d, where, bound)

    def _ascended(self, signs: Int8Array, curved: Int64Array, best: _State) -> Ascended:
        layer, z, m = self.layer, best.z, best.m
        p = self._spread(best.p, curved)
        relu = np.where(signs == 0, np.maximum(z, 0.0), np.where(signs > 0, z, 0.0))
        gaps = np.where(signs == 0, layer.coefficients * relu - (m * z - p * z * z + best.d), 0.0)
        dual = Multipliers(m, p, best.D.astype(np.float64), best.w.astype(np.float64))
        return Ascended(best.bound, dual, z, gaps)


def _factor(gram: Float64Array, room: float) -> float | None:
    """Returns a factor f >= 1 with gram / f at most 1 - room, as semidefinite matrices are ordered."""
    if not np.isfinite(gram).all():
        return None
    eye = (1.0 - room) * np.eye(len(gram))
    factor = 1.0
    while factor < _MOST:
        try:
            np.linalg.cholesky(eye - gram / factor)
        except np.linalg.LinAlgError:
            factor *= _FACTORS[0] if factor < _FACTORS[1] else _FACTORS[1]
            continue
        return factor
    return None


def ascend(
    layer: LastLayer, signs: Int8Array, dual: Multipliers, steps: int, target: float, deadline: float
) -> Ascended:
    """Climbs once, as `LayerAscent.climb` does."""
    return LayerAscent(layer).climb(signs, dual, steps, target, deadline)
