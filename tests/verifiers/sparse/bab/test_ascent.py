"""The kernel of the ascent against the same walk in NumPy's float64."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.arrays import LANES32, BoolArray, Float32Array, Float64Array, Int8Array
from prunecert.verifiers.sparse.bab import ascent
from prunecert.verifiers.sparse.bab.ascent_state import AscentProblem, AscentSchedule, Sight, Subdomains, room
from prunecert.verifiers.sparse.bab.dual import _both


class Case(NamedTuple):
    M: Float32Array
    N: Float32Array
    c: Float32Array
    lower: Float32Array
    upper: Float32Array
    sign: Int8Array
    member: BoolArray
    alpha: Float32Array
    beta: Float32Array
    weights: Float32Array

    @property
    def problem(self) -> AscentProblem:
        (m, mt), (n, nt) = _both(self.M), _both(self.N)
        slope = (self.upper / (self.upper - self.lower)).astype(np.float32)
        return AscentProblem(*mt, *m, *nt, *n, self.c, self.lower, slope)


def draw(seed: int, neurons: int, rows: int, pixels: int, count: int) -> Case:
    rng = np.random.default_rng(seed)

    def some(*shape: int) -> Float32Array:
        return np.where(rng.random(shape) < 0.5, rng.standard_normal(shape), 0).astype(np.float32)

    N = some(neurons + rows, neurons)
    N[:neurons] = np.tril(N[:neurons], -1)
    member = rng.random((count, rows)) < 0.6
    member[np.arange(count), rng.integers(0, rows, count)] = True
    weights = np.where(member, rng.random(member.shape) + 0.01, 0)
    sign = rng.choice(np.array([0, 0, 1, -1], dtype=np.int8), (count, neurons))
    return Case(
        some(neurons + rows, pixels),
        N,
        some(neurons + rows),
        -(rng.random(neurons) + 0.1).astype(np.float32),
        (rng.random(neurons) + 0.1).astype(np.float32),
        sign,
        member,
        rng.random((count, neurons)).astype(np.float32),
        np.where(sign != 0, rng.exponential(0.2, sign.shape), 0).astype(np.float32),
        (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32),
    )


class Answer(NamedTuple):
    alpha: Float32Array
    beta: Float32Array
    weights: Float32Array
    bound: Float32Array
    sight: Sight


def ascend(case: Case, steps: int, several: bool = True, target: float = np.inf) -> Answer:
    count, neurons = case.sign.shape
    rows, pixels = case.weights.shape[1], case.M.shape[1]
    size = room(neurons, rows, pixels)
    alpha, beta, weights = case.alpha.copy(), case.beta.copy(), case.weights.copy()
    bound = np.full(count, -np.inf, dtype=np.float32)
    sight = Sight(*(np.full((count, width), np.nan, np.float32) for width in (neurons, neurons, pixels, rows)))
    # Whatever lies in the work space.
    work = np.full(numba.config.NUMBA_NUM_THREADS * size, np.nan, dtype=np.float32)
    numba.set_num_threads(1)
    ascent.walk(
        case.problem,
        Subdomains(case.sign, case.member, alpha, beta, weights, bound),
        sight,
        AscentSchedule(steps, 0.2, 0.2, 0.95, target, several, True),
        work,
        size,
    )
    return Answer(alpha, beta, weights, bound, sight)


def reference(case: Case, d: int, alpha: Float32Array, beta: Float32Array, weights: Float32Array) -> Float64Array:
    """Returns the bound, then λ, z, t and the rows of a subdomain, one after the other."""
    neurons, rows = case.sign.shape[1], case.weights.shape[1]
    M, N, c = (array.astype(np.float64) for array in (case.M, case.N, case.c))
    slope = case.upper.astype(np.float64) / (case.upper.astype(np.float64) - case.lower)
    mu = np.concatenate([np.zeros(neurons), weights[d].astype(np.float64)])
    lam = np.zeros(neurons)
    total = float(mu @ c)
    for i in reversed(range(neurons)):
        lam[i] = mu @ N[:, i]
        phase = case.sign[d, i]
        if phase:
            mu[i] = lam[i] - beta[d, i] if phase > 0 else beta[d, i]
        else:
            mu[i] = lam[i] * (slope[i] if lam[i] < 0 else alpha[d, i])
            total -= mu[i] * case.lower[i] if lam[i] < 0 else 0.0
        total += mu[i] * c[i]
    line = mu @ M
    t = np.where(line > 0, -1.0, 1.0)
    z, relu = np.zeros(neurons), np.zeros(neurons)
    for i in range(neurons):
        z[i] = M[i] @ t + N[i] @ relu + c[i]
        free = slope[i] * (z[i] - case.lower[i]) if lam[i] < 0 else alpha[d, i] * z[i]
        relu[i] = free if case.sign[d, i] == 0 else max(int(case.sign[d, i]), 0) * z[i]
    values = M[neurons:] @ t + N[neurons:] @ relu + c[neurons:]
    assert len(values) == rows
    return np.concatenate([[total - np.abs(line).sum()], lam, z, t, values])


SIZES = {
    "seed": st.integers(0, 10_000),
    "neurons": st.integers(0, 12),
    "rows": st.integers(1, 4),
    "pixels": st.integers(0, 8),
    "count": st.integers(1, 35),
}


@settings(max_examples=40, deadline=None)
@given(**SIZES)
def test_a_walk_is_the_one_in_float64(seed: int, neurons: int, rows: int, pixels: int, count: int) -> None:
    case = draw(seed, neurons, rows, pixels, count)
    answer = ascend(case, 0)
    for d in range(count):
        expected = reference(case, d, case.alpha, case.beta, case.weights)
        lam, z, t, values = (part[d] for part in answer.sight)
        np.testing.assert_allclose(answer.bound[d], expected[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(lam, expected[1 : 1 + neurons], rtol=1e-3, atol=1e-4)
        same = np.array_equal(t, expected[1 + 2 * neurons : 1 + 2 * neurons + pixels])
        # A sign may turn where a coefficient is nearly 0, and all that follows with it.
        if same and np.all(np.abs(expected[1 : 1 + neurons]) > 1e-4):
            np.testing.assert_allclose(z, expected[1 + neurons : 1 + 2 * neurons], rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(values, expected[1 + 2 * neurons + pixels :], rtol=1e-3, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(**SIZES, steps=st.integers(1, 12), several=st.booleans())
def test_what_is_written_gives_the_bound_that_is_written(
    seed: int, neurons: int, rows: int, pixels: int, count: int, steps: int, several: bool
) -> None:
    case = draw(seed, neurons, rows, pixels, count)
    before, after = ascend(case, 0).bound, ascend(case, steps, several)
    assert np.all(after.bound >= before)
    for d in range(count):
        bound = reference(case, d, after.alpha, after.beta, after.weights)[0]
        np.testing.assert_allclose(after.bound[d], bound, rtol=1e-3, atol=1e-3)
    assert np.all((after.alpha >= 0) & (after.alpha <= 1))
    assert np.all(after.beta >= 0)
    np.testing.assert_allclose(after.weights.sum(axis=1), 1, rtol=1e-4)
    assert not after.weights[~case.member].any()
    if not several:
        np.testing.assert_array_equal(after.weights, case.weights)


def test_lanes_that_have_no_subdomain_and_other_groups_change_nothing() -> None:
    case = draw(5, 9, 3, 6, 2 * LANES32 + 3)
    together = ascend(case, 7)
    for d in (0, LANES32 - 1, LANES32, 2 * LANES32 + 2):
        alone = case._replace(
            sign=case.sign[[d]],
            member=case.member[[d]],
            alpha=case.alpha[[d]],
            beta=case.beta[[d]],
            weights=case.weights[[d]],
        )
        answer = ascend(alone, 7)
        assert answer.bound[0] == together.bound[d]
        np.testing.assert_array_equal(answer.alpha[0], together.alpha[d])


def test_a_group_ends_where_all_its_bounds_exceed_the_target() -> None:
    case = draw(5, 9, 3, 6, 4)
    first = ascend(case, 0)
    np.testing.assert_array_equal(ascend(case, 20, target=-np.inf).alpha, first.alpha)
    assert not np.array_equal(ascend(case, 20, target=float(first.bound.min())).alpha, first.alpha)
