from __future__ import annotations

import hashlib
import io
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from prunecert.errors import UserError
from prunecert.verifiers.base import Status
from prunecert.verifiers.certification import WAYS
from prunecert.verifiers.checker import RefusedError, check, check_stream
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.checker.vnnlibfile import read_property
from prunecert.verifiers.sparse import certificates, certified_trees
from prunecert.verifiers.sparse.bab.lines import subtrees
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.bab.search import Search
from prunecert.verifiers.sparse.certificates import Attempt, Certifier
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine
from prunecert.verifiers.sparse.onnx.reader import read_network as read_sparse
from prunecert.verifiers.sparse.proofs.certificate import CaseProof, Parabolas, Split
from tests.soundness.networks import Network
from tests.verifiers.checker import kit


def largest(family: str) -> kit.Files:
    """Returns the largest box over which the property holds."""
    return [files for files in kit.questions(family) if files.question.margin.low > 0][-1]


@pytest.mark.parametrize("family", ["conv-skip", "skip", "fc-deep"])
def test_proofs_are_written_and_counterexamples_too(family: str, tmp_path: Path) -> None:
    for files in (kit.questions(family)[0], largest(family), kit.questions(family)[-1]):
        target = tmp_path / "proof"
        written = Certifier(files.onnx).write(files.vnnlib, target, 20.0)
        report = check(target, files.onnx, files.vnnlib)
        assert written.reason == ""
        assert (report.answer, report.leaves) == (str(written.status), written.leaves)
        assert written.size == target.stat().st_size
        assert (written.status == Status.UNSAT) == (files.question.margin.low > 0)


def test_the_cheapest_proof_is_taken(tmp_path: Path) -> None:
    ways = []
    for files in kit.questions("conv-skip")[:4]:
        ways.append(Certifier(files.onnx).write(files.vnnlib, tmp_path / "proof", 20.0).how)
    assert ways == sorted(ways, key=WAYS.index)
    assert ways[-1] == "bab"
    assert ways[0] != "bab"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["conv-pruned-70", "skip"])
def test_bounds_that_the_search_improves_get_walks_of_their_own(family: str, tmp_path: Path) -> None:
    files = largest(family)
    certifier = Certifier(files.onnx)
    network = read_network(files.onnx.read_bytes())
    (case,) = read_property(files.vnnlib.read_bytes(), network.nodes[0].size, network.nodes[network.output].size)
    limits = Limits(attack_steps=0, tighten_after=1, root_steps=1, steps=1)
    proof, how = certifier._case(case, np.inf, Attempt(limits))
    assert isinstance(proof, CaseProof)
    assert how == "bab"
    assert any(walk.neurons is not None for site in proof.sites for walk in site.walks)
    target = tmp_path / "proof"
    target.write_bytes(files.certificate(proof.encoded()))
    assert check(target, files.onnx, files.vnnlib).answer == "unsat"


def test_a_proof_that_the_checker_refuses_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, target = kit.questions("conv-skip")[0], tmp_path / "proof"

    def refuse(*_: object) -> None:
        raise RefusedError("a leaf is not proved")

    monkeypatch.setattr(certificates, "check_stream", refuse)
    written = Certifier(files.onnx).write(files.vnnlib, target, 20.0)
    assert (written.status, written.how) == (Status.UNKNOWN, "")
    assert "does not accept the proof: a leaf is not proved" in written.reason
    assert list(tmp_path.iterdir()) == []


def searched(files: kit.Files, split: Literal["input", "relu"] = "relu") -> Search:
    """Returns a finished search over the whole property."""
    layers, question = read_sparse(files.onnx), files.question
    limits = Limits(attack_steps=0, split=split)
    deadline = time.monotonic() + 60
    run = Search(Engine(layers), Checker(layers), question.lower, question.upper, question.spec, limits, deadline)
    run.run()
    return run


def test_the_tree_of_the_search_that_proved_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    files = largest("conv-skip")
    finished = searched(files)
    assert finished.branched is not None

    def search_again(*_: object) -> None:
        raise AssertionError("the search is made a second time")

    monkeypatch.setattr(certified_trees, "Search", search_again)
    certifier = Certifier(files.onnx)
    written, content = certifier.certify(files.vnnlib.read_bytes(), 20.0, finished=[finished])
    assert (written.status, written.how, written.reason) == ("unsat", "bab", "")
    digest = hashlib.sha256(files.onnx.read_bytes()).digest()
    network = read_network(files.onnx.read_bytes())
    report = check_stream(io.BytesIO(content), digest, lambda: network, files.vnnlib.read_bytes())
    assert (report.answer, report.leaves) == ("unsat", written.leaves)


def test_the_tree_of_a_search_over_another_box_is_not_taken() -> None:
    files, other = largest("conv-skip"), kit.questions("conv-skip")[1]
    written, content = Certifier(files.onnx).certify(files.vnnlib.read_bytes(), 20.0, finished=[searched(other)])
    # It is searched again.
    assert (written.status, bool(content)) == ("unsat", True)


