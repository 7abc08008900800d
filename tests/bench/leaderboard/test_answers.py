from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.leaderboard.answers import judge_protocol, judge_result, judge_verdicts
from prunecert.bench.leaderboard.entry import Entry
from prunecert.bench.leaderboard.suites import shipped_suite
from tests.bench import boards

ENTRY = boards.make()


def entry() -> Entry:
    return copy.deepcopy(ENTRY)


def test_an_honest_entry_is_judged_by_nothing() -> None:
    for judge in (judge_protocol, judge_verdicts, judge_result):
        assert list(judge(entry())) == []


def test_suites_that_do_not_ship_have_no_say() -> None:
    assert shipped_suite("made-up", "default") is None
    assert shipped_suite("cifar10-4nets", "no such profile") is None
    suite = shipped_suite("cifar10-4nets", "default")
    assert suite is not None
    assert suite.name == "cifar10-4nets"


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("timeout", 31.0, "protocol.stages[0].timeout"),
        ("everyone", False, "protocol.stages[0].everyone"),
        ("kind", "attack", "protocol.stages[0].kind"),
        ("verifier", "unheard-of", "protocol.stages[0].verifier"),
    ],
)
def test_a_stage_is_held_to_the_suites_own_words(field: str, value: Any, path: str) -> None:
    bent = entry()
    bent["protocol"]["stages"][0][field] = value
    assert path in [place for place, _ in judge_protocol(bent)]


def test_the_suites_settings_hold() -> None:
    bent = entry()
    bent["protocol"]["asked"]["settings"] = {"pgd": {"steps": 20, "restarts": 5}}
    assert [place for place, _ in judge_protocol(bent)] == ["protocol.stages[1].settings.restarts"]


@given(st.integers(0, boards.IMAGES - 2), st.sampled_from(["unsat", "unknown", "sat", "proved"]))
def test_every_flipped_answer_is_seen(place: int, status: str) -> None:
    bent = entry()
    statuses = bent["verdicts"]["ibp"]["status"]
    if statuses[place] == status:
        return
    statuses[place] = status
    # A bound proves or knows nothing; what it has proved, or not, is in the counts.
    assert list(judge_verdicts(bent)) or list(judge_result(bent))


def test_counts_follow_from_images_and_verdicts() -> None:
    bent = entry()
    bent["result"]["verified"]["k"] += 1
    bent["result"]["time"]["total_s"] *= 1 + 1e-6
    problems = dict(judge_result(bent))
    assert set(problems) == {"result.verified.k", "result.time.total_s"}
    assert "follows from images and verdicts" in problems["result.verified.k"]
    # What floating point makes of a sum on another machine is no difference.
    same = entry()
    same["result"]["time"]["total_s"] *= 1 + 1e-12
    assert list(judge_result(same)) == []
