"""The ascent: its bound is what can be certified, its derivatives are differences, and it climbs."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.bab.quadratic import ascent as module
from prunecert.verifiers.sparse.bab.quadratic.ascent import ascend, begin
from prunecert.verifiers.sparse.bab.quadratic.last_layer import LastLayer, Multipliers, admissible, certified, least
from tests.verifiers.sparse.bab.quadratic.test_last_layer import synthetic


def phi(layer: LastLayer, signs: np.ndarray, m: Float64Array, p: Float64Array, D: Float64Array) -> float:
    state = module._evaluate(layer, signs, m, p, D)
    assert state is not None
    return state.bound


@pytest.mark.parametrize("seed", range(5))
def test_derivatives_are_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layer = synthetic(rng, 4, 9)
    layer = replace(layer, coefficients=layer.coefficients * rng.choice([1.0, -1.0], 4))
    signs = np.array([0, 0, rng.choice([1, -1]), 0], dtype=np.int8)
    dual = begin(layer)
    # Not where parabola and ReLU touch on both sides of 0, which is a kink.
    m, p = admissible(layer, signs, dual.m * rng.uniform(0.6, 0.9, 4), dual.p * rng.uniform(0.5, 0.9, 4))
    D = 2.0 * dual.D
    state = module._evaluate(layer, signs, m, p, D)
    assert state is not None
    curved = (signs == 0) & (layer.coefficients < 0)
    where = np.where(curved, least(layer, m, p)[1], 0.0)
    slopes = state.z - where, np.where(curved, where**2 - state.z**2, 0.0), state.dual.v**2 - 1
    step = 1e-6
    for number, slope in enumerate(slopes):
        for place in range(len(slope)):
            if number == 1 and not curved[place]:
                continue
            ends = []
            for side in (-1, 1):
                at = [m.copy(), p.copy(), D.copy()]
                at[number][place] += side * step * (1.0 if number < 2 else D[place])
                ends.append(phi(layer, signs, *at))
            by = (ends[1] - ends[0]) / (2 * step * (1.0 if number < 2 else D[place]))
            assert by == pytest.approx(slope[place], abs=1e-4, rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_its_bound_is_what_is_certified(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layer = synthetic(rng, 8, 60)
    signs = rng.choice(np.array([0, 0, 1, -1], dtype=np.int8), 8)
    ascended = ascend(layer, signs, begin(layer), 60, np.inf, np.inf)
    bound = certified(layer, signs, ascended.dual)
    # Ends of the box may do better than the quadratic function's minimum outside of it.
    assert bound >= ascended.bound - 1e-9
    assert (ascended.gaps >= -1e-9).all()
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
