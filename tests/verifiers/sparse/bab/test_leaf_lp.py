"""Subdomains all of whose ReLUs have a phase."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.sparse.bab import leaf_lp
from prunecert.verifiers.sparse.bab.dual import Batch
from tests.verifiers.sparse.bab.test_dual import prepared
from tests.verifiers.sparse.searching import Prepared


def leaf_at(question: Prepared, t: np.ndarray) -> Batch:
    """Returns the leaf that holds a point."""
    leaf = question.dual.start([0])
    values = question.checker.network.forward(question.net.point(t[None]))
    z = [values[node][0, index] for node, index in zip(question.net.nodes, question.net.indices, strict=True)]
    leaf.sign[0] = np.where(np.array(z) > 0, 1, -1)
    return leaf


@pytest.mark.parametrize("kind", ["fc", "skip"])
def test_with_all_phases_the_network_is_affine(kind: str, tmp_path: Path) -> None:
    question = prepared(kind, 3, tmp_path)
    t = np.random.default_rng(0).uniform(-1, 1, len(question.net.pixels))
    matrix, constant = leaf_lp.affine(question.net, leaf_at(question, t).sign[0])
    rows = question.checker.network.evaluate(question.net.point(t[None]))[0] @ question.rows.T - question.offsets
    np.testing.assert_allclose((matrix @ t + constant)[question.net.unstable :], rows, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_its_multipliers_bound_the_leaf_as_low_as_its_minimiser(seed: int, tmp_path: Path) -> None:
    question = prepared("fc", 3, tmp_path)
    net = question.net
    leaf = leaf_at(question, np.random.default_rng(seed).uniform(-1, 1, len(net.pixels)))
    rows = question.dual.disjuncts[0]
    answer = leaf_lp.settle(net, leaf, rows, 20)
    assert answer is not None
    leaf.beta[0], leaf.weights[0], t = answer
    assert np.all(leaf.beta >= 0)
    assert np.all(np.abs(t) <= 1)
    value = float((question.checker.network.evaluate(net.point(t[None]))[0] @ question.rows.T - question.offsets)[0])
    assert question.dual.bound(leaf)[0] == pytest.approx(value, abs=1e-3)


def test_numbers_that_are_too_large_are_no_answer(tmp_path: Path) -> None:
    question = prepared("fc", 3, tmp_path)
    leaf = leaf_at(question, np.zeros(len(question.net.pixels)))
    question.net.c[0] = np.inf
    assert leaf_lp.settle(question.net, leaf, question.dual.disjuncts[0], 20) is None
