"""Bounds of nodes hold in all of a region, and a region without inputs is known as one."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.sparse.smooth.regions import EmptyError, find_region
from prunecert.verifiers.sparse.smooth.walk import SmoothChecker
from prunecert.verifiers.sparse.walks import LateError
from tests.verifiers.sparse.smooth import smoothnets


@pytest.fixture
def checker(tmp_path: Path) -> SmoothChecker:
    return smoothnets.load(smoothnets.small(tmp_path, 2))


@pytest.mark.parametrize("eps", [1e-9, 0.2, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_exact_values_are_within(seed: int, eps: float, tmp_path: Path) -> None:
    checker = smoothnets.load(smoothnets.small(tmp_path, seed))
    low, high = np.full(2, 0.3) - eps, np.full(2, 0.3) + eps
    region = find_region(checker, low, high)
    hasty = find_region(checker, low, high, walks_until=0.0)
    for x in smoothnets.points(low, high, 6):
        values = smoothnets.exact(checker.smooth, x)
        for node in range(1, checker.last):
            for bounds in (region.bounds, hasty.bounds):
                ends = zip(values[node], bounds.lower[node], bounds.upper[node], strict=True)
                assert all(Decimal(float(a)) <= value <= Decimal(float(b)) for value, a, b in ends)
    node = checker.last - 1
    assert np.all(region.bounds.upper[node] <= hasty.bounds.upper[node])
    if eps > 0.1:
        assert np.any(region.bounds.upper[node] < hasty.bounds.upper[node])


def test_a_cut_is_what_holds_behind_it(checker: SmoothChecker) -> None:
    low, high = -np.ones(2), np.ones(2)
    whole = find_region(checker, low, high)
    cut = np.full(5, -np.inf), np.full(5, np.inf)
    cut[0][1] = 0.5 * (whole.bounds.lower[1][1] + whole.bounds.upper[1][1])
    part = find_region(checker, low, high, around=whole, cut={1: cut})
    assert part.bounds.lower[1][1] == cut[0][1]
    inside = 0
    for x in smoothnets.points(low, high, 200):
        values = checker.smooth.forward(x[None])
        if values[1][0, 1] >= cut[0][1]:
            inside += 1
            assert np.all(part.bounds.lower[2] - 1e-9 <= values[2][0])
            assert np.all(values[2][0] <= part.bounds.upper[2] + 1e-9)
    assert inside > 10
    assert np.any(part.bounds.upper[2] < whole.bounds.upper[2])


def test_cuts_that_exclude_one_another_leave_nothing(checker: SmoothChecker) -> None:
    low, high = -np.ones(2), np.ones(2)
    whole = find_region(checker, low, high)
    cut = np.full(5, -np.inf), np.full(5, np.inf)
    cut[0][0] = whole.bounds.upper[2][0] + 1.0
    with pytest.raises(EmptyError):
        find_region(checker, low, high, around=whole, cut={2: cut})


def test_after_its_time_it_gives_up(checker: SmoothChecker) -> None:
    with pytest.raises(LateError):
        find_region(checker, np.zeros(2), np.ones(2), deadline=time.monotonic() - 1)
