"""What the verifiers that only bound share: the clock of a batch, and the words for what stays open."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from prunecert.verifiers.base import Status, Verdict

Item = TypeVar("Item")


def in_time(
    parts: Iterable[Sequence[Item]], limit: float, solve: Callable[[Sequence[Item]], list[Verdict]]
) -> list[Verdict]:
    """Solves a batch part by part; parts whose turn comes after the limit are timeouts.

    Args:
        parts: What to solve, in order.
        limit: Seconds for all of them, looked at before each.
        solve: Answers a part.

    Returns:
        A verdict for each item.
    """
    begin = time.perf_counter()
    verdicts: list[Verdict] = []
    for part in parts:
        if time.perf_counter() - begin > limit:
            late = Verdict(Status.TIMEOUT, "the time of the batch was over before its turn")
            verdicts += [late] * len(part)
        else:
            verdicts += solve(part)
    return verdicts


def what_is_open(bounds: Sequence[float], margin: float = 0.0) -> str:
    """Says how far from a proof the bounds of an instance's disjuncts are.

    Args:
        bounds: A bound for each.
        margin: What each must exceed.
    """
    lowest = min(bounds, default=0.0)
    return f"lowest bound {lowest:.4g}, {sum(bound <= margin for bound in bounds)} of {len(bounds)} open"
