"""What a layer costs over a ball and a box: against points, closed forms and rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.balls.minimum import minimise


def bound(
    c: Float64Array, d: Float64Array, low: Float64Array, high: Float64Array, center: Float64Array, radius: float
) -> tuple[float, Float64Array]:
    """Returns the bound of one row, and the minimisers."""
    values, sizes, points = np.empty(1), np.empty(1), np.empty((1, len(c)))
    row = np.zeros(1, dtype=np.int64)
    minimise(c[None], d[None], row, low[None], high[None], center, radius, values, sizes, points, True)
    return float(values[0]), points[0]


def drawn(seed: int, size: int, scale: float = 1.0) -> tuple[Float64Array, ...]:
    """Returns c, d, low, high and a centre between them."""
    rng = np.random.default_rng(seed)
    low, high = -rng.random(size) * scale, rng.random(size) * scale
    center = low + rng.random(size) * (high - low)
    return rng.standard_normal(size), rng.standard_normal(size), low, high, center


def inside(seed: int, low: Float64Array, high: Float64Array, center: Float64Array, radius: float) -> Float64Array:
    """Returns points of the set, many of them on the ball's surface."""
    rng = np.random.default_rng(seed)
    away = rng.standard_normal((500, len(low)))
    away *= radius * (1 - 1e-12) / np.linalg.norm(away, axis=1, keepdims=True)
    away[250:] *= rng.random((250, 1))
    return np.clip(center + away, low, high)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.floats(0.001, 3.0), st.sampled_from([1e-6, 1.0, 1e6]))
def test_no_point_of_the_set_is_below_it(seed: int, size: int, radius: float, scale: float) -> None:
    c, d, low, high, center = drawn(seed, size, scale)
    value, minimiser = bound(c, d, low, high, center, radius * scale)
    points = inside(seed, low, high, center, radius * scale)
    least = min(
        sum(
            Fraction(a) * max(Fraction(z), Fraction(0)) + Fraction(b) * Fraction(z)
            for a, b, z in zip(c.tolist(), d.tolist(), point.tolist(), strict=True)
        )
        for point in [*points[np.argsort(points @ d + np.maximum(points, 0) @ c)[:5]], center]
    )
    assert Fraction(value) <= least
    assert np.all((low <= minimiser) & (minimiser <= high))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.floats(0.0, 3.0))
def test_a_ball_never_costs_more_than_the_sum_over_neurons(seed: int, size: int, radius: float) -> None:
    c, d, low, high, center = drawn(seed, size)
    with_ball, _ = bound(c, d, low, high, center, radius)
    without, _ = bound(c, d, low, high, center, np.inf)
    by_hand = np.minimum(np.minimum(d * low, (c + d) * high), 0.0).sum()
    np.testing.assert_allclose(without, by_hand, atol=1e-12 * size)
    assert with_ball >= without - 1e-12 * size


@settings(max_examples=40, deadline=None)
@example(127101, 3, 1.0)
@given(st.integers(0, 10**6), st.integers(1, 12), st.floats(0.01, 2.0))
def test_without_a_box_it_is_the_norm_of_sdp_crown(seed: int, size: int, radius: float) -> None:
    """FRONTIER's form of Chiu et al.'s theorem, for a ball round 0 and the slopes g = -d."""
    rng = np.random.default_rng(seed)
    c, g = rng.standard_normal(size), rng.standard_normal(size)
    far = np.full(size, 10 * radius)
    value, _ = bound(c, -g, -far, far, np.zeros(size), radius)
    norm = float(np.linalg.norm(np.minimum(np.minimum(c - g, g), 0.0)))
    np.testing.assert_allclose(value, -radius * norm, rtol=1e-6, atol=1e-9)


def dual(data: tuple[Float64Array, ...], radius: float, multiplier: float) -> float:
    """Returns the Lagrangian's value at a multiplier, by the formula."""
    c, d, low, high, center = data

    def side(slope: Float64Array, first: Float64Array, last: Float64Array) -> Float64Array:
        z = np.clip(center - slope / multiplier, first, last)
        return np.asarray(slope * z + 0.5 * multiplier * (z - center) ** 2)

    above, below = side(c + d, np.maximum(low, 0), high), side(d, low, np.minimum(high, 0))
    return float(np.minimum(above, below).sum() - 0.5 * multiplier * radius**2)


@settings(max_examples=40, deadline=None)
@example(879, 24, 0.16)
@given(st.integers(0, 10**6), st.integers(1, 30), st.floats(0.01, 2.0))
def test_no_multiplier_is_better(seed: int, size: int, radius: float) -> None:
    """A golden section through all of them ends no higher."""
    c, d, low, high, center = data = drawn(seed, size)
    value, _ = bound(c, d, low, high, center, radius)
    right = float(np.linalg.norm(np.maximum(abs(d), abs(c + d)))) / radius * 1.01
    left, share = 1e-9, (5**0.5 - 1) / 2
    for _ in range(100):
        one, other = right - share * (right - left), left + share * (right - left)
        if dual(data, radius, one) < dual(data, radius, other):
            left = one
        else:
            right = other
    best = dual(data, radius, 0.5 * (left + right))
    assert value >= best - 1e-11 * (1 + abs(best))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 2.0))
def test_a_convex_one_is_exact(seed: int, radius: float) -> None:
    """For c >= 0 there is no gap: a fine grid of the plane has a point that is hardly above."""
    c, d, low, high, center = drawn(seed, 2)
    c = np.abs(c)
    value, _ = bound(c, d, low, high, center, radius)
    x, y = np.meshgrid(*(np.linspace(low[i], high[i], 200) for i in range(2)))
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    points = points[np.linalg.norm(points - center, axis=1) <= radius]
    points = np.concatenate([points, inside(seed, low, high, center, radius), center[None]])
    least = float((points @ d + np.maximum(points, 0) @ c).min())
    assert value <= least
    assert value >= least - 0.05 * (np.abs(c) + np.abs(d)).sum() * min(radius, 1.0) - 1e-9


def test_a_ball_whose_square_underflows_is_bounded() -> None:
    """Small slopes let its multiplier be looked for all the same."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        size, scale = int(rng.integers(1, 6)), 10.0 ** rng.uniform(-163, -160.5)
        slope = 10.0 ** rng.uniform(-110, -71) * rng.standard_normal(size)
        ends = rng.random((2, size)) * scale
        value, _ = bound(np.zeros(size), slope, -ends[0], ends[1], np.zeros(size), scale * rng.random())
        assert -1e-190 < value <= 0


def test_what_is_no_number_is_no_bound() -> None:
    _, d, low, high, center = drawn(0, 3)
    for broken in (np.nan, np.inf):
        value, _ = bound(np.array([broken, 1.0, 1.0]), d, low, high, center, 0.1)
        assert not value > -np.inf


def test_rows_may_have_boxes_of_their_own() -> None:
    c, d, low, high, center = drawn(3, 4)
    halves = np.stack([low, np.maximum(low, 0.0)]), np.stack([high, high])
    values, sizes = np.empty(2), np.empty(2)
    rows = np.array([1, 0], dtype=np.int64)
    empty = np.empty((0, 4))
    minimise(c[None], np.stack([d, d]), rows, *halves, center, 0.2, values, sizes, empty, False)
    alone = [bound(c, d, halves[0][k], high, center, 0.2)[0] for k in (1, 0)]
    assert values.tolist() == alone
