from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.bench.results.impact.exemplars import Exemplars, exemplars
from prunecert.bench.results.impact.pairs import compare
from tests.bench.results.impact.networks import network, proved


def of(before: list[set[int]], after: list[set[int]]) -> Exemplars:
    comparison = compare(
        [network(proved(*numbers), pruner="dense", seed=seed) for seed, numbers in enumerate(before)],
        [network(proved(*numbers), seed=seed) for seed, numbers in enumerate(after)],
    )
    assert comparison is not None
    return exemplars(comparison)


def test_the_majority_of_seeds_decides() -> None:
    result = of([{1, 2, 3}, {1, 2}, {1}], [{1, 9}, {9}, {3, 9}])
    # 1 is lost by two of three; 2 is held by two and kept by none; 3 was never the majority's; 9 is gained.
    assert (result.lost, result.gained) == ((1, 2), (9,))
    assert (result.lost_classes, result.gained_classes) == ((1, 2), (1,))
    assert result.seeds == 3


def test_of_two_networks_a_majority_is_both_and_a_tie_is_on_no_side() -> None:
    result = of([{1, 2, 3}, {1, 2}], [{2}, set()])
    assert result.lost == (1,)
    assert result.gained == ()
    assert result.churn == 1 / 40
    assert result.changed == (2 + 2) / 2 / 40
    assert of([{1}], [set()]).churn is None


@given(st.lists(st.sets(st.integers(0, 39)), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_identical_populations_have_none_and_swapped_sides_swap_the_lists(sides: list[set[int]]) -> None:
    assert of(sides, sides).lost == of(sides, sides).gained == ()
    other = [set(range(40)) - numbers for numbers in sides]
    assert of(sides, other).lost == of(other, sides).gained
    assert not np.intersect1d(of(sides, other).lost, of(sides, other).gained).size
