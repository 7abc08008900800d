"""What walks leave out is 0 behind its ReLU, and what they keep is unchanged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from prunecert.verifiers.sparse.live import Live
from prunecert.verifiers.sparse.node_bounds import CheckedBounds
from tests.verifiers.sparse.bab.test_dual import KINDS, prepared


@dataclass(frozen=True)
class Term:
    """A term of a node, as `Live` takes it."""

    source: int
    activated: bool
    matrix: sparse.csr_array


def terms(rng: np.random.Generator, sizes: list[int]) -> list[list[Term]]:
    """Returns a chain of ReLU layers; the last node also reads the second one's value without ReLU."""

    def term(node: int, source: int, activated: bool) -> Term:
        dense = np.where(rng.random((sizes[node], sizes[source])) < 0.5, rng.standard_normal(sizes[source]), 0.0)
        matrix = sparse.csr_array(dense)
        matrix.indptr = matrix.indptr.astype(np.int64)
        return Term(source, activated, matrix)

    chain = [[], *([term(node, node - 1, node > 1)] for node in range(1, len(sizes)))]
    chain[-1].append(term(len(sizes) - 1, 2, False))
    return chain


@settings(deadline=None, max_examples=50)  # The first example may compile the kernel.
@given(seed=st.integers(0, 10_000))
def test_matrices_are_those_of_the_kept_neurons(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = [4, int(rng.integers(1, 9)), int(rng.integers(1, 9)), 3]
    chain = terms(rng, sizes)
    upper = [rng.standard_normal(size) for size in sizes]
    live = Live(chain, frozenset({0, 2, 3}), upper)
    assert [kept.tolist() for kept in live.kept] == [
        list(range(4)), np.flatnonzero(upper[1] > 0).tolist(), list(range(sizes[2])), list(range(3))
    ]  # fmt: skip
    for node in (1, 2, 3):
        for product, factor in zip(chain[node], live.factors(node), strict=True):
            assert (factor.source, factor.activated) == (product.source, product.activated)
            assert factor.width == len(live.kept[product.source])
            dense = product.matrix.toarray()
            if product.activated:
                dense[:, ~(upper[product.source] > 0)] = 0.0
            cut = (factor.weights, factor.columns, factor.starts)
            shape = (len(live.kept[node]), factor.width)
            ours = sparse.csr_array(cut, shape=shape).toarray()
            np.testing.assert_array_equal(ours, dense[np.ix_(live.kept[node], live.kept[product.source])])


def test_it_holds_for_better_bounds_and_not_for_worse_ones_or_another_network() -> None:
    chain = terms(np.random.default_rng(0), [4, 5, 5, 3])
    upper = [np.ones(4), np.array([-1.0, 2.0, 0.0, 3.0, -4.0]), np.ones(5), np.ones(3)]
    live = Live(chain, frozenset({0, 2, 3}), upper)
    assert live.holds(chain, upper)
    upper[1][1] = -1.0
    assert live.holds(chain, upper)
    assert not live.holds([*chain], upper)
    upper[1][2] = 1e-300
    assert not live.holds(chain, upper)


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_that_become_worse_are_noticed(kind: str, tmp_path: Path) -> None:
    """A neuron that was left out and isn't inactive any more counts, as if it had never been left out."""
    question = prepared(kind, 1, tmp_path)
    bounds, checker = question.bounds, question.checker
    node = checker.activated[-1]
    high = bounds.upper[node].copy()
    bounds.upper[node][:] = np.minimum(high, 0.0)
    before = checker.lower(checker.last, question.rows, bounds)
    bounds.upper[node][:] = high
    again = checker.lower(checker.last, question.rows, bounds)
    fresh = CheckedBounds(bounds.lower, bounds.upper, bounds.charges)
    np.testing.assert_array_equal(again, checker.lower(checker.last, question.rows, fresh))
    assert np.all(again != before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_neuron_that_is_inactive_is_bounded_itself(kind: str, tmp_path: Path) -> None:
    question = prepared(kind, 1, tmp_path)
    bounds, checker = question.bounds, question.checker
    node = checker.activated[-1]
    rows = -np.eye(len(bounds.upper[node]))
    expected = checker.lower(node, rows, bounds)
    left_out = replace(bounds, upper=[*bounds.upper[:node], np.zeros(len(rows)), *bounds.upper[node + 1 :]], alive=[])
    assert not len(checker.live(left_out).kept[node]) or node in checker.network.raw()
    np.testing.assert_array_equal(checker.lower(node, rows, left_out), expected)
    assert np.all(expected != 0)
