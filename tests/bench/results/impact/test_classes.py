from __future__ import annotations

import numpy as np
import pytest

from prunecert.bench.results.impact.classes import ClassChange, class_changes
from prunecert.bench.results.impact.images import BoolArray
from prunecert.bench.results.impact.pairs import compare
from tests.bench.results.impact.networks import network, proved


def changes(before: BoolArray, after: BoolArray) -> list[ClassChange]:
    comparison = compare([network(before, pruner="dense")], [network(after)])
    assert comparison is not None
    return class_changes(comparison, repeats=499)


def test_classes_weighted_by_their_images_give_the_whole() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.random(40) < 0.6, rng.random(40) < 0.4
    verified = [change for change in changes(before, after) if change.metric == "verified"]
    images = [change.images for change in verified]
    assert sum(images) == 40
    assert np.average([c.dense for c in verified], weights=images) == pytest.approx(before.mean())
    assert np.average([c.pruned for c in verified], weights=images) == pytest.approx(after.mean())
    assert np.average([c.excess for c in verified], weights=images) == pytest.approx(0, abs=1e-12)


def test_a_class_that_loses_everything_is_named_and_no_other() -> None:
    before = np.ones(200, dtype=bool)
    after = np.arange(200) % 4 != 2
    verified = {c.label: c for c in changes(before, after) if c.metric == "verified"}
    assert verified[2].change == -1
    assert verified[2].p < 1e-10
    assert verified[2].excess_p < 0.05
    assert all(verified[label].p == 1 and verified[label].change == 0 for label in (0, 1, 3))
    # The others deviate, too, since the mean falls with it; but what is taken from one alone is named by `p`.
    assert verified[2].excess == pytest.approx(-0.75)


def test_a_loss_that_all_classes_share_is_no_excess() -> None:
    after = np.arange(80) % 8 < 4
    for change in changes(np.ones(80, dtype=bool), after):
        assert change.excess == 0
        assert change.excess_p == 1


def test_identical_networks_differ_nowhere() -> None:
    flags = proved(*range(0, 40, 3))
    assert all(c.p == c.excess_p == 1 and c.change == 0 for c in changes(flags, flags))


def test_p_values_of_the_same_population_are_not_small_too_often() -> None:
    """Networks that change images at random: hardly ever is any of the twelve tests below 5 %."""
    rng = np.random.default_rng(1)
    rejections = sum(
        any(min(c.p, c.excess_p) <= 0.05 for c in changes(rng.random(40) < 0.5, rng.random(40) < 0.5))
        for _ in range(30)
    )
    # Two families of 5 %: at most 3 are expected, and 8 come up once in some thousand times.
    assert rejections < 8
