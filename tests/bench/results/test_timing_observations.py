from __future__ import annotations

from collections.abc import Sequence

from prunecert.bench.results.timing_observations import Observation, cost, units


def observed(seconds: Sequence[float], statuses: str = "", repeats: int = 1) -> dict[tuple[int, int], Observation]:
    words = {"u": "unsat", "s": "sat", "t": "timeout"}
    return {
        (repeat, image): Observation(value, words[(statuses or "u" * len(seconds))[image]], 10 * (image + 1), 4)
        for repeat in range(1, repeats + 1)
        for image, value in enumerate(seconds)
    }


def test_units_are_images_or_questions_asked_together() -> None:
    places = {0: 0, 1: 1, 2: 2}
    single = {
        **observed([1.0, 2.0, 3.0]),
        (2, 0): Observation(3.0, "unsat", 10, 4),
        (3, 0): Observation(2.0, "timeout", 10, 4),
    }
    apart = units(single, 1, places)
    assert apart.seconds == {(0, 0): 2.0, (0, 1): 2.0, (0, 2): 3.0}
    assert apart.decided == {(0, 0): False, (0, 1): True, (0, 2): True}
    assert apart.unstable == 20.0
    assert apart.domains == 4.0
    together = units(observed([1.0, 1.0, 5.0], repeats=2), 2, places)
    assert together.seconds == {(1, 0): 1.0, (1, 1): 5.0, (2, 0): 1.0, (2, 1): 5.0}


def test_par2_counts_the_undecided_twice_the_limit() -> None:
    assert cost(3.0, True, 10.0) == 3.0
    assert cost(3.0, False, 10.0) == 20.0
    assert cost(11.0, True, 10.0) == 20.0
    assert cost(11.0, False, None) == 11.0