def test_a_proof_by_splits_of_inputs_is_made_of_boxes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = kit.questions("skip")[3]
    finished = searched(files, split="input")
    assert (finished.outcome.status, finished.branched) == ("unsat", None)

    def search_again(*_: object) -> None:
        raise AssertionError("the search is made a second time")

    monkeypatch.setattr(certified_trees, "Search", search_again)
    written, content = Certifier(files.onnx).certify(files.vnnlib.read_bytes(), 20.0, finished=[finished])
    assert (written.status, written.how, written.reason) == ("unsat", "boxes", "")
    (tmp_path / "proof").write_bytes(content)
    assert check(tmp_path / "proof", files.onnx, files.vnnlib).leaves == written.leaves


def test_a_counterexample_is_certified_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certified_trees, "Search", None)
    files = kit.questions("conv-skip")[-1]
    certifier = Certifier(files.onnx)
    question = files.question
    x = np.clip(question.margin.point.astype(np.float32), question.lower, question.upper)
    written, content = certifier.certify(files.vnnlib.read_bytes(), 1.0, witness=x)
    assert (written.status, written.how, bool(content)) == ("sat", "witness", True)
    safe = kit.questions("conv-skip")[0]
    written, content = certifier.certify(safe.vnnlib.read_bytes(), 1.0, witness=safe.question.lower)
    assert content == b""
    assert "isn't shown to be unsafe" in written.reason


def test_a_search_that_ends_early_leaves_no_certificate(tmp_path: Path) -> None:
    files = largest("conv-skip")
    written = Certifier(files.onnx).write(files.vnnlib, tmp_path / "proof", 0.0)
    assert written.status in (Status.TIMEOUT, Status.UNKNOWN)
    assert written.reason
    assert not (tmp_path / "proof").exists()


def test_a_property_of_several_boxes_is_proved_box_by_box(tmp_path: Path) -> None:
    net = Network("boxes", (1,))
    net.gemm(net.relu(net.gemm(0, np.array([[1.0], [-1.0]]), np.array([-0.5, 0.25]))), np.ones((1, 2)), np.zeros(1))
    onnx = kit.network_file(net, "boxes")
    vnnlib, target = tmp_path / "p.vnnlib", tmp_path / "proof"
    boxes = "(or (and (<= X_0 0.2) (<= Y_0 {low})) (and (>= X_0 0.75) (or (<= Y_0 0.2) (>= Y_0 0.6))))"
    vnnlib.write_bytes(kit.text([(0.0, 1.0)], 1, boxes.format(low=0.04)))
    written = Certifier(onnx).write(vnnlib, target, 20.0)
    assert (written.status, written.leaves) == (Status.UNSAT, 3)
    vnnlib.write_bytes(kit.text([(0.0, 1.0)], 1, boxes.format(low=0.06)))
    written = Certifier(onnx).write(vnnlib, target, 20.0)
    assert written.status == Status.SAT
    vnnlib.write_bytes(kit.text([(1.0, 0.0)], 1, "(<= Y_0 0)"))
    assert Certifier(onnx).write(vnnlib, target, 20.0).status == Status.UNSAT
    assert check(target, onnx, vnnlib).leaves == 0


def test_networks_with_batch_normalisation_have_certificates(tmp_path: Path) -> None:
    """Trees of the search, which folds it into weights of float32, are proofs of the file, where it stands apart."""
    onnx, vnnlib, target = kit.batch_norm(tmp_path / "bn.onnx"), tmp_path / "p.vnnlib", tmp_path / "proof"
    ways = {}
    for radius in (0.01, 0.1, 0.28, 0.6):
        vnnlib.write_bytes(kit.keeps_class(onnx, radius))
        written = Certifier(onnx).write(vnnlib, target, 20.0)
        assert check(target, onnx, vnnlib).answer == written.status
        ways[written.how] = written.status
    assert ways["bab"] == "unsat"
    assert ways["witness"] == "sat"


def test_files_that_the_checker_does_not_take_are_named(tmp_path: Path) -> None:
    files = kit.questions("conv-skip")[0]
    bad = tmp_path / "bad"
    bad.write_bytes(b"no network")
    with pytest.raises(UserError, match=r"bad is not taken by the checker"):
        Certifier(bad)
    with pytest.raises(UserError, match=r"bad is not taken by the checker"):
        Certifier(files.onnx).write(bad, tmp_path / "proof", 1.0)


def test_trees_have_splits_of_neurons_that_feed_relus() -> None:
    files = largest("conv")
    network = read_network(files.onnx.read_bytes())
    splits = [entry for tree in files.proof().trees for entry in tree if isinstance(entry, Split)]
    assert splits
    assert all(split.node in network.sites and split.neuron < network.nodes[split.node].size for split in splits)


