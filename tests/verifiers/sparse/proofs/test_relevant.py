from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.checker import check
from prunecert.verifiers.checker.files import Stream
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.checker.nodes import Network, Node, dense
from prunecert.verifiers.checker.proof import Tree
from prunecert.verifiers.checker.vnnlibfile import Case, read_property
from prunecert.verifiers.sparse.certificates import Certifier
from prunecert.verifiers.sparse.proofs.certificate import CaseProof, SiteBounds, encode_unsat
from prunecert.verifiers.sparse.proofs.relevant import SHARES, relevant
from tests.verifiers.checker import kit


def bounded(network: Network, case: Case, sites: list[SiteBounds]) -> Tree:
    return Tree(Stream(io.BytesIO(encode_unsat(bytes(32), bytes(32), [CaseProof(sites, [])]))), network, case)


def test_neurons_count_by_what_their_lines_cost() -> None:
    """Four neurons over [-1, 1]: of the row a0 - a1 - 3 a2 - 0.5 a3 the last three take a line above, 1/2 too high."""
    nodes: list[Node] = [Node([], [1], []), dense(0, np.array([[1.0], [1.0], [1.0], [1.0]]), np.zeros(4))]
    nodes += [Node([1], [4], [], relu=True), dense(2, np.array([[1.0, -1.0, -3.0, -0.5]]), np.zeros(1))]
    network = Network(nodes, [1], 3)
    case = Case(np.array([-1.0]), np.array([1.0]), np.eye(1), np.zeros(1), [(0, 1)], [[]], [])
    tree = bounded(network, case, [SiteBounds()])
    # 3, 1 and 0.5 of 4.5 halves.
    for share, neurons in ((0.5, [2]), (0.7, [1, 2]), (0.95, [1, 2, 3]), (1.0, [1, 2, 3])):
        assert relevant(tree, [0], share)[1].tolist() == neurons


def test_where_no_line_costs_anything_no_neuron_counts() -> None:
    nodes: list[Node] = [Node([], [1], []), dense(0, np.array([[1.0], [-1.0]]), np.array([1.0, -1.0]))]
    nodes += [Node([1], [2], [], relu=True), dense(2, np.array([[-1.0, -1.0]]), np.zeros(1))]
    case = Case(np.zeros(1), np.ones(1), np.eye(1), np.zeros(1), [(0, 1)], [[]], [])
    tree = bounded(Network(nodes, [1], 3), case, [SiteBounds()])
    assert relevant(tree, [0], 1.0)[1].tolist() == []


@pytest.mark.parametrize("family", ["conv", "conv-skip"])
def test_what_walks_prove_is_proved_by_few_of_them(family: str, tmp_path: Path) -> None:
    """Of the boxes that CROWN proves and CROWN-IBP doesn't, with no more walks than all neurons would take."""
    certified = 0
    for files in kit.questions(family)[:4]:
        network, certifier = read_network(files.onnx.read_bytes()), Certifier(files.onnx)
        (case,) = read_property(files.vnnlib.read_bytes(), network.nodes[0].size, network.nodes[network.output].size)
        how, bounds, leaves = certifier._at_root(case, quick=False)
        quick_how, every, quick_leaves = certifier._at_root(case, quick=True)
        assert (None in leaves) == (None in quick_leaves)
        if None in leaves or how != "crown":
            continue
        certified += 1
        assert quick_how == "crown"
        assert {type(walk.neurons) for site in every for walk in site.walks} == {type(None)}
        few = [len(walk.neurons) for site in bounds for walk in site.walks if walk.neurons is not None]
        tree = bounded(network, case, [SiteBounds() for _ in network.sites])
        free = sum(
            int(((tree.root.bounds.lower[s] < 0) & (tree.root.bounds.upper[s] > 0)).sum()) for s in network.sites
        )
        assert not few or sum(few) <= free
        proof = CaseProof(bounds, [[leaf] for leaf in leaves if leaf is not None])
        (tmp_path / "proof").write_bytes(files.certificate(proof.encoded()))
        assert check(tmp_path / "proof", files.onnx, files.vnnlib).answer == "unsat"
    assert certified


def test_shares_grow() -> None:
    assert list(SHARES) == sorted(SHARES)
    assert 0 < SHARES[0] < SHARES[-1] < 1
