"""What the benchmark of the search makes of answers."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from prunecert.bench.engine.answers import (
    Published,
    TimedAnswer,
    asked_before,
    beside,
    by_outcome,
    contradictions,
    ratios,
    reuse_summary,
    show,
    table,
    write,
)
from prunecert.bench.engine.complete import OURS
from prunecert.errors import UserError
from prunecert.verifiers.base import Status

PROOFS = f"{OURS} + proofs"


def answers(network: str, seconds: dict[int, tuple[float, float]]) -> list[TimedAnswer]:
    """Returns answers about images: seconds without and with proofs."""
    return [
        TimedAnswer(network, image, name, Status.UNSAT, value, 1, "")
        for image, pair in seconds.items()
        for name, value in zip((OURS, PROOFS), pair, strict=True)
    ]


def test_images_are_told_apart_by_whether_an_earlier_network_was_asked() -> None:
    timed = [
        *answers("a", {0: (1, 1), 1: (1, 1)}),
        *answers("b", {0: (6, 2), 2: (1, 2)}),
        *answers("c", {1: (4, 1), 2: (5, 1), 3: (1, 1)}),
    ]
    pairs = asked_before(timed)
    assert pairs == {("b", 0), ("c", 1), ("c", 2)}
    earlier = ratios(timed, PROOFS, [OURS], lambda answer: (answer.network, answer.image) in pairs)
    assert earlier == [3, 4, 5]
    new = ratios(timed, PROOFS, [OURS], lambda a: a.network != "a" and (a.network, a.image) not in pairs)
    assert new == [0.5, 1]


def test_summaries_say_what_is_compared_with_what() -> None:
    timed = [*answers("a", {0: (1, 1)}), *answers("b", {0: (6, 2), 1: (8, 2)})]
    assert reuse_summary(timed, PROOFS, OURS, "a") == [
        "ratio an image (without proofs over with, after the first network): median 3.50, quartiles 3.25 to 3.75, "
        "2 images",
        "  open at an earlier network, too: median 3.00, quartiles 3.00 to 3.00, 1 image",
        "  open for the first time: median 4.00, quartiles 4.00 to 4.00, 1 image",
    ]


def test_a_ratio_counts_what_somebody_decides_and_the_limit_for_who_does_not() -> None:
    names = (OURS, "quick", "slow")
    said = {
        # By image, verifier by verifier: what is said, and after how many seconds.
        0: [(Status.UNSAT, 1.0), (Status.UNKNOWN, 0.1), (Status.UNSAT, 8.0)],
        1: [(Status.UNSAT, 1.0), (Status.UNSAT, 4.0), (Status.TIMEOUT, 12.0)],
        2: [(Status.SAT, 2.0), (Status.SAT, 1.0), (Status.SAT, 3.0)],
        3: [(Status.TIMEOUT, 10.0), (Status.UNKNOWN, 0.1), (Status.TIMEOUT, 11.0)],
        4: [(Status.TIMEOUT, 9.0), (Status.UNKNOWN, 0.1), (Status.UNSAT, 5.0)],
    }
    timed = [
        TimedAnswer("a", image, name, status, seconds, 1, "")
        for image, own in said.items()
        for name, (status, seconds) in zip(names, own, strict=True)
    ]
    whole = by_outcome(timed, OURS, 10.0)
    assert [heading for heading, _ in whole.columns][1:4] == [f"{name} s" for name in names]
    # 8/1, 4/1 and 5/10; 1/2; and of all five the four that somebody decides.
    assert whole.rows == [
        ["3 that hold", "1 (1)", "0.1 (2)", "8 (1)", "4 (2.2–6)"],
        ["1 that don't", "2 (0)", "1 (0)", "3 (0)", "0.5 (0.5–0.5)"],
        ["all 5, 1 decided by nobody", "2 (2)", "0.1 (3)", "8 (2)", "2.2 (0.5–5)"],
    ]
    assert by_outcome([answer for answer in timed if answer.verifier == OURS], OURS, 10.0).rows[0][-1] == ""


def test_what_is_not_decided_counts_with_twice_the_limit() -> None:
    proved, other = answers("a", {0: (1, 3)})
    lost = replace(other, verifier=OURS, image=1, status=Status.TIMEOUT, seconds=10.0)
    row = table([proved, lost], 10.0).markdown()[-1]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        *("a", OURS, "2", "1", "0", "1", "5.500", "3.250–7.750", "9.100", "9.910", "5.500", "10.500", "1.0")
    ]


def test_a_narrow_screen_gets_a_small_table_for_each_network(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"cnn-small_mtl-ibp_eps2_lwm_x{compression}_s0.compact.onnx" for compression in (10, 100)]
    whole = table([answer for name in names for answer in answers(name, {0: (1, 3), 1: (2, 4)})], 10.0)
    screen = io.StringIO()
    show(whole, Console(file=screen, width=80, force_terminal=True, color_system=None))
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.strip() for line in lines if ".onnx" in line] == [f"{name}, 2 answers each" for name in names]
    assert sum(OURS in line and "1.500" in line for line in lines) == 2
    show(whole, Console(width=80, force_terminal=False))
    assert capsys.readouterr().out.splitlines() == [*whole.markdown(), ""]


def test_percentiles_stand_beside_published_ones_where_such_are_given() -> None:
    figures = Published.parse("α,β-CROWN, a GPU = 1.24,3.2,32.6".replace(" = ", "="))
    assert figures == Published("α,β-CROWN, a GPU", {"median": 1.24, "p90": 3.2, "p99": 32.6})
    timed = [TimedAnswer("a", image, OURS, Status.UNSAT, image / 100, 1, "") for image in range(101)]
    timed[-1] = replace(timed[-1], status=Status.TIMEOUT)
    assert beside(timed, []) == []
    assert beside(timed, [figures]) == [
        f"a, {OURS}, 101 answers, 1 undecided, beside what is published of α,β-CROWN, a GPU: median 0.500 s beside "
        "1.24 s (2.48 times), p90 0.900 s beside 3.2 s (3.56 times), p99 0.990 s beside 32.6 s (32.93 times)"
    ]


@pytest.mark.parametrize("text", ["", "1,2,3", "=1,2,3", "x=1,2", "x=1,2,3,4", "x=1,2,fast", "x=0,1,2", "x=1,2,inf"])
def test_published_figures_are_three_times(text: str) -> None:
    with pytest.raises(UserError, match="allowed is NAME=MEDIAN,P90,P99, seconds above 0"):
        Published.parse(text)


def test_an_image_that_is_proved_and_broken_is_named(tmp_path: Path) -> None:
    proved, other = answers("a", {0: (1, 3)})
    assert contradictions([proved, other]) == []
    assert contradictions([proved, replace(other, status=Status.SAT)]) == [
        f"a, image 0: sat by {PROOFS} and unsat by {OURS}"
    ]
    write([proved, other], tmp_path / "new" / "answers.json")
    assert [row["status"] for row in json.loads((tmp_path / "new" / "answers.json").read_text())] == ["unsat"] * 2
