"""Certified bounds of subdomains hold."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.bab.outcome import Outcome
from prunecert.verifiers.sparse.bab.prover import TOGETHER, Prover, adopt_crown, sharpened, unstable
from tests.verifiers.sparse.bab.test_dual import KINDS, prepared


@settings(max_examples=15, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 1000), several=st.booleans())
def test_no_point_of_a_subdomain_is_below_its_bound(kind: str, seed: int, several: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        question = prepared(kind, seed, Path(folder), radius=0.3, several=several)
    outcome = Outcome()
    prover = Prover(
        question.checker, question.bounds, question.rows, question.offsets, question.dual.disjuncts, outcome
    )
    np.testing.assert_array_equal(prover.nodes, question.net.nodes)
    np.testing.assert_array_equal(prover.indices, question.net.indices)
    rng = np.random.default_rng(seed)
    batch = question.random(rng, TOGETHER + 3)
    bounds = prover.certify(batch)
    assert len(bounds) == len(batch)
    assert outcome.certify_s > 0
    t = rng.uniform(-1, 1, (1000, len(question.net.pixels)))
    t[::2] = np.sign(t[::2])
    values = question.checker.network.forward(question.net.point(t))
    z = np.stack([values[n][:, i] for n, i in zip(prover.nodes, prover.indices, strict=True)] or [t[:, 0] * 0], 1)
    rows = values[-1] @ question.rows.T - question.offsets
    for d in range(len(batch)):
        sign = batch.sign[d] if question.net.unstable else np.zeros(1)
        inside = np.all(z * sign >= 0, axis=1)
        if inside.any():
            assert bounds[d] <= (rows[inside] @ batch.weights[d].astype(np.float64)).min()


def test_rows_of_other_disjuncts_and_weights_below_0_prove_nothing(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path, several=True)
    # The first disjunct's rows are above 0 everywhere, the second one's below.
    first, second = question.dual.disjuncts
    offsets = question.offsets.copy()
    offsets[slice(*first)], offsets[slice(*second)] = -1e3, 1e3
    prover = Prover(question.checker, question.bounds, question.rows, offsets, question.dual.disjuncts, Outcome())
    batch = question.dual.start([0, 1, 1, 1, 0])
    batch.weights[1] = batch.weights[0]
    batch.weights[2] *= -1
    batch.weights[3] = np.nan
    batch.weights[4] += np.where(question.dual.member(batch)[4], 0, 1e6)
    bounds = prover.certify(batch)
    assert bounds[0] > 0
    assert np.all(bounds[1:4] <= 0)
    assert bounds[4] == bounds[0]


def test_nothing_is_certified_of_nothing(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    prover = Prover(
        question.checker, question.bounds, question.rows, question.offsets, question.dual.disjuncts, Outcome()
    )
    assert len(prover.certify(question.dual.start([]))) == 0


def test_crown_s_bounds_are_taken_over_with_the_unstable_neurons_in_their_order(tmp_path: Path) -> None:
    question = prepared("skip", 1, tmp_path)
    lower, upper = question.lower.astype(np.float64), question.upper.astype(np.float64)
    bounds = adopt_crown(question.checker, lower, upper, question.root)
    for node, low in question.root.lower.items():
        np.testing.assert_array_equal(bounds.lower[node], low)
    assert len(bounds.charges) == len(bounds.lower) == question.checker.last + 1
    nodes, indices = unstable(question.checker, bounds)
    assert np.all(np.diff(nodes) >= 0)
    for node, index in zip(nodes, indices, strict=True):
        assert bounds.lower[node][index] < 0 < bounds.upper[node][index]


def test_what_is_known_of_a_node_narrows_all_that_follow_and_nothing_else(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    lower, upper = question.lower.astype(np.float64), question.upper.astype(np.float64)
    before = adopt_crown(question.checker, lower, upper, question.root)
    after = adopt_crown(question.checker, lower, upper, question.root)
    first = question.checker.activated[0]
    middle = 0.5 * before.lower[first] + 0.5 * before.upper[first]
    visits = []

    def sharpen(node: int, low: Float64Array, high: Float64Array) -> None:
        visits.append(node)
        if node == first:
            np.maximum(low, middle - 1e-3, out=low)
            np.minimum(high, middle + 1e-3, out=high)

    sharpened(question.checker, after, sharpen)
    assert visits == list(range(1, question.checker.last + 1))
    for node in range(question.checker.last + 1):
        assert (after.lower[node] >= before.lower[node]).all()
        assert (after.upper[node] <= before.upper[node]).all()
    last = question.checker.last
    assert ((after.upper[last] - after.lower[last]) < 0.2 * (before.upper[last] - before.lower[last])).all()
    assert (after.charges[last] <= before.charges[last]).all()
