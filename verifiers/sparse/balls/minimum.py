"""The least value of c relu(z) + d z over a ball and a box: what a layer costs a bound over an l2 ball.

SDP-CROWN (Chiu et al., ICML 2025) bounds the error of a layer's relaxation by one norm in place of a sum over neurons:
the neurons' deviations lie in a ball, so they can't all be at their worst. Here its Lagrangian is solved, with the box
kept: for any multiplier λ >= 0

    min c relu(z) + d z  >=  sum_j min_{l_j <= z_j <= u_j} [c_j relu(z_j) + d_j z_j + λ/2 (z_j - ẑ_j)²]  -  λ/2 ρ²

over |z - ẑ| <= ρ, l <= z <= u. Each summand is the smaller of two parabolas' minima, one on each side of 0, so that
the ReLU is no relaxation here. λ = 0 is the sum of offsets of CROWN; without the box, the best λ gives SDP-CROWN's
norm. The right side is concave in λ, smooth but where a neuron's least value changes sides of 0. Its best λ is
bracketed, and sought in turns where the tangents at the bracket's ends meet (Kelley's cutting planes, quick at a kink),
and where the slope, (sum (z_j - ẑ_j)² - ρ²) / 2, would have its root if the neurons at corners stayed there (quick
elsewhere), until the tangents leave no room above what was found. Whatever λ that ends with, the bound holds. The
input's part, with c = 0, is convex, and then the best λ is exact.

Rounding. c, d, λ and the corners are taken as exact. At the computed minimiser z a summand f has at most the value at
the exact one, z*, plus |f'(z)| |z - z*| by convexity on its side. z* is ẑ - s/λ clipped, which is either at a corner
in both, or computed to within a few u (|ẑ| + |l| + |u|). What evaluating and summing rounds is charged by magnitudes.
All of that is some 1e-15 of the magnitudes that are summed.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array

_UNIT = 2.0**-53
#: Tries of λ before the bracket holds its best, and then within it.
_WIDER, _NARROWER = 60, 48
#: How far the best value may be above what was found, of the magnitudes that are summed.
_CLOSE = 1e-13
_TINY = 1e-290
#: No λ is larger, so that no λ ρ² that underflows matters.
_STEEPEST = 1e90


@numba.njit(cache=True, nogil=True)
def _least(c: float, d: float, low: float, high: float, center: float, lam: float):  # type: ignore[no-untyped-def]
    """Returns the least value on [low, high] of c relu(z) + d z + lam/2 (z - center)², and where it is.

    And whether that is at no corner, so that it moves with lam.
    """
    best, place, loose = math.inf, low, False
    if high > 0.0:
        first = max(low, 0.0)
        s = c + d
        corner = first if s >= 0.0 else high
        apex = center - s / lam if lam > 0.0 else corner
        z = min(max(apex, first), high)
        best, place, loose = s * z + 0.5 * lam * (z - center) * (z - center), z, lam > 0.0 and z == apex
    if low < 0.0 or high <= 0.0:
        last = min(high, 0.0)
        corner = low if d >= 0.0 else last
        apex = center - d / lam if lam > 0.0 else corner
        z = min(max(apex, low), last)
        value = d * z + 0.5 * lam * (z - center) * (z - center)
        if value < best:
            best, place, loose = value, z, lam > 0.0 and z == apex
    return best, place, loose


@numba.njit(cache=True, nogil=True)
def _at(c, d, low, high, center, chosen, count, lam):  # type: ignore[no-untyped-def]
    """Returns the sum of the least values, and of their magnitudes, and the squared distance of where they are.

    That is from the centre, of all, and of those that are at no corner.
    """
    total = size = distance = moving = 0.0
    for place in range(count):
        j = chosen[place]
        value, z, loose = _least(c[j], d[j], low[j], high[j], center[j], lam)
        total += value
        size += abs(value)
        square = (z - center[j]) * (z - center[j])
        distance += square
        if loose:
            moving += square
    return total, size, distance, moving


@numba.njit(cache=True, nogil=True)
def _multiplier(c, d, low, high, center, radius, chosen, count):  # type: ignore[no-untyped-def]
    """Returns the best multiplier that was tried; 0 is."""
    if not math.isfinite(radius) or count == 0:
        return 0.0
    best, best_size, distance, moving = _at(c, d, low, high, center, chosen, count, 0.0)
    square = radius * radius
    if not distance > square:
        return 0.0
    steepest = 0.0
    for place in range(count):
        j = chosen[place]
        s = max(abs(d[j]), abs(c[j] + d[j]))
        steepest += s * s
    # Where nothing but slopes acts, the distance is their norm over λ.
    lam = math.sqrt(steepest) / max(radius, _TINY) * (1 + 1e-9)
    if not 0.0 < lam < _STEEPEST:
        return 0.0
    best_lam = left = 0.0
    left_value, left_slope = best, 0.5 * (distance - square)
    right = right_value = right_slope = math.inf
    for _ in range(_WIDER):
        value, size, distance, moving = _at(c, d, low, high, center, chosen, count, lam)
        value -= 0.5 * lam * square
        if value > best:
            best, best_lam, best_size = value, lam, size
        if distance <= square:
            right, right_value, right_slope = lam, value, 0.5 * (distance - square)
            break
        if lam > _STEEPEST:
            break
        left, left_value, left_slope = lam, value, 0.5 * (distance - square)
        lam *= 4.0
    for step in range(_NARROWER if right < math.inf else 0):
        # Of a ball so small that its square underflows the slopes are 0.
        if not left_slope > right_slope:
            break
        # The tangents meet above the best there is, and in it where it is a kink between two lines.
        meet = left + (right_value - left_value - right_slope * (right - left)) / (left_slope - right_slope)
        if left_value + left_slope * (meet - left) - best <= _CLOSE * (best_size + 0.5 * best_lam * square):
            break
        # As long as what is at corners stays there, the slope's root is here.
        fixed = distance - moving
        root = lam * math.sqrt(moving / (square - fixed)) if square > fixed else -1.0
        first, second = (root, meet) if step % 2 == 0 else (meet, root)
        lam = first if left < first < right else second
        if not left < lam < right:
            lam = 0.5 * (left + right)
            if not left < lam < right:
                break
        value, size, distance, moving = _at(c, d, low, high, center, chosen, count, lam)
        value -= 0.5 * lam * square
        if value > best:
            best, best_lam, best_size = value, lam, size
        if distance > square:
            left, left_value, left_slope = lam, value, 0.5 * (distance - square)
        else:
            right, right_value, right_slope = lam, value, 0.5 * (distance - square)
    return best_lam


@numba.njit(cache=True, nogil=True)
def _certain(c, d, low, high, center, radius, chosen, count, lam):  # type: ignore[no-untyped-def]
    """Returns the Lagrangian's value at λ, less all that rounding may have added, and what was summed, in magnitude."""
    total = size = charge = 0.0
    for place in range(count):
        j = chosen[place]
        value, _, _ = _least(c[j], d[j], low[j], high[j], center[j], lam)
        # Of both sides of 0, since either could have been the lower one.
        reach = max(abs(low[j]), abs(high[j]))
        spread = max(abs(low[j] - center[j]), abs(high[j] - center[j]))
        factor = abs(c[j]) + abs(d[j])
        total += value
        size += factor * reach + lam * spread * spread
        if lam > 0.0:
            charge += 32 * _UNIT * (factor + lam * spread) * (abs(center[j]) + reach)
    if lam > 0.0:
        share = 0.5 * lam * radius * radius
        total -= share
        size += share
    return total - 2.0 * (count + 32) * _UNIT * size - 1.01 * charge - 1e-200, size


