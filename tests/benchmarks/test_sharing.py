"""What is counted as shared is what is shared: on networks small enough to be counted otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.bab.reduced_network import reduce
from prunecert.verifiers.sparse.crown.engine import Question
from tests.benchmarks.sharing import BallFacts, Composing, Part, neighbours, shared, signs_of, tail
from tests.verifiers.sparse.searching import Prepared, draw


def prepared(kind: str, folder: Path, radius: float) -> Prepared:
    """Returns a network over a box round the middle."""
    _, network = draw(kind, 3, folder)
    center = np.full(network.nodes[0].size, 0.5)
    return Prepared(network, center - radius, center + radius, OutputSpec.robustness(0, network.nodes[-1].size))


def ball_of(question: Prepared) -> BallFacts:
    network = question.checker.network
    rows = {node: np.arange(network.nodes[node].size) for node in (2, 3)}
    signs = signs_of(question.root, network.activated())
    return BallFacts(0, question.lower, question.upper, question.root, signs, rows, 0)


def test_signs_that_hold_in_all_balls_are_shared_and_the_nearest_is_of_the_class() -> None:
    patterns = [np.array(signs, dtype=np.int8) for signs in ([1, -1, 0, 1], [1, 1, 0, 0], [-1, 1, 1, 0], [1, -1, 0, 1])]
    assert shared(patterns[:2]).tolist() == [1, 0, 0, 0]
    assert shared(patterns[:1]).tolist() == [1, -1, 0, 1]
    assert neighbours(patterns, [0, 0, 0, 1], 1) == [[0, 1], [1, 0], [2, 1], [3]]
    assert neighbours(patterns, [0, 0, 0, 1], 2) == [[0, 1, 2], [1, 0, 2], [2, 1, 0], [3]]


def test_numbers_of_a_composed_network_are_those_that_reduce_writes(tmp_path: Path) -> None:
    question = prepared("fc", tmp_path, 0.02)
    network, outputs = question.checker.network, question.checker.network.nodes[-1].size
    signs = signs_of(question.root, network.activated())
    # So few that no row stands for others.
    assert 0 < sum(int((own == 0).sum()) for own in signs.values()) <= 4
    net = reduce(question.checker, question.bounds, np.eye(outputs), np.zeros(outputs))
    cost = Composing(network).composed(signs)
    assert cost.numbers == np.count_nonzero(net.M) + np.count_nonzero(net.N)


def test_a_walk_takes_the_weights_of_the_neurons_that_it_passes(tmp_path: Path) -> None:
    _, network = draw("fc", 3, tmp_path)
    assert [node.size for node in network.nodes] == [4, 10, 10, 3]
    composing, last = Composing(network), {3: np.array([0])}
    signs = {node: np.ones(10, dtype=np.int8) for node in (1, 2)}
    assert composing.cost(signs, last).work == 10 + 10 * 10 + 10 * 4
    signs[2][:5] = -1
    assert composing.cost(signs, last).work == 10 + 5 * 10 + 10 * 4
    signs[2][5:] = 0
    cost = composing.cost(signs, last)
    assert (cost.work, cost.numbers) == (10, 5)
    # Of seven rows four stand for all; each has ten weights, and passes ten neurons of four.
    assert composing.cost(signs, {2: np.arange(7)}).work == 7 * (10 + 10 * 4)


def test_what_walks_have_in_common_ends_where_balls_differ(tmp_path: Path) -> None:
    question = prepared("fc", tmp_path, 0.02)
    composing, ball = Composing(question.checker.network), ball_of(question)
    alike = composing.common(ball, ball)
    assert 0.5 < alike <= 1.0
    turned = replace(ball, signs={node: (-own).astype(np.int8) for node, own in ball.signs.items()})
    assert 0.0 < composing.common(ball, turned) < alike
    assert composing.common(ball, ball, turned) == composing.common(ball, turned)
    assert composing.common(ball, replace(ball, rows={node: rows[:0] for node, rows in ball.rows.items()})) == 0.0


def test_a_tail_goes_on_where_a_network_was_cut(tmp_path: Path) -> None:
    _, network = draw("fc", 3, tmp_path)
    values = network.forward(np.random.default_rng(0).random((5, 4)))
    for node in (1, 2):
        cut = tail(network, node)
        assert cut is not None
        np.testing.assert_allclose(cut.evaluate(np.maximum(values[node], 0.0)), values[-1], rtol=1e-12, atol=1e-12)
    _, skipping = draw("skip", 3, tmp_path)
    assert any(tail(skipping, node) is None for node in skipping.activated())


def test_a_hull_is_proved_only_if_crown_proves_it(tmp_path: Path) -> None:
    question = prepared("fc", tmp_path, 0.02)
    whole, network = Part(question.checker.network), question.checker.network
    low, high = question.lower.astype(np.float64), question.upper.astype(np.float64)
    middle = 0.5 * low + 0.5 * high
    label = int(network.evaluate(middle[None])[0].argmax())
    spec = OutputSpec.robustness(label, 3)
    rows = np.concatenate([a for a, _ in spec.disjuncts])
    bound = question.engine.bound(Question(low, high, rows, np.zeros(len(rows)))).rows
    assert whole.proves(middle, middle, label)
    assert whole.proves(low, high, label) == bool((bound > 0).all())
    assert not whole.proves(middle, middle, (label + 1) % 3)
    assert not whole.proves(middle - 50.0, middle + 50.0, label)
    assert whole.work(low, high) > 0
