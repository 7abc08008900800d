from __future__ import annotations

import io
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.checker import RefusedError, UnreadableError, check
from prunecert.verifiers.checker.files import HEAD, Stream
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.checker.proof import LARGEST_DEPTH, LARGEST_NESTING, SPLIT, Tree
from prunecert.verifiers.checker.vnnlibfile import read_property
from prunecert.verifiers.sparse.certificates import Certifier
from prunecert.verifiers.sparse.proofs.certificate import CaseProof, Cut, Entry, Leaf, Parabolas, SiteBounds, Split
from tests.soundness.networks import Network
from tests.soundness.questions import FAMILIES
from tests.verifiers.checker import attacks, curved_attacks, kit

#: Families whose proofs have splits.
SPLITTING = ("conv-skip", "skip", "conv")
#: Families whose proofs have trees by parabolas.
CURVED = ("skip", "conv-pruned-70")
#: Corrupted certificates of each kind and family in the slow test.
EACH = 25


#: Certificates of version 1 as this program first wrote them, with network and property: answer and leaves.
SAMPLES = {
    "walk": ("unsat", 2),
    "tree": ("unsat", 3),
    "walks-of-chosen-neurons": ("unsat", 16),
    "cuts": ("unsat", 7),
    "two-boxes": ("unsat", 3),
    "witness": ("sat", 0),
    "parabolas": ("unsat", 13),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_certificates_that_were_written_once_go_on_being_accepted(name: str) -> None:
    folder = Path(__file__).parent / "samples"
    report = check(*(folder / f"{name}.{kind}" for kind in ("cert", "onnx", "vnnlib")))
    assert (report.answer, report.leaves) == SAMPLES[name]


def verdict(files: kit.Files, content: bytes, folder: Path) -> str:
    path = folder / "certificate"
    path.write_bytes(content)
    try:
        return check(path, files.onnx, files.vnnlib).answer
    except RefusedError as error:
        return f"refused: {error}"
    except UnreadableError as error:
        return f"unreadable: {error}"


def sides(family: str) -> tuple[kit.Files, list[kit.Files]]:
    """Returns the largest box over which the property holds, and those over which it does not."""
    every = kit.questions(family)
    true = [files for files in every if files.question.margin.low > 0]
    return true[-1], [files for files in every if files.question.margin.high < 0]


def corrupted(family: str, each: int, folder: Path, *, curved: bool = False) -> dict[str, int]:
    """Corrupts a proof in every way so often; returns how many were refused for a false property, by kind."""
    true, false = sides(family)
    proof, rng = true.curved_proof() if curved else true.proof(), np.random.default_rng(7)
    kind_of_entry = Parabolas if curved else Split
    assert any(isinstance(entry, kind_of_entry) for tree in proof.trees for entry in tree)
    assert verdict(true, true.certificate(proof.encoded()), folder) == "unsat"
    ways = curved_attacks if curved else attacks
    refused = dict.fromkeys(ways.KINDS, 0)
    for kind in ways.KINDS:
        for number in range(each):
            body = ways.attacked(kind, proof, rng)
            files = false[number % 2]
            answer = verdict(files, files.certificate(body), folder)
            assert answer != "unsat", f"{kind}: a proof of what is false"
            refused[kind] += 1
            # Nor does a corrupted proof of what is true do anything but hold or be refused.
            assert verdict(true, true.certificate(body), folder).split(":")[0] in ("unsat", "refused", "unreadable")
    return refused


def test_no_corrupted_certificate_proves_what_is_false(tmp_path: Path) -> None:
    refused = corrupted("conv-skip", 2, tmp_path)
    assert len(refused) >= 20
    assert sum(refused.values()) == 2 * len(attacks.KINDS)


def test_no_corrupted_proof_by_parabolas_proves_what_is_false(tmp_path: Path) -> None:
    assert sum(corrupted("skip", 1, tmp_path, curved=True).values()) == len(curved_attacks.KINDS) >= 30


@pytest.mark.parametrize("family", SPLITTING)
def test_outputs_may_err_by_what_the_report_says_and_hardly_by_more(family: str, tmp_path: Path) -> None:
    true, _ = sides(family)
    proof = true.proof()
    content = true.certificate(proof.encoded())
    (tmp_path / "certificate").write_bytes(content)
    report = check(tmp_path / "certificate", true.onnx, true.vnnlib)
    network = read_network(true.onnx.read_bytes())
    (case,) = read_property(true.vnnlib.read_bytes(), network.nodes[0].size, network.nodes[network.output].size)
    sizes = abs(case.rows).sum(axis=1)

    def settle(error: float) -> None:
        worse = case._replace(limits=case.limits + error * sizes)
        Tree(Stream(io.BytesIO(content)), network, worse).check()

    settle(report.lowest)
    with pytest.raises(RefusedError, match="a leaf is not proved"):
        settle(1.01 * report.lowest)


@pytest.mark.slow
@pytest.mark.parametrize("family", SPLITTING)
def test_none_of_thousands_of_corrupted_certificates_proves_what_is_false(family: str, tmp_path: Path) -> None:
    assert sum(corrupted(family, EACH, tmp_path).values()) == EACH * len(attacks.KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("family", CURVED)
def test_none_of_thousands_of_corrupted_proofs_by_parabolas_proves_what_is_false(family: str, tmp_path: Path) -> None:
    assert sum(corrupted(family, EACH, tmp_path, curved=True).values()) == EACH * len(curved_attacks.KINDS)


def test_the_page_says_how_many_were_corrupted() -> None:
    page = (Path(__file__).parents[3] / "docs" / "certificates.md").read_text()
    words = " ".join(page.split())
    for kinds, families, what in (
        (attacks.KINDS, SPLITTING, "certificates of {} kinds of corruption"),
        (curved_attacks.KINDS, CURVED, "of {} kinds from proofs by parabolas"),
    ):
        count = EACH * len(kinds) * len(families)
        assert count >= 2000
        assert f"{count:,} {what.format(len(kinds))}" in words


@pytest.mark.parametrize("family", SPLITTING)
def test_a_proof_of_one_box_is_none_of_a_larger_one_over_which_the_property_is_false(
    family: str, tmp_path: Path
) -> None:
    true, false = sides(family)
    body = true.proof().encoded()
    for files in false:
        assert verdict(files, files.certificate(body), tmp_path).startswith("refused: a leaf is not proved")


@pytest.mark.parametrize("family", SPLITTING)
def test_a_side_of_a_split_alone_is_no_proof_even_of_what_is_true(family: str, tmp_path: Path) -> None:
    true, _ = sides(family)
    proof = attacks.PROOFS["one side only"](true.proof(), np.random.default_rng(0))
    assert verdict(true, true.certificate(proof.encoded()), tmp_path).startswith("refused: a leaf is not proved")


def test_few_functions_of_parts_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them holds the bounds of its part, and a file may make as many parts as it has leaves."""
    true, _ = sides("skip")
    proof = true.curved_proof()
    (leaf,) = next(tree for tree in proof.trees if len(tree) == 1)
    assert isinstance(leaf, Parabolas)
    low, high = (float(ends[0]) for ends in (true.question.lower, true.question.upper))
    cuts: list[Entry] = [Cut(0, low + k * (high - low) / 30) for k in range(1, 21)]
    tree = [entry for one in cuts for entry in (one, leaf)] + [leaf]
    body = replace(proof, trees=[tree] * len(proof.trees)).encoded()
    network = read_network(true.onnx.read_bytes())
    (case,) = read_property(true.vnnlib.read_bytes(), network.nodes[0].size, network.nodes[network.output].size)
    leaves = []
    monkeypatch.setattr(Tree, "_proved", lambda self, bound, rows: leaves.append(bound))
    reader = Tree(Stream(io.BytesIO(true.certificate(body))), network, case)
    reader.check()
    assert len(leaves) == 21 * len(proof.trees)
    assert len(reader._forms) == 16


def test_a_part_may_be_bounded_anew_and_an_input_divided(tmp_path: Path) -> None:
    true, _ = sides("conv-skip")
    proof = true.proof()
    body, at = proof.encoded(), attacks.first_tree(proof)
    within = body[:at] + bytes([3]) + body[:at] + body[at:]
    assert verdict(true, true.certificate(within), tmp_path) == "unsat"
    first = replace(proof, sites=[], trees=proof.trees[:1]).encoded()
    rest = replace(proof, sites=[], trees=proof.trees[1:]).encoded()
    middle = np.float64(0.5 * true.question.lower[0] + 0.5 * true.question.upper[0]).tobytes()
    divided = body[:at] + b"\x02" + bytes(4) + middle + first + first + rest
    assert verdict(true, true.certificate(divided), tmp_path) == "unsat"
    assert verdict(true, true.certificate(body[:at] + b"\x02" + bytes(4) + middle + first + rest), tmp_path) != "unsat"


def test_an_empty_part_is_proved_without_rows(tmp_path: Path) -> None:
    """z >= 0 where z < 0 everywhere: the multiplier alone shows that nothing is there."""
    net = Network("farkas", (1,))
    hidden = net.gemm(0, np.array([[1.0]]), np.array([-2.0]))
    net.gemm(net.relu(hidden), np.array([[1.0], [0.0]]), np.array([0.0, 1.0]))
    onnx = kit.network_file(net, "farkas")
    vnnlib = tmp_path / "p.vnnlib"
    vnnlib.write_bytes(kit.text([(0.0, 1.0)], 2, "(>= Y_0 Y_1)"))
    files = kit.Files(kit.questions("conv")[0].question, onnx, vnnlib)
    none, one = np.zeros(1, dtype=np.float32), np.ones(1, dtype=np.float32)
    empty = Leaf(none, one)
    for other, answer in ((Leaf(one, none), "unsat"), (empty, "refused")):
        body = CaseProof([SiteBounds()], [[Split(1, 0), empty, other]]).encoded()
        assert verdict(files, files.certificate(body), tmp_path).split(":")[0] == answer


def test_inputs_of_any_size_are_not_taken_though_all_values_are_small(tmp_path: Path) -> None:
    """A coefficient that underflows, times an input near the end of float64, would be an error of any size."""
    net = Network("flat", (1,))
    net.flatten(0)
    onnx = kit.network_file(net, "flat")
    vnnlib, huge = tmp_path / "p.vnnlib", 2.0**1023
    # 1.5 * 2**-1022 * x is 3. A weight of 2**-52 rounds the coefficient to 2**-1073, which makes 4 of it.
    vnnlib.write_bytes(kit.text([(huge, huge)], 1, f"(<= (* {1.5 * 2.0**-1022!r} Y_0) 3.5)"))
    files = kit.Files(kit.questions("conv")[0].question, onnx, vnnlib)
    body = CaseProof([], [[Leaf(np.full(1, 2.0**-52, dtype=np.float32), np.zeros(0, dtype=np.float32))]]).encoded()
    assert verdict(files, files.certificate(body), tmp_path) == "refused: the inputs are not bounded"


def test_depth_and_nesting_are_bounded(tmp_path: Path) -> None:
    true, _ = sides("conv-skip")
    proof = true.proof()
    body, at = proof.encoded(), attacks.first_tree(proof)
    split = bytes([SPLIT]) + np.array([1, 0], dtype="<u4").tobytes()
    deep = verdict(true, true.certificate(body[:at] + split * (LARGEST_DEPTH + 2)), tmp_path)
    assert f"under {LARGEST_DEPTH + 1} splits" in deep
    nested = verdict(true, true.certificate(body[:at] + (b"\x03" + body[:at]) * (LARGEST_NESTING + 1)), tmp_path)
    assert f"nested {LARGEST_NESTING} deep" in nested


def test_a_certificate_for_another_network_or_property_is_refused_by_name(tmp_path: Path) -> None:
    true, _ = sides("conv-skip")
    other, _ = sides("skip")
    content = true.certificate(true.proof().encoded())
    assert "for another network" in verdict(other, content, tmp_path)
    another = kit.Files(true.question, true.onnx, other.vnnlib)
    assert "for another property" in verdict(another, content, tmp_path)


@pytest.mark.parametrize("length", [0, 7, HEAD.size - 1, HEAD.size, HEAD.size + 5, -5, -1])
def test_what_is_cut_off_is_unreadable(length: int, tmp_path: Path) -> None:
    true, _ = sides("conv-skip")
    content = true.certificate(true.proof().encoded())
    assert verdict(true, content[:length], tmp_path).startswith("unreadable")


def test_what_goes_on_after_its_end_is_unreadable(tmp_path: Path) -> None:
    true, _ = sides("conv-skip")
    body = true.proof().encoded()
    assert verdict(true, true.certificate(body) + b"x", tmp_path).startswith("unreadable")
    assert verdict(true, true.certificate(body + b"x"), tmp_path).startswith("unreadable")


def test_foreign_and_newer_files_are_unreadable(tmp_path: Path) -> None:
    true, _ = sides("conv-skip")
    content = true.certificate(true.proof().encoded())
    assert "begins otherwise" in verdict(true, b"PK" + content, tmp_path)
    assert "version 2" in verdict(true, content[:8] + b"\x02" + content[9:], tmp_path)
    assert verdict(true, content[: HEAD.size] + zlib.compress(b"")[:-1] + b"!", tmp_path).startswith("unreadable")


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    true, _ = sides("conv-skip")
    with pytest.raises(UnreadableError, match="FileNotFoundError"):
        check(tmp_path / "none", true.onnx, true.vnnlib)


def against_the_oracle(family: str, folder: Path) -> None:
    """Whatever is certified is true; and what is true by more than rounding is certified."""
    for files in kit.questions(family):
        margin = files.question.margin
        target = folder / "proof"
        written = Certifier(files.onnx).write(files.vnnlib, target, 10.0)
        if margin.low > 1e-7:
            assert str(written.status) == "unsat", written
            assert check(target, files.onnx, files.vnnlib).answer == "unsat"
        elif margin.high < 0:
            assert str(written.status) != "unsat", written


@pytest.mark.parametrize("family", ["conv-skip", "fc-pruned-80"])
def test_certificates_agree_with_the_exact_answer(family: str, tmp_path: Path) -> None:
    against_the_oracle(family, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("conv-skip", "fc-pruned-80")])
def test_certificates_of_every_family_agree_with_the_exact_answer(family: str, tmp_path: Path) -> None:
    against_the_oracle(family, tmp_path)
