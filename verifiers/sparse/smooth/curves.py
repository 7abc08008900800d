"""Sigmoid, tanh and ReLU over intervals: values with a proved error, and lines that stay below or above.

No library's exponential is trusted. For 0 <= t <= 32, exp(-t) is the 64th power of exp(-r), r = t / 64 <= 1/2, and that
its Taylor polynomial of degree 20 by Horner's rule. The remainder is below 1e-26; coefficients and 40 operations err by
at most γ_42 Σ r^k / k! (Higham 2002, section 5.1), relative to exp(-r) by less than 120 u, u = 2**-53; six squarings
make of that less than 64 (120 + 1) u < 2**-40. Beyond 32 the exponential is below 2**-46, and 32 stands for t. Then
sigmoid = q / (1 + q) or 1 / (1 + q) with q = exp(-|x|), and tanh = (1 - q) / (1 + q) with q = exp(-2 |x|); their
derivatives by q are at most 1 and 2, so that all are within `ERROR` = 2**-38 of the real value.

Lines. f is sigmoid or tanh, convex up to 0 and concave from there. Whatever its slope a, a line below f over [l, u] is
a z + b with b = min f(z) - a z. On the concave part that is at an end. On the convex part, f(z) - a z is above each of
its tangents; the one at t, of slope f'(t) - a, which is near 0 where t is well chosen, bounds it from its values at the
ends. So b is rigorous however roughly a and t were found: a is the slope of the tangent at the middle, or at the
farthest point at which a tangent still is below f(u), found by bisection, or that of the chord. f(-z) = c - f(z), c = 1
or 0, so that a line above is one below, turned round. Slopes are as in CROWN's general activations (Zhang et al. 2018,
table 2).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array

Curve = Literal["Relu", "Sigmoid", "Tanh"]
#: Functions that are neither affine nor ReLUs.
SMOOTH: tuple[Curve, ...] = ("Sigmoid", "Tanh")

#: How far `value` of a sigmoid or tanh is from the real one at most, and of its derivative.
ERROR = 2.0**-38
_SLOPE_ERROR = 3 * ERROR
_UNIT = 2.0**-53
_TINY = 1e-200
#: Where exponentials end.
_FAR = 32.0
#: Intervals beyond this have constants for lines.
_LARGEST = 1e50
_COEFFICIENTS = [1.0 / math.factorial(k) for k in range(21)]
_HALVINGS = 40


class Lines(NamedTuple):
    """For each neuron, a line below its curve and one above, over an interval.

    Args:
        lower_slope: [n].
        lower_shift: [n].
        upper_slope: [n].
        upper_shift: [n].
    """

    lower_slope: Float64Array
    lower_shift: Float64Array
    upper_slope: Float64Array
    upper_shift: Float64Array


def value(curve: Curve, x: Float64Array) -> Float64Array:
    """Returns the curve's values, within `ERROR` of the real ones; those of a ReLU are exact."""
    if curve == "Relu":
        return np.maximum(x, 0.0)
    q = _decayed(np.minimum(np.abs(x) * (2.0 if curve == "Tanh" else 1.0), _FAR))
    if curve == "Tanh":
        return np.copysign((1.0 - q) / (1.0 + q), x)
    return np.where(x < 0, q, 1.0) / (1.0 + q)


def derivative(curve: Curve, x: Float64Array) -> Float64Array:
    """Returns the curve's derivative, within three times `ERROR` of the real one; of a ReLU at 0, it is 0."""
    if curve == "Relu":
        return (x > 0).astype(np.float64)
    y = value(curve, x)
    slope: Float64Array = 1.0 - y * y if curve == "Tanh" else y * (1.0 - y)
    return slope


def _decayed(t: Float64Array) -> Float64Array:
    """Returns exp(-t) for t in [0, 32], with a relative error of at most 2**-40."""
    r = t * 2.0**-6
    result = np.full_like(r, _COEFFICIENTS[-1])
    for coefficient in reversed(_COEFFICIENTS[:-1]):
        result = coefficient - r * result
    for _ in range(6):
        result = result * result
    return result


