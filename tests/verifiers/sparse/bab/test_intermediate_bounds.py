"""Hidden bounds that are improved still hold."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.bab import intermediate_bounds
from prunecert.verifiers.sparse.bab.dual import Dual
from prunecert.verifiers.sparse.bab.intermediate_bounds import Tightened, _View, tighten
from prunecert.verifiers.sparse.bab.reduced_network import Composition, Reduced, reduce
from tests.verifiers.sparse.bab.test_dual import KINDS, prepared
from tests.verifiers.sparse.searching import Prepared


@pytest.mark.parametrize("kind", KINDS)
def test_they_hold_and_are_no_worse(kind: str, tmp_path: Path) -> None:
    question = prepared(kind, 2, tmp_path)
    bounds, checker = question.bounds, question.checker
    before = [(low.copy(), high.copy()) for low, high in zip(bounds.lower, bounds.upper, strict=True)]
    free = sum(len(bounds.unstable(node)) for node in checker.activated)
    gone = tighten(checker, bounds, 8, time.monotonic() + 60)
    assert gone == free - sum(len(bounds.unstable(node)) for node in checker.activated)
    t = np.random.default_rng(0).uniform(-1, 1, (3000, len(question.net.pixels)))
    t[::2] = np.sign(t[::2])
    values = checker.network.forward(question.net.point(t))
    better = 0
    for node, (low, high) in enumerate(before):
        assert np.all(bounds.lower[node] >= low)
        assert np.all(bounds.upper[node] <= high)
        assert np.all(values[node] >= bounds.lower[node])
        assert np.all(values[node] <= bounds.upper[node])
        better += int((bounds.lower[node] > low + 1e-6).sum())
    assert better > 0


def unstable(question: Prepared) -> Reduced:
    """Returns the network of the unstable neurons alone, as it is when its last node is bounded."""
    width = question.net.unstable
    return replace(question.net, M=question.net.M[:width], N=question.net.N[:width], c=question.net.c[:width])


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_are_all_of_a_node_in_the_order_of_what_they_see(kind: str, tmp_path: Path) -> None:
    net = unstable(prepared(kind, 2, tmp_path))
    first, last = net.levels[-1]
    view = _View(net)
    neurons = view.nearby(first, last)
    np.testing.assert_array_equal(np.sort(neurons), np.arange(first, last))
    seen = [view.part(np.array([neuron]))[0].pixels for neuron in neurons]
    corners = [int(pixels.min()) if len(pixels) else len(net.pixels) for pixels in seen]
    assert corners == sorted(corners)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_a_part_says_of_its_neurons_what_the_whole_says(kind: str, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        net = unstable(prepared(kind, seed % 3, Path(folder)))
    rng = np.random.default_rng(seed)
    first, last = net.levels[-1]
    # Less is seen through fewer weights.
    net.M[rng.random(net.M.shape) < 0.5] = 0.0
    net.N[rng.random(net.N.shape) < 0.5] = 0.0
    rows = rng.permutation(np.arange(first, last))[: rng.integers(1, 4)]
    part, own = _View(net).part(rows)
    whole = replace(
        net,
        M=np.concatenate([net.M, net.M[rows], -net.M[rows]]),
        N=np.concatenate([net.N, net.N[rows], -net.N[rows]]),
        c=np.concatenate([net.c, net.c[rows], -net.c[rows]]),
    )
    spans = [(k, k + 1) for k in range(2 * len(rows))]
    one, other = Dual(part, spans), Dual(whole, spans)
    batch, all_ = one.start(np.arange(len(spans))), other.start(np.arange(len(spans)))
    all_.alpha[:] = rng.random(all_.alpha.shape)
    batch.alpha[:] = all_.alpha[:, own]
    np.testing.assert_allclose(one.bound(batch), other.bound(all_), rtol=1e-4, atol=1e-4)


def test_what_is_no_better_is_not_certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = prepared("conv", 2, tmp_path)
    bounds, checker, record = question.bounds, question.checker, list[Tightened]()
    tighten(checker, bounds, 20, time.monotonic() + 60, record)
    places = {node: np.concatenate([r.places for r in record if r.node == node]) for node in {r.node for r in record}}
    assert places
    assert all(len(np.unique(index)) == len(index) for index in places.values())
    # All that can be gained is there.
    monkeypatch.setattr(intermediate_bounds, "_LEAST", 0.5)
    monkeypatch.setattr(checker, "lower", lambda *args: pytest.fail("certified"))
    record.clear()
    assert tighten(checker, bounds, 8, time.monotonic() + 60, record) == 0
    assert not record


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_composed_on_the_way_is_the_network_over_the_better_bounds(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = prepared(kind, 2, tmp_path)
    bounds, checker = question.bounds, question.checker
    improve = intermediate_bounds._improve

    def more(*args: Any) -> Tightened:
        """As if the first neuron had become active, and the last one inactive."""
        improved = improve(*args)
        assert len(improved.places)
        bounds.upper[improved.node][improved.places[-1]] = 0.0
        bounds.lower[improved.node][improved.places[0]] = 0.0
        return improved

    monkeypatch.setattr(intermediate_bounds, "_improve", more)
    composition = Composition(checker, bounds)
    assert tighten(checker, bounds, 8, time.monotonic() + 60, None, composition) > 0
    assert all(node in composition for node in checker.activated)
    ask = question.rows, question.offsets
    one, other = reduce(checker, bounds, *ask, composition=composition), reduce(checker, bounds, *ask)
    for name in ("nodes", "indices", "levels", "lower", "upper", "M", "N", "c", "pixels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_what_is_composed_when_the_time_is_over_can_be_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = prepared("fc", 2, tmp_path)
    bounds, checker = question.bounds, question.checker
    composition = Composition(checker, bounds)
    monkeypatch.setattr(intermediate_bounds, "_TOGETHER", 2)
    # One part is bounded, then the time is over.
    clock = iter([0.0] * 2 + [2.0] * 100)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    tighten(checker, bounds, 8, 1.0, None, composition)
    ask = question.rows, question.offsets
    one, other = reduce(checker, bounds, *ask, composition=composition), reduce(checker, bounds, *ask)
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(one.M, other.M)


def test_after_the_deadline_nothing_is_begun(tmp_path: Path) -> None:
    question = prepared("fc", 2, tmp_path)
    before = [low.copy() for low in question.bounds.lower]
    try:
        gone = tighten(question.checker, question.bounds, 8, time.monotonic() - 1)
    except TimeoutError:
        gone = 0
    assert gone == 0
    for low, old in zip(question.bounds.lower, before, strict=True):
        np.testing.assert_array_equal(low, old)
