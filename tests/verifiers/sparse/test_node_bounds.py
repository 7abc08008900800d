"""Intervals and charges of a node hold in exact arithmetic; leaving out what doesn't matter changes nothing else."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from prunecert.verifiers.sparse.node_bounds import Array, CheckedBounds, Product, gamma, intervals
from tests.verifiers.sparse.bab.test_dual import KINDS, prepared


def product(rng: np.random.Generator, rows: int, columns: int, exact: bool = True) -> Product:
    dense = rng.standard_normal((rows, columns)) * np.exp(3 * rng.standard_normal((rows, columns)))
    matrix = sparse.csr_array(np.where(rng.random((rows, columns)) < 0.6, dense.astype(np.float32), 0).astype(float))
    matrix.indptr = matrix.indptr.astype(np.int64)
    return Product(0, False, matrix, abs(matrix), exact)


@given(seed=st.integers(0, 2**20), wide=st.booleans())
def test_no_interval_is_narrower_than_the_exact_one(seed: int, wide: bool) -> None:
    rng = np.random.default_rng(seed)
    terms = [product(rng, 5, 7), product(rng, 5, 3)]
    sources: list[tuple[Array, Array]] = []
    for term in terms:
        low = rng.standard_normal(term.matrix.shape[1]) * 10.0 ** rng.integers(-8, 8)
        sources.append((low, low + (rng.random(len(low)) if wide else 0.0)))
    bias = rng.standard_normal(5)
    lower, upper = intervals(bias, np.zeros(5), terms, sources)
    for row in range(5):
        least = most = Fraction(bias[row])
        for term, (low, high) in zip(terms, sources, strict=True):
            for weight, a, b in zip(term.matrix.toarray()[row], low, high, strict=True):
                ends = Fraction(weight) * Fraction(a), Fraction(weight) * Fraction(b)
                least, most = least + min(ends), most + max(ends)
        assert Fraction(lower[row]) <= least
        assert most <= Fraction(upper[row])
        size = float(max(abs(least), abs(most)))
        assert upper[row] - lower[row] <= float(most - least) * (1 + 1e-9) + 1e-9 * (1 + size) + 1e-6 * size


@pytest.mark.parametrize("exact", [True, False])
def test_rows_that_do_not_matter_are_infinite_and_the_others_the_same(exact: bool) -> None:
    rng = np.random.default_rng(1)
    terms = [product(rng, 9, 6, exact)]
    low = rng.standard_normal(6)
    live = rng.random(9) < 0.5
    lower, upper = intervals(np.ones(9), np.full(9, 1e-9), terms, [(low, low + 0.1)])
    least, most = intervals(np.ones(9), np.full(9, 1e-9), terms, [(low, low + 0.1)], live)
    np.testing.assert_array_equal(least[live], lower[live])
    np.testing.assert_array_equal(most[live], upper[live])
    assert (least[~live] == -np.inf).all()
    assert (most[~live] == np.inf).all()


def test_a_rough_reach_is_no_less_and_what_is_no_number_stays_so() -> None:
    rng = np.random.default_rng(2)
    term = product(rng, 9, 6)
    values, live = rng.random(6), rng.random(9) < 0.5
    exact, rough = np.zeros(9), np.zeros(9)
    term.reach(values, np.ones(9, dtype=np.bool_), exact)
    term.reach(values, live, rough)
    np.testing.assert_allclose(exact, term.magnitude @ values, rtol=1e-12)
    np.testing.assert_array_equal(rough[live], exact[live])
    assert (rough >= exact).all()
    assert rough.sum() > exact.sum()
    for wrong in (np.nan, np.inf):
        values[3] = wrong
        term.reach(values, np.zeros(9, dtype=np.bool_), rough)
        assert not np.isfinite(rough[np.diff(term.matrix.indptr) > 0]).any()


def test_gamma_covers_its_own_rounding() -> None:
    for terms in (0, 1, 1000, 10**9):
        unit = Fraction(1, 2**53)
        assert Fraction(float(gamma(terms))) >= terms * unit / (1 - terms * unit)


@pytest.mark.parametrize("kind", KINDS)
def test_charges_of_what_walks_pass_are_the_same(kind: str, tmp_path: Path) -> None:
    question = prepared(kind, 1, tmp_path)
    checker, bounds = question.checker, question.bounds
    rough = 0
    for node in range(1, checker.last + 1):
        # Most are 0 behind their ReLUs.
        upper = bounds.upper[node].copy()
        upper[::2] = -1.0
        live, every = checker.living(node, upper), checker.charge(node, bounds)
        some = checker.charge(node, bounds, upper)
        np.testing.assert_array_equal(some[live], every[live])
        assert (some >= every * (1 - 1e-12)).all()
        rough += int((~live).sum())
        upper[0] = np.nan
        assert checker.living(node, upper)[0]
    assert rough > 0
    assert checker.living(checker.last, np.full(3, -1.0)).all()


def test_unstable_neurons_are_those_on_both_sides_of_zero() -> None:
    bounds = CheckedBounds([np.array([-1.0, 0.0, -1.0, 1.0])], [np.array([1.0, 1.0, 0.0, 2.0])], [np.zeros(4)])
    assert bounds.unstable(0).tolist() == [0]
