"""A walk's bounds hold for both networks' outputs and their differences, by all choices of slopes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.sparse.pairs.bounds import CHOICES, bound_rows
from prunecert.verifiers.sparse.pairs.network import Pair
from prunecert.verifiers.sparse.pairs.ranges import CHANGE, FIRST, PairRanges
from prunecert.verifiers.sparse.pairs.specification import of_rows
from tests.verifiers.sparse.pairs.pairkit import FAMILY_NAMES, Case, case


@pytest.fixture(name="narrow")
def _narrow(tmp_path: Path) -> Case:
    """The second network is the first one, moved a little: as after a step of fine-tuning."""
    return case(tmp_path, "fc-deep", dropped=0.0, noise=0.01, radius=0.3)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_rows_of_both_networks_are_above_their_bounds(family: str, tmp_path: Path) -> None:
    pair_case = case(tmp_path, family)
    bounds, rng = pair_case.bounds(), np.random.default_rng(1)
    outputs = pair_case.pair.outputs
    rows = np.concatenate([rng.normal(size=(12, 2 * outputs)), np.hstack([-np.eye(outputs), np.eye(outputs)])])
    offsets = rng.normal(size=len(rows))
    values = pair_case.values(pair_case.points())[-1]
    least = (np.hstack([values[0], values[1]]) @ rows.T - offsets).min(axis=0)
    for choice in CHOICES:
        lower, _ = bound_rows(bounds, of_rows(rows, offsets, np.zeros(len(rows), dtype=np.int64)), choices=(choice,))
        assert (lower <= least + 1e-12).all()
        assert np.isfinite(lower).all()


def test_a_box_that_is_a_point_has_the_values_themselves(narrow: Case) -> None:
    point = Case(narrow.first, narrow.second, narrow.lower, narrow.lower)
    values = point.values(point.lower[None])[-1][:, 0]
    outputs = len(values[FIRST])
    rows = np.vstack([np.hstack([-np.eye(outputs), np.eye(outputs)]), np.eye(2 * outputs)])
    lower, _ = bound_rows(point.bounds(), of_rows(rows, np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)))
    np.testing.assert_allclose(lower, [*values[CHANGE], *values[FIRST], *values[1]], atol=1e-12)


def test_equal_networks_differ_by_nothing(tmp_path: Path) -> None:
    one = case(tmp_path, "skip")
    bounds = Case(one.first, one.first, one.lower, one.upper).bounds()
    outputs = one.pair.outputs
    rows = np.hstack([-np.eye(outputs), np.eye(outputs)])
    lower, _ = bound_rows(bounds, of_rows(np.vstack([rows, -rows]), np.zeros(2 * outputs), np.zeros(2 * outputs, int)))
    assert (np.abs(lower) <= 1e-190).all()


def test_differences_are_bounded_far_better_together(narrow: Case) -> None:
    """Two networks' bounds apart are as wide as their outputs; together they know that both see one input."""
    bounds, outputs = narrow.bounds(), narrow.pair.outputs
    rows = np.hstack([-np.eye(outputs), np.eye(outputs)])
    differences = of_rows(np.vstack([rows, -rows]), np.zeros(2 * outputs), np.zeros(2 * outputs, dtype=np.int64))
    apart, mixed = (-bound_rows(bounds, differences, choices=(choice,))[0] for choice in ("apart", "mixed"))
    sampled = np.abs(narrow.values(narrow.points())[-1][CHANGE]).max()
    assert mixed.max() < 0.25 * apart.max()
    assert sampled <= mixed.max() < 4 * sampled


def test_walks_narrow_hidden_differences(narrow: Case) -> None:
    with_walks, without = narrow.bounds(), narrow.bounds(walks=False)
    node = narrow.pair.activated[-1]
    width = [
        np.ptp([b.ranges[node].lower[CHANGE], b.ranges[node].upper[CHANGE]], axis=0) for b in (with_walks, without)
    ]
    assert (width[0] <= width[1] + 1e-15).all()
    assert width[0].sum() < 0.9 * width[1].sum()
    values = narrow.values(narrow.points())[node]
    assert (values >= with_walks.ranges[node].lower[:, None, :, 0] - 1e-12).all()
    assert (values <= with_walks.ranges[node].upper[:, None, :, 0] + 1e-12).all()
    assert sum(with_walks.unstable()) > 0


def test_parts_of_a_box_have_bounds_of_their_own(narrow: Case) -> None:
    """Rows of different parts are walked side by side, each with its part's ranges."""
    bounds, outputs = narrow.bounds(), narrow.pair.outputs
    whole = bounds.ranges
    split = int(np.flatnonzero(whole[1].unstable()[0, :, 0])[0])
    lower, upper = (np.repeat(part, 2, axis=2) for part in (whole[1].lower, whole[1].upper))
    lower[FIRST, split, 0], upper[FIRST, split, 1] = 0.0, 0.0
    wide = [PairRanges(np.repeat(item.lower, 2, axis=2), np.repeat(item.upper, 2, axis=2)) for item in whole]
    parts = [wide[0], PairRanges(lower, upper), *wide[2:]]
    row = of_rows(np.eye(1, 2 * outputs).repeat(2, axis=0), np.zeros(2), np.zeros(2, dtype=np.int64))
    lower, _ = bound_rows(bounds, row, parts, ("mixed",))
    points = narrow.points(4000)
    values = narrow.values(points)
    active = values[1][FIRST][:, split] >= 0
    for place, inside in enumerate((active, ~active)):
        assert lower[place] <= values[-1][FIRST][inside, 0].min() + 1e-12
    assert lower[0] != lower[1]


def test_large_numbers_give_no_bound_rather_than_a_wrong_one(narrow: Case) -> None:
    far = Case(narrow.first, narrow.second, np.full_like(narrow.lower, -1e38), np.full_like(narrow.upper, 1e38))
    rows = of_rows(np.full((1, 2 * narrow.pair.outputs), 1e40), np.zeros(1), np.zeros(1, dtype=np.int64))
    with np.errstate(all="ignore"):
        lower, _ = bound_rows(far.bounds(), rows)
    values = Pair(far.first, far.second)
    assert values.outputs == narrow.pair.outputs
    assert lower[0] == -np.inf
