from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.results.words import duration
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.bench.running.progress import Display, Estimate
from prunecert.verifiers.base import Status, Times, Verdict
from tests.bench.running.test_cascade import stage


def plan(*stages: Any) -> CellPlan:
    fake = SimpleNamespace(stages=stages, cell=SimpleNamespace(network="net", name="cell"))
    return cast(CellPlan, fake)


def verdicts(status: Status, seconds: float, count: int) -> list[Verdict]:
    return [Verdict(status, times=Times(wall_s=seconds))] * count


def test_the_time_to_go_is_foretold_from_cost_and_share_decided() -> None:
    stages = (stage("cheap", batch=10), stage("dear"))
    cascades = [CellCascade(number, stages, range(10)) for number in range(2)]
    estimate = Estimate([plan(*stages)] * 2, cascades, workers=2)
    (first,), (second,) = cascades[0].release(), cascades[1].release()
    # Nothing seen yet: every image at every verifier's limit (1 s), on two workers.
    assert estimate.remaining_s() == (20.0, True)
    answers = [*verdicts(Status.UNSAT, 0.1, 8), *verdicts(Status.UNKNOWN, 0.1, 2)]
    estimate.add(first, answers)
    dear = cascades[0].record(first, [v.status for v in answers])
    # Two images are left here; the other cell takes 10 x 0.1 s and will leave 2 as well; `dear` is still unknown.
    seconds, bound = estimate.remaining_s()
    assert seconds == pytest.approx((2 * 1.0 + 10 * 0.1 + 2 * 1.0) / 2)
    assert bound
    estimate.add(dear[0], verdicts(Status.UNSAT, 5.0, 1))
    cascades[0].record(dear[0], [Status.UNSAT])
    seconds, bound = estimate.remaining_s()
    assert seconds == pytest.approx((1 * 5.0 + 10 * 0.1 + 2 * 5.0) / 2)
    assert not bound
    estimate.add(dear[1], verdicts(Status.TIMEOUT, 5.0, 1))
    cascades[0].record(dear[1], [Status.TIMEOUT])
    estimate.add(second, verdicts(Status.UNSAT, 0.1, 10))
    cascades[1].record(second, [Status.UNSAT] * 10)
    assert estimate.remaining_s()[0] == 0


def shown(terminal: bool) -> str:
    stream = io.StringIO()
    stages = (stage("cheap", batch=2),)
    cascade = CellCascade(0, stages, range(4))
    console = Console(file=stream, force_terminal=terminal, width=150, color_system=None)
    with Display(console, [plan(*stages)], [cascade], 1) as display:
        for batch in cascade.release():
            assert isinstance(batch, Batch)
            answers = verdicts(Status.UNSAT, 0.1, 2)
            display.answered(batch, answers)
            cascade.record(batch, [v.status for v in answers])
            display.refresh()
    return stream.getvalue()


def test_without_a_terminal_there_are_plain_lines_only() -> None:
    text = shown(terminal=False)
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0] == "to do: cells 0/1 · images 0/4 · at most 4 s to go"
    assert lines[-1] == "cells 1/1 · images 4/4 · unsat 4 · cheap on cell"


def test_in_a_terminal_there_is_a_bar() -> None:
    text = shown(terminal=True)
    assert "4/4" in text
    assert "cells 1/1 · unsat 4" in text


def test_durations_are_written_as_people_read_them() -> None:
    assert [duration(s) for s in (0.4, 59.4, 61, 3599, 7800)] == [
        "0 s",
        "59 s",
        "1 min 01 s",
        "59 min 59 s",
        "2 h 10 min",
    ]
