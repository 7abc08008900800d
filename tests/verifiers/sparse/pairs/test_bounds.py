"""Bounds of all nodes of a pair: no worse than each network's own, and what is proved of a question's rows."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.sparse.crown.engine import Engine, Question
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.pairs import bounds as pair_bounds
from prunecert.verifiers.sparse.pairs.bounds import CHOICES, best_of, bound_rows
from prunecert.verifiers.sparse.pairs.ranges import CHANGE, FIRST, SECOND
from prunecert.verifiers.sparse.pairs.specification import candidates, difference, of_rows, same_class
from tests.verifiers.sparse.pairs.pairkit import Case, awkward, case, layers


def test_values_are_bounded_no_worse_than_by_each_network_alone(tmp_path: Path) -> None:
    one = case(tmp_path, "fc", radius=0.2)
    bounds, row = one.bounds(), (np.eye(1, one.pair.outputs), np.zeros(1))
    for place, network in ((FIRST, one.first), (SECOND, one.second)):
        own = Engine(network, 1).bound(Question(one.lower, one.upper, *row))
        for node in one.pair.activated:
            assert (bounds.ranges[node].lower[place, :, 0] >= own.lower[node] - 1e-15).all()
            assert (bounds.ranges[node].upper[place, :, 0] <= own.upper[node] + 1e-15).all()
    first, second = bounds.unstable()
    assert first > 0
    assert second > 0


@pytest.mark.parametrize("seed", range(12))
def test_networks_with_units_of_0_and_fixed_inputs_are_bounded(seed: int) -> None:
    one = awkward(seed)
    bounds, values = one.bounds(), one.values(one.points(300))
    for node_ranges, own in zip(bounds.ranges, values, strict=True):
        assert (own >= node_ranges.lower[:, None, :, 0] - 1e-9).all()
        assert (own <= node_ranges.upper[:, None, :, 0] + 1e-9).all()
    outputs = one.pair.outputs
    change = np.hstack([-np.eye(outputs), np.eye(outputs)])
    rows = np.vstack([change, -change, np.random.default_rng(seed).choice([-1, 0, 1, 0.3], (20, 2 * outputs))])
    least = (np.hstack([values[-1][FIRST], values[-1][SECOND]]) @ rows.T).min(axis=0)
    for choice in CHOICES:
        lower, _ = bound_rows(bounds, of_rows(rows, np.zeros(len(rows)), np.zeros(len(rows), int)), choices=(choice,))
        assert (lower <= least + 1e-9).all()


@pytest.mark.parametrize("together", [256, 6])
def test_an_image_s_neurons_are_bounded_as_a_flat_layer_s_are(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are walked in another order, and all of a layer at once where there are few."""
    monkeypatch.setattr(pair_bounds, "_TOGETHER", together)
    rng, sizes = np.random.default_rng(0), (3, 8, 8, 2)
    weights = [rng.normal(size=(rows, columns)) for columns, rows in itertools.pairwise(sizes)]
    biases = [np.zeros(size) for size in sizes[1:]]
    flat = [layers([weight * factor for weight in weights], biases) for factor in (1.0, 1.05)]
    images = [
        Network(
            one.name,
            one.input_shape,
            tuple(replace(node, shape=(2, 2, 2)) if node.size == 8 else node for node in one.nodes),
        )
        for one in flat
    ]
    box = np.full(3, -1.0), np.full(3, 1.0)
    of_flat, of_image, unwalked = (
        Case(flat[0], flat[1], *box).bounds(),
        Case(images[0], images[1], *box).bounds(),
        Case(flat[0], flat[1], *box).bounds(False),
    )
    assert of_flat.ranges[2].unstable().all()
    assert (of_flat.ranges[2].lower[CHANGE] > unwalked.ranges[2].lower[CHANGE]).any()
    for one, other in zip(of_flat.ranges, of_image.ranges, strict=True):
        np.testing.assert_allclose(one.lower, other.lower, rtol=0, atol=1e-12)
        np.testing.assert_allclose(one.upper, other.upper, rtol=0, atol=1e-12)


def test_equal_rows_are_walked_once(tmp_path: Path) -> None:
    one = case(tmp_path, "fc")
    bounds, rows = one.bounds(), candidates(same_class(one.pair.outputs, 0.5))
    lower, walk = bound_rows(bounds, rows)
    # Of each pair of classes a row about each network, and their mean.
    assert walk.lower.shape == (18,)
    assert rows.constant.shape == (24,)
    apart = [bound_rows(bounds, rows.of(np.array([k])))[0] for k in range(6)]
    np.testing.assert_array_equal(lower, np.concatenate(apart))


def test_each_disjunct_has_its_best_row() -> None:
    rows = of_rows(np.eye(4), np.zeros(4), np.array([0, 0, 2, 2]))
    best, place = best_of(rows, np.array([1.0, -1.0, -3.0, -2.0]), 3)
    assert best.tolist() == [1.0, -np.inf, -2.0]
    assert place.tolist() == [0, -1, 3]


def test_a_tolerance_beyond_the_bound_is_proved_and_one_below_what_occurs_is_not(tmp_path: Path) -> None:
    one = case(tmp_path, "conv", dropped=0.1, noise=0.02)
    bounds = one.bounds()
    values = one.values(one.points())[-1]
    occurs = float(np.abs(values[SECOND] - values[FIRST]).max())
    for tolerance, holds in ((0.99 * occurs, False), (20 * occurs, True)):
        spec = difference(tolerance, one.pair.outputs)
        rows = candidates(spec)
        best, _ = best_of(rows, bound_rows(bounds, rows)[0], len(spec.disjuncts))
        assert (best > 0).all() == holds
