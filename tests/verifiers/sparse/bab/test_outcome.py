"""The tree of splits."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunecert.verifiers.base import Status
from prunecert.verifiers.sparse.bab.outcome import Outcome, Tree


@given(st.lists(st.integers(1, 5), max_size=6), st.integers(0, 1000))
def test_entries_stay_where_they_were_added(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree = Tree()
    rows: list[list[int]] = []
    for size in sizes:
        part = rng.integers(-1, 9, (4, size))
        places = tree.add(*part)
        np.testing.assert_array_equal(places, len(rows) + np.arange(size))
        rows += part.T.tolist()
    assert [list(row) for row in zip(tree.parent, tree.neuron, tree.sign, tree.disjunct, strict=True)] == rows


def test_nothing_is_decided_before_the_search() -> None:
    assert Outcome().status is Status.UNKNOWN
    assert Outcome().bounds is None
