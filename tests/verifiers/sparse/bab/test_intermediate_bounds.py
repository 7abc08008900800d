"""Hidden bounds that are improved still hold."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.sparse.bab.intermediate_bounds import tighten
from tests.verifiers.sparse.bab.test_dual import KINDS, prepared


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
