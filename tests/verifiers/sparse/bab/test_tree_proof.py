from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.bab.branch_and_bound import BranchAndBound
from prunecert.verifiers.sparse.bab.tree_proof import IncompleteTreeError, sites, trees
from prunecert.verifiers.sparse.proofs.certificate import Leaf, Split, Walk
from tests.verifiers.sparse.searching import draw, edge, search


@pytest.fixture
def run(tmp_path: Path) -> BranchAndBound:
    """A search that ended with a tree."""
    drawn, network = draw("fc", 12, tmp_path)
    rng = np.random.default_rng(12)
    for _ in range(20):
        center = rng.random(drawn.inputs)
        spec = OutputSpec.robustness(int(network.evaluate(center[None])[0].argmax()), drawn.classes)
        radius = edge(network, center, spec) * 0.98
        low, high = (np.float32(center + side * radius).astype(float) for side in (-1, 1))
        finished, outcome = search(network, low, high, spec)
        if outcome.status is Status.UNSAT and outcome.rounds:
            assert finished.branched is not None
            return finished.branched
    pytest.fail("no question was hard enough")


def places(run: BranchAndBound) -> dict[int, int]:
    return {node: 10 * node for node in run.checker.activated}


def test_every_leaf_of_the_tree_is_there_once_below_its_splits(run: BranchAndBound) -> None:
    entries = [entry for tree in trees(run, places(run)).values() for entry in tree]
    leaves = [entry for entry in entries if isinstance(entry, Leaf)]
    splits = [entry for entry in entries if isinstance(entry, Split)]
    assert len(leaves) == len(splits) + len(trees(run, places(run)))
    assert len(leaves) == sum(len(batch) for batch in run.leaves)
    assert {split.node for split in splits} <= {10 * node for node in run.checker.activated}
    for tree in trees(run, places(run)).values():
        depth = [0]
        for entry in tree:
            level = depth.pop()
            if isinstance(entry, Split):
                depth += [level + 1, level + 1]
            else:
                assert isinstance(entry, Leaf)
                assert len(entry.beta) == level
        assert depth == []


def test_slopes_are_stated_for_the_neurons_that_are_unstable(run: BranchAndBound) -> None:
    bounds = sites(run, dict.fromkeys(run.checker.activated, (Walk(),)))
    width = sum(len(site.slots) for site in bounds)
    assert width == len(run.prover.nodes)
    for tree in trees(run, places(run)).values():
        for entry in tree:
            if isinstance(entry, Leaf):
                assert entry.slopes is not None
                assert entry.slopes.values.shape == (1, width)


def test_a_tree_without_a_leaf_s_proof_is_none(run: BranchAndBound) -> None:
    batch = run.leaves[-1]
    run.leaves[-1] = replace(batch, place=np.full_like(batch.place, -7))
    with pytest.raises(IncompleteTreeError, match="has no proof"):
        trees(run, places(run))
