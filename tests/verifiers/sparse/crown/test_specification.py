"""The specification's rows: which are walked, and what walked bounds of them mean, in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunecert.verifiers.sparse.crown.specification import choose, conclude


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0, np.nan]), max_size=20), st.integers(0, 20))
def test_rows_that_are_not_proved_are_walked_or_all_where_they_are_few(bounds: list[float], most: int) -> None:
    chosen = np.full(20, -1)
    count = choose.py_func(np.array(bounds), most, chosen)
    everything = len(bounds) <= most
    assert chosen[:count].tolist() == [k for k, bound in enumerate(bounds) if everything or not bound > 0]


@given(seed=st.integers(0, 1000), intersect=st.booleans())
def test_bounds_of_deviations_of_outputs_become_bounds_of_rows(seed: int, intersect: bool) -> None:
    rng = np.random.default_rng(seed)
    y, r = rng.standard_normal(5), rng.random(5)
    matrix, offsets, walked = rng.standard_normal((3, 3)), rng.standard_normal(3), rng.standard_normal(2)
    old = rng.standard_normal(3)
    out = old.copy()
    conclude.py_func(y, r, 2, matrix, offsets, walked, np.array([2, 0]), intersect, out)
    assert out[1] == old[1]
    for k, row in enumerate((2, 0)):
        exact = sum((Fraction(a) * Fraction(b) for a, b in zip(matrix[row], y[2:], strict=True)), Fraction(0))
        exact += Fraction(walked[k]) - Fraction(offsets[row])
        # What rounding the coefficients may lose, at the worst deviation.
        exact -= sum(
            (
                abs(Fraction(a) - Fraction(float(np.float32(a)))) * Fraction(b)
                for a, b in zip(matrix[row], r[2:], strict=True)
            ),
            Fraction(0),
        )
        assert Fraction(float(out[row])) <= max(exact, Fraction(float(old[row]))) if intersect else exact
