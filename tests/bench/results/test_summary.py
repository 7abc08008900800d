from __future__ import annotations

import pytest

from prunecert.errors import UserError
from tests.bench.summarykit import cell, everything, image, session, summarise, verdict


def test_counts_are_those_of_the_definitions() -> None:
    summary = summarise(session(cell()), *everything())
    (counts,) = summary["cells"]
    assert (counts["clean"]["k"], counts["clean"]["n"]) == (5, 6)
    assert counts["verified"]["k"] == 2
    assert counts["attacked"]["k"] == 4
    assert counts["verified"]["low"] == pytest.approx(0.0968, abs=1e-4)
    assert counts["undecided"] == {"total": 2, "unknown": 0, "timeout": 1, "memout": 0, "error": 1, "unsupported": 0}
    assert counts["decided_by"] == {
        "ibp": {"unsat": 1, "sat": 0},
        "pgd": {"unsat": 0, "sat": 1},
        "bab": {"unsat": 1, "sat": 0},
    }
    assert counts["finished"]
    assert summary["publishable"]
    # Up to the deciding verifier, without loading: 0.001; 4.011; 0.011; 1.011; 9.011.
    assert counts["time"]["median_s"] == pytest.approx(1.011)
    assert counts["time"]["total_s"] == pytest.approx(0.001 + 4.011 + 0.011 + 1.011 + 9.011)


def test_a_proved_image_that_is_broken_counts_as_broken_and_is_named() -> None:
    summary = summarise(session(cell()), *everything(), verdict("pgd", 1, "sat"))
    (counts,) = summary["cells"]
    assert (counts["verified"]["k"], counts["attacked"]["k"]) == (1, 3)
    assert summary["contradictions"] == [
        {"cell": "c", "image": 1, "unsat_by": "ibp", "sat_by": "pgd", "question": "c1"}
    ]
    assert not summary["publishable"]


def test_rows_of_other_settings_and_images_beyond_the_set_do_not_count() -> None:
    rows = [*everything(), image(6), verdict("ibp", 6, "unsat"), {**verdict("bab", 4, "unsat"), "key": "k-old"}]
    assert summarise(session(cell()), *rows)["cells"] == summarise(session(cell()), *everything())["cells"]


def test_a_run_that_was_killed_before_it_began_is_refused() -> None:
    with pytest.raises(UserError, match="killed before it began"):
        summarise()


def test_a_later_answer_replaces_an_earlier_one() -> None:
    (counts,) = summarise(session(cell()), *everything(), verdict("bab", 4, "unsat"))["cells"]
    assert counts["verified"]["k"] == 3
    assert counts["by_verifier"]["bab"]["error"] == 0


def test_a_verifier_that_always_fails_is_broken() -> None:
    rows = [image(0), *(verdict("ibp", 0, "error"), verdict("pgd", 0, "unknown"), verdict("bab", 0, "error"))]
    assert summarise(session(cell(images=1)), *rows)["broken_verifiers"] == ["bab", "ibp"]
    assert summarise(session(cell()), *everything())["broken_verifiers"] == []
