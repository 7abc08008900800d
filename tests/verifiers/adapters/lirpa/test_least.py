"""What a layer costs over a ball and a box, in torch: against points, closed forms and the sparse engine's code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.adapters.lirpa import least as subject
from prunecert.verifiers.adapters.lirpa.least import least
from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.balls.minimum import minimise

Problem = tuple[Float64Array, Float64Array, Float64Array, Float64Array, Float64Array]


def drawn(seed: int, rows: int, size: int, scale: float = 1.0) -> Problem:
    """Returns c, d, low, high and a centre between them; many coefficients are 0."""
    rng = np.random.default_rng(seed)
    low, high = -rng.random(size) * scale, rng.random(size) * scale
    c, d = rng.standard_normal((2, rows, size)) * (rng.random((rows, size)) < rng.choice([0.3, 1.0]))
    return c, d, low, high, low + rng.random(size) * (high - low)


def bounds(problem: Problem, radius: float, *, linear: bool = False) -> Float64Array:
    c, d, low, high, center = (torch.from_numpy(item) for item in problem)
    values, _ = least(None if linear else c, d, low, high, center, radius)
    return np.asarray(values)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 12), st.floats(0.001, 3.0), st.sampled_from([1e-6, 1.0, 1e6]), st.booleans()
)
def test_no_point_is_below_and_the_sparse_engine_says_the_same(
    seed: int, size: int, radius: float, scale: float, linear: bool
) -> None:
    c, d, low, high, center = problem = drawn(seed, 3, size, scale)
    if linear:
        c[:] = 0
    values = bounds(problem, radius * scale, linear=linear)
    rng = np.random.default_rng(seed)
    away = rng.standard_normal((300, size))
    away *= radius * scale * (1 - 1e-12) / np.linalg.norm(away, axis=1, keepdims=True)
    away[150:] *= rng.random((150, 1))
    points = np.clip(center + away, low, high)
    assert np.all(values <= (points @ d.T + np.maximum(points, 0) @ c.T).min(axis=0) + 1e-13 * scale)
    other, sizes = np.empty(3), np.empty(3)
    which = np.zeros(3, dtype=np.int64)
    minimise(c, d, which, low[None], high[None], center, radius * scale, other, sizes, np.empty((0, size)), False)
    np.testing.assert_allclose(values, other, atol=1e-10 * scale * size, rtol=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.floats(0.01, 2.0))
def test_it_is_crowns_sum_without_a_ball_and_sdp_crowns_norm_without_a_box(seed: int, size: int, radius: float) -> None:
    c, d, low, high, center = drawn(seed, 2, size)
    by_hand = np.minimum(np.minimum(d * low, (c + d) * high), 0.0).sum(axis=1)
    np.testing.assert_allclose(bounds((c, d, low, high, center), np.inf), by_hand, atol=1e-12)
    far = np.full(size, 10 * radius)
    norm = np.linalg.norm(np.minimum(np.minimum(c + d, -d), 0.0), axis=1)
    values = bounds((c, d, -far, far, np.zeros(size)), radius)
    np.testing.assert_allclose(values, -radius * norm, atol=1e-12 * radius)


def test_rows_with_few_coefficients_are_looked_at_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    c, d, low, high, center = drawn(1, 4, 30)
    for row in range(4):
        d[row, 4 + row :] = c[row, 6 - row :] = 0
    d[0], c[0] = 0, 0
    problem = c, d, low, high, center
    apart = bounds(problem, 0.5)
    assert apart[0] == pytest.approx(0, abs=1e-12)
    monkeypatch.setattr(subject, "_SHARE", -1.0)
    np.testing.assert_allclose(bounds(problem, 0.5), apart, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("radius", [0.3, np.inf])
def test_gradients_are_those_of_differences(radius: float) -> None:
    problem = drawn(5, 2, 6)
    c, d, low, high, center = (torch.from_numpy(item.copy()) for item in problem)
    c.requires_grad_()
    d.requires_grad_()
    values, _ = least(c, d, low, high, center, radius)
    slopes = torch.autograd.grad(values.sum(), (c, d))
    for place, slope in enumerate(slopes):
        numeric = np.zeros_like(problem[place])
        for index in np.ndindex(numeric.shape):
            ends = []
            for step in (-1e-6, 1e-6):
                moved = [item.copy() for item in problem]
                moved[place][index] += step
                ends.append(bounds((moved[0], moved[1], moved[2], moved[3], moved[4]), radius).sum())
            numeric[index] = (ends[1] - ends[0]) / 2e-6
        np.testing.assert_allclose(slope.numpy(), numeric, atol=1e-5)


def test_what_is_no_number_is_no_bound() -> None:
    c, d, low, high, center = drawn(0, 2, 3)
    for broken in (np.nan, np.inf):
        c[0, 1] = broken
        values = bounds((c, d, low, high, center), 0.1)
        assert not values[0] > -np.inf
        assert np.isfinite(values[1])
