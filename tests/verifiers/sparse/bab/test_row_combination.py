"""Combinations of rows' lines: below a sum of the rows in rational arithmetic, and better than each alone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.bab import row_combination
from prunecert.verifiers.sparse.bab.row_combination import combine, weigh
from tests.verifiers.sparse.bab.test_box_clipping import clipped, random_lines


def least(line: Float64Array) -> float:
    return float(line[0] - line[-1] - np.abs(line[1:-1]).sum())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(1, 4))
@example(437809, 2, 1)
def test_it_is_below_a_sum_of_the_rows(seed: int, rows: int, inputs: int) -> None:
    rng = np.random.default_rng(seed)
    lines = random_lines(rng, 6, rows, inputs)
    counts = rng.integers(1, rows + 1, 6)
    more = combine(lines, counts)
    weights = weigh(lines, counts)
    assert np.all(weights >= 0)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_array_equal(more[np.arange(rows + 1) < counts[:, None]], lines[np.arange(rows) < counts[:, None]])
    for box in range(6):
        line, own = more[box, counts[box]], lines[box, : counts[box]]
        # Rows of zeros alone have no size, but the combination is charged 1e-200 for what underflows.
        assert least(line) >= max(map(least, own)) - 1e-9 * np.abs(own).max() - 1e-199
        for t in (*rng.uniform(-1, 1, (5, inputs)), *np.sign(rng.uniform(-1, 1, (5, inputs)))):
            at = [Fraction(1), *map(Fraction, t.tolist()), Fraction(-1)]
            values = [sum(Fraction(a) * b for a, b in zip(each, at, strict=True)) for each in (line, *own)]
            # Weights of 0 or more whose sum is at most 1 give no more than the largest of the rows, or 0.
            assert values[0] <= max(0, *values[1:])


def test_it_is_nearly_the_best() -> None:
    """As linear programming has it: the largest least value of a combination."""
    rng = np.random.default_rng(2)
    lines = rng.normal(size=(40, 3, 5))
    lines[:, :, -1] = 0.0
    counts = np.full(40, 3)
    more = combine(lines, counts)
    gaps = []
    for box in range(40):
        base, slopes = lines[box, :, 0], lines[box, :, 1:-1]
        # Maximise base w - sum s over w, s >= |slopes w|.
        cost = np.concatenate([-base, np.ones(3)])
        above = np.block([[slopes.T, -np.eye(3)], [-slopes.T, -np.eye(3)]])
        best = -linprog(cost, above, np.zeros(6), [[1.0] * 3 + [0.0] * 3], [1.0], bounds=(0, None)).fun
        gaps.append((best - least(more[box, 3]), best - max(map(least, lines[box]))))
    ours, alone = np.mean(gaps, axis=0)
    assert min(gap for gap, _ in gaps) >= -1e-9
    assert ours < 0.3 * alone


def test_two_rows_that_keep_apart_on_a_slant_exclude_a_box() -> None:
    """x + y <= 0 and x + y >= 0.01."""
    lines = np.array([[[0.0, 1.0, 1.0, 0.0], [0.01, -1.0, -1.0, 0.0]]])
    low, high = np.full((1, 2), -1.0), np.full((1, 2), 1.0)
    assert not clipped(lines, low, high)[2][0]
    assert clipped(combine(lines, np.array([2])), low, high)[2][0]


def test_a_table_of_kinks_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sub-boxes are taken in parts, to the same end; where one has too many inputs its best row stays."""
    rng = np.random.default_rng(4)
    lines, counts = random_lines(rng, 7, 3, 4), np.array([3, 1, 2, 3, 3, 2, 3])
    whole = weigh(lines, counts)
    assert (np.count_nonzero(whole, axis=1) > 1).any()
    monkeypatch.setattr(row_combination, "_NUMBERS", 2 * 3 * 5 * 4)
    np.testing.assert_array_equal(weigh(lines, counts), whole)
    monkeypatch.setattr(row_combination, "_NUMBERS", 3 * 5 * 4 - 1)
    alone = weigh(lines, counts)
    for box, count in enumerate(counts):
        best = max(range(count), key=lambda row: least(lines[box, row]))
        assert alone[box].tolist() == [float(row == best) for row in range(3)]
