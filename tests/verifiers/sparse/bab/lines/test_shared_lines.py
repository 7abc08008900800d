"""Lines that subdomains share: what they say holds in the network, and loses nothing where they were drawn."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.bab.dual import Batch
from prunecert.verifiers.sparse.bab.lines import kernels
from prunecert.verifiers.sparse.bab.lines.shared_lines import SharedLines
from tests.verifiers.sparse.bab.test_dual import KINDS, prepared
from tests.verifiers.sparse.searching import Prepared


def split_at_random(question: Prepared, rng: np.random.Generator, count: int, share: float = 0.3) -> Batch:
    """Returns subdomains of one disjunct with splits, slopes and multipliers drawn."""
    batch = question.dual.start([0] * count)
    drawn = rng.random(batch.sign.shape) < share
    batch.sign[:] = np.where(drawn, rng.choice([-1, 1], batch.sign.shape), 0)
    batch.alpha[:] = rng.random(batch.alpha.shape)
    batch.beta[:] = np.where(drawn, rng.exponential(0.1, batch.beta.shape), 0)
    return batch


def bounds(lines: SharedLines, batch: Batch, steps: int = 0) -> tuple[Float64Array, kernels.Splits]:
    """Returns the bounds of subdomains over the lines."""
    splits, result = lines.splits(batch, 0), np.zeros(len(batch))
    kernels.ascend(lines.problem, splits, steps, 1.0, 0.85, np.inf, result)
    return result, splits


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_where_the_lines_were_drawn(kind: str, tmp_path: Path) -> None:
    question = prepared(kind, 1, tmp_path)
    batch = split_at_random(question, np.random.default_rng(0), 1, share=0.0)
    look = question.dual.look(batch)
    lower, _ = bounds(SharedLines(question.dual, batch, look), batch)
    np.testing.assert_allclose(lower, batch.bound, rtol=1e-4, atol=1e-4)


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(KINDS), steps=st.sampled_from([0, 4]))
@settings(max_examples=40, deadline=None)
def test_no_point_of_a_subdomain_is_below_its_bound(seed: int, kind: str, steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        question = prepared(kind, seed % 5, Path(folder))
    rng = np.random.default_rng(seed)
    drawn = split_at_random(question, rng, 6, share=rng.random() * 0.4)
    net = question.net
    t = rng.uniform(-1, 1, (400, len(net.pixels)))
    t[::2] = np.sign(t[::2])
    values = question.checker.network.forward(net.point(t))
    z = np.stack([values[node][:, index] for node, index in zip(net.nodes, net.indices, strict=True)], 1)
    # Half of them have points, the others' splits are whatever was drawn.
    half = len(drawn) // 2
    drawn.sign[:half] *= np.sign(z[:half]).astype(np.int8) * drawn.sign[:half]
    lines = SharedLines(question.dual, drawn, question.dual.look(drawn))
    lower, _ = bounds(lines, drawn, steps)
    rows = values[-1] @ question.rows.T - question.offsets
    inside = (z[None] * drawn.sign[:, None] >= 0).all(axis=2)
    least = np.where(inside, rows @ drawn.weights[0], np.inf).min(axis=1)
    assert np.isfinite(least[:half]).all()
    assert (lower <= least + 1e-4 * (1 + np.abs(least))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_dual_variables_come_back_as_they_went(kind: str, tmp_path: Path) -> None:
    question = prepared(kind, 2, tmp_path)
    batch = split_at_random(question, np.random.default_rng(3), 5)
    lines = SharedLines(question.dual, batch, question.dual.look(batch))
    lower, splits = bounds(lines, batch)
    again = lines.batch(splits, lower, np.arange(5))
    np.testing.assert_array_equal(again.sign, batch.sign)
    np.testing.assert_allclose(again.beta, batch.beta, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(again.disjunct, batch.disjunct)
    np.testing.assert_array_equal(again.place, np.arange(5))
    assert ((again.alpha >= 0) & (again.alpha <= 1)).all()


def test_a_walk_with_their_dual_variables_is_hardly_worse(tmp_path: Path) -> None:
    # Nothing says that it is never worse: where a coefficient changes its sign, the walk takes another line.
    question = prepared("conv", 1, tmp_path)
    batch = split_at_random(question, np.random.default_rng(0), 40, share=0.1)
    lines = SharedLines(question.dual, batch, question.dual.look(batch))
    lower, splits = bounds(lines, batch, 6)
    again = lines.batch(splits, lower, np.arange(40))
    walked = question.dual.bound(again).astype(np.float64)
    assert np.median(walked - lower) >= -1e-5
    assert (walked >= lower - 1e-3).mean() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_what_may_be_split_is_ordered(kind: str, tmp_path: Path) -> None:
    question = prepared(kind, 1, tmp_path)
    batch = split_at_random(question, np.random.default_rng(4), 3)
    lines = SharedLines(question.dual, batch, question.dual.look(batch))
    first = question.net.levels[-1][0]
    last = question.net.unstable - first
    np.testing.assert_array_equal(lines.neurons[:last], np.arange(first, question.net.unstable))
    assert (np.diff(lines.neurons[last:]) < 0).all()
    assert np.isin(np.flatnonzero((batch.sign != 0).any(axis=0)), lines.neurons).all()
    splits = lines.splits(batch, 2)
    for row, count in zip(splits.neurons, splits.counts, strict=True):
        assert (np.diff(row[:count]) > 0).all()
