"""Hidden bounds that are improved still hold."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.verifiers.sparse.bab import intermediate_bounds
from prunecert.verifiers.sparse.bab.intermediate_bounds import Tightened, tighten
from prunecert.verifiers.sparse.bab.reduced_network import Composition, reduce
from tests.verifiers.sparse.bab.test_dual import KINDS, prepared
from tests.verifiers.sparse.quantised.asking import ask
from tests.verifiers.sparse.quantised.networks import Kind


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


@pytest.mark.parametrize(("kind", "seed"), [("conv", 4), ("residual", 1), ("signed", 1)])
def test_bounds_of_what_is_rounded_are_narrowed_to_multiples_of_the_scale(kind: Kind, seed: int) -> None:
    case = ask(kind, seed, 0.3)
    question, checker = case.prepared, case.prepared.checker
    bounds = question.bounds
    before = [low.copy() for low in bounds.lower], [high.copy() for high in bounds.upper]
    free = {node: bounds.unstable(node) for node in checker.network.roundings}
    tighten(checker, bounds, 12, np.inf, sharpen=case.sharpen)
    narrowed = 0
    for node, places in free.items():
        # One more call finds nothing that it could narrow.
        low, high = bounds.lower[node].copy(), bounds.upper[node].copy()
        case.sharpen(node, low, high)
        np.testing.assert_array_equal(low[places], bounds.lower[node][places])
        np.testing.assert_array_equal(high[places], bounds.upper[node][places])
        assert (bounds.lower[node] >= before[0][node]).all()
        assert (bounds.upper[node] <= before[1][node]).all()
        narrowed += int((bounds.upper[node] < before[1][node]).sum() + (bounds.lower[node] > before[0][node]).sum())
    assert narrowed
    certified = checker.lower(checker.last, question.rows, bounds, constant=np.zeros(2))
    assert (certified <= (case.outputs @ question.rows.T).min(axis=0)).all()
