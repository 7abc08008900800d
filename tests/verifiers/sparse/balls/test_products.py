"""Products with zeros skipped are the products, in either way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.balls import products as subject
from prunecert.verifiers.sparse.balls.products import pull, weighed
from tests.verifiers.sparse.balls.ballkit import case


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([0.0, 0.05, 0.5, 1.0]), st.booleans())
def test_sums_and_products_are_numpys(seed: int, count: int, density: float, as_sparse: bool) -> None:
    checker = case((3, 6, 5, 4, 2), seed, skip=True).checker
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, 4)) * (rng.random((count, 4)) < density)
    before = rng.standard_normal((count, 6))
    linear: dict[int, Float64Array] = {}
    relu = {1: before.copy()}
    pull(checker, 3, sparse.csr_array(rows) if as_sparse else rows, linear, relu)
    through = next(product for product in checker.products[3] if product.activated)
    skipped = next(product for product in checker.products[3] if not product.activated)
    np.testing.assert_allclose(relu[through.source], rows @ through.matrix.toarray(), atol=1e-12)
    np.testing.assert_allclose(linear[skipped.source], rows @ skipped.matrix.toarray(), atol=1e-12)
    pull(checker, 2, np.ones((count, 5)), linear, relu)
    np.testing.assert_allclose(relu[1], before + checker.products[2][0].matrix.toarray().sum(axis=0), atol=1e-12)
    bias, charge = rng.standard_normal(4), rng.random(4)
    expected = [rows @ bias, np.abs(rows) @ np.abs(bias), np.abs(rows) @ charge, np.abs(rows).max(axis=1)]
    sums = weighed(sparse.csr_array(rows) if as_sparse else rows, bias, charge)
    np.testing.assert_allclose(sums, expected, atol=1e-12)


@pytest.mark.parametrize("many", [-1.0, 2.0])
def test_what_is_no_number_stays_so(many: float, monkeypatch: pytest.MonkeyPatch) -> None:
    checker = case((3, 6, 5, 4, 2), 1).checker
    monkeypatch.setattr(subject, "_MANY", many)
    rows = np.zeros((20, 5))
    rows[3] = np.nan
    rows[4, 2] = np.inf
    relu: dict[int, Float64Array] = {}
    pull(checker, 2, rows, {}, relu)
    assert np.isfinite(relu[1]).all(axis=1).sum() == 18
    sums = weighed(rows, np.ones(5), np.ones(5))
    assert np.isfinite(sums[:3]).all(axis=0).sum() == 18
    # A coefficient that has vanished counts where a unit of it is worth everything.
    assert np.isnan(weighed(rows, np.ones(5), np.full(5, np.inf))[2, 0])
