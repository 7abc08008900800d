"""From subdomains to what is kept of them, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.base import Status
from prunecert.verifiers.sparse.bab import transplant
from prunecert.verifiers.sparse.bab.dual import FIELDS, Batch
from prunecert.verifiers.sparse.bab.outcome import Outcome, Tree
from prunecert.verifiers.sparse.bab.tree_transplant import Planted
from prunecert.verifiers.sparse.onnx.neuron_names import Names
from tests.verifiers.sparse.bab.test_dual import KINDS, prepared
from tests.verifiers.sparse.searching import Prepared


def split(question: Prepared, neuron: int = 0) -> Planted:
    """Returns the tree of the whole box of disjunct 0 and its two halves."""
    width = question.net.unstable
    signs = np.zeros((3, width), dtype=np.int8)
    signs[1:, neuron] = 1, -1
    none = np.array([-1, 0, 0])
    return Planted(
        np.zeros(3, dtype=np.int64),
        none,
        np.array([-1, neuron, neuron]),
        np.array([0, 1, -1]),
        signs,
        np.full((3, width), 0.5, dtype=np.float32),
        np.zeros((3, width), dtype=np.float32),
        np.array([True, False, False]),
    )


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_box_is_the_dual_s_start(kind: str, several: bool, tmp_path: Path) -> None:
    question = prepared(kind, 1, tmp_path, several=several)
    chosen = np.array([1, 0, 1])
    places = (question.net.nodes, question.net.indices)
    whole = transplant.whole(question.bounds, places, question.dual.disjuncts, chosen)
    start = question.dual.start(chosen)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(whole, name), getattr(start, name))
    np.testing.assert_allclose(whole.weights.sum(axis=1), 1)
    assert not whole.weights[~question.dual.member(whole)].any()


def test_growing_links_entries_to_their_parents(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    planted, tree = split(question), Tree()
    tree.add(*np.full((4, 2), -1))
    batch = transplant.subdomains(planted, question.dual.disjuncts)
    transplant.grow(tree, planted, np.arange(3), batch, np.array([7]))
    assert batch.place.tolist() == [2, 3, 4]
    assert tree.parent[2:] == [-1, 2, 2]
    assert tree.sign[2:] == [0, 1, -1]
    assert tree.disjunct[2:] == [7, 7, 7]


@pytest.mark.parametrize(("margin", "bounded", "proved", "left"), [(-np.inf, 1, 1, 0), (np.inf, 3, 0, 2)])
def test_below_a_proved_entry_nothing_is_bounded(
    margin: float, bounded: int, proved: int, left: int, tmp_path: Path
) -> None:
    question = prepared("fc", 1, tmp_path)
    planted = split(question)
    batch = transplant.subdomains(planted, question.dual.disjuncts)
    ascents: list[int] = []

    def ascend(part: Batch) -> Batch:
        ascents.append(len(part))
        return question.dual.optimise(part, 3, target=np.inf)

    frontier = transplant.topmost(question.dual, planted, batch, margin, ascend, 10)
    assert frontier is not None
    assert (len(frontier.bounded), len(frontier.proved), len(frontier.left)) == (bounded, proved, left)
    assert np.isfinite(batch.bound[frontier.bounded]).all()
    assert transplant.topmost(question.dual, planted, batch, np.inf, ascend, 2) is None


def test_a_tree_that_would_fill_the_memory_is_refused_with_the_reason(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    names = Names(tuple(node.size for node in question.checker.network.nodes), (None,) * 4)
    places = (question.net.nodes, question.net.indices)
    tree, leaves = Tree(), question.dual.start([0, 1])
    none = np.full(2, -1)
    leaves.place[:] = tree.add(none, none, 0 * none, np.arange(2))
    outcome = Outcome(status=Status.UNSAT)
    bounds = (np.zeros(2), np.ones(2))
    proof = transplant.keep("a" * 64, names, None, outcome, bounds, tree, [leaves], places)
    assert proof is not None
    reasons: list[str] = []
    type_ = type("Known", (), {"tree": proof, "refuse_tree": staticmethod(reasons.append)})
    arguments = (names, question.bounds, places, np.arange(2))
    assert transplant.transplant(type_(), *arguments, memory_mb=1e-9) is None
    assert "more than the limit of 1e-09 MiB" in reasons[0]
    planted = transplant.transplant(type_(), *arguments, memory_mb=100)
    assert planted is not None
    assert sorted(planted.disjunct.tolist()) == [0, 1]
    assert not planted.inner.any()
    assert transplant.transplant(None, *arguments, memory_mb=100) is None


@pytest.mark.parametrize("status", [Status.SAT, Status.UNKNOWN])
def test_what_is_broken_or_has_no_leaf_is_not_kept(status: Status, tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    names = Names(tuple(node.size for node in question.checker.network.nodes), (None,) * 4)
    leaves = [question.dual.start([0])] if status is Status.SAT else []
    places = (question.net.nodes, question.net.indices)
    bounds = (np.zeros(2), np.ones(2))
    assert transplant.keep("a" * 64, names, None, Outcome(status=status), bounds, Tree(), leaves, places) is None
