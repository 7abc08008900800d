"""Which share of a rounded neuron is cut: bounds hold for any, are no worse for those chosen, and better for most."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.bab import cuts
from prunecert.verifiers.sparse.bab.cuts import cut
from prunecert.verifiers.sparse.bab.reduced_network import reduce
from tests.verifiers.sparse.quantised.asking import ask
from tests.verifiers.sparse.quantised.networks import KINDS, Kind


@pytest.mark.parametrize("kind", KINDS)
def test_cuts_are_never_worse_than_none_and_hold(kind: Kind) -> None:
    case, rng = ask(kind, 2), np.random.default_rng(0)
    question, offsets = case.prepared, np.array([0.1, -0.2])
    bounds, rows = question.bounds, question.rows
    plain = question.checker.lower(question.checker.last, rows, bounds, constant=-offsets)
    late = cut(question.checker, bounds, rows, offsets, deadline=0.0)
    values = cut(question.checker, bounds, rows, offsets)
    assert (values >= late).all()
    assert (late >= plain).all()
    again = question.checker.lower(question.checker.last, rows, bounds, constant=-offsets)
    assert again.min() >= plain.min()
    assert all(((share >= 0) & (share <= 1)).all() for share in bounds.cuts.values())
    assert (values <= (case.outputs @ rows.T - offsets).min(axis=0)).all()
    # What is left for the search has the same cuts.
    net_left = reduce(question.checker, bounds, rows, offsets)
    t = np.sign(rng.normal(size=(200, len(net_left.pixels))))
    z = t @ net_left.M.T.astype(float) + net_left.c
    for start, stop in (*net_left.levels, (net_left.unstable, len(net_left.c))):
        z[:, start:stop] += np.maximum(z[:, :start], 0) @ net_left.N[start:stop, :start].T
    assert (z[:, net_left.unstable :] >= again - 1e-4).all()


@settings(max_examples=15, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 200), numbers=st.integers(0, 1000))
def test_bounds_hold_for_any_shares(kind: Kind, seed: int, numbers: int) -> None:
    """Also where they are no shares: whoever chooses them isn't trusted."""
    case, rng = ask(kind, seed, 0.02), np.random.default_rng(numbers)
    question, zeros = case.prepared, np.zeros(2)
    for node in question.checker.network.roundings:
        share = rng.choice([0.0, 1.0, rng.random(), -0.5, 1.5, np.nan], question.checker.network.nodes[node].size)
        question.bounds.cuts[node] = share
    bound = question.checker.lower(question.checker.last, question.rows, question.bounds, constant=zeros)
    assert (bound <= (case.outputs @ question.rows.T).min(axis=0)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_walk_is_the_checkers_and_its_derivatives_are_right(kind: Kind) -> None:
    question, rng = ask(kind, 5, 0.03).prepared, np.random.default_rng(1)
    checker, bounds, zeros = question.checker, question.bounds, np.zeros(2)
    shares = {
        node: rng.random(checker.network.nodes[node].size) * (bounds.lower[node] >= 0)
        for node in checker.network.roundings
    }
    bounds.cuts.update(shares)
    walk = cuts._Walk(checker, bounds, question.rows, zeros)
    certified = checker.lower(checker.last, question.rows, bounds, constant=zeros)
    values = walk.backward(shares)
    assert (values >= certified).all()
    # Weights that were rounded are charged by the checker.
    np.testing.assert_allclose(values, certified, atol=1e-2)
    weights = np.array([1.0, 0.5])
    gradients = walk.forward(weights)

    def total(node: int, place: int, step: float) -> float:
        moved = {number: share.copy() for number, share in shares.items()}
        moved[node][place] += step
        return float(weights @ walk.backward(moved))

    checked = 0
    for node, share in shares.items():
        for place in np.flatnonzero((share > 0) & (bounds.upper[node] > bounds.lower[node]))[:6]:
            one = (total(node, place, 1e-7) - total(node, place, -1e-7)) / 2e-7
            assert gradients[node][place] == pytest.approx(one, rel=1e-4, abs=1e-5)
            checked += 1
    assert checked


def test_shares_between_all_and_nothing_prove_more() -> None:
    better = 0
    for seed in range(8):
        question = ask("conv", seed, 0.03).prepared
        # Nothing is proved, so that all is open.
        offsets = np.full(2, 1e3)
        late = cut(question.checker, question.bounds, question.rows, offsets, deadline=0.0)
        values = cut(question.checker, question.bounds, question.rows, offsets)
        between = [((share > 0.01) & (share < 0.99)).any() for share in question.bounds.cuts.values()]
        better += bool(any(between) and values.min() > late.min() + 1e-4)
    assert better >= 4


def test_nothing_is_chosen_for_nothing() -> None:
    question = ask("dense", 1).prepared
    none: Float64Array = np.zeros((0, 3))
    assert cut(question.checker, question.bounds, none, np.zeros(0)).shape == (0,)
