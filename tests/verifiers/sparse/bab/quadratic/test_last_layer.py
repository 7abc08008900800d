"""Second-order bounds: below every value, for any dual variables, and rigorous where they are tight."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.bab.quadratic import last_layer as module
from prunecert.verifiers.sparse.bab.quadratic.ascent import ascend, begin
from prunecert.verifiers.sparse.bab.quadratic.last_layer import LastLayer, Multipliers, admissible, certified, least
from tests.verifiers.sparse.bab.quadratic.layers import KINDS, Small, parted, phases, small


def within(question: Small, signs: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Returns the points whose neurons have these phases."""
    mine: np.ndarray = points[(question.neurons(points) * signs >= 0).all(axis=1)]
    return mine


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_no_value_is_below_a_bound(kind: str, seed: int, fixed: bool, tmp_path: Path) -> None:
    question = small(kind, seed, tmp_path)
    subject, rng = question.subject, np.random.default_rng(seed)
    points = question.points(rng, 2000)
    signs = np.zeros(subject.net.unstable, dtype=np.int8)
    if fixed:
        signs = phases(rng, question.neurons(points[:1])[0])
    layer, mine = parted(subject, signs)
    values = question.values(within(question, signs, points))
    assert len(values)
    tight = ascend(layer, mine, begin(layer), 60, np.inf, np.inf)
    bound = certified(layer, mine, tight.dual)
    assert np.isfinite(bound)
    assert bound <= values.min() + 1e-5
    # What the ascent believes is no more than rounding above what is certified.
    assert bound >= tight.bound - 1e-6 * (1 + abs(tight.bound))
    count, width = layer.rows.shape
    for scale in (0.1, 1.0, 100.0):
        wild = Multipliers(
            np.asarray(scale * rng.normal(size=count)),
            np.asarray(scale * rng.exponential(size=count)),
            np.asarray(scale * rng.exponential(size=width)),
            np.asarray(rng.normal(size=width)),
        )
        assert certified(layer, mine, wild) <= values.min() + 1e-5


def test_curvature_gains_over_chords_where_neurons_pull_apart() -> None:
    # Twenty neurons in random directions of four hundred numbers, all with coefficients below 0.
    rng = np.random.default_rng(3)
    layer = synthetic(rng, 20, 400)
    signs = np.zeros(20, dtype=np.int8)
    chord = layer.coefficients * layer.high / (layer.high - layer.low)
    slack = layer.base + chord @ layer.rows
    flat = certified(layer, signs, Multipliers(chord, np.zeros(20), 0.5 * np.abs(slack), -np.sign(slack)))
    curved = certified(layer, signs, ascend(layer, signs, begin(layer), 200, np.inf, np.inf).dual)
    w = np.where(rng.random((20000, 400)) < 0.5, -1.0, 1.0)
    lowest = float((w @ layer.base + np.maximum(w @ layer.rows.T, 0) @ layer.coefficients).min())
    assert flat < curved < lowest
    # Most of what lies between the chords' bound and values that occur.
    assert curved - flat > 0.4 * (lowest - flat)


def synthetic(rng: np.random.Generator, count: int, width: int) -> LastLayer:
    """Returns neurons in random directions, without errors."""
    rows = rng.normal(size=(count, width)) / width
    reach = np.abs(rows).sum(axis=1)
    none = np.zeros(count)
    base = 0.1 * rng.normal(size=width) / width
    return LastLayer(rows, none, none, reach, -reach, reach, base, 0.0, 0.0, -rng.uniform(0.5, 1.0, count))


