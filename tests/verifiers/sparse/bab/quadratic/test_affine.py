"""Affine forms: every row is its function of one and the same w, within its error, at any point of the box."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.sparse.bab.quadratic.affine import affine_forms, lines
from prunecert.verifiers.sparse.bab.quadratic.last_layer import last_unstable
from tests.verifiers.sparse.bab.quadratic.layers import KINDS, Small, phases, small


def numbers(question: Small, points: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns w at points, by its definition, and the last hidden node."""
    subject, bounds = question.subject, question.subject.bounds
    node = last_unstable(subject.checker, bounds)
    low, high = bounds.lower[0], bounds.upper[0]
    varying = np.flatnonzero(low < high)
    parts = [(points - 0.5 * (low + high))[:, varying] / (0.5 * (high - low))[varying]]
    z, net = question.neurons(points), subject.net
    first = net.levels[-1][0]
    slope = np.where(signs == 0, subject.slopes, signs > 0)[:first]
    half = 0.5 * np.maximum(-slope * net.lower[:first], (1 - slope) * net.upper[:first])
    error = (np.maximum(z[:, :first], 0) - slope * z[:, :first]) / half - 1
    parts.append(np.where(signs[:first] == 0, error, 0.0))
    return np.concatenate(parts, axis=1), node


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_affine_functions_of_one_vector(kind: str, seed: int, fixed: bool, tmp_path: Path) -> None:
    question = small(kind, seed, tmp_path)
    subject, rng = question.subject, np.random.default_rng(seed)
    net, bounds, checker = subject.net, subject.bounds, subject.checker
    first = net.levels[-1][0]
    points = question.points(rng, 400)
    signs = np.zeros(net.unstable, dtype=np.int8)
    if fixed and first:
        z = question.neurons(points)
        signs[:first] = phases(rng, z[0])[:first]
        points = points[((z * signs)[:, :first] >= 0).all(axis=1)]
    w, node = numbers(question, points, signs)
    assert np.abs(w).max() <= 1 + 1e-5
    drawn = subject.lines(signs)
    places = bounds.unstable(node)
    seeds = np.eye(len(bounds.lower[node]))[places]
    neurons = affine_forms(checker, bounds, node, seeds, drawn, node)
    expected = question.neurons(points)[:, first:]
    np.testing.assert_allclose(w @ neurons.coefficients.T + neurons.constants, expected, atol=2e-5)
    # Where two layers were made one, weights are known to a float32's precision.
    assert (neurons.errors < 1e-6).all()
    outputs = affine_forms(checker, bounds, checker.last, subject.row[None], drawn, node)
    values = (w @ outputs.coefficients.T + outputs.constants)[:, 0] + np.maximum(expected, 0) @ outputs.apart[0]
    np.testing.assert_allclose(values + subject.constant, question.values(points), atol=5e-5)
    assert outputs.errors[0] < 1e-6


def test_what_float64_does_not_hold_is_an_infinite_error(tmp_path: Path) -> None:
    question = small("fc", 0, tmp_path)
    subject = question.subject
    drawn = subject.lines(np.zeros(subject.net.unstable, dtype=np.int8))
    node = last_unstable(subject.checker, subject.bounds)
    for factor in (1e60, np.nan, np.inf):
        rows = subject.row[None] * factor
        forms = affine_forms(subject.checker, subject.bounds, subject.checker.last, rows, drawn, node)
        assert np.isposinf(forms.errors).all()


@pytest.mark.parametrize("slope", [-3.0, 2.0])
def test_slopes_outside_of_their_range_are_moved_into_it(slope: float, tmp_path: Path) -> None:
    subject = small("fc", 1, tmp_path).subject
    node = int(subject.net.nodes[0])
    count = len(subject.bounds.unstable(node))
    drawn = lines(subject.bounds, {node: np.full(count, slope)}, {node: np.zeros(count, dtype=np.int8)})
    assert ((drawn.slopes[node] >= 0) & (drawn.slopes[node] <= 1)).all()
    assert (drawn.halves[node] > 0).all()


def test_phases_of_other_neurons_are_refused(tmp_path: Path) -> None:
    subject = small("fc", 1, tmp_path).subject
    node = int(subject.net.nodes[0])
    count = len(subject.bounds.unstable(node))
    with pytest.raises(ValueError, match=f"for {count} unstable neurons"):
        lines(subject.bounds, {node: np.zeros(count)}, {node: np.zeros(1 + count, dtype=np.int8)})
