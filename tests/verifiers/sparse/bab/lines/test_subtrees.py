"""Subtrees over shared lines: nothing of the subdomains that they begin with is lost."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.sparse.arrays import Int64Array
from prunecert.verifiers.sparse.bab.dual import Batch
from prunecert.verifiers.sparse.bab.lines import subtrees
from prunecert.verifiers.sparse.bab.lines.subtrees import Grown, Growth
from prunecert.verifiers.sparse.bab.outcome import Tree
from tests.verifiers.sparse.bab.lines.test_shared_lines import split_at_random
from tests.verifiers.sparse.bab.test_dual import KINDS, prepared
from tests.verifiers.sparse.searching import Prepared


def grown(question: Prepared, batch: Batch, margin: float = 1e-6, seconds: float = 60.0) -> tuple[Grown, Tree]:
    tree = Tree()
    none = np.full(len(batch), -1, dtype=np.int64)
    batch.place[:] = tree.add(none, none, none, batch.disjunct)
    growth = Growth(3, 1.0, 0.85, margin, time.monotonic() + seconds)

    def plant(disjunct: int, parents: Int64Array, neurons: Int64Array, signs: Int64Array) -> Int64Array:
        return tree.branch(np.arange(9), disjunct, parents, neurons, signs)

    return subtrees.grow(question.dual, batch, question.dual.look(batch), growth, plant), tree


def everything(result: Grown) -> Batch:
    return Batch.join([result.proved, result.left, result.stuck])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("margin", [1e-6, -0.5, np.inf])
def test_the_parts_are_the_whole(kind: str, margin: float, tmp_path: Path) -> None:
    question = prepared(kind, 1, tmp_path)
    batch = split_at_random(question, np.random.default_rng(1), 4, share=0.2)
    result, tree = grown(question, batch, margin)
    parts = everything(result)
    # Each leaf of the tree is there once, with the splits that lead to it beside those of where it began.
    leaves = set(range(len(tree.parent))) - set(tree.parent)
    assert sorted(parts.place.tolist()) == sorted(leaves)
    share = np.zeros(len(batch))
    for sign, place in zip(parts.sign, parts.place.tolist(), strict=True):
        phases, depth = np.zeros_like(sign), 0
        while tree.parent[place] >= 0:
            assert phases[tree.neuron[place]] == 0
            phases[tree.neuron[place]] = tree.sign[place]
            place, depth = tree.parent[place], depth + 1
        begun = batch.sign[place]
        assert not (begun * phases).any()
        np.testing.assert_array_equal(sign, begun + phases)
        share[place] += 0.5**depth
    np.testing.assert_allclose(share, 1.0)
    assert result.domains == len(tree.parent) - len(batch)
    assert (result.proved.bound > margin).all()
    assert not (result.left.bound > margin).any()
    if margin == np.inf:
        assert not len(result.proved)
        assert result.domains > 0


def test_disjuncts_have_lines_of_their_own(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path, several=True)
    batch = question.dual.optimise(question.dual.start([0, 1, 1, 0]), 5)
    result, tree = grown(question, batch)
    parts = everything(result)
    roots = parts.place.copy()
    for number, place in enumerate(parts.place.tolist()):
        while tree.parent[place] >= 0:
            assert tree.disjunct[place] == parts.disjunct[number]
            place = tree.parent[place]
        roots[number] = place
    np.testing.assert_array_equal(batch.disjunct[roots], parts.disjunct)
    assert set(roots.tolist()) == {0, 1, 2, 3}
    np.testing.assert_array_equal(batch.place[result.places], result.stuck.place)


def test_what_has_nothing_to_split_comes_back_as_it_was(tmp_path: Path) -> None:
    question = prepared("conv", 1, tmp_path)
    batch = split_at_random(question, np.random.default_rng(1), 3, share=0.0)
    batch.sign[1] = 1
    batch.beta[1] = 0.25
    result, _ = grown(question, batch, margin=np.inf)
    np.testing.assert_array_equal(result.places, [1])
    np.testing.assert_array_equal(result.stuck.sign, batch.sign[[1]])
    np.testing.assert_array_equal(result.stuck.alpha, batch.alpha[[1]])
    np.testing.assert_array_equal(result.stuck.beta, batch.beta[[1]])


def test_one_level_follows_after_the_deadline(tmp_path: Path) -> None:
    question = prepared("conv", 1, tmp_path)
    batch = split_at_random(question, np.random.default_rng(1), 2, share=0.0)
    result, tree = grown(question, batch, margin=np.inf, seconds=-1.0)
    assert result.domains == 4
    assert len(everything(result)) == 4
    assert len(tree.parent) == 6


@pytest.mark.parametrize("share_from", [0.0, 1e12])
def test_sharing_is_for_walks_that_cost_more(share_from: float, tmp_path: Path) -> None:
    assert subtrees.worth(prepared("conv", 1, tmp_path).dual, share_from) == (share_from == 0)