def bounds(curve: Curve, low: Float64Array, high: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Bounds a curve over intervals; an end that is no number is taken for infinite."""
    if curve == "Relu":
        return np.maximum(low, 0.0), np.maximum(high, 0.0)
    low, high = np.nan_to_num(low, nan=-np.inf, neginf=-np.inf), np.nan_to_num(high, nan=np.inf, posinf=np.inf)
    return np.maximum(value(curve, low) - ERROR, _floor(curve)), np.minimum(value(curve, high) + ERROR, 1.0)


def lines(curve: Curve, low: Float64Array, high: Float64Array) -> Lines:
    """Returns lines that are below and above a curve over [low, high], in real arithmetic.

    Args:
        curve: Which.
        low: [n].
        high: At or above `low`, [n].
    """
    if curve == "Relu":
        return _relu(low, high)
    slope, shift = _below(curve, low, high)
    turned, rest = _below(curve, -high, -low)
    center = 1.0 if curve == "Sigmoid" else 0.0
    return Lines(slope, shift, turned, center - rest + 4 * _UNIT * (1.0 + np.abs(rest)))


def _floor(curve: Curve) -> float:
    return 0.0 if curve == "Sigmoid" else -1.0


def _relu(low: Float64Array, high: Float64Array) -> Lines:
    free = (low < 0) & (high > 0)
    with np.errstate(all="ignore"):
        slope = np.where(free, np.minimum(high / (high - low), 1.0), (low >= 0).astype(np.float64))
        raised = np.maximum(-slope * low, high - slope * high) + 8 * _UNIT * (high - slope * low) + _TINY
    below = np.where(free, (high > -low).astype(np.float64), slope)
    return Lines(below, np.zeros_like(low), slope, np.where(free, raised, 0.0))


def _below(curve: Curve, low: Float64Array, high: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Returns slopes and shifts of lines below a sigmoid or tanh."""
    finite = (np.abs(low) < _LARGEST) & (np.abs(high) < _LARGEST)
    low, high = np.where(finite, low, 0.0), np.where(finite, high, 0.0)
    slope, touch = _choose(curve, low, high)
    top, bottom = np.minimum(high, 0.0), np.maximum(low, 0.0)
    touch = np.clip(touch, np.minimum(low, top), top)
    rest = derivative(curve, touch) - slope
    least = value(curve, touch) - slope * touch
    least -= np.maximum(_SLOPE_ERROR - rest, 0.0) * (top - touch)
    least -= np.maximum(_SLOPE_ERROR + rest, 0.0) * np.maximum(touch - low, 0.0)
    ends = np.minimum(value(curve, bottom) - slope * bottom, value(curve, high) - slope * high)
    shift = np.where(low < 0, np.where(high > 0, np.minimum(least, ends), least), ends)
    size = np.maximum(np.abs(low), np.abs(high))
    shift -= ERROR + 2.0**-48 * (1.0 + (slope + np.abs(rest) + _SLOPE_ERROR) * size)
    return np.where(finite, slope, 0.0), np.where(finite, shift, _floor(curve))


def _choose(curve: Curve, low: Float64Array, high: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Returns slopes of lines that lie high below the curve, at least 0, and points at which they touch it."""
    middle, width = 0.5 * low + 0.5 * high, high - low
    with np.errstate(all="ignore"):
        chord = (value(curve, high) - value(curve, low)) / width
    # A chord of rounding errors is none.
    chord = np.where(width > 1e-6, chord, derivative(curve, middle))
    left, right = low.copy(), np.minimum(high, 0.0)
    for _ in range(_HALVINGS):
        half = 0.5 * left + 0.5 * right
        under = value(curve, half) + derivative(curve, half) * (high - half) <= value(curve, high)
        left, right = np.where(under, half, left), np.where(under, right, half)
    touch = np.where(high <= 0, middle, np.minimum(left, middle))
    chorded = (low >= 0) | ((high > 0) & (derivative(curve, low) >= chord))
    slope = np.where(chorded, chord, derivative(curve, touch))
    return np.maximum(slope, 0.0), np.where(chorded, low, touch)
