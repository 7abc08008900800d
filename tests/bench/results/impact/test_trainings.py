"""How far another training moves a network: known deviations are found, and intervals cover what they promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prunecert.bench.results.impact.images import FloatArray
from prunecert.bench.results.impact.trainings import change_over_trainings, spread_of, trained_boards
from prunecert.bench.results.stats import holm
from tests.bench.results.impact.networks import network, proved

IMAGES = 1000
#: How much of the images a network that is better by 1 has more, near the middle.
DENSITY = 0.25


def drawn(
    rng: np.random.Generator, merits: FloatArray, *, seeds: int, by_seed: float, by_training: float
) -> FloatArray:
    """Returns answers, [methods, seeds, images]: proved is what the network's merit exceeds the difficulty of."""
    methods = len(merits)
    networks = merits[:, None] + by_seed * rng.normal(size=seeds) + by_training * rng.normal(size=(methods, seeds))
    # Difficulties are uniform, so that a merit moves the accuracy alike everywhere; a part is each network's own.
    images = rng.uniform(-2, 2, IMAGES)
    own = rng.uniform(-0.5, 0.5, (methods, seeds, IMAGES))
    return (networks[..., None] > images + own).astype(np.float64)


@pytest.mark.parametrize("by_training", [0.0, 0.04, 0.1])
def test_the_deviation_between_trainings_is_found_whatever_seeds_have_in_common(by_training: float) -> None:
    rng = np.random.default_rng(1)
    merits = rng.normal(scale=0.1, size=16)
    spreads = [spread_of(drawn(rng, merits, seeds=2, by_seed=0.2, by_training=by_training)) for _ in range(120)]
    variance = np.mean([spread.deviation**2 for spread in spreads])
    # What is less than 0 counts as 0, which without any deviation leaves some of chance.
    assert variance == pytest.approx((DENSITY * by_training) ** 2, abs=1.2e-5)
    assert {spread.freedom for spread in spreads} == {15}
    truth = DENSITY * by_training
    assert np.mean([spread.low <= truth + 1e-12 <= spread.high + 1e-9 for spread in spreads]) >= 0.9


@pytest.mark.parametrize("by_training", [0.0, 0.1])
@pytest.mark.parametrize("seeds", [2, 3])
def test_an_interval_covers_the_difference_that_other_images_and_trainings_would_have(
    seeds: int, by_training: float
) -> None:
    rng = np.random.default_rng(2)
    merits = np.linspace(-0.2, 0.2, 12)
    truth = DENSITY * (merits[7] - merits[2])
    covered, rejected, images_alone = [], [], []
    for _ in range(250):
        answers = drawn(rng, merits, seeds=seeds, by_seed=0.2, by_training=by_training)
        change = change_over_trainings(answers[7] - answers[2], spread_of(answers))
        covered.append(change.low <= truth <= change.high)
        half = 1.96 * (answers[7] - answers[2]).mean(axis=0).std() / IMAGES**0.5
        images_alone.append(abs(change.value - truth) <= half)
        # The interval and the test say the same.
        assert (change.p < 0.05) == (not change.low <= 0 <= change.high)
        rejected.append(change.p < 0.05)
    assert 0.92 <= np.mean(covered) <= 0.995
    if by_training:
        # What trainings add is there, and an interval over images alone would miss it.
        assert np.mean(images_alone) < 0.85
    assert np.mean(rejected) > 0.05


def test_two_of_each_are_needed() -> None:
    with pytest.raises(ValueError, match="need two methods, seeds and images"):
        spread_of(np.zeros((3, 1, 10)))
    # Where nothing differs there is nothing to be unsure of.
    still = spread_of(np.ones((3, 2, 10)))
    assert (still.deviation, still.high) == (0.0, 0.0)
    assert change_over_trainings(np.zeros((2, 10)), still).p == 1.0


def networks_of(pruner: str, *counts: int, first: int = 0, **more: Any) -> list[Any]:
    """Returns a network of each seed, proved on the first so many images."""
    return [network(proved(*range(count)), pruner=pruner, seed=first + at, **more) for at, count in enumerate(counts)]


def test_methods_of_a_compression_are_held_against_one_by_the_seeds_that_most_of_them_have() -> None:
    parts = [
        *networks_of("dense", 30, 32, 29),
        *networks_of("lwm", 28, 30, 31),
        *networks_of("hydra", 29, 26),
        *networks_of("harp", 20, 27),
        *networks_of("random", 24),
        *networks_of("mad", 13, 12, clean=proved(*range(13))),
        *networks_of("lwm", 5, 5, compression=100.0, clean=proved(*range(14))),
    ]
    ((board,),) = trained_boards(parts)
    assert (board.compression, board.seeds, board.images, board.metric) == (10.0, (0, 1), 40, "verified")
    assert [line.pruner for line in board.lines] == ["dense", "lwm", "hydra", "harp"]
    assert board.lines[0].by_seed == (0.75, 0.8)
    # Guessing among four classes has 25 %, and a tenth of the rest is 7.5 %: 13 of 40 images are no more.
    assert (board.collapsed, board.missing) == (("mad",), ("random",))
    changes = {line.pruner: line.change for line in board.lines}
    assert changes["lwm"] is None
    hydra = changes["hydra"]
    assert hydra is not None
    assert hydra.value == pytest.approx((29 + 26 - 28 - 30) / 80)
    # Three tests are made in the family.
    answers = np.array(
        [
            [
                part.flags("verified")
                for part in parts
                if part.cell.pruner == name and part.cell.seed < 2 and part.cell.compression in (1, 10)
            ]
            for name in ("dense", "lwm", "hydra", "harp")
        ],
        dtype=float,
    )
    spread = spread_of(answers)
    assert board.spread == spread
    raw = [change_over_trainings(answers[at] - answers[1], spread).p for at in (0, 2, 3)]
    assert [changes[name].p for name in ("dense", "hydra", "harp")] == pytest.approx(holm(raw))  # type: ignore[union-attr]


def test_three_seeds_of_few_methods_come_before_two_of_them() -> None:
    parts = [*networks_of("dense", 30, 32, 29), *networks_of("lwm", 28, 30, 31), *networks_of("hydra", 29, 26, 25)]
    ((board,),) = trained_boards(parts, against="hydra")
    assert (board.seeds, board.against, board.spread.freedom) == ((0, 1, 2), "hydra", 4)
    # Another one's absence leaves the accuracies, and compares nothing.
    ((board,),) = trained_boards(parts, against="harp")
    assert [line.change for line in board.lines] == [None, None, None]


@pytest.mark.parametrize("lacking", ["seeds", "methods", "images"])
def test_without_two_seeds_of_three_methods_there_is_no_board(lacking: str) -> None:
    parts = [*networks_of("dense", 30, 32), *networks_of("lwm", 28, 30), *networks_of("hydra", 29, 26)]
    if lacking == "seeds":
        parts = [part for part in parts if part.cell.seed == 0]
    elif lacking == "methods":
        parts = [part for part in parts if part.cell.pruner != "hydra"]
    else:
        parts = [part.only(part.numbers[20:] if part.cell.seed else part.numbers[:20]) for part in parts]
    assert trained_boards(parts) == []


def test_what_was_attacked_alone_is_compared_by_that() -> None:
    parts = [
        *networks_of("dense", 30, 32, kind="attack"),
        *networks_of("lwm", 28, 30, kind="attack"),
        *networks_of("hydra", 29, 26, kind="attack"),
    ]
    ((board,),) = trained_boards(parts)
    assert board.metric == "attacked"
