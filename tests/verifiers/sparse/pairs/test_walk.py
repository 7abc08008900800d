"""A walk's bounds hold for both networks' outputs and their differences, by all choices of slopes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.pairs.bounds import CHOICES, bound_rows
from prunecert.verifiers.sparse.pairs.network import Pair
from prunecert.verifiers.sparse.pairs.ranges import CHANGE, FIRST, PairRanges
from prunecert.verifiers.sparse.pairs.specification import of_rows
from prunecert.verifiers.sparse.pairs.walk import PairWalker, _columns, _Part
from tests.verifiers.sparse.pairs.pairkit import FAMILY_NAMES, Case, awkward, cancelling, case, exactly, layers


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


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_neurons_that_are_left_out_change_no_bound(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without those that are inactive in both networks, or that no row reaches, a walk finds what it finds with all."""
    pair_case = case(tmp_path, family, radius=0.05)
    outputs = pair_case.pair.outputs
    rows = of_rows(np.hstack([-np.eye(outputs), np.eye(outputs)]), np.zeros(outputs), np.zeros(outputs, dtype=np.int64))
    bounds = pair_case.bounds()
    lower, walk = bound_rows(bounds, rows)
    dead = sum(int((~live).sum()) for live in bounds.walker._live)
    monkeypatch.setattr(_Part, "of", _Part)
    whole = pair_case.bounds()
    for live in whole.walker._live:
        live[:] = True
    lower_of_all, walk_of_all = bound_rows(whole, rows)
    np.testing.assert_allclose(lower, lower_of_all, rtol=0, atol=1e-12)
    np.testing.assert_allclose(walk.input, walk_of_all.input, rtol=0, atol=1e-12)
    for some, every in zip(bounds.ranges, whole.ranges, strict=True):
        np.testing.assert_allclose(some.lower, every.lower, rtol=0, atol=1e-12)
        np.testing.assert_allclose(some.upper, every.upper, rtol=0, atol=1e-12)
    assert dead > 0


def test_a_neuron_whose_bound_is_no_number_is_not_left_out(narrow: Case) -> None:
    ranges = [PairRanges(item.lower.copy(), item.upper.copy()) for item in narrow.bounds().ranges]
    ranges[1].upper[:, 0], ranges[1].upper[:, 1] = np.nan, -1.0
    live = PairWalker(narrow.pair, ranges)._live[1]
    assert (bool(live[0]), bool(live[1])) == (True, False)


@pytest.mark.parametrize("seed", range(4))
def test_what_cancels_is_charged_for_its_rounding(seed: int) -> None:
    one = cancelling(seed)
    bounds, outputs = one.bounds(), one.pair.outputs
    change = np.hstack([-np.eye(outputs), np.eye(outputs)])
    rows = np.vstack([np.eye(2 * outputs), -np.eye(2 * outputs), change, -change])
    values = [*exactly(one.first, one.lower), *exactly(one.second, one.lower)]
    exact = [sum(Fraction(factor) * value for factor, value in zip(row, values, strict=True)) for row in rows]
    for choice in CHOICES:
        candidates = of_rows(rows, np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64))
        lower, _ = bound_rows(bounds, candidates, choices=(choice,))
        assert all(Fraction(bound) <= value for bound, value in zip(lower, exact, strict=True))
        np.testing.assert_allclose(lower, [float(value) for value in exact], rtol=0, atol=1e-12)


def test_errors_of_constants_are_charged_where_a_walk_starts_and_beyond() -> None:
    """The second network is the first one, but that its first layer's constants are known within 0.25 only."""
    rng = np.random.default_rng(0)
    sizes = (3, 6, 6, 2)
    weights = [rng.normal(size=(rows, columns)) for columns, rows in itertools.pairwise(sizes)]
    first = layers(weights, [np.zeros(size) for size in sizes[1:]])
    node = first.nodes[1]
    loose = replace(node, bias_error=np.full(node.size, 0.25, dtype=np.float32))
    second = Network(first.name, first.input_shape, (first.nodes[0], loose, *first.nodes[2:]))
    box = Case(first, second, np.full(3, -1.0), np.full(3, 1.0))
    bounds, points = box.bounds(), box.points()
    values = box.first.forward(points)
    assert (np.abs(bounds.ranges[1].lower[CHANGE]) >= 0.25).all()
    for sign in (-0.25, 0.25):
        moved = [values[0], values[1] + sign]
        for weight in weights[1:]:
            moved.append(np.maximum(moved[-1], 0) @ weight.astype(np.float32).T.astype(np.float64))
        for ranges, own, other in zip(bounds.ranges, values, moved, strict=True):
            change = other - own
            assert (ranges.lower[CHANGE, :, 0] <= change + 1e-9).all()
            assert (ranges.upper[CHANGE, :, 0] >= change - 1e-9).all()


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e60])
def test_coefficients_that_are_no_numbers_or_huge_give_no_bound(number: float) -> None:
    """Here all values are 0, of which even the largest multiple is."""
    one = awkward(1)
    network = layers(
        [term.matrix.toarray() for node in one.first.nodes for term in node.terms], [*map(np.zeros, (5, 5, 3))]
    )
    bounds = Case(network, network, np.zeros(3), np.zeros(3)).bounds()
    for place in range(2):
        coefficients = np.zeros((2, 3, 2))
        coefficients[place, 0, 0] = number
        coefficients[:, 1] = 1.0
        lower = bounds.walker.lower(3, coefficients[0], coefficients[1], bounds.ranges).lower
        assert lower[0] == -np.inf
        assert lower[1] == pytest.approx(0.0, abs=1e-190)


def test_values_beyond_all_bounds_of_underflow_give_no_bound() -> None:
    """All neurons are active, so that nothing but the charge knows how large they may be."""
    one = cancelling(0)
    bounds = one.bounds()
    ranges = [PairRanges(item.lower.copy(), item.upper.copy()) for item in bounds.ranges]
    assert (ranges[1].lower[:CHANGE] > 0).all()
    ones = np.ones((one.pair.outputs, 1))
    for largest, bounded in ((1e60, True), (1e120, False)):
        ranges[1].upper[:] = largest
        lower = PairWalker(one.pair, ranges).lower(one.pair.last, ones, ones, ranges).lower
        assert np.isfinite(lower[0]) == bounded


@given(st.lists(st.lists(st.integers(0, 9), unique=True), min_size=2, max_size=2), st.integers(0, 2**32 - 1))
def test_coefficients_of_some_neurons_add_up(neurons: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [
        _Part(np.array(sorted(some), dtype=np.int64), *rng.integers(-1, 2, (2, len(some), 3)).astype(np.float64))
        for some in neurons
    ]
    total = parts[0].plus(parts[1])
    expected = [one + other for one, other in zip(parts[0].dense(10), parts[1].dense(10), strict=True)]
    np.testing.assert_array_equal(total.dense(10), expected)
    few = _Part.of(total.index, total.value, total.change)
    np.testing.assert_array_equal(few.dense(10), expected)
    assert (np.abs(few.value) + np.abs(few.change)).any(axis=1).all()
    assert (np.diff(total.index) > 0).all()


@given(st.integers(0, 2**32 - 1))
def test_columns_are_taken_as_scipy_takes_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = scipy.sparse.csr_array(rng.integers(-1, 2, (rng.integers(1, 6), 8)).astype(np.float64))
    taken = rng.random(8) < 0.5
    some = _columns(matrix, taken)
    np.testing.assert_array_equal(some.toarray(), matrix.toarray()[:, taken])
    assert some.indices.dtype == matrix.indices.dtype
