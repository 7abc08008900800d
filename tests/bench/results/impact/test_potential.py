from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from prunecert.bench.results.impact.images import FloatArray
from prunecert.bench.results.impact.pairs import against_dense
from prunecert.bench.results.impact.potential import potential, potentials
from tests.bench.results.impact.networks import network, proved

_SHARES = (0.5, 0.9, 0.99)
ladders = st.lists(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=20, max_size=20), min_size=3, max_size=3)


def ladder(rows: list[list[float]]) -> dict[float, FloatArray]:
    return {share: np.array(row) for share, row in zip(_SHARES, rows, strict=True)}


@given(ladders, st.floats(0, 0.5), st.floats(0, 0.5))
@settings(max_examples=25, deadline=None)
def test_more_allowance_is_never_less_potential(rows: list[list[float]], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert potential(ladder(rows), low, repeats=50) <= potential(ladder(rows), high, repeats=50)
    # Dense always qualifies, and so does all that is no worse.
    assert potential(ladder(rows), low, repeats=50)[0] >= 0
    assert potential(ladder(rows), 1.0, repeats=50) == (0.99, 0.99, 0.99)


@given(ladders)
@settings(max_examples=25, deadline=None)
def test_a_method_that_is_better_at_every_share_has_at_least_its_potential(rows: list[list[float]]) -> None:
    better = [[min(1.0, value + 1) for value in row] for row in rows]
    assert all(a >= b for a, b in zip(potential(ladder(better)), potential(ladder(rows)), strict=True))
    backwards = dict(reversed(list(ladder(rows).items())))
    assert potential(backwards) == potential(ladder(rows))


def test_the_largest_share_that_passes_counts_and_an_edge_is_inside() -> None:
    worse = np.array([-1.0, *[0.0] * 199])
    assert potential({0.5: 4 * worse, 0.9: worse}, 0.005)[0] == 0.9
    assert potential({0.5: worse, 0.9: 2 * worse}, 0.005)[0] == 0.5
    assert potential({}, 0.005) == (0, 0, 0)


def test_potentials_are_of_each_pruner_and_accuracy() -> None:
    whole, half = proved(*range(40)), proved(*range(20))
    parts = [
        network(whole, pruner="dense"),
        network(half, attacked=whole, compression=10.0),
        network(half, clean=whole, compression=100.0),
        network(whole, pruner="hydra", compression=10.0),
    ]
    results = {(item.pruner, item.metric): item.share for item in potentials(against_dense(parts))}
    assert results == pytest.approx(
        {
            ("lwm", "clean"): 0.99,
            ("lwm", "attacked"): 0.9,
            ("lwm", "verified"): 0.0,
            **{("hydra", metric): 0.9 for metric in ("clean", "attacked", "verified")},
        }
    )


def test_shares_are_those_counted_where_a_method_ends_elsewhere() -> None:
    part = network(proved(*range(40)), pruner="flying-bird-plus", compression=10.0)
    ended = replace(part, cell=structs.replace(part.cell, measured_compression=8.0))
    (*_, last) = potentials(against_dense([network(proved(*range(40)), pruner="dense"), ended]))
    assert (last.share, last.measured) == (0.875, (0.875,))
