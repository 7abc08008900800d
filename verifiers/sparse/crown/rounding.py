"""How all passes account for rounding, and the steps of it that both engines take, compiled.

Rounding. All bounds hold for the real-valued network; nothing here relies on a rounding mode. u = 2**-24 is float32's
unit roundoff and γ_n = n u / (1 - n u) (Higham, *Accuracy and Stability of Numerical Algorithms*, section 3.1); the
same with 2**-53 for float64. The technique, a float computation with an a-posteriori bound of its own error, is that of
Rump, *Verification methods* (Acta Numerica 2010).

Centred variables. Every variable y has a reference value y_c, any float64 number, and a radius r with |y - y_c| <= r. A
row z = Σ w y + b has the reference z_c = fl(Σ w y_c + b), and so z - z_c = Σ w (y - y_c) + ρ with |ρ| <= e, where e
bounds the rounding of z_c by γ_n Σ |w y_c| and what the stored numbers differ from the file's. The walk keeps a linear
function of deviations d = y - y_c, so what it rounds is charged to radii, which are small, and not to values.

The walk. Let Λ be the float32 coefficients of a row of the block on some variables; they are taken as exact from
the moment when they are computed. A relaxed step replaces λ d_y, y = relu(z), by λ (s d_z + t) with the lower plane of
the relaxation for λ > 0 and the upper plane for λ < 0, so that the result lies below. The product μ = fl(λ s) costs at
most u |λ s| r_z. Then d_z is replaced by Σ w d + ρ, and the coefficients fl(Σ μ w) differ from Σ μ w by at most
γ_n Σ |μ w|, n the longest chain of sums that ends in the variable. All of that is at most |μ| v with

    v = e + Σ |w| γ_n r,

a number of the row that doesn't depend on Λ. So the walk's constant for the variable, by the sign of λ, is

    for λ > 0:  t_lower - |s_lower| ((1 + u) v + u r_z),    for λ < 0:  t_upper + |s_upper| ((1 + u) v + u r_z),

widened by γ for the summation of the constants, rounded outwards to float32. At the input the constants are the box's
corners relative to its reference, and the slopes are 0. Rigour thus costs no operation in the walk, only the second
sum v in the interval pass. Underflow, at most 2**-126 an operation even where a library in the process has switched on
flushing to zero, is counted once for all (`Image.tiny`).

Planes are valid after rounding: s is a float32, and t is the larger of -s l and u - s u, so that the plane lies above
the convex ReLU at both ends of [l, u], and so between them; the lower plane is s z with s = 0 or 1.

Either s is valid there; CROWN takes 1 where u > -l. Where intervals have narrowed a walk's bounds, l and u of this
choice are the walk's own: chords over narrower bounds make hardly any bound looser, but a slope that turns over may.
"""

from __future__ import annotations

import numba
import numpy as np

from prunecert.verifiers.sparse.crown.program import FUSED, INPUT
from prunecert.verifiers.sparse.network import WEIGHT_ERROR

#: Neurons whose constants are summed in float32 before they go into a float64 sum.
RUN = 64
U32 = 2.0**-24
U53 = 2.0**-53
#: γ of a run's sums, two operations a neuron and up to 8 neurons more, and of the float64 sums after it.
RUN_GAMMA = 2 * (RUN + 10) * U32 * (1 + 2.0**-10)
#: Products of weights with normalisation factors may be subnormal; their error is that of the smallest normal number.
SMALLEST = 2.0**-126
#: What is added to the error of a row of which all values are smaller, as products of them may underflow in float64.
#: No radius but 0 is then smaller, so that no product of a radius and a weight does.
LEAST = 2.0**-600
#: What the size of a variable that isn't 0 is raised by. Its product with a normal float32 is a normal number, even
#: where operations flush, so that a row whose size is 0 reads only zeros; and less than `LEAST` however many there are.
FLOOR = 2.0**-800


@numba.njit(cache=True, nogil=True)
def enclose(value, size, radius, charge, bias, bias_error, inexact, entries, operations):  # type: ignore[no-untyped-def]
    """Returns a row's reference, its bounds by intervals, and its slack v.

    Args:
        value: Σ w y_c, as `accumulate` sums it.
        size: Σ |w y_c|, with `FLOOR` for each y that isn't 0.
        radius: Σ |w| r.
        charge: Σ |w| γ r.
        bias: Of the row.
        bias_error: Of the row.
        inexact: Whether its weights are within a relative `WEIGHT_ERROR` only.
        entries: How many weights it has.
        operations: How many roundings its reference may have.
    """
    value += bias
    size += abs(bias)
    error = operations * U53 * (1 + 1e-6) * size + bias_error
    if 0.0 < size + radius < LEAST:
        error += LEAST
    if inexact:
        error += 2 * WEIGHT_ERROR * (size + radius)
    grow = 1 + (entries + 8) * 2 * U53
    radius = (radius + error) * grow
    # Two roundings, of the sum here and of those that make it.
    room = 2 * U53 * (abs(value) + radius)
    return value, value - radius - room, value + radius + room, (charge + error) * grow