@numba.njit(cache=True, nogil=True)
def minimise(
    c: Float64Array,
    d: Float64Array,
    domain: Int64Array,
    low: Float64Array,
    high: Float64Array,
    center: Float64Array,
    radius: float,
    bounds: Float64Array,
    sizes: Float64Array,
    points: Float64Array,
    keep: bool,
) -> None:
    """Bounds c relu(z) + d z from below over |z - center| <= radius and low <= z <= high, for each row.

    Args:
        c: Coefficients of the ReLUs, [rows, n], or [1, n] for all rows.
        d: Coefficients of the values, [rows, n].
        domain: Which of the boxes is a row's, [rows].
        low: Lower corners, [boxes, n], finite.
        high: Upper corners, at or above them.
        center: Of the ball, [n].
        radius: Its radius, at least 0; infinite: there is no ball.
        bounds: Written, [rows]: lower bounds, all rounding charged.
        sizes: Written, [rows]: the magnitudes that were summed.
        points: Written where `keep`, [rows, n]: a minimiser of the Lagrangian.
        keep: Whether points are wanted.
    """
    width = d.shape[1]
    chosen = np.empty(width, dtype=np.int64)
    own_low, own_high = np.empty(width), np.empty(width)
    for row in range(len(d)):
        relu, slope = c[min(row, len(c) - 1)], d[row]
        count = 0
        for j in range(width):
            own_low[j], own_high[j] = low[domain[row], j], high[domain[row], j]
            # No farther from the centre than the ball is, so that no magnitude is larger than it must be.
            room = radius + 4 * _UNIT * (abs(center[j]) + radius)
            first, last = max(own_low[j], center[j] - room), min(own_high[j], center[j] + room)
            if first <= last:
                own_low[j], own_high[j] = first, last
            outside = center[j] < own_low[j] or center[j] > own_high[j]
            if relu[j] != 0.0 or slope[j] != 0.0 or outside:
                chosen[count] = j
                count += 1
            if keep:
                points[row, j] = center[j]
        lam = _multiplier(relu, slope, own_low, own_high, center, radius, chosen, count)
        bounds[row], sizes[row] = _certain(relu, slope, own_low, own_high, center, radius, chosen, count, lam)
        if lam > 0.0:
            # Where the ball is so small that λ rounds away what it is good for, the box has it all.
            bound, size = _certain(relu, slope, own_low, own_high, center, radius, chosen, count, 0.0)
            if not bounds[row] >= bound:
                bounds[row], sizes[row], lam = bound, size, 0.0
        for place in range(count if keep else 0):
            j = chosen[place]
            _, points[row, j], _ = _least(relu[j], slope[j], own_low[j], own_high[j], center[j], lam)
