from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prunecert.bench.results.impact.pairs import against_dense, by_family, change_of, compare
from prunecert.bench.results.stats import mcnemar_exact, paired_difference
from tests.bench.results.impact.networks import network, proved


def test_each_seed_is_held_against_its_own_dense_network() -> None:
    parts = [
        network(proved(0, 1, 2), pruner="dense", seed=0),
        network(proved(7), pruner="dense", seed=1),
        network(proved(7, 8), seed=1),
        network(proved(0, 1), seed=0),
        network(proved(9), seed=5),
    ]
    (comparison,) = against_dense(parts)
    assert comparison.seeds == (0, 1)
    assert np.flatnonzero(comparison.differences("verified") < 0).tolist() == [2]
    assert np.flatnonzero(comparison.differences("verified") > 0).tolist() == [8]
    assert comparison.shares("verified") == (4 / 80, 4 / 80)
    # The order of the networks has no say.
    (other,) = against_dense(parts[::-1])
    assert other.seeds == comparison.seeds
    assert np.array_equal(other.differences("verified"), comparison.differences("verified"))


def test_only_images_that_all_have_count() -> None:
    comparison = compare([network(proved(0, of=30), pruner="dense")], [network(proved(0, 35))])
    assert comparison is not None
    assert len(comparison.numbers) == 30
    assert not comparison.differences("verified").any()


def test_networks_of_other_data_objectives_or_seeds_are_not_compared() -> None:
    dense = network(proved(0), pruner="dense")
    others: list[dict[str, Any]] = [
        {"data_fingerprint": "other"},
        {"objective": "pgd"},
        {"eps": "8/255"},
        {"network": "cnn5"},
    ]
    for fields in others:
        assert against_dense([dense, network(proved(0), **fields)]) == []
    assert compare([dense], [network(proved(0), seed=1)]) is None


def test_one_pair_is_tested_by_mcnemar() -> None:
    comparison = compare([network(proved(*range(10)), pruner="dense")], [network(proved(8, 9, 10))])
    assert comparison is not None
    change = change_of(comparison, "verified")
    assert change.p == pytest.approx(mcnemar_exact(8, 1))
    assert (change.value, change.low, change.high) == pytest.approx(paired_difference(8, 1, 40))


def test_what_one_side_lacks_is_not_compared() -> None:
    comparison = compare([network(proved(0), pruner="dense", kind="attack")], [network(proved(0))])
    assert comparison is not None
    assert comparison.metrics == ("clean", "attacked")


def test_families_stay_apart_and_in_order() -> None:
    parts = [
        part
        for eps in ("2/255", "8/255")
        for part in (
            network(proved(0), pruner="dense", eps=eps),
            network(proved(0), compression=100.0, eps=eps),
            network(proved(0), compression=10.0, eps=eps),
        )
    ]
    groups = by_family(against_dense(parts))
    assert [[one.title for one in group] for group in groups] == [
        [f"cnn-small, ibp, {eps}: lwm {ratio}×" for ratio in (10, 100)] for eps in ("2/255", "8/255")
    ]
