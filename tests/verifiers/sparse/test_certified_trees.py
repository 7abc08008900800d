"""Trees of finished searches and of new ones; alternatives that CROWN proves for the search, not for the checker."""

from __future__ import annotations

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.checker.vnnlibfile import Case, read_property
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.certificates import Attempt, Certifier
from prunecert.verifiers.sparse.certified_trees import _places
from prunecert.verifiers.sparse.proofs.certificate import Bounded, CaseProof, Leaf
from tests.verifiers.checker import kit


def test_what_crown_proves_for_the_search_alone_gets_a_tree_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at a tie, where the search's CROWN draws another line than the checker's."""
    files = kit.questions("conv-skip")[0]
    network = read_network(files.onnx.read_bytes())
    (case,) = read_property(files.vnnlib.read_bytes(), network.nodes[0].size, network.nodes[network.output].size)
    certifier = Certifier(files.onnx)
    # This box is proved by walks alone; here none of them does.
    monkeypatch.setattr(certifier, "_at_root", lambda case, quick: ("crown", [], [None] * len(case.spans)))
    proof, how = certifier._case(case, np.inf, Attempt(Limits()))
    assert isinstance(proof, CaseProof)
    assert how == "bab"
    assert all(isinstance(tree[0], Bounded) and isinstance(tree[1], Leaf) for tree in proof.trees)
    assert all(isinstance(tree[1], Leaf) and tree[1].slopes is not None for tree in proof.trees)
    written, content = certifier.certify(files.vnnlib.read_bytes(), 60.0)
    assert (written.status, written.how, bool(content)) == ("unsat", "bab", True)


def test_alternatives_are_found_again_whatever_their_order_and_that_of_their_rows() -> None:
    rng = np.random.default_rng(4)
    rows, limits = rng.integers(-1, 2, size=(6, 4)).astype(np.float64), rng.integers(0, 3, size=6).astype(np.float64)
    box = np.zeros(2), np.ones(2)
    case = Case(*box, rows, limits, [(0, 3), (3, 4), (4, 6)], [], [])
    order = [[2, 0, 1], [3], [5, 4]]
    # Zeros may have signs in one reading that they haven't in the other.
    disjuncts = tuple((np.where(rows[o] == 0, -0.0, rows[o]), limits[o]) for o in reversed(order))
    places = _places(case, OutputSpec(disjuncts))
    assert {k: number for k, (number, _) in places.items()} == {0: 2, 1: 1, 2: 0}
    for k, (first, last) in enumerate(case.spans):
        number, place = places[k]
        np.testing.assert_array_equal(disjuncts[number][0][place], rows[first:last])
        np.testing.assert_array_equal(disjuncts[number][1][place], limits[first:last])
    other = OutputSpec(((rows[:3], limits[:3] + 1), *disjuncts[:2]))
    assert sorted(_places(case, other)) == [1, 2]
