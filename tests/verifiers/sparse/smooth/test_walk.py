"""Bounds of walks hold for exact values, near ties, too, and whatever the multipliers are."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.smooth.regions import find_region
from prunecert.verifiers.sparse.smooth.walk import follow, walk
from tests.verifiers.sparse.smooth import smoothnets

QUICK = settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(seed=st.integers(0, 200), eps=st.sampled_from([0.0, 1e-6, 0.1, 2.0]), push=st.sampled_from([0.0, 0.1, 3.0]))
def test_bounds_hold_for_exact_values(seed: int, eps: float, push: float, tmp_path: Path) -> None:
    checker = smoothnets.load(smoothnets.small(tmp_path, seed))
    rng = np.random.default_rng(seed)
    center = rng.normal(size=2)
    low, high = center - eps, center + eps
    region = find_region(checker, low, high)
    rows, constant = rng.normal(size=(4, 3)), rng.normal(size=4)
    v = {node: push * rng.normal(size=(4, 5)) for node in checker.smooth.curves}
    lower = walk(checker, checker.last, rows, constant, region, v).lower
    for x in smoothnets.points(low, high, 6, seed):
        outputs = smoothnets.exact(checker.smooth, x)[-1]
        for row, shift, bound in zip(rows, constant, lower, strict=True):
            value = sum((Decimal(float(a)) * y for a, y in zip(row, outputs, strict=True)), Decimal(float(shift)))
            assert Decimal(float(bound)) <= value
            if eps == 0.0 and push == 0.0:
                # At a point nothing but rounding is between them.
                assert value - Decimal(float(bound)) < Decimal("1e-8")


def test_multipliers_of_a_split_help(tmp_path: Path) -> None:
    """Along a cut a bound is better with the right multiplier than with none."""
    checker = smoothnets.load(smoothnets.small(tmp_path, 1))
    low, high = -np.ones(2), np.ones(2)
    whole = find_region(checker, low, high)
    node = min(checker.smooth.curves)
    middle = 0.5 * (whole.bounds.lower[node] + whole.bounds.upper[node])
    rows, constant = np.array([[1.0, -1.0, 0.0]]), np.zeros(1)
    points = smoothnets.points(low, high, 200)
    values = checker.smooth.forward(points)
    margins = values[-1][:, 0] - values[-1][:, 1]
    gains = []
    for neuron in range(5):
        cut = np.full(5, -np.inf), np.full(5, np.inf)
        cut[1][neuron] = middle[neuron]
        part = find_region(checker, low, high, around=whole, cut={node: cut})
        bounds = []
        for push in np.linspace(-3, 3, 25):
            v = np.zeros((1, 5))
            v[0, neuron] = push
            bounds.append(float(walk(checker, checker.last, rows, constant, part, {node: v}).lower[0]))
        without = bounds[12]
        inside = values[node][:, neuron] <= middle[neuron]
        assert margins[inside].min(initial=np.inf) >= max(bounds) - 1e-9
        gains.append(max(bounds) - without)
    assert max(gains) > 0.01


def test_lines_are_followed_to_the_bound(tmp_path: Path) -> None:
    """The walk's linear function at its minimiser is what the lines give when they are followed there."""
    checker = smoothnets.load(smoothnets.convolutional(tmp_path / "c.onnx"))
    rng = np.random.default_rng(2)
    low = rng.random(32)
    region = find_region(checker, low, low + 0.05)
    current = walk(checker, checker.last, np.eye(3), np.zeros(3), region)
    x = np.where(current.inputs > 0, region.bounds.lower[0], region.bounds.upper[0])
    values = follow(checker, region, current, x)
    assert set(values) == set(checker.smooth.curves)
    exact = checker.smooth.forward(x)
    first = min(values)
    np.testing.assert_allclose(values[first], exact[first], atol=1e-12)


@pytest.mark.parametrize("huge", [1e60, np.inf, np.nan])
def test_what_overflows_proves_nothing(huge: float, tmp_path: Path) -> None:
    checker = smoothnets.load(smoothnets.small(tmp_path, 0))
    region = find_region(checker, np.zeros(2), np.ones(2))
    lower = walk(checker, checker.last, np.full((1, 3), huge), np.zeros(1), region).lower
    assert lower[0] == -np.inf