@pytest.mark.parametrize("family", ["conv-pruned-70", "skip"])
def test_trees_over_shared_lines_are_proofs_too(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = largest(family)
    certifier = Certifier(files.onnx)
    network = read_network(files.onnx.read_bytes())
    (case,) = read_property(files.vnnlib.read_bytes(), network.nodes[0].size, network.nodes[network.output].size)
    limits = Limits(attack_steps=0, tighten_after=0, root_steps=1, steps=2, share_from=0)
    shared = list[int]()
    grow = subtrees.grow

    def count(*arguments: Any) -> subtrees.Grown:
        grown = grow(*arguments)
        shared.append(len(grown.proved))
        return grown

    monkeypatch.setattr(subtrees, "grow", count)
    proof, how = certifier._case(case, np.inf, Attempt(limits))
    assert isinstance(proof, CaseProof)
    assert how == "bab"
    assert sum(shared) > 1
    target = tmp_path / "proof"
    target.write_bytes(files.certificate(proof.encoded()))
    report = check(target, files.onnx, files.vnnlib)
    assert (report.answer, report.leaves >= sum(shared)) == ("unsat", True)


def another_search_is_made(files: kit.Files, finished: Search, reason: str) -> None:
    """Asserts that a search's trees are none for a certificate, for a reason, and that there is one all the same."""
    writer = certified_trees.TreeWriter(files.onnx, read_network(files.onnx.read_bytes()), None)
    with pytest.raises(certified_trees.UncertifiedError, match=reason):
        writer._tree(finished)
    written, _ = Certifier(files.onnx).certify(files.vnnlib.read_bytes(), 20.0, finished=[finished])
    assert (written.status, written.how) == (Status.UNSAT, "bab")


def test_a_tree_that_was_not_kept_is_no_proof() -> None:
    files = largest("conv-skip")
    finished = searched(files)
    assert finished.branched is not None
    finished.branched.forgotten = True
    finished.branched.leaves.clear()
    another_search_is_made(files, finished, "takes more memory than its limit")


def curved(files: kit.Files) -> Search:
    """Returns a search that second-order bounds have ended, over first and over improved hidden bounds."""
    layers, question = read_sparse(files.onnx), files.question
    limits = Limits(attack_steps=0, tighten_after=1, second_order=True)
    box = question.lower, question.upper, question.spec
    finished = Search(Engine(layers), Checker(layers), *box, limits, time.monotonic() + 60)
    assert finished.run().status is Status.UNSAT
    return finished


def test_what_second_order_bounds_prove_is_certified_by_their_own_trees(tmp_path: Path) -> None:
    files = largest("skip")
    finished = curved(files)
    assert finished.branched is not None
    (proof,) = finished.branched.second_order.proofs.values()
    # One alternative was closed before hidden bounds were improved, the other one after that.
    assert not proof.improved
    assert finished.branched.tightened
    assert finished.leaves
    written, content = Certifier(files.onnx).certify(files.vnnlib.read_bytes(), 0.0, finished=[finished])
    assert (written.status, written.how) == (Status.UNSAT, "bab")
    (tmp_path / "proof").write_bytes(content)
    report = check(tmp_path / "proof", files.onnx, files.vnnlib)
    assert (report.answer, report.leaves) == ("unsat", len(proof.tree.leaves) + sum(map(len, finished.leaves)))


@pytest.mark.parametrize("family", ["skip", "conv-pruned-70"])
def test_trees_by_second_order_bounds_hold_with_all_their_parts(family: str, tmp_path: Path) -> None:
    files = largest(family)
    proof = files.curved_proof()
    counts = [sum(isinstance(entry, Parabolas) for entry in tree) for tree in proof.trees]
    assert sum(counts) > 2
    target = tmp_path / "proof"
    target.write_bytes(files.certificate(proof.encoded()))
    report = check(target, files.onnx, files.vnnlib)
    assert (report.answer, report.leaves >= sum(counts)) == ("unsat", True)


def test_a_second_order_tree_that_was_not_kept_is_no_proof() -> None:
    files = largest("skip")
    finished = curved(files)
    assert finished.branched is not None
    for proof in finished.branched.second_order.proofs.values():
        proof.tree.most_mb = 0.0
        proof.tree.prove(0, proof.tree.leaves[0])
    another_search_is_made(files, finished, "takes more than its part of the memory")


def test_a_file_that_the_checker_s_readers_stumble_over_is_refused_in_a_sentence(tmp_path: Path) -> None:
    files, marked = kit.questions("conv-skip")[0], tmp_path / "marked.vnnlib"
    marked.write_bytes(b"\xef\xbb\xbf" + files.vnnlib.read_bytes())
    with pytest.raises(
        UserError, match=r"marked\.vnnlib is not taken by the checker of certificates: [a-z ]+.*\.$"
    ) as caught:
        Certifier(files.onnx).write(marked, tmp_path / "proof", 5.0)
    assert "list index" not in str(caught.value)