@pytest.mark.parametrize("seed", range(20))
def test_a_bound_that_is_attained_is_not_exceeded_in_exact_arithmetic(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, width = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    layer = synthetic(rng, count, width)
    # Neurons fixed active, and convex ones: linear programming's dual is exact at a corner.
    signs = np.ones(count, dtype=np.int8)
    G = layer.base + layer.coefficients @ layer.rows
    dual = Multipliers(layer.coefficients, np.zeros(count), 0.5 * np.abs(G), -np.sign(G))
    bound = certified(layer, signs, dual)
    exact = sum(
        -abs(
            Fraction(layer.base[i])
            + sum(Fraction(layer.coefficients[j]) * Fraction(layer.rows[j, i]) for j in range(count))
        )
        for i in range(width)
    )
    assert Fraction(bound) <= exact
    assert float(exact) - bound < 1e-10


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1e-6, 1e6, 1e-160, 1e30]))
@settings(max_examples=150, deadline=None)
def test_the_least_of_a_parabola_is_no_more_than_any_of_it(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    layer = synthetic(rng, 6, 3)
    m = rng.normal(size=6) * rng.choice([1.0, 1e-12], 6)
    p = np.where(rng.random(6) < 0.2, 0.0, rng.exponential(size=6) * scale)
    with np.errstate(all="ignore"):
        bounds = module._least_rigorous(layer, m, p)
    about, where = least(layer, m, p)
    for j in range(6):
        c, a, b = (Fraction(float(value)) for value in (layer.coefficients[j], m[j], p[j]))
        low, high = Fraction(layer.low[j]), Fraction(layer.high[j])
        places = [low, high, Fraction(0), *(low + (high - low) * k / 40 for k in range(41))]
        for slope in (-a, c - a):
            places += [max(low, min(high, -slope / (2 * b)))] if b else []
        exact = min(c * max(z, Fraction(0)) - a * z + b * z * z for z in places)
        assert Fraction(float(bounds[j])) <= exact
        assert abs(float(exact) - about[j]) <= 1e-9 * (1 + abs(float(exact)))
        assert layer.low[j] <= where[j] <= layer.high[j]


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
@settings(max_examples=100, deadline=None)
def test_the_excess_makes_room_for_all_parabolas(seed: int, room: float) -> None:
    rng = np.random.default_rng(seed)
    count, width = int(rng.integers(1, 5)), int(rng.integers(1, 7))
    rows, p = rng.normal(size=(count, width)), rng.exponential(size=count)
    D = rng.exponential(size=width) + 1e-3
    gram = np.sqrt(p)[:, None] * rows / np.sqrt(D)
    # From nearly singular to well within.
    D *= np.linalg.eigvalsh(gram @ gram.T)[-1] * (1.0 + room * rng.choice([1e-14, 1e-9, 1.0]))
    excess = module._excess(rows, p, D)
    if not np.isfinite(excess):
        return
    exact = [[Fraction(0)] * width for _ in range(width)]
    for i in range(width):
        for k in range(width):
            exact[i][k] = -sum(
                (Fraction(p[j]) * Fraction(rows[j, i]) * Fraction(rows[j, k]) for j in range(count)), Fraction(0)
            )
        exact[i][i] += Fraction(D[i]) * (1 + Fraction(excess))
    assert semidefinite(exact)


def semidefinite(matrix: list[list[Fraction]]) -> bool:
    """Says whether a symmetric matrix is positive semidefinite, by elimination in exact arithmetic."""
    matrix = [row.copy() for row in matrix]
    size = len(matrix)
    for k in range(size):
        if matrix[k][k] < 0 or (matrix[k][k] == 0 and any(matrix[k][k:])):
            return False
        for i in range(k + 1, size):
            if matrix[k][k]:
                factor = matrix[i][k] / matrix[k][k]
                matrix[i] = [a - factor * b for a, b in zip(matrix[i], matrix[k], strict=True)]
    return True


@pytest.mark.parametrize("field", ["m", "p", "D", "v"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200, -1e200, 1e-320])
def test_hostile_numbers_prove_nothing_wrong(field: str, value: float, tmp_path: Path) -> None:
    question = small("fc", 2, tmp_path)
    rng = np.random.default_rng(2)
    signs = np.zeros(question.subject.net.unstable, dtype=np.int8)
    layer, mine = parted(question.subject, signs)
    dual = ascend(layer, mine, begin(layer), 20, np.inf, np.inf).dual
    least_value = question.values(question.points(rng, 500)).min()
    for place in (0, -1, slice(None)):
        numbers = {name: getattr(dual, name).copy() for name in ("m", "p", "D", "v")}
        numbers[field][place] = value
        assert certified(layer, mine, Multipliers(**numbers)) <= least_value


def test_admissible_multipliers_keep_their_side() -> None:
    layer = synthetic(np.random.default_rng(0), 6, 3)
    signs = np.array([1, -1, 0, 1, -1, 0], dtype=np.int8)
    m, p = admissible(layer, signs, np.full(6, 5.0), np.full(6, 2.0))
    assert (m[signs > 0] <= layer.coefficients[signs > 0]).all()
    assert (p[signs != 0] == 0).all()
    m, _ = admissible(layer, signs, np.full(6, -5.0), np.full(6, 2.0))
    assert (m[signs < 0] >= 0).all()


@pytest.mark.parametrize(
    ("c", "m", "p", "low", "high"),
    [
        (-1.0620074535547176e-188, -1.0620074535547174e-188, 1.0347897363788611e-218, -5.131e29, 1.264e30),
        (-1.8595653423149766e-244, 0.0, 3.822613504435904e-304, -8.264e-63, 2.4323e59),
        (-1e-160, -5e-161, 5e-324, -1e200, 1e200),
    ],
)
def test_slopes_whose_squares_underflow_keep_their_parabola(
    c: float, m: float, p: float, low: float, high: float
) -> None:
    like = synthetic(np.random.default_rng(0), 1, 1)
    layer = replace(like, coefficients=np.array([c]), low=np.array([low]), high=np.array([high]))
    with np.errstate(all="ignore"):
        bound = module._least_rigorous(layer, np.array([m]), np.array([p]))[0]
    places = [Fraction(low), Fraction(high), Fraction(0)]
    for slope, first, last in ((Fraction(-m), low, 0.0), (Fraction(c) - Fraction(m), 0.0, high)):
        places.append(max(Fraction(first), min(Fraction(last), -slope / (2 * Fraction(p)))))
    exact = min(Fraction(c) * max(z, Fraction(0)) - Fraction(m) * z + Fraction(p) * z * z for z in places)
    assert Fraction(float(bound)) <= exact


def test_phases_of_another_number_of_neurons_are_refused() -> None:
    layer = synthetic(np.random.default_rng(0), 3, 4)
    dual = begin(layer)
    with pytest.raises(ValueError, match="for 3 neurons and 4 numbers"):
        certified(layer, np.zeros(1, dtype=np.int8), dual)
    with pytest.raises(ValueError, match="for 3 neurons and 4 numbers"):
        certified(layer, np.zeros(3, dtype=np.int8), replace(dual, D=dual.D[:1]))
