"""Stored trees and counterexamples made by hand, with valid checksums: none may change an answer or end in an error."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from prunecert.verifiers.base import Status, Verdict
from prunecert.verifiers.sparse.proofs.file import Proof, ProofSummary, RefusedProofError, glance
from prunecert.verifiers.sparse.proofs.store import key
from tests.verifiers.sparse.forging import (
    BOTH,
    MAGIC,
    START,
    Question,
    altered,
    pose,
    random_tree,
    repeated,
    rewrite,
    shape,
    tree,
)
from tests.verifiers.sparse.searching import bab


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> list[Question]:
    """One that holds, and one that does not, of networks with the same layers."""
    return pose(tmp_path_factory.mktemp("posed"))


@pytest.fixture(autouse=True)
def _cleared(questions: list[Question]) -> Iterator[None]:
    yield
    for question in questions:
        question.clear()


def rightly(questions: list[Question], put: Callable[[Question], object]) -> list[Verdict]:
    """Asks both questions with what `put` stores, and compares with the right answers."""
    verdicts = []
    for question in questions:
        put(question)
        for verdict in question.ask():
            assert verdict.status is question.answer, verdict
            verdicts.append(verdict)
    return verdicts


def test_a_whole_tree_is_the_proof(questions: list[Question]) -> None:
    """The trees below differ from this one, which is used as it is."""
    verdicts = rightly(questions, lambda question: tree(BOTH).save(question.file))
    assert "4 leaves from the proof" in verdicts[0].detail
    assert (verdicts[0].domains, verdicts[0].iterations) == (4, 0)
    plain = rightly(questions, lambda question: None)
    assert (plain[0].domains or 0) > 4


ROOTS = BOTH[:4]
PARTIAL: dict[str, Proof] = {
    "a missing sibling": tree([*ROOTS, (1, 2, -1, 1)]),
    "both of one phase": tree([*ROOTS, (1, 2, -1, 1), (1, 2, -1, 1)]),
    "phases of two neurons": tree([*ROOTS, (1, 2, -1, 1), (1, 3, 1, 1)]),
    "no phase": tree([*ROOTS, (1, 2, 0, 1), (1, 2, 0, 1)]),
    "phases of 2": tree([*ROOTS, (1, 2, -2, 1), (1, 2, 2, 1)]),
    "four children": tree([*BOTH, (1, 3, -1, 1), (1, 3, 1, 1)]),
    "three children": tree([*BOTH, (1, 2, -1, 1)]),
    "a child of itself": tree([*ROOTS, (1, 2, -1, 1), (5, 2, 1, 1)]),
    "a later parent": tree([*ROOTS, (5, 2, -1, 1), (1, 2, 1, 1)]),
    "a circle": tree([*ROOTS, (1, 2, 1, 1), (1, 2, -1, 1), (7, 3, 1, 1), (6, 3, -1, 1)]),
    "a parent before all": tree([*ROOTS, (-2, 2, -1, 1), (-2, 2, 1, 1)]),
    "a neuron that is none": tree([*ROOTS, (1, 4, -1, 1), (1, 4, 1, 1)]),
    "a neuron before all": tree([*ROOTS, (1, -1, -1, 1), (1, -1, 1, 1)]),
    "a negative disjunct": tree([(-1, -1, 0, -1), *BOTH[1:]]),
    "an inner leaf": tree(BOTH, [0, 1, 2, 3, 4, 5]),
    "below a leaf": tree([*BOTH, (5, 3, 1, 1), (5, 3, -1, 1)], [2, 3, 4, 5]),
    "no leaves": tree(BOTH, []),
    "a leaf twice": tree(BOTH, [2, 3, 4, 4]),
    "a leaf that is none": tree(BOTH, [2, 3, 4, 6]),
    "a negative leaf": tree(BOTH, [2, 3, 4, -1]),
    "a node that is none": tree(BOTH, node=[1, 1, 3, 1]),
    "a negative node": tree(BOTH, node=[1, 1, -1, 1]),
    "a negative place": tree(BOTH, index=[0, 1, -2, 3]),
    "a place too few": tree(BOTH, index=[0, 1, 2]),
    "slopes too few": tree(BOTH, alpha=np.zeros((4, 3), dtype=np.uint16)),
    "slopes of fewer leaves": tree(BOTH, alpha=np.zeros((3, 4), dtype=np.uint16)),
    "too large": tree([*ROOTS, *[(-1, -1, 0, 1)] * 60_000]),
    "other entries than it says": tree(BOTH, entries=7),
    "other leaves than it says": tree(BOTH, leaves=2),
    "other layers": tree(BOTH, layout=(2, 6, 4)),
    "arrays of two dimensions": tree(BOTH, disjunct=np.zeros((6, 2), dtype=np.int32)),
    "a multiplier's leaf": tree(BOTH, beta_leaf=[4], beta_neuron=[0], beta=np.ones(1, dtype=np.float32)),
    "a multiplier's neuron": tree(BOTH, beta_leaf=[0], beta_neuron=[4], beta=np.ones(1, dtype=np.float32)),
    "a multiplier's place": tree(BOTH, beta_leaf=[-1], beta_neuron=[0], beta=np.ones(1, dtype=np.float32)),
    **{
        f"a multiplier of {value}": tree(
            BOTH, beta_leaf=[0], beta_neuron=[2], beta=np.array([value], dtype=np.float32)
        )
        for value in (-1, np.nan, np.inf, -np.inf, 1e30)
    },
}  # fmt: skip


@pytest.mark.parametrize("what", PARTIAL)
def test_trees_that_no_search_wrote_are_refused(what: str, questions: list[Question]) -> None:
    verdicts = rightly(questions, lambda question: PARTIAL[what].save(question.file))
    for verdict in verdicts[:3]:
        assert "a stored proof was not used" in verdict.detail
        assert "leaves from the proof" not in verdict.detail


ODD: dict[str, Proof] = {
    "a child of another disjunct": tree([*ROOTS, (1, 2, 1, 0), (1, 2, -1, 0)]),
    "a subtree of another disjunct": tree([*ROOTS, (1, 2, 1, 7), (1, 2, -1, 9)]),
    "no root for a disjunct": tree([(-1, -1, 0, 0), (0, 0, 1, 0), (0, 0, -1, 0)]),
    "roots of disjuncts that there are not": tree([(-1, -1, 0, 5), (-1, -1, 0, 2**31 - 1)]),
    "roots twice": tree([BOTH[1], BOTH[1], *[(-1, -1, 0, 0)] * 2, (0, 2, 1, 1), (0, 2, -1, 1)]),
    "roots only": tree(BOTH[:2]),
    "roots with phases": tree([(-1, 2, -1, 0), (-1, 2, -1, 1)]),
    "fewer leaves than ends": tree(BOTH, [5]),
    "one neuron again and again": tree(repeated(2, 5)),
    "one neuron under two names": tree(repeated(3, 5), index=[0, 1, 2, 2]),
    "one name for all": tree(repeated(3, 2), index=[2] * 4),
    "a neuron that is always active": tree(BOTH, index=[0, 1, 4, 3]),
    "a neuron that is never active": tree(BOTH, index=[0, 1, 5, 3]),
    "stable neurons alone": tree(repeated(1, 3), index=[4, 5, 4, 5]),
    "inputs": tree(BOTH, node=[0] * 4, index=[0, 1, 0, 1]),
    "outputs": tree(BOTH, node=[2] * 4, index=[0, 1, 2, 0]),
    "inputs and outputs": tree(repeated(3, 3), node=[0, 0, 2, 2], index=[1, 0, 2, 1]),
    "places beyond the node": tree(BOTH, index=[6, 2**31 - 1, 10**6, 7]),
    "neurons exchanged": tree(BOTH, index=[3, 2, 1, 0]),
    "slopes of 0": tree(BOTH, alpha=np.zeros((4, 4), dtype=np.uint16)),
    "no unstable neurons": tree(BOTH[:2], node=[], index=[], alpha=np.zeros((2, 0), dtype=np.uint16)),
    "large multipliers": tree(
        BOTH, beta_leaf=[0, 1, 2, 3], beta_neuron=[0, 0, 2, 2], beta=np.full(4, 1e11, dtype=np.float32)
    ),
    **{
        f"a summary with {name} {value}": tree(BOTH, **{name: value})
        for name, value in (
            ("crown", (float("nan"),) * 2), ("crown", (float("-inf"),) * 2), ("proved", (float("inf"),) * 2),
            ("crown", ()), ("status", "sat"), ("network", ""), ("witness", 7),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_odd_trees_that_cover_the_box_are_harmless(what: str, questions: list[Question]) -> None:
    rightly(questions, lambda question: ODD[what].save(question.file))


HEADERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a negative size": shape("node", -4),
    "a huge size": shape("node", 2**62),
    "a huge size and none": shape("alpha", 0, 10**30),
    "a size that is none": lambda header: header["shapes"].update(node="four"),
    "no shapes": lambda header: header.pop("shapes"),
    "no checksum": lambda header: header.pop("crc32"),
    "arrays that aren't packed": lambda header: header.update(packed=True),
    "fewer bounds than CROWN's": altered(proved=[1.0]),
    "more bounds than CROWN's": altered(proved=[1.0, 1.0, 1.0]),
    "bounds that are none": altered(crown=["a", "b"]),
    "a bound alone": altered(crown=1.0),
    "infinitely many entries": altered(entries=float("inf")),
    "no leaves": altered(leaves=-1),
    "no layout": altered(layout=None),
    "an endless number": altered(witness="9" * 5000),
    "no summary": lambda header: header.update(summary=[]),
    "another schema": lambda header: header.update(schema_version=[float("nan")]),
}


@pytest.mark.parametrize("what", HEADERS)
def test_headers_that_no_search_wrote_are_refused(what: str, questions: list[Question]) -> None:
    verdicts = rightly(questions, lambda question: rewrite(tree(BOTH), question.file, HEADERS[what]))
    assert "a stored proof was not used" in verdicts[0].detail


@pytest.mark.parametrize("name", ["node", "index", "parent", "neuron", "sign", "disjunct", "leaf", "alpha"])
def test_arrays_without_a_dimension_are_refused(name: str, questions: list[Question]) -> None:
    """Numbers in the place of arrays of one, so that the length of the file is right."""
    one = tree(BOTH[:1], node=[1], index=[0], alpha=np.zeros((1, 1), dtype=np.uint16))
    verdicts = rightly(questions, lambda question: rewrite(one, question.file, shape(name)))
    assert "a stored proof was not used" in verdicts[0].detail


def test_trees_that_would_fill_the_memory_are_refused(questions: list[Question]) -> None:
    """Small in its file, and large with the slopes of all neurons that are unstable here."""
    question = questions[0]
    tree([*BOTH, *[(-1, -1, 0, 0)] * 59_000]).save(question.file)
    verifier = bab(question.query.onnx, proofs=str(question.file.parent), memory_mb=1)
    verdict = verifier.solve([question.query])[0]
    assert verdict.status is Status.UNSAT
    assert "more than the limit of 1 MiB" in verdict.detail


@pytest.mark.slow
def test_headers_that_are_no_objects_are_refused(questions: list[Question]) -> None:
    for text in (b"", b"[]", b"null", b"{}", b"3", b"[" * 20_000, b"\xff\xfe", b'{"schema_version": 3}'):
        content = MAGIC + START.pack(len(text), zlib.crc32(text)) + text
        verdicts = rightly(questions, lambda question, content=content: question.file.write_bytes(content))  # type: ignore[misc]
        assert "a stored proof was not used" in verdicts[0].detail


def test_what_unpacks_to_too_much_is_refused(questions: list[Question], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunecert.verifiers.sparse.proofs.file._MOST_BYTES", 2**16)
    body = zlib.compress(bytes(2**24))
    verdicts = rightly(
        questions,
        lambda question: rewrite(tree(BOTH), question.file, lambda header: header.update(packed=True), body),
    )
    assert "too large" in verdicts[0].detail


def test_a_header_says_nothing_that_the_body_must_prove(questions: list[Question]) -> None:
    """The header of a tree that promises everything, over bodies of trees that prove less."""
    whole = asdict(tree(BOTH).summary)
    for proof in (tree(BOTH[:2]), tree([*ROOTS, (1, 3, 1, 1), (1, 3, -1, 1)]), tree(BOTH[:4])):
        lying = {**whole, "entries": len(proof.parent), "leaves": len(proof.leaf)}
        rightly(questions, lambda question, p=proof, s=lying: rewrite(p, question.file, altered(**s)))  # type: ignore[misc]


@pytest.mark.parametrize("then", ["gone", "cut", "partial", "roots", "larger", "other"])
def test_a_file_that_changes_between_header_and_body(
    then: str, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    later = {
        "partial": PARTIAL["a missing sibling"],
        "roots": ODD["roots only"],
        "larger": ODD["one neuron again and again"],
        "other": PARTIAL["other layers"],
    }

    def glanced(path: Path) -> ProofSummary:
        summary = glance(path)
        if then == "gone":
            path.unlink()
        elif then == "cut":
            path.write_bytes(path.read_bytes()[:-2])
        else:
            later[then].save(path)
        return summary

    monkeypatch.setattr("prunecert.verifiers.sparse.proofs.store.glance", glanced)
    verdicts = rightly(questions, lambda question: tree(BOTH).save(question.file))
    assert ("was not used" in verdicts[0].detail) == (then not in ("roots", "larger"))


POINTS: dict[str, npt.NDArray[np.float32]] = {
    name: np.array(values, dtype=np.float32)
    for name, values in {
        "no numbers": [np.nan, np.nan],
        "infinite": [np.inf, -np.inf],
        "out of the box": [0.0, 30.0],
        "at the end of the numbers": [-3.4e38, 3.4e38],
        "too short": [1.0],
        "too long": [0.0, 1.0, 0.0],
        "none": [],
        "safe": [0.0, -1.0],
        "denormal": [1e-45, -1e-45],
    }.items()
}


@pytest.mark.parametrize("what", POINTS)
def test_stored_points_are_evaluated_and_within_the_box(what: str, questions: list[Question]) -> None:
    for question in questions:
        for steps in (0, 1):
            question.clear()
            question.store.keep_witness(key(question.query), POINTS[what])
            tree(BOTH).save(question.file)
            verdict = question.verifiers[steps].solve([question.query])[0]
            assert verdict.status is question.answer, verdict
            if verdict.witness is not None:
                assert (np.abs(verdict.witness) <= 1).all()


@pytest.mark.slow
def test_random_trees_change_no_answer(questions: list[Question]) -> None:
    rng = np.random.default_rng(3)
    accepted = 0
    for _ in range(40):
        proof = random_tree(rng)
        try:
            proof.check()
            accepted += 1
        except RefusedProofError:
            pass
        rightly(questions, lambda question, p=proof: p.save(question.file))  # type: ignore[misc]
    assert 10 < accepted < 36
