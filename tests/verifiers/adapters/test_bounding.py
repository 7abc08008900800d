"""A batch is bounded part by part while there is time, and what is open is counted."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from prunecert.verifiers.adapters.bounding import in_time, what_is_open
from prunecert.verifiers.base import Status, Verdict


def test_parts_after_the_limit_are_timeouts_and_the_others_are_solved_in_order() -> None:
    parts = [["a", "b"], ["c"], ["d", "e"]]

    def solve(part: Sequence[str]) -> list[Verdict]:
        if "c" in part:
            time.sleep(0.2)
        return [Verdict(Status.UNKNOWN, item) for item in part]

    assert [verdict.detail for verdict in in_time(parts, 60.0, solve)] == ["a", "b", "c", "d", "e"]
    late = in_time(parts, 0.1, solve)
    assert [verdict.status for verdict in late] == [Status.UNKNOWN] * 3 + [Status.TIMEOUT] * 2
    assert in_time([], 1.0, solve) == []


@pytest.mark.parametrize(
    ("bounds", "margin", "said"),
    [
        ([0.5, -1.25, 2.0], 0.0, "lowest bound -1.25, 1 of 3 open"),
        ([0.5, 0.0], 0.6, "lowest bound 0, 2 of 2 open"),
        ([], 0.0, "lowest bound 0, 0 of 0 open"),
    ],
)
def test_what_is_open_is_counted(bounds: list[float], margin: float, said: str) -> None:
    assert what_is_open(bounds, margin) == said
