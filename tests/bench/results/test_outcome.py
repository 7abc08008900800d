"""One meaning of answers, stated a second time as a definition that takes no short cut."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.bench.results.outcome import Contradiction, Outcome, contradictions, disputes, seconds, settle
from prunecert.bench.results.row_types import PhaseTimes
from prunecert.verifiers.base import Status


class Step(NamedTuple):
    verifier: str
    everyone: bool = False
    timeout: float = 10.0


class Said(NamedTuple):
    status: str
    seconds: float


STATUSES = [str(status) for status in Status]
said = st.builds(Said, st.sampled_from(STATUSES), st.floats(0, 9))
cascades = st.lists(st.tuples(st.booleans(), st.none() | said), max_size=5)


@given(cascades)
@settings(deadline=None)
def test_an_outcome_is_what_its_definition_says(cascade: list[tuple[bool, Said | None]]) -> None:
    stages = [Step(f"v{place}", everyone) for place, (everyone, _) in enumerate(cascade)]
    answers = [answer for _, answer in cascade]
    outcome = settle(stages, answers)
    given_ = [(stage, answer) for stage, answer in zip(stages, answers, strict=True) if answer is not None]
    deciding = [place for place, (_, answer) in enumerate(given_) if answer.status in ("unsat", "sat")]
    counted = given_[: deciding[0] + 1] if deciding else given_
    assert outcome.seconds == pytest.approx(sum(answer.seconds for _, answer in counted))
    if not deciding:
        assert (outcome.by, outcome.share) == (None, 0.0)
        assert outcome.status == (given_[-1][1].status if given_ else "unknown")
    else:
        broken = [stage.verifier for stage, answer in given_ if answer.status == "sat"]
        assert outcome.status == ("sat" if broken else "unsat")
        assert outcome.by == (broken[0] if broken else given_[deciding[0]][0].verifier)
        assert outcome.share == counted[-1][1].seconds / 10.0
    open_before = [
        stage
        for place, (stage, answer) in enumerate(zip(stages, answers, strict=True))
        if answer is None
        and (stage.everyone or not any(a is not None and a.status in ("unsat", "sat") for a in answers[:place]))
    ]
    assert outcome.complete == (not open_before)


@given(cascades)
@settings(deadline=None)
def test_without_the_rule_on_contradictions_the_first_decision_stands(cascade: list[tuple[bool, Said | None]]) -> None:
    stages = [Step(f"v{place}", everyone) for place, (everyone, _) in enumerate(cascade)]
    answers = [answer for _, answer in cascade]
    plain, broken = settle(stages, answers, breaking=False), settle(stages, answers)
    statuses = [answer.status for answer in answers if answer is not None and answer.status in ("unsat", "sat")]
    if statuses:
        assert plain.status == statuses[0]
    assert plain._replace(status="", by=None) == broken._replace(status="", by=None)
    assert plain == broken or (plain.status, broken.status) == ("unsat", "sat")


def test_an_outcome_is_text_that_json_takes() -> None:
    outcome = settle([Step("a")], [Said(Status.UNSAT, 1.0)])
    assert outcome == Outcome("unsat", "a", 1.0, 0.1)
    assert type(outcome.status) is str


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from(STATUSES), st.integers())))
@settings(deadline=None)
def test_contradictions_are_questions_answered_both_ways(claims: list[tuple[str, str, int]]) -> None:
    answers = {item.question: (item.proved, item.broken) for item in contradictions(claims)}
    for question in "pqr":
        proved = [who for about, status, who in claims if about == question and status == "unsat"]
        broken = [who for about, status, who in claims if about == question and status == "sat"]
        assert answers.get(question) == ((proved[0], broken[0]) if proved and broken else None)


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from(STATUSES), st.integers())))
@settings(deadline=None)
def test_a_dispute_names_all_sides(
    claims: list[tuple[str, str, int]],
) -> None:
    all_sides = disputes(claims)
    assert [Contradiction(item.question, item.proving[0], item.breaking[0]) for item in all_sides] == contradictions(
        claims
    )
    for question, proving, breaking in all_sides:
        assert list(proving) == [who for about, status, who in claims if (about, status) == (question, "unsat")]
        assert list(breaking) == [who for about, status, who in claims if (about, status) == (question, "sat")]


def test_seconds_leave_out_starting_and_loading_unless_asked() -> None:
    times = PhaseTimes(start_s=4.0, load_s=1.0, wall_s=3.0)
    assert seconds(None) == 0.0
    assert seconds(times) == 2.0
    assert seconds(times, including=["load"]) == 3.0
    assert seconds(times, including=("load", "start")) == 7.0
