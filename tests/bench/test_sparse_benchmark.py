"""What the benchmark of the search makes of answers."""

from __future__ import annotations

from prunecert.bench.sparse_benchmark import OURS, TimedAnswer, asked_before, ratios
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