@numba.njit(cache=True, nogil=True)
def set_box(lower, upper, centers, low, high):  # type: ignore[no-untyped-def]
    """Sets bounds and references of the input's rows, the first ones: float64 corners, one for each."""
    for row in range(len(low)):
        lower[row], upper[row] = low[row], high[row]
        centers[row] = low[row] * 0.5 + high[row] * 0.5


@numba.njit(cache=True, nogil=True)
def reference(rectified, low, high):  # type: ignore[no-untyped-def]
    """Returns a variable's reference and radius from the bounds of its row."""
    if rectified:
        low, high = max(low, 0.0), max(high, 0.0)
    y = 0.5 * low + 0.5 * high
    return y, max(high - y, y - low) * (1 + 4 * U53)


@numba.njit(cache=True, nogil=True)
def magnitude(y, radius):  # type: ignore[no-untyped-def]
    """Returns |y|, and `FLOOR` more unless the variable is 0."""
    return abs(y) + FLOOR if y != 0.0 or radius != 0.0 else 0.0


@numba.njit(cache=True, nogil=True)
def plane(kind, low, high, z, y, slack, slope):  # type: ignore[no-untyped-def]
    """Returns the slopes and constants of the relaxation of a variable that the walk keeps.

    Args:
        kind: Of its level.
        low: Bounds of its row.
        high: Likewise.
        z: The row's reference.
        y: The variable's reference.
        slack: The row's v.
        slope: Of the lower plane of a ReLU that may have either sign: 0, 1, or -1 for what its bounds say.
    """
    lower_slope = upper_slope = np.float32(1.0)
    if kind == INPUT:
        positive, negative = low - y, high - y
        lower_slope = upper_slope = np.float32(0.0)
    else:
        upper_shift = 0.0
        if (kind >= FUSED) and low < 0.0:
            upper_slope = np.float32(high / (high - low))
            upper_shift = max(-upper_slope * low, high - upper_slope * high)
            # More than these operations lose.
            upper_shift += 4 * U53 * (abs(upper_shift) + high)
            lower_slope = np.float32(1.0 if slope > 0 or (slope < 0 and high > -low) else 0.0)
        spread = max(high - z, z - low) * (1 + 4 * U53)
        charge = (1 + 2 * U32) * slack + (U32 + 2 * U53) * spread
        room = 2.0**-49
        positive = lower_slope * z - y
        positive -= room * (abs(lower_slope * z) + abs(y)) + lower_slope * charge
        negative = upper_slope * z + upper_shift - y
        negative += room * (abs(upper_slope * z) + abs(upper_shift) + abs(y)) + upper_slope * charge
    # Rounding to float32 moves them by less than the second term, or by less than the smallest normal number.
    return (
        lower_slope,
        upper_slope,
        np.float32(positive - (RUN_GAMMA + 2 * U32) * abs(positive) - 3 * SMALLEST),
        np.float32(negative + (RUN_GAMMA + 2 * U32) * abs(negative) + 3 * SMALLEST),
    )


@numba.njit(cache=True, nogil=True)
def flush(sums, totals, lanes):  # type: ignore[no-untyped-def]
    """Adds a run's float32 sums of constants to the float64 ones, and empties them."""
    for lane in range(lanes):
        totals[lane] += np.float64(sums[lane])
        sums[lane] = np.float32(0.0)


@numba.njit(cache=True, nogil=True)
def adopt(lower, upper, slopes, row, z, slack, down, up, intersect):  # type: ignore[no-untyped-def]
    """Takes bounds of a row's deviation from its reference over; without `intersect`, replaces its bounds.

    Args:
        lower: Bounds of rows.
        upper: Likewise.
        slopes: The lower planes' slopes of rows, which walked bounds say, not those of intervals.
        row: Which.
        z: Its reference.
        slack: What the deviation may lie beyond, at least 0.
        down: Lower bound of the deviation as walked, without the slack.
        up: Upper bound.
        intersect: Whether only what is better counts.
    """
    down = z + (down - slack) - 4 * U53 * (abs(z) + abs(down) + slack)
    up = z + (up + slack) + 4 * U53 * (abs(z) + abs(up) + slack)
    if np.isfinite(down) and np.isfinite(up):
        slopes[row] = up > -down
    # What has overflowed proves nothing.
    if np.isfinite(down) and (down > lower[row] or not intersect):
        lower[row] = down
    if np.isfinite(up) and (up < upper[row] or not intersect):
        upper[row] = up


@numba.njit(cache=True, nogil=True)
def below(total, tiny):  # type: ignore[no-untyped-def]
    """Returns a rigorous lower bound from a walk's sum and its underflow, -inf if it has overflowed."""
    bound = total - tiny - 4 * U53 * (abs(total) + tiny)
    return bound if np.isfinite(bound) else -np.inf
