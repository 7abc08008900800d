"""Which ReLU is split next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.verifiers.sparse.bab import branching
from tests.verifiers.sparse.bab.test_dual import prepared
from tests.verifiers.sparse.searching import Prepared


@pytest.fixture
def question(tmp_path: Path) -> Prepared:
    return prepared("fc", 11, tmp_path)


@given(seed=st.integers(0, 1000), width=st.integers(1, 12), count=st.integers(1, 8))
def test_candidates_are_different_free_neurons(seed: int, width: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    free = rng.random((5, width)) < 0.7
    intercept, gap = (np.where(free, rng.random((5, width)), -1).astype(np.float32) for _ in range(2))
    neurons = branching.candidates(intercept, gap, count)
    assert neurons.shape == (5, min(count, width))
    for row, mine in zip(free, neurons, strict=True):
        real = mine[mine >= 0].tolist()
        assert len(real) == min(count, width, int(row.sum()))
        assert len(set(real)) == len(real)
        assert all(row[real])


@given(seed=st.integers(0, 1000), width=st.integers(2, 12))
def test_what_either_score_puts_first_is_among_two_candidates(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    intercept, gap = (rng.random((3, width)).astype(np.float32) for _ in range(2))
    neurons = branching.candidates(intercept, gap, 2)
    for d in range(3):
        assert {int(intercept[d].argmax()), int(gap[d].argmax())} <= set(neurons[d].tolist())


def test_scores_are_of_free_neurons_alone_and_0_where_the_line_is_the_relu(question: Prepared) -> None:
    batch = question.random(np.random.default_rng(0), 8)
    look = question.dual.look(batch)
    intercept, gap = branching.scores(question.dual, batch, look)
    assert np.all((intercept == -1) == (batch.sign != 0))
    assert np.all((gap == -1) == (batch.sign != 0))
    assert np.all(gap[batch.sign == 0] >= -1e-5)
    none = np.zeros_like(look.lam)
    still = branching.scores(question.dual, batch, type(look)(none, look.z, look.t, look.rows))
    assert not any(score[batch.sign == 0].any() for score in still)


def test_a_free_neuron_is_chosen_where_rounding_makes_its_scores_negative(question: Prepared) -> None:
    batch = question.random(np.random.default_rng(0), 32)
    # One neuron is left of each subdomain, and its line lies above the ReLU by a last digit.
    batch.sign[:] = 1
    left = np.arange(len(batch)) % batch.sign.shape[1]
    batch.sign[np.arange(len(batch)), left] = 0
    batch.alpha[:] = np.nextafter(np.float32(1), np.float32(2))
    look = question.dual.look(batch)
    for count in (1, 3):
        assert branching.choose(question.dual, batch, look, count).tolist() == left.tolist()


def test_children_differ_in_one_phase_and_forget_its_multiplier(question: Prepared) -> None:
    batch = question.random(np.random.default_rng(1), 6)
    neuron = np.arange(6)
    both = branching.children(batch, neuron)
    assert len(both) == 12
    rows = np.arange(6)
    assert np.all(both.sign[rows, neuron] == 1)
    assert np.all(both.sign[rows + 6, neuron] == -1)
    assert not both.beta[np.arange(12), np.tile(neuron, 2)].any()
    other = np.ones(batch.sign.shape, dtype=bool)
    other[rows, neuron] = False
    for part in (both.take(rows), both.take(rows + 6)):
        np.testing.assert_array_equal(part.sign[other], batch.sign[other])
        np.testing.assert_array_equal(part.alpha, batch.alpha)
