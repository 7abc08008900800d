"""Bounds of subdomains and their gradients."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.bab import branching
from prunecert.verifiers.sparse.bab.dual import Batch
from tests.verifiers.sparse.searching import Prepared, draw

KINDS = ("fc", "conv", "skip", "conv-skip")


def prepared(kind: str, seed: int, folder: Path, radius: float = 0.5, several: bool = False) -> Prepared:
    drawn, network = draw(kind, seed, folder)
    rng = np.random.default_rng(seed)
    center = rng.random(drawn.inputs)
    if several:
        pairs = [(rng.normal(size=(m, drawn.classes)), rng.normal(size=m)) for m in (2, 3)]
        spec = OutputSpec(tuple(pairs))
    else:
        spec = OutputSpec.robustness(0, drawn.classes)
    return Prepared(network, center - radius, center + radius, spec)


def by_torch(question: Prepared, batch: Batch, d: int) -> tuple[float, list[Any]]:
    """The bound of one subdomain in float64, written again, and its gradient by autograd."""
    net, width = question.net, question.net.unstable
    m, n, c = (torch.from_numpy(array.astype(np.float64)) for array in (net.M, net.N, net.c))
    alpha, beta, weights = (
        torch.from_numpy(array[d].astype(np.float64)).requires_grad_()
        for array in (batch.alpha, batch.beta, batch.weights)
    )
    mu: list[Any] = [None] * width
    total = weights @ c[width:]
    for i in reversed(range(width)):
        lam = weights @ n[width:, i]
        for j in range(i + 1, width):
            lam = lam + mu[j] * n[j, i]
        low, high = float(net.lower[i]), float(net.upper[i])
        sign = int(batch.sign[d, i])
        if sign:
            mu[i] = lam - beta[i] if sign > 0 else beta[i]
        elif lam >= 0:
            mu[i] = alpha[i] * lam
        else:
            mu[i] = lam * (high / (high - low))
            total = total - mu[i] * low
        total = total + mu[i] * c[i]
    line = weights @ m[width:]
    for i in range(width):
        line = line + mu[i] * m[i]
    bound = total - line.abs().sum()
    gradients = torch.autograd.grad(bound, [alpha, beta, weights], allow_unused=True)
    return float(bound.detach()), [np.zeros(0) if g is None else g.numpy() for g in gradients]


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_autograds(kind: str, several: bool, tmp_path: Path) -> None:
    question = prepared(kind, 2, tmp_path, several=several)
    batch = question.random(np.random.default_rng(3), 21)
    by_alpha, by_beta, by_weights = question.dual.gradient(batch.take(np.arange(21)))
    bounds = question.dual.bound(batch.take(np.arange(21)))
    member = question.dual.member(batch)
    for d in range(21):
        bound, (alpha, beta, weights) = by_torch(question, batch, d)
        assert bounds[d] == pytest.approx(bound, abs=2e-5)
        np.testing.assert_allclose(by_alpha[d], alpha, atol=2e-5)
        np.testing.assert_allclose(by_beta[d], beta, atol=2e-5)
        np.testing.assert_allclose(by_weights[d], np.where(member[d], weights, 0), atol=2e-5)
    assert np.abs(by_alpha).max() > 0.01
    assert np.abs(by_beta).max() > 0.01


def test_gradients_are_finite_differences(tmp_path: Path) -> None:
    question = prepared("fc", 5, tmp_path)
    batch = question.random(np.random.default_rng(5), 1)
    by_alpha, by_beta, _ = question.dual.gradient(batch.take([0]))
    step = np.float32(1e-3)
    agreed = 0
    for i in range(question.net.unstable):
        split = batch.sign[0, i] != 0
        values = []
        for side in (-1, 1):
            moved = batch.take([0])
            (moved.beta if split else moved.alpha)[0, i] += side * step
            values.append(float(question.dual.bound(moved)[0]))
        slope = (values[1] - values[0]) / (2 * step)
        # A kink between the two points is rare, and rounding is about 1e-6.
        agreed += abs(slope - (by_beta if split else by_alpha)[0, i]) < 5e-3
    assert agreed >= question.net.unstable - 1


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10_000), several=st.booleans())
def test_bounds_hold_in_their_part_of_the_box(kind: str, seed: int, several: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        question = prepared(kind, seed, Path(folder), radius=0.3, several=several)
    rng = np.random.default_rng(seed)
    batch = question.random(rng, 4)
    bounds = question.dual.bound(batch)
    t = rng.uniform(-1, 1, (2000, len(question.net.pixels)))
    t[::2] = np.sign(t[::2])
    values = question.checker.network.forward(question.net.point(t))
    z = np.stack(
        [values[n][:, i] for n, i in zip(question.net.nodes, question.net.indices, strict=True)] or [t[:, 0] * 0], 1
    )
    rows = values[-1] @ question.rows.T - question.offsets
    for d in range(4):
        sign = batch.sign[d] if question.net.unstable else np.zeros(1)
        inside = np.all(z * sign >= 0, axis=1)
        if inside.any():
            assert bounds[d] <= (rows[inside] @ batch.weights[d]).min() + 1e-4


@pytest.mark.parametrize("several", [False, True])
def test_ascent_improves_and_keeps_the_best(several: bool, tmp_path: Path) -> None:
    question = prepared("fc", 7, tmp_path, several=several)
    batch = question.random(np.random.default_rng(1), 40)
    before = question.dual.bound(batch.take(np.arange(40))).copy()
    after = question.dual.optimise(batch, 30, target=np.inf)
    assert np.all(after.bound >= before - 1e-6)
    assert np.mean(after.bound > before + 1e-3) > 0.9
    # What is kept is what gives the bound.
    np.testing.assert_allclose(question.dual.bound(after.take(np.arange(40))), after.bound, atol=1e-6)
    assert after.alpha.min() >= 0
    assert after.alpha.max() <= 1
    assert after.beta.min() >= 0
    np.testing.assert_allclose(after.weights.sum(axis=1), 1, atol=1e-5)


def test_groups_don_t_mix(tmp_path: Path) -> None:
    """A subdomain's bound is the same alone and among 40, whatever the number of threads."""
    question = prepared("conv", 3, tmp_path)
    batch = question.random(np.random.default_rng(1), 40)
    together = question.dual.optimise(batch, 5, target=np.inf)
    for d in (0, 15, 16, 39):
        alone = question.dual.optimise(batch.take([d]), 5, target=np.inf)
        assert alone.bound[0] == together.bound[d]
        np.testing.assert_array_equal(alone.alpha[0], together.alpha[d])


def test_branching_prefers_what_helps(tmp_path: Path) -> None:
    """The neuron chosen with real bounds of the children is at least as good as the first by score."""
    question = prepared("fc", 11, tmp_path)
    batch = question.dual.optimise(question.dual.start(np.arange(2)), 30, target=np.inf)
    look = question.dual.look(batch)
    gains = []
    for count in (1, question.net.unstable):
        neuron = branching.choose(question.dual, batch, look, count)
        assert np.all(batch.sign[np.arange(2), neuron] == 0)
        both = branching.children(batch, neuron)
        bound = np.minimum(question.dual.bound(both), 0).reshape(2, -1) - batch.bound
        gains.append(bound.min(axis=0) + 0.1 * bound.max(axis=0))
    assert np.all(gains[1] >= gains[0] - 1e-6)


def test_split_neurons_are_no_candidates(tmp_path: Path) -> None:
    question = prepared("fc", 11, tmp_path)
    batch = question.random(np.random.default_rng(0), 8)
    batch.sign[:] = 1
    batch.sign[:, 2] = 0
    neurons = branching.candidates(*branching.scores(question.dual, batch, question.dual.look(batch)), 3)
    assert set(neurons[:, :].reshape(-1).tolist()) == {-1, 2}
