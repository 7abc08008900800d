from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from prunecert.hashing import sha256_file
from prunecert.verifiers.base import Instance, OutputSpec, Status
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.checker.nodes import Network, Node, dense
from prunecert.verifiers.checker.proof import Tree
from prunecert.verifiers.checker.vnnlibfile import Case
from prunecert.verifiers.formats.vnnlib import write
from prunecert.verifiers.sparse.bab.search import Search
from prunecert.verifiers.sparse.certificates import Attempt, Certifier
from prunecert.verifiers.sparse.proofs.certificate import CaseProof, SiteBounds, stream
from prunecert.verifiers.sparse.proofs.hidden_bounds import followed, walks
from tests.soundness.oracle import Programme
from tests.verifiers.sparse.bab.test_input_splits import moved
from tests.verifiers.sparse.searching import Prepared, draw, search

KINDS = ["skip", "conv-skip", "fc"]


def relu(source: int, size: int = 4) -> Node:
    return Node([source], (size,), [1.0], relu=True)


def test_walks_help_where_something_comes_before() -> None:
    nodes = [Node([], (4,), []), dense(0, np.eye(4), np.zeros(4)), relu(1), dense(2, np.eye(4), np.zeros(4)), relu(3)]
    network = Network(nodes, [1, 3], 4)
    assert [[walk.stop for walk in walks(network, site)] for site in network.sites] == [[], [0]]
    assert walks(network, 3, within=True) == ()


@pytest.mark.parametrize("form", ["after another", "side by side"])
def test_maps_that_the_search_has_as_one_are_gone_through_at_once(form: str) -> None:
    rng = np.random.default_rng(3)
    first, second, third = rng.normal(size=(3, 4, 4))
    nodes = [Node([], (4,), []), dense(0, first, np.zeros(4)), relu(1), dense(2, second, np.zeros(4))]
    whole = third @ second
    if form == "side by side":
        nodes += [dense(2, third, np.zeros(4)), Node([3, 4], (4,), [1.0, 1.0])]
        whole = third + second
    else:
        nodes.append(dense(3, third, np.zeros(4)))
    site = len(nodes) - 1
    network = Network([*nodes, relu(site)], [1, site], site + 1)
    outer, plain = walks(network, site)
    assert (outer.stop, plain.stop, walks(network, site, within=True)[0].stop) == (2, 0, 2)
    assert len(walks(network, site, within=True)) == 1
    case = Case(-np.ones(4), np.ones(4), np.zeros((1, 4)), np.zeros(1), [(0, 1)], [], [])
    tree = Tree(stream(CaseProof([SiteBounds(), SiteBounds((outer,))], [])), network, case)
    high = np.maximum(tree.root.bounds.upper[1], 0.0)
    # Those of neurons that have either sign by intervals are the exact ends of the one map over the box before it.
    free = np.flatnonzero(tree.root.bounds.lower[site] < 0)
    assert len(free)
    np.testing.assert_allclose(tree.root.bounds.upper[site][free], (np.maximum(whole, 0.0) @ high)[free], rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_that_are_followed_are_the_search_s(kind: str, tmp_path: Path) -> None:
    turned = 0
    for seed in range(80, 100):
        net, network = draw(kind, seed, tmp_path)
        center, rng = np.random.default_rng(seed).random(net.inputs), np.random.default_rng(seed)
        low, high = (np.float32(center + sign * 0.25).astype(float) for sign in (-1, 1))
        width = network.nodes[-1].size
        spec = OutputSpec(((rng.normal(size=(2, width)), np.zeros(2)),))
        prepared = Prepared(network, low, high, spec)
        bounds = prepared.bounds
        read = read_network((tmp_path / "net.onnx").read_bytes())
        case = Case(low, high, *spec.disjuncts[0], [(0, 2)], [], [])
        sites = followed(read, case)
        root = Tree(stream(CaseProof(sites, [])), read, case).root.bounds
        for mine, site in zip(prepared.checker.activated, read.sites, strict=True):
            free = (root.lower[site] < 0) & (root.upper[site] > 0)
            np.testing.assert_array_equal(free, (bounds.lower[mine] < 0) & (bounds.upper[mine] > 0))
            for ours, theirs in zip((bounds.lower, bounds.upper), (root.lower, root.upper), strict=True):
                # The search's allow for float32.
                np.testing.assert_allclose(theirs[site][free], ours[mine][free], rtol=1e-4, atol=1e-4)
        turned += sum(len(site.slots) for site in sites)
    # Slopes other than the default ones are among them.
    assert turned > 0


def finished(kind: str, seed: int, folder: Path, distance: float, rows: int) -> tuple[Search, Certifier, bytes]:
    """Returns a search that has proved a property a little within what holds, and the property."""
    rng = np.random.default_rng(seed)
    net, network = draw(kind, seed, folder)
    center = rng.random(net.inputs)
    low, high = (np.float32(center + sign * 0.25).astype(float) for sign in (-1, 1))
    outputs = network.evaluate(rng.uniform(low, high, (200, net.inputs)))
    matrix = np.round(rng.normal(size=(rows, outputs.shape[1])), 2)
    spec = OutputSpec(((matrix, matrix @ outputs[0]),))
    spec = moved(spec, Programme(net, low, high).margin(*spec.disjuncts[0]).low - distance)
    run, outcome = search(network, low, high, spec, 20.0, tighten_after=1, second_order=False, attack_steps=0)
    assert outcome.status is Status.UNSAT
    onnx, vnnlib = folder / "net.onnx", folder / "property.vnnlib"
    box = low.astype(np.float32), high.astype(np.float32)
    write(Instance(onnx, sha256_file(onnx), *box, spec, 20, "t", 0, net.classes), vnnlib)
    return run, Certifier(onnx), vnnlib.read_bytes()


@pytest.mark.parametrize(
    ("kind", "seed", "distance", "rows", "expected"),
    [("conv-skip", 51, 0.01, 2, [False]), ("skip", 90, 0.001, 3, [False, True])],
)
def test_a_search_s_own_tree_is_its_certificate(
    kind: str,
    seed: int,
    distance: float,
    rows: int,
    expected: list[bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One where two maps stand side by side; one where a slope by default would leave a neuron unstable."""
    run, certifier, property_ = finished(kind, seed, tmp_path, distance, rows)
    attempts = list[Attempt]()
    proved = certifier._proved

    def noted(cases: Sequence[Case], digest: bytes, deadline: float, attempt: Attempt) -> tuple[str, bytes]:
        attempts.append(attempt)
        return proved(cases, digest, deadline, attempt)

    monkeypatch.setattr(certifier, "_proved", noted)
    written, _ = certifier.certify(property_, 20.0, finished=[run])
    assert (written.status, written.how) == (Status.UNSAT, "bab")
    assert [attempt.within for attempt in attempts] == expected
    assert all(attempt.finished == (run,) for attempt in attempts)
