"""Intervals of two networks' values and of their difference hold, and those of a difference lose nothing at a ReLU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.pairs.network import Pair
from prunecert.verifiers.sparse.pairs.ranges import CHANGE, FIRST, SECOND, PairRanges, affine, of_box, through_relu
from tests.verifiers.sparse.pairs.pairkit import FAMILY_NAMES, case

NUMBERS = st.integers(-8, 8).map(float)


def through(pair: Pair, lower: Float64Array, upper: Float64Array) -> list[PairRanges]:
    ranges = [of_box(lower, upper)]
    for node in range(1, pair.last + 1):
        ranges.append(affine(pair, node, ranges).narrowed())
    return ranges


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_values_and_differences_lie_within(family: str, tmp_path: Path) -> None:
    pair_case = case(tmp_path, family)
    ranges = through(pair_case.pair, pair_case.lower, pair_case.upper)
    for node_ranges, values in zip(ranges, pair_case.values(pair_case.points()), strict=True):
        assert (values >= node_ranges.lower[:, None, :, 0] - 1e-12).all()
        assert (values <= node_ranges.upper[:, None, :, 0] + 1e-12).all()


def test_equal_networks_have_no_difference_at_all(tmp_path: Path) -> None:
    pair_case = case(tmp_path, "skip")
    for node_ranges in through(Pair(pair_case.first, pair_case.first), pair_case.lower, pair_case.upper):
        assert not node_ranges.lower[CHANGE].any()
        assert not node_ranges.upper[CHANGE].any()


def test_swapped_networks_have_the_opposite_difference(tmp_path: Path) -> None:
    pair_case = case(tmp_path, "fc")
    box = pair_case.lower, pair_case.upper
    one = through(Pair(pair_case.first, pair_case.second), *box)
    other = through(Pair(pair_case.second, pair_case.first), *box)
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left.lower[CHANGE], -right.upper[CHANGE], atol=1e-12)


def test_one_pruned_weight_differs_by_its_input(tmp_path: Path) -> None:
    """METHODS' check: at that layer the difference is |w| times the range of what it is multiplied by."""
    first = case(tmp_path, "fc").first
    matrix = first.nodes[1].terms[0].matrix.copy()
    weight, column = float(matrix.data[0]), int(matrix.indices[0])
    matrix.data[0] = 0.0
    node = replace(first.nodes[1], terms=(replace(first.nodes[1].terms[0], matrix=matrix),))
    second = Network(first.name, first.input_shape, (first.nodes[0], node, *first.nodes[2:]))
    lower, upper = np.zeros(3), np.array([0.5, 0.25, 1.0])
    node_ranges = through(Pair(first, second), lower, upper)[1]
    ends = sorted([-weight * lower[column], -weight * upper[column]])
    np.testing.assert_allclose([node_ranges.lower[CHANGE, 0, 0], node_ranges.upper[CHANGE, 0, 0]], ends, atol=1e-12)
    assert not node_ranges.lower[CHANGE, 1:].any()


@settings(max_examples=80, deadline=None)
@given(st.tuples(NUMBERS, NUMBERS), st.tuples(NUMBERS, NUMBERS), st.tuples(NUMBERS, NUMBERS))
def test_a_difference_behind_a_relu_is_exact(
    first: tuple[float, float], second: tuple[float, float], change: tuple[float, float]
) -> None:
    """Against all points of a grid that holds every kink of the set."""
    box = np.array([sorted(first), sorted(second), sorted(change)])
    node_ranges = through_relu(PairRanges(box[:, :1, None], box[:, 1:, None]))
    z, other = (values.ravel() for values in np.meshgrid(np.arange(-8.0, 9.0), np.arange(-8.0, 9.0)))
    d = other - z
    inside = np.ones(len(z), dtype=bool)
    for values, (low, high) in zip((z, other, d), box, strict=True):
        inside &= (values >= low) & (values <= high)
    if not inside.any():
        return
    delta = (np.maximum(other, 0) - np.maximum(z, 0))[inside]
    assert node_ranges.lower[CHANGE, 0, 0] == pytest.approx(delta.min(), abs=1e-9)
    assert node_ranges.upper[CHANGE, 0, 0] == pytest.approx(delta.max(), abs=1e-9)
    assert node_ranges.lower[CHANGE, 0, 0] <= delta.min()
    assert node_ranges.upper[CHANGE, 0, 0] >= delta.max()


def test_each_of_the_three_narrows_the_others() -> None:
    lower = np.array([0.0, -5.0, 1.0])[:, None, None]
    upper = np.array([1.0, 5.0, 2.0])[:, None, None]
    node_ranges = PairRanges(lower, upper).narrowed()
    assert node_ranges.lower[SECOND, 0, 0] == pytest.approx(1.0)
    assert node_ranges.upper[SECOND, 0, 0] == pytest.approx(3.0)
    assert node_ranges.upper[FIRST, 0, 0] == 1.0
    assert not node_ranges.empty()[0]
    assert PairRanges(upper, lower).empty()[0]


def test_what_is_unbounded_stays_so() -> None:
    infinite = np.full((3, 1, 1), np.inf)
    node_ranges = through_relu(PairRanges(-infinite, infinite))
    assert node_ranges.lower[CHANGE, 0, 0] == -np.inf
    assert node_ranges.upper[CHANGE, 0, 0] == np.inf
