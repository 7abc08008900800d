from __future__ import annotations

import io
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.results.words import duration
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.bench.running.priors import PRIORS
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
    # Nothing is known: neither was recorded before.
    assert estimate.remaining_s() is None
    answers = [*verdicts(Status.UNSAT, 0.1, 8), *verdicts(Status.UNKNOWN, 0.1, 2)]
    estimate.add(first, answers)
    dear = cascades[0].record(first, [v.status for v in answers])
    assert estimate.remaining_s() is None
    estimate.add(dear[0], verdicts(Status.UNSAT, 0.5, 1))
    cascades[0].record(dear[0], [Status.UNSAT])
    # One image is left here; the other cell takes 10 x 0.1 s and will leave 2 as well.
    assert estimate.remaining_s() == pytest.approx((1 * 0.5 + 10 * 0.1 + 2 * 0.5) / 2)
    estimate.add(dear[1], verdicts(Status.TIMEOUT, 0.5, 1))
    cascades[0].record(dear[1], [Status.TIMEOUT])
    estimate.add(second, verdicts(Status.UNSAT, 0.1, 10))
    cascades[1].record(second, [Status.UNSAT] * 10)
    assert estimate.remaining_s() == 0


def test_what_was_recorded_before_is_the_first_guess_and_is_scaled_by_what_is_measured() -> None:
    stages = (replace(stage("sparse-ibp", batch=10), timeout=60.0), replace(stage("sparse-bab"), timeout=60.0))
    for network, recorded in (("cnn-small", True), ("a stranger's", False)):
        fake = SimpleNamespace(stages=stages, cell=SimpleNamespace(network=network, name="cell"))
        cascade = CellCascade(0, stages, range(10))
        estimate = Estimate([cast(CellPlan, fake)], [cascade], workers=1)
        (first,) = cascade.release()
        ibp, bab = PRIORS["sparse-ibp"], PRIORS["sparse-bab"]
        guess = estimate.remaining_s()
        assert guess == (pytest.approx(10 * ibp.seconds + 10 * ibp.undecided * bab.seconds) if recorded else None)
        # Ten times as dear as in the recorded run, and half of the images stay open.
        answers = [*verdicts(Status.UNSAT, 10 * ibp.seconds, 5), *verdicts(Status.UNKNOWN, 10 * ibp.seconds, 5)]
        estimate.add(first, answers)
        cascade.record(first, [v.status for v in answers])
        assert estimate.remaining_s() == pytest.approx(5 * 10 * bab.seconds)


def test_starting_and_loading_is_no_part_of_an_images_cost() -> None:
    stages = (stage("cheap", batch=1),)
    cascade = CellCascade(0, stages, range(3))
    estimate = Estimate([plan(*stages)], [cascade], workers=1)
    first = cascade.release()[0]
    slow = Verdict(Status.UNSAT, times=Times(start_s=300.0, load_s=20.0, wall_s=20.5))
    estimate.add(first, [slow])
    cascade.record(first, [slow.status])
    assert estimate.remaining_s() == pytest.approx(1.0)


def shown(terminal: bool, width: int = 150, name: str = "cell") -> str:
    stream = io.StringIO()
    stages = (stage("cheap", batch=2),)
    of_cell = cast(CellPlan, SimpleNamespace(stages=stages, cell=SimpleNamespace(network="net", name=name)))
    cascade = CellCascade(0, stages, range(4))
    console = Console(file=stream, force_terminal=terminal, width=width, color_system=None)
    with Display(console, [of_cell], [cascade], 1) as display:
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
    assert lines[0] == "to do: images 0/4 · networks 0/1 · 0 s · estimating · proved 0 · broken 0 · open 4"
    assert lines[-1] == "images 4/4 · networks 1/1 · 0 s · done · proved 4 · broken 0 · open 0 · cheap on cell"


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ["cell", "cnn-large_mtl-ibp_eps2-at1_lwm-iterative_x100_s1"])
def test_in_a_terminal_there_are_two_lines_without_a_cut_word(width: int, name: str) -> None:
    """However long the words of the second are, they take nothing from the first."""
    text = shown(terminal=True, width=width, name=name)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip("\r ") for line in text.splitlines()]
    bar, *words = [line for line in lines[max(i for i, line in enumerate(lines) if "4/4" in line) :] if line]
    assert re.fullmatch(r"images ━{20,} 4/4 \d:\d\d:\d\d done", bar)
    assert " ".join(words) == f"proved 4 · broken 0 · open 0 · cheap on {name}"
    assert max(map(len, lines)) <= width
    assert "…" not in text


def test_durations_are_written_as_people_read_them() -> None:
    assert [duration(s) for s in (0.4, 59.4, 61, 3599, 7800)] == [
        "0 s",
        "59 s",
        "1 min 01 s",
        "59 min 59 s",
        "2 h 10 min",
    ]
