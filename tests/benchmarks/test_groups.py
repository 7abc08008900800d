"""A search that starts from a neighbour's tree answers the same, and lanes are counted as they are filled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.crown.engine import Question
from prunecert.verifiers.sparse.onnx.neuron_names import names_of
from tests.benchmarks.groups import filled, tree_work, trees, walked
from tests.benchmarks.sharing import BallFacts, Part, signs_of
from tests.verifiers.sparse.searching import draw


def ball(whole: Part, label: int, radius: float, shift: float = 0.0) -> BallFacts:
    network = whole.checker.network
    center = np.full(network.nodes[0].size, 0.5 + shift)
    lower, upper = (center - radius).astype(np.float32), (center + radius).astype(np.float32)
    rows = np.concatenate([a for a, _ in OutputSpec.robustness(label, network.nodes[-1].size).disjuncts])
    question = Question(lower, upper, rows, np.zeros(len(rows)))
    bounds = whole.engine.bound(question)
    signs = signs_of(bounds, network.activated())
    return BallFacts(label, lower, upper, bounds, signs, walked(whole.engine, question), 0)


def test_lanes_are_filled_by_rows_that_are_walked_together() -> None:
    assert filled([16, 8]) == pytest.approx(24 / 32)
    assert filled([17]) == pytest.approx(17 / 32)
    assert filled([0]) == filled([]) == 0.0


def test_a_neighbour_s_tree_changes_no_answer(tmp_path: Path) -> None:
    _, network = draw("conv", 4, tmp_path)
    whole = Part(network)
    names = names_of(network, tmp_path / "net.onnx")
    label = int(network.evaluate(np.full((1, network.nodes[0].size), 0.5))[0].argmax())
    # So near to where it breaks that a proof takes splits.
    balls = [ball(whole, label, 0.04), ball(whole, label, 0.04, 1e-4)]
    shelf = tmp_path / "trees"
    shelf.mkdir()
    facts = trees(whole, balls, names, shelf, 30.0)
    assert set(facts.fresh) == {0, 1}
    assert set(facts.planted) == {place for place, cost in facts.fresh.items() if cost.holds} == {0, 1}
    assert all(cost.outcome.status is Status.UNSAT for cost in facts.planted.values())
    assert all(0.0 <= share <= 1.0 for share in facts.overlap)
    assert all(tree_work(cost, Limits()) > 0 for cost in facts.fresh.values())
