"""Settings reach the search; α-CROWN never splits; proofs are kept and used again, and a full disk loses none."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, OutputSpec, Status, Verdict, Verifier
from prunecert.verifiers.checker import check
from prunecert.verifiers.formats.vnnlib import parse_property
from prunecert.verifiers.sparse import certified_trees
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.proofs.store import Store
from tests.soundness.networks import fully_connected
from tests.verifiers.checker import kit
from tests.verifiers.sparse.searching import ask, bab, edge


def limits(name: str, **settings: Any) -> Limits:
    verifier: Any = VERIFIERS.get(name)(settings)
    return Limits(**verifier._limits())


def test_every_setting_of_the_search_is_its_limit() -> None:
    default = limits("sparse-bab")
    assert default == Limits(split="auto", second_order=True)
    for setting, (field, value) in {
        "root_iterations": ("root_steps", 61),
        "iterations": ("steps", 13),
        "candidates": ("candidates", 1),
        "batch": ("batch", 5),
        "attack_steps": ("attack_steps", 0),
        "memory_mb": ("memory_mb", 100),
        "seed": ("seed", 4),
        "split": ("split", "input"),
    }.items():
        assert asdict(limits("sparse-bab", **{setting: value})) == {**asdict(default), field: value}
    alpha = limits("sparse-alpha-crown", iterations=9)
    assert (alpha.root_steps, alpha.splits, alpha.attack_steps) == (9, False, 0)
    with pytest.raises(UserError, match="iterations"):
        limits("sparse-alpha-crown", iterations=0)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Instance]]:
    """A network, and questions about it: one that needs splits, one beyond the edge, and one far within."""
    rng = np.random.default_rng(5)
    net = fully_connected("net", rng, [4, 10, 10, 3]).balance(rng)
    path = net.save(tmp_path_factory.mktemp("search") / "net.onnx")
    subject: Any = bab(path)
    center = np.random.default_rng(1).random(4)
    spec = OutputSpec.robustness(int(net.evaluate(center)[0].argmax()), 3)
    radius = edge(subject._network, center, spec)
    return path, [ask(path, net, center, radius * factor) for factor in (0.97, 1.1, 0.01)]


def search_again(*_: object) -> None:
    raise AssertionError("the search is made a second time")


def test_a_certificate_is_made_of_the_trees_that_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each box of a property, whatever the order of its rows; and of a search that began with an earlier tree."""
    files, both = kit.questions("conv-skip")[3], tmp_path / "both.vnnlib"
    path, hard = files.onnx, files.question.instance(files.onnx)
    # The same box twice, a little smaller the second time, and the alternatives backwards.
    text, low = files.vnnlib.read_text(), np.float32(hard.lower.flat[0])
    classes = hard.classes or 0
    others = [f"(and (>= Y_{k} Y_{hard.label}))" for k in reversed(range(classes)) if k != hard.label]
    parts = [
        f"(and (>= X_0 {float(value)!r}) (or {' '.join(others)}))"
        for value in (low, np.nextafter(low, np.float32(hard.upper.flat[0])))
    ]
    both.write_text(f"{text[: text.index('(assert (or')]}\n(assert (or {' '.join(parts)}))\n")
    questions = parse_property(both.read_text(), "both", both).instances(path, hard.onnx_sha256, hard.lower.shape, 60.0)
    assert len(questions) == 2
    monkeypatch.setattr(certified_trees, "Search", search_again)
    subject: Any = VERIFIERS.get("sparse-bab")({"split": "relu", "proofs": str(tmp_path / "proofs")})
    subject.start()
    subject.load(path)
    for file, instances in ((files.vnnlib, [hard]), (files.vnnlib, [hard]), (both, questions)):
        verdicts = subject.solve(instances)
        assert {verdict.status for verdict in verdicts} == {Status.UNSAT}
        written, content = subject.certify(
            path, file.read_bytes(), 60.0, None, [instance.question() for instance in instances]
        )
        assert (written.reason, written.status, written.how) == ("", "unsat", "bab")
        (tmp_path / "proof").write_bytes(content)
        assert check(tmp_path / "proof", path, file).leaves == written.leaves >= 2 * len(instances)
    # One search is kept for each box of the latest property, and none of another.
    assert len(subject._finished([instance.question() for instance in questions])) == 2
    subject.solve([hard])
    assert len(subject._finished([instance.question() for instance in questions])) == 1


def alpha_crown(path: Path) -> Verifier:
    subject = VERIFIERS.get("sparse-alpha-crown")()
    subject.start()
    subject.load(path)
    return subject


def test_alpha_crown_proves_or_says_nothing_and_the_search_decides(cases: tuple[Path, list[Instance]]) -> None:
    path, questions = cases
    alpha, complete = alpha_crown(path).solve(questions), bab(path, split="relu").solve(questions)
    assert [verdict.status for verdict in complete] == [Status.UNSAT, Status.SAT, Status.UNSAT]
    assert alpha[1].status is Status.UNKNOWN
    assert alpha[2].status is Status.UNSAT
    for verdict in alpha:
        assert verdict.witness is None
        assert not verdict.iterations
    assert complete[1].witness is not None
    assert questions[1].contains(complete[1].witness)


def kept(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_what_was_found_is_kept_and_tried_first(cases: tuple[Path, list[Instance]], tmp_path: Path) -> None:
    path, questions = cases
    folder = tmp_path / "new" / "proofs"
    first = bab(path, proofs=str(folder)).solve(questions[:2])
    assert [verdict.status for verdict in first] == [Status.UNSAT, Status.SAT]
    files = kept(folder)
    assert files
    # Without an attack of its own: the stored point is there before any bound.
    again = bab(path, proofs=str(folder), attack_steps=0).solve(questions[:2])
    assert [verdict.status for verdict in again] == [Status.UNSAT, Status.SAT]
    assert again[1].stage == "attack"
    assert first[1].witness is not None
    assert again[1].witness is not None
    np.testing.assert_array_equal(again[1].witness, first[1].witness)
    assert kept(folder) == files
    plain: list[Verdict] = bab(path).solve(questions[:2])
    assert all("proof" not in verdict.detail for verdict in plain)


def test_a_proof_that_can_not_be_stored_counts_all_the_same(
    cases: tuple[Path, list[Instance]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, questions = cases

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "keep_witness", full)
    monkeypatch.setattr(Store, "keep_tree", full)
    verdicts = bab(path, proofs=str(tmp_path)).solve(questions[:2])
    assert [verdict.status for verdict in verdicts] == [Status.UNSAT, Status.SAT]
    assert "the proof could not be stored: [Errno 28] No space left" in verdicts[1].detail


def test_a_folder_that_can_not_be_made_is_no_reason_to_stop(cases: tuple[Path, list[Instance]], tmp_path: Path) -> None:
    path, questions = cases
    (tmp_path / "file").write_text("no folder")
    (verdict,) = bab(path, proofs=str(tmp_path / "file" / "proofs")).solve(questions[1:2])
    assert verdict.status is Status.SAT
    assert "the proof could not be stored" in verdict.detail
