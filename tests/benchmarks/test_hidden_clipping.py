"""Clipped bounds hold where a row is at or below 0, and answers with them are the same."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.bab import input_splits
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.bab.search import Search
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine
from tests.benchmarks.hidden_clipping import Clipping, largest
from tests.verifiers.sparse.searching import draw


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_the_largest_value_over_half_a_box_is_that_of_a_linear_programme(seed: int, inputs: int) -> None:
    rng = np.random.default_rng(seed)
    slopes, line = rng.standard_normal((4, inputs)), rng.standard_normal(inputs + 2)
    slopes[0], line[-1] = 0.0, abs(line[-1])
    line[1 : 1 + inputs] *= rng.integers(0, 2, inputs)
    values = largest(slopes, line)
    for own, value in zip(slopes, values, strict=True):
        result = linprog(-own, line[None, 1:-1], [line[-1] - line[0]], bounds=[(-1, 1)] * inputs)
        if result.success:
            assert value == pytest.approx(-result.fun, abs=1e-7)


@pytest.mark.parametrize("share", [0.5, 1.5])
def test_answers_are_the_same_with_fewer_sub_boxes(share: float, tmp_path: Path) -> None:
    _, network = draw("fc", 1, tmp_path)
    points = np.random.default_rng(0).uniform(0.2, 0.8, (4000, 4))
    outputs = network.evaluate(points)
    least = float((outputs[:, [0]] - outputs[:, 1:]).min())
    middle = network.evaluate(np.full((1, 4), 0.5))[0]
    threshold = least - (1.0 - share) * 0.4 * (float((middle[0] - middle[1:]).min()) - least)
    spec = OutputSpec(tuple((a, b + threshold) for a, b in OutputSpec.robustness(0, 3).disjuncts))
    corners = np.full(4, 0.2, dtype=np.float32), np.full(4, 0.8, dtype=np.float32)

    def ask() -> tuple[Status, int]:
        run = Search(Engine(network, 1), Checker(network), *corners, spec, Limits(split="input"), np.inf)
        return run.run().status, run.outcome.domains

    plain, clipping = ask(), Clipping()
    with mock.patch.object(input_splits, "bound_boxes", clipping.bound):
        clipped = ask()
    assert clipped[0] is plain[0] is (Status.UNSAT if share < 1 else Status.SAT)
    assert clipped[1] <= plain[1]
    assert share > 1 or clipping.twice
    assert 0 <= clipping.fixed <= clipping.unstable
