"""Values and gradients at points side by side are those of the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.verifiers.sparse.arrays import LANES32
from prunecert.verifiers.sparse.bab import point_batch
from tests.verifiers.sparse.bab.test_dual import KINDS, prepared


@given(count=st.integers(1, 40), width=st.integers(0, 5))
def test_points_come_back_as_they_were_packed(count: int, width: int) -> None:
    points = np.random.default_rng(count).random((count, width)).astype(np.float32)
    lanes = point_batch.pack(points)
    assert lanes.shape == (-(-count // LANES32), width, LANES32)
    np.testing.assert_array_equal(point_batch.unpack(lanes, count), points)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_values_are_the_network_s_and_the_gradient_is_their_slope(kind: str, threads: int, tmp_path: Path) -> None:
    question = prepared(kind, 1, tmp_path)
    network = question.checker.network
    lanes = point_batch.of_network(network, question.rows, question.offsets, threads)
    rng = np.random.default_rng(0)
    x = rng.random((20, network.nodes[0].size))
    rows = network.evaluate(x) @ question.rows.T - question.offsets
    values = lanes.values(point_batch.pack(x.astype(np.float32)))
    np.testing.assert_allclose(point_batch.unpack(values, 20), rows, atol=1e-4)
    weights = rng.random((20, len(question.rows))).astype(np.float32)
    gradient = point_batch.unpack(lanes.gradient(point_batch.pack(weights)), 20).astype(np.float64)
    step = 1e-6 * rng.standard_normal(x.shape)
    ends = [network.evaluate(x + side * step) @ question.rows.T for side in (-1, 1)]
    change = ((ends[1] - ends[0]) * weights).sum(axis=1)
    # A point whose step crosses a kink is rare.
    assert (np.abs(change - 2 * (gradient * step).sum(axis=1)) < 1e-8 + 1e-3 * np.abs(change)).sum() >= 19


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_live_over_the_box_has_the_same_values_and_gradients_there(kind: str, tmp_path: Path) -> None:
    question = prepared(kind, 1, tmp_path)
    whole = point_batch.of_network(question.checker.network, question.rows, question.offsets)
    live = point_batch.of_live(question.checker, question.bounds, question.rows, question.offsets)
    assert live.size <= whole.size
    share = np.random.default_rng(0).random((20, len(question.lower))).astype(np.float32)
    points = point_batch.pack(question.lower + share * (question.upper - question.lower))
    np.testing.assert_allclose(live.values(points), whole.values(points), atol=1e-4)
    weights = point_batch.pack(share[:, : len(question.rows)].copy())
    np.testing.assert_allclose(live.gradient(weights), whole.gradient(weights), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_over_the_box_has_the_same_rows(kind: str, tmp_path: Path) -> None:
    question = prepared(kind, 1, tmp_path)
    lanes = point_batch.of_reduced(question.dual)
    t = np.random.default_rng(0).uniform(-1, 1, (20, len(question.net.pixels))).astype(np.float32)
    rows = question.checker.network.evaluate(question.net.point(t)) @ question.rows.T - question.offsets
    np.testing.assert_allclose(point_batch.unpack(lanes.values(point_batch.pack(t)), 20), rows, atol=1e-4)


def test_a_step_goes_against_the_gradient_s_sign_and_stays_in_the_box() -> None:
    t = np.tile(np.array([0.0, 0.9, -0.9, 0.5], dtype=np.float32)[None, :, None], (1, 1, LANES32)).copy()
    gradient = np.tile(np.array([2.0, -1e-9, 1.0, 0.0], dtype=np.float32)[None, :, None], (1, 1, LANES32)).copy()
    point_batch.descend(t, gradient, 0.25)
    np.testing.assert_allclose(t[0, :, 3], [-0.25, 1.0, -1.0, 0.5])
