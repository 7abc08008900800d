"""The ascent: its bound is what can be certified, its derivatives are differences, and it climbs."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from prunecert.verifiers.sparse.bab.quadratic import ascent as module
from prunecert.verifiers.sparse.bab.quadratic.ascent import LayerAscent, ascend, begin
from prunecert.verifiers.sparse.bab.quadratic.last_layer import Multipliers, admissible, certified, least
from tests.verifiers.sparse.bab.quadratic.test_last_layer import synthetic


@pytest.mark.parametrize("seed", range(5))
def test_derivatives_are_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layer = synthetic(rng, 4, 9)
    layer = replace(layer, coefficients=layer.coefficients * rng.choice([1.0, -1.0], 4))
    signs = np.array([0, 0, rng.choice([1, -1]), 0], dtype=np.int8)
    ascent, dual = LayerAscent(layer), begin(layer)
    curved = np.flatnonzero((signs == 0) & (layer.coefficients < 0))
    # Not where parabola and ReLU touch on both sides of 0, which is a kink.
    m, p = admissible(layer, signs, dual.m * rng.uniform(0.6, 0.9, 4), dual.p * rng.uniform(0.5, 0.9, 4))
    at: list[np.ndarray] = [m, p[curved], (3.0 * dual.D).astype(np.float32)]

    def evaluate(numbers: list[np.ndarray]) -> module._State:
        m, p, D = numbers
        state = ascent._evaluate(signs, curved, ascent._rows[curved], m, p, D, 0.0)
        assert state is not None
        assert (state.D == D).all()
        return state

    here = evaluate(at)
    where = least(layer, m, p)[1][curved]
    by_m = here.z.copy()
    by_m[curved] -= where
    slopes = by_m, where**2 - here.z[curved] ** 2, here.w.astype(np.float64) ** 2 - 1
    # Sums are of float32.
    for number, slope in enumerate(slopes):
        for place in range(len(slope)):
            size = 1e-2 * float(np.abs(at[number][place]))
            ends = []
            for side in (-1, 1):
                moved = [part.copy() for part in at]
                moved[number][place] += side * size
                ends.append(evaluate(moved).bound)
            by = (ends[1] - ends[0]) / (2 * size) if size else slope[place]
            assert by == pytest.approx(slope[place], abs=2e-3, rel=5e-3)


@pytest.mark.parametrize("room", [0.0, 0.1])
def test_a_factor_is_enough_and_hardly_more(room: float) -> None:
    rng = np.random.default_rng(7)
    for size in (0, 1, 6):
        rows = rng.normal(size=(size, 9))
        gram = rows @ rows.T
        factor = module._factor(gram, room)
        assert factor is not None
        largest = float(np.linalg.eigvalsh(gram).max(initial=0.0)) / (1.0 - room)
        assert max(largest, 1.0) * (1 - 1e-9) <= factor <= max(1.1 * largest, 1.0) * (1 + 1e-9)
    assert module._factor(np.full((2, 2), np.nan), room) is None
    assert module._factor(1e9 * np.eye(2), room) is None


def test_small_chords_are_kept() -> None:
    layer = synthetic(np.random.default_rng(3), 6, 40)
    layer.coefficients[4:] *= 1e-5
    ascent = LayerAscent(layer)
    assert (ascent._curved(np.zeros(6, dtype=np.int8)) == np.arange(4)).all()
    assert (ascent._curved(np.array([1, 0, -1, 0, 0, 0], dtype=np.int8)) == [1, 3]).all()
    assert ascent._curved(np.ones(6, dtype=np.int8)).size == 0
    signs = np.zeros(6, dtype=np.int8)
    ascended = ascent.climb(signs, begin(layer), 40, np.inf, np.inf)
    assert (ascended.dual.p[4:] == 0).all()
    assert certified(layer, signs, ascended.dual) >= ascended.bound - 1e-5


def test_an_ascent_that_goes_on_begins_where_another_ended() -> None:
    layer = synthetic(np.random.default_rng(5), 10, 150)
    signs = np.zeros(10, dtype=np.int8)
    ascent = LayerAscent(layer)
    first = ascent.climb(signs, begin(layer), 60, np.inf, np.inf)
    again = ascent.climb(signs, first.dual, 0, np.inf, np.inf, later=True)
    # D must leave the room that an ascent begins with.
    assert again.bound >= first.bound - 0.05 * first.dual.D.sum()
    assert ascent.climb(signs, first.dual, 30, np.inf, np.inf, later=True).bound >= again.bound


@pytest.mark.parametrize("seed", range(5))
def test_its_bound_is_what_is_certified(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layer = synthetic(rng, 8, 60)
    signs = rng.choice(np.array([0, 0, 1, -1], dtype=np.int8), 8)
    ascended = ascend(layer, signs, begin(layer), 60, np.inf, np.inf)
    bound = certified(layer, signs, ascended.dual)
    # Ends of the box may do better than the quadratic function's minimum outside of it.
    assert bound >= ascended.bound - 1e-5
    assert (ascended.gaps >= -1e-6).all()
    assert (ascended.gaps[signs != 0] == 0).all()


def test_without_curvature_it_ends_at_linear_programming_s_dual() -> None:
    layer = synthetic(np.random.default_rng(1), 3, 12)
    signs = np.ones(3, dtype=np.int8)
    G = layer.base + layer.coefficients @ layer.rows
    start = Multipliers(layer.coefficients, np.zeros(3), np.full(12, 1.0), np.zeros(12))
    ascended = ascend(layer, signs, start, 100, np.inf, np.inf)
    assert ascended.bound == pytest.approx(-np.abs(G).sum(), abs=0.02 * np.abs(G).sum())


def test_more_steps_climb_higher_and_a_target_ends_it() -> None:
    layer = synthetic(np.random.default_rng(2), 12, 200)
    signs = np.zeros(12, dtype=np.int8)
    bounds = [ascend(layer, signs, begin(layer), steps, np.inf, np.inf).bound for steps in (0, 10, 60)]
    assert bounds[0] < bounds[1] < bounds[2]
    assert bounds[0] < ascend(layer, signs, begin(layer), 60, bounds[1] - 1e-3, np.inf).bound < bounds[2]
    assert ascend(layer, signs, begin(layer), 60, np.inf, time.monotonic() - 1).bound == bounds[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_float64_does_not_hold_has_no_bound(value: float) -> None:
    layer = synthetic(np.random.default_rng(2), 4, 10)
    layer.rows[1, 2] = value
    signs = np.zeros(4, dtype=np.int8)
    start = begin(synthetic(np.random.default_rng(2), 4, 10))
    assert ascend(layer, signs, start, 5, np.inf, np.inf).bound == -np.inf
    with np.errstate(all="ignore"):
        assert ascend(layer, signs, begin(layer), 5, np.inf, np.inf).bound == -np.inf


def test_without_parabolas_no_diagonal_is_0() -> None:
    layer = synthetic(np.random.default_rng(0), 3, 8)
    layer = replace(layer, coefficients=np.abs(layer.coefficients), base=np.zeros(8))
    layer.rows[:, 2] = 0.0
    assert (begin(layer).D > 0).all()
    assert np.isfinite(ascend(layer, np.zeros(3, dtype=np.int8), begin(layer), 5, np.inf, np.inf).bound)


def test_multipliers_of_fixed_phases_move() -> None:
    """A neuron of coefficient 0 whose phase is fixed where the others' minimiser isn't."""
    layer = synthetic(np.random.default_rng(4), 6, 80)
    signs = np.zeros(6, dtype=np.int8)
    free = ascend(layer, signs, begin(layer), 100, np.inf, np.inf)
    row = -np.sign(free.dual.v) / 80
    fixed = replace(
        layer,
        rows=np.concatenate([layer.rows, row[None]]),
        constants=np.append(layer.constants, -0.1),
        errors=np.append(layer.errors, 0.0),
        reach=np.append(layer.reach, 1.2),
        low=np.append(layer.low, -1.1),
        high=np.append(layer.high, 0.9),
        coefficients=np.append(layer.coefficients, 0.0),
    )
    mine = np.append(signs, 1).astype(np.int8)
    better = ascend(fixed, mine, begin(fixed), 200, np.inf, np.inf)
    assert better.dual.m[-1] < -1e-3
    gain = certified(fixed, mine, better.dual) - certified(layer, signs, free.dual)
    assert gain > 0.01 * abs(free.bound)
