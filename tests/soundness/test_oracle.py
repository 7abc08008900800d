"""The oracle checked against other ways to the same numbers, and the suite against what it promises."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from prunecert.verifiers.base import OutputSpec, Status
from tests.soundness.networks import Affine, Network, fully_connected
from tests.soundness.oracle import Programme, enumerated_margin, evaluated, exact_margin, exact_radius
from tests.soundness.questions import FACTORS, Question

pytestmark = pytest.mark.slow


def test_the_suite_is_large_and_even(questions: tuple[Question, ...]) -> None:
    truths = Counter(question.truth for question in questions)
    assert len(questions) >= 600
    assert len({question.name for question in questions}) == len(questions)
    assert truths[Status.UNSAT] >= 280
    assert truths[Status.SAT] >= 280
    # Named below, not dropped: too near for float32 to decide.
    assert truths[None] <= 20


def test_near_questions_are_near(questions: tuple[Question, ...]) -> None:
    near = [question for question in questions if question.truth is None]
    assert near
    for question in near:
        assert abs(question.margin.high) <= question.tolerance + 1e-6, question.name
        assert question.tolerance < 1e-3, question.name


def test_the_margin_is_enclosed_tightly(questions: tuple[Question, ...]) -> None:
    assert max(question.margin.high - question.margin.low for question in questions) < 1e-6


def test_radii_below_hold_and_above_break(questions: tuple[Question, ...]) -> None:
    """The radius comes from one programme and the margin from another; they must tell the same story."""
    factors = [
        (question, float(question.name.rpartition("x")[2])) for question in questions if " centre " in question.name
    ]
    assert len(factors) % len(FACTORS) == 0
    for question, factor in factors:
        if question.truth is not None:
            assert question.truth is (Status.UNSAT if factor < 1 else Status.SAT), question.name


def test_equal_to_enumerating_all_activation_patterns(questions: tuple[Question, ...]) -> None:
    small = [
        question
        for question in questions
        if Programme(question.net, question.lower.astype(float), question.upper.astype(float)).count <= 6
    ][::6]
    assert len(small) >= 30
    assert {question.truth for question in small} >= {Status.SAT, Status.UNSAT}
    for question in small:
        enumerated = enumerated_margin(
            question.net, question.lower.astype(float), question.upper.astype(float), question.spec
        )
        assert enumerated == pytest.approx(question.margin.high, abs=2e-6), question.name


def test_no_sample_is_below_the_margin(questions: tuple[Question, ...]) -> None:
    rng = np.random.default_rng(0)
    for question in questions:
        low, high = question.lower.astype(float), question.upper.astype(float)
        shares = rng.random((200, len(low)))
        shares[::2] = np.round(shares[::2])
        points = np.vstack([low + shares * (high - low), question.margin.point])
        assert evaluated(question.net, question.spec, points).min() >= question.margin.low, question.name
        assert np.all((low <= question.margin.point) & (question.margin.point <= high))


def test_equal_to_a_dense_grid_in_two_dimensions() -> None:
    rng = np.random.default_rng(7)
    net = fully_connected("plane", rng, [2, 10, 10, 3]).balance(rng)
    axis = np.linspace(0, 1, 801)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    values = {label: evaluated(net, OutputSpec.robustness(label, 3), grid) for label in range(3)}
    # The gradient is at most the product of the weights' norms; here below 40, and the grid's cell is 1/800.
    for label in range(3):
        margin = exact_margin(net, np.zeros(2), np.ones(2), OutputSpec.robustness(label, 3))
        assert margin.low <= values[label].min() <= margin.high + 40 / 800
    center = np.array([0.5, 0.5])
    label = int(net.evaluate(center)[0].argmax())
    unsafe = grid[values[label] <= 0]
    nearest = np.abs(unsafe - center).max(axis=1).min()
    radius = exact_radius(net, center, OutputSpec.robustness(label, 3), 0.5)
    assert radius <= nearest + 1e-9
    assert radius == pytest.approx(nearest, abs=2 / 800)


def test_the_exported_network_is_the_oracles(questions: tuple[Question, ...], networks: dict[str, Path]) -> None:
    """onnxruntime's float32 outputs differ from the float64 ones by no more than the rounding bound."""
    rng = np.random.default_rng(1)
    sessions = {name: onnxruntime.InferenceSession(str(path)) for name, path in networks.items()}
    for question in questions[::5]:
        shares = rng.random((5, len(question.lower)))
        points = (question.lower + shares * (question.upper - question.lower)).astype(np.float32)
        exact = question.net.evaluate(points)
        session = sessions[question.net.name]
        outputs = [session.run(None, {"input": x.reshape(1, *question.net.shape)})[0][0] for x in points]
        for a, b in question.spec.disjuncts:
            gap = np.max(exact @ a.T - b, axis=1) - np.max(np.array(outputs, dtype=float) @ a.T - b, axis=1)
            assert np.max(np.abs(gap)) <= question.tolerance, question.name


def test_a_wrong_network_would_be_noticed(questions: tuple[Question, ...]) -> None:
    """The checks above can fail: a network with one weight moved by 1 % leaves the enclosure."""
    question = next(question for question in questions if question.truth is Status.UNSAT)
    first = question.net.nodes[0]
    assert isinstance(first, Affine)
    changed = Network(question.net.name, question.net.shape, list(question.net.nodes), list(question.net.shapes))
    changed.nodes[0] = Affine(first.source, first.matrix * 1.01, first.shift)
    moved = exact_margin(changed, question.lower.astype(float), question.upper.astype(float), question.spec)
    assert not question.margin.low <= moved.high <= question.margin.high
