"""Upper bounds of spectral norms against NumPy's singular values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.balls import spectral


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12), st.sampled_from([1e-70, 1e-3, 1.0, 1e60]))
def test_it_is_above_the_norm_and_near_to_it(seed: int, rows: int, columns: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((rows, columns)) * scale * (rng.random((rows, columns)) < 0.7)
    exact = float(np.linalg.norm(matrix, 2))
    value = spectral.norm(matrix)
    assert value >= exact * (1 - 1e-12)
    assert value <= exact * 1.3 + 1e-140


def test_equal_and_single_values_are_met() -> None:
    for matrix in (np.eye(7), np.ones((5, 3)), np.diag([3.0, -4.0]), np.array([[2.0]])):
        exact = np.linalg.norm(matrix, 2)
        assert exact * (1 - 1e-15) <= spectral.norm(matrix) <= exact * 1.05


def test_what_is_not_finite_has_no_bound() -> None:
    assert spectral.norm(np.array([[1.0, np.nan]])) == np.inf
    assert spectral.norm(np.array([[1.0, np.inf]])) == np.inf
    assert spectral.norm(np.full((2, 2), 1e200)) == np.inf
    assert spectral.norm(np.zeros((0, 3))) == 0.0


def test_large_ones_are_bounded_by_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = np.random.default_rng(0).standard_normal((6, 4))
    near = spectral.norm(matrix)
    monkeypatch.setattr(spectral, "_LARGE", 3)
    sums = np.sqrt(np.abs(matrix).sum(axis=0).max() * np.abs(matrix).sum(axis=1).max())
    assert spectral.norm(matrix) == pytest.approx(min(sums, np.linalg.norm(matrix)))
    assert spectral.norm(matrix) >= near
