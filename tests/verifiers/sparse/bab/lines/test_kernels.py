"""Bounds over shared lines, their derivatives, and the choice of a neuron, each against a formula written again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.bab.lines import kernels
from prunecert.verifiers.sparse.bab.lines.kernels import LineProblem, Splits
from prunecert.verifiers.sparse.bab.lines.shared_lines import SharedLines
from tests.verifiers.sparse.bab.lines.test_shared_lines import bounds, split_at_random
from tests.verifiers.sparse.bab.test_dual import KINDS, prepared


def by_formula(problem: LineProblem, splits: Splits, d: int, values: Float64Array) -> float:
    """Returns the bound of one subdomain in float64."""
    total, sums = problem.constant, problem.base.astype(np.float64)
    for k in range(int(splits.counts[d])):
        neuron, sign = int(splits.neurons[d, k]), int(splits.signs[d, k])
        column = int(problem.columns[neuron])
        if column < 0:
            factor = values[k] - float(problem.whole[neuron])
            total -= problem.shifts[neuron]
        else:
            lam = sums[column] / float(problem.heights[neuron])
            slope = float(problem.slopes[neuron])
            factor = lam * (1 - slope) - values[k] if sign > 0 else -lam * slope + values[k]
        total += factor * problem.offsets[neuron]
        sums = sums + factor * problem.rows[neuron].astype(np.float64)
        if column >= 0:
            sums[column] = 0.0
    return float(total + np.minimum(sums, 0).sum())


def lined(kind: str, seed: int, folder: Path, count: int = 6) -> tuple[SharedLines, Splits, Float64Array]:
    question = prepared(kind, seed, folder)
    batch = split_at_random(question, np.random.default_rng(seed), count)
    lines = SharedLines(question.dual, batch, question.dual.look(batch))
    lower, splits = bounds(lines, batch)
    return lines, splits, lower


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bounds_are_what_the_formula_says(kind: str, seed: int, tmp_path: Path) -> None:
    lines, splits, lower = lined(kind, seed, tmp_path)
    expected = [by_formula(lines.problem, splits, d, splits.values[d].astype(np.float64)) for d in range(len(lower))]
    np.testing.assert_allclose(lower, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_are_those_of_the_formula(kind: str, tmp_path: Path) -> None:
    lines, splits, _ = lined(kind, 1, tmp_path)
    problem = lines.problem
    compared = 0
    for d in range(len(splits.counts)):
        count = int(splits.counts[d])
        values = splits.values[d, :count].astype(np.float64)
        factors, sums = np.empty(count, dtype=np.float32), np.empty(len(problem.base), dtype=np.float32)
        kernels._weigh(problem, splits, d, factors)
        kernels._sum_up(problem, splits, d, factors, 0, sums)
        gradient = np.array(
            [kernels._where_below(sums, problem.rows[j]) for j in splits.neurons[d, :count]], dtype=float
        )
        kernels._finish_gradient(problem, splits, d, gradient, np.zeros(count))
        for k in range(count):
            ends = []
            for side in (-1, 1):
                moved = values.copy()
                moved[k] += side * 1e-5
                ends.append(by_formula(problem, splits, d, moved))
            middle = by_formula(problem, splits, d, values)
            slopes = (middle - ends[0]) / 1e-5, (ends[1] - middle) / 1e-5
            if abs(slopes[1] - slopes[0]) < 1e-3:
                assert gradient[k] == pytest.approx(sum(slopes) / 2, rel=1e-2, abs=1e-2)
                compared += 1
    assert compared > 10


@pytest.mark.parametrize("kind", KINDS)
def test_steps_never_make_a_bound_worse_and_keep_values_in_their_range(kind: str, tmp_path: Path) -> None:
    lines, splits, lower = lined(kind, 2, tmp_path)
    problem, after = lines.problem, np.zeros(len(lower))
    kernels.ascend(problem, splits, 10, 1.0, 0.85, np.inf, after)
    assert (after >= lower - 1e-6).all()
    assert (after > lower + 1e-6).any()
    for d in range(len(lower)):
        for k in range(int(splits.counts[d])):
            neuron, value = splits.neurons[d, k], splits.values[d, k]
            if problem.columns[neuron] < 0 and splits.signs[d, k] > 0:
                assert value <= problem.coefficients[neuron]
            else:
                assert value >= 0
    again = np.zeros(len(lower))
    kernels.ascend(problem, splits, 0, 1.0, 0.85, np.inf, again)
    np.testing.assert_allclose(again, after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_neuron_with_the_best_children_is_chosen(kind: str, tmp_path: Path) -> None:
    question = prepared(kind, 3, tmp_path)
    # None is split: children differ from the formula only by what further early splits would do.
    batch = split_at_random(question, np.random.default_rng(3), 1, share=0.0)
    lines = SharedLines(question.dual, batch, question.dual.look(batch))
    problem = lines.problem
    chosen = np.empty(1, dtype=np.int32)
    empty = Splits(
        np.zeros(1, dtype=np.int32),
        np.zeros((1, 1), dtype=np.int32),
        np.zeros((1, 1), dtype=np.int8),
        np.zeros((1, 1), dtype=np.float32),
    )
    kernels.choose(problem, empty, chosen)
    here = by_formula(problem, empty, 0, np.zeros(0))
    worth = {}
    for neuron in range(len(problem.rows)):
        column = problem.columns[neuron]
        cost = -problem.shifts[neuron] if column < 0 else abs(problem.base[column])
        if not cost > 0:
            continue
        ends = []
        for sign in (1, -1):
            one = Splits(
                np.ones(1, dtype=np.int32),
                np.full((1, 1), neuron, dtype=np.int32),
                np.full((1, 1), sign, dtype=np.int8),
                np.zeros((1, 1), dtype=np.float32),
            )
            start = float(problem.coefficients[neuron]) if column < 0 and sign > 0 else 0.0
            ends.append(min(by_formula(problem, one, 0, np.array([start])), 0.0) - here)
        worth[neuron] = min(ends) + 0.1 * max(ends)
    assert worth
    assert worth[int(chosen[0])] >= max(worth.values()) - 1e-4
