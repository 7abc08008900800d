"""Answers about pairs are counted apart, and held against the verdicts on either network."""

from __future__ import annotations

from typing import Any

from prunecert.bench.results.pairs import broken
from prunecert.bench.results.summary import Rows, summary_of
from tests.bench.rowkit import all_typed
from tests.fuzz.rows import pair_rows


def summary(change: Any = lambda row: row) -> dict[str, Any]:
    rows = Rows()
    rows.add(all_typed([change(row) for row in pair_rows()]))
    return summary_of(rows)


def test_shares_are_of_all_images() -> None:
    (pair,) = summary()["pairs"]
    assert (pair["name"], pair["partner"], pair["images"], pair["finished"]) == ("c", "d", 2, True)
    assert (pair["same"]["k"], pair["different"]["k"], pair["undecided"]["total"]) == (1, 1, 0)
    assert pair["decided_by"] == {"sparse-pair": {"unsat": 1, "sat": 1}}


def test_a_proof_that_the_verdicts_refute_is_named() -> None:
    """Image 0: the dense network is proved, the pair is alike, and yet the pruned one is broken."""
    (item,) = summary()["contradictions"]
    assert item == {
        "cell": "c", "image": 0, "unsat_by": "bab on d, with sparse-pair on the pair,", "sat_by": "bab",
        "question": "o",
    }  # fmt: skip


def test_what_proves_less_refutes_nothing() -> None:
    def margin(row: dict[str, Any]) -> dict[str, Any]:
        if row["type"] == "session":
            row["cells"][0]["pairs"][0]["alike"] = "class:0.5"
        return row

    def elsewhere(row: dict[str, Any]) -> dict[str, Any]:
        if row["type"] == "session":
            row["cells"][1]["eps"] = "1/255"
        return row

    def ball(row: dict[str, Any]) -> dict[str, Any]:
        if row["type"] == "session":
            row["cells"][1]["norm"] = "l2"
        return row

    assert not summary(margin)["contradictions"]
    assert not summary(ball)["contradictions"]
    assert not summary(elsewhere)["contradictions"]


def test_two_verifiers_that_disagree_about_a_pair_are_a_contradiction() -> None:
    rows = Rows()
    more = {"type": "pair", "key": "other", "image": 0, "status": "sat", "verifier": "sparse-bab"}
    rows.add(all_typed([*pair_rows(), more]))
    assert {"cell": "c with d", "image": 0, "unsat_by": "sparse-pair", "sat_by": "sparse-bab", "question": "p"} in (
        rows.contradictions()
    )


def test_who_failed_every_time_is_broken_and_missing_answers_are_missed() -> None:
    failed = summary(lambda row: {**row, "status": "error"} if row["type"] == "pair" else row)
    assert broken(failed["pairs"]) == failed["broken_verifiers"] == ["sparse-pair"]
    half = summary(lambda row: {**row, "image": 0} if row["type"] == "pair" else row)
    assert not half["finished"]
