"""How far another training moves a network: known deviations are found, and intervals cover what they promise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prunecert.bench.results.impact.images import FloatArray
from prunecert.bench.results.impact.pairs import families
from prunecert.bench.results.impact.trainings import change_over_trainings, spread_of, spreads_of, trained_boards
from prunecert.bench.results.stats import clustered_difference, holm
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


@pytest.mark.parametrize(("by_training", "widest"), [(0.0, 0.011), (0.03, 0.021)])
def test_networks_that_are_much_alike_have_intervals_that_cover_and_are_not_needlessly_wide(
    by_training: float, widest: float
) -> None:
    rng = np.random.default_rng(4)
    covered, halves = [], []
    for _ in range(250):
        answers = drawn(rng, np.zeros(12), seeds=2, by_seed=0.2, by_training=by_training)
        # The second network is the first one, but for a fifth of the images.
        answers[1] = np.where(rng.random(answers[0].shape) < 0.8, answers[0], answers[1])
        change = change_over_trainings(answers[1] - answers[0], spread_of(answers))
        covered.append(change.low <= 0 <= change.high)
        halves.append((change.high - change.low) / 2)
    assert np.mean(covered) >= 0.93
    # With Satterthwaite's degrees of freedom alone 0.025 and 0.024.
    assert np.mean(halves) < widest


def test_two_of_each_are_needed() -> None:
    with pytest.raises(ValueError, match="need two methods, seeds and images"):
        spread_of(np.zeros((3, 1, 10)))


def test_where_nothing_differs_an_interval_has_what_so_few_images_leave_open() -> None:
    still = spread_of(np.ones((3, 2, 10)))
    assert (still.deviation, still.high, still.share, still.uneven) == (0.0, 0.0, 0.0, False)
    none = change_over_trainings(np.zeros((2, 10)), still)
    assert (none.value, none.p) == (0.0, 1.0)
    # As over images alone, but for the quantile.
    _, low, high = clustered_difference([0] * 10, 2)
    assert none.low < low < 0 < high < none.high


def test_a_method_that_varies_more_than_the_rest_is_named() -> None:
    rng = np.random.default_rng(3)
    merits = np.zeros(12)
    alike = [spread_of(drawn(rng, merits, seeds=2, by_seed=0.1, by_training=0.06)) for _ in range(200)]
    # The test's level is 5 %.
    assert np.mean([spread.uneven for spread in alike]) < 0.09
    answers = drawn(rng, merits, seeds=2, by_seed=0.1, by_training=0.02)
    answers[4, 0] = rng.random(IMAGES) < 0.3
    answers[4, 1] = rng.random(IMAGES) < 0.6
    spread = spread_of(answers)
    assert (spread.most, spread.uneven) == (4, True)
    assert spread.share > 0.8


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
    # The dense control stands behind the others there.
    assert board.spread == replace(spread, most=board.spread.most)
    assert board.most == ("dense", "lwm", "hydra", "harp")[spread.most]
    raw = [change_over_trainings(answers[at] - answers[1], spread).p for at in (0, 2, 3)]
    assert [changes[name].p for name in ("dense", "hydra", "harp")] == pytest.approx(holm(raw))  # type: ignore[union-attr]


def test_many_seeds_of_two_methods_do_not_cost_the_board() -> None:
    parts = [
        *networks_of("dense", 30, 32, 29, 30, 31),
        *networks_of("lwm", 28, 30, 31, 30, 29),
        *networks_of("hydra", 29, 26),
        *networks_of("harp", 20, 27),
    ]
    ((board,),) = trained_boards(parts)
    assert (board.seeds, len(board.lines)) == ((0, 1), 4)
    # Nor the method that the others are held against, where others have more seeds.
    several = [networks_of(name, 30, 31, 29) for name in ("dense", "hydra", "harp", "random", "drop-grow", "ard")]
    ((board,),) = trained_boards([*networks_of("lwm", 28, 30), *(part for own in several for part in own)])
    assert board.seeds == (0, 1)
    assert sum(line.change is not None for line in board.lines) == 6


def test_two_networks_of_one_seed_are_not_two_trainings() -> None:
    parts = [*networks_of("dense", 30, 32), *networks_of("lwm", 28, 30), *networks_of("hydra", 29, 26)]
    assert trained_boards([*parts, parts[-1]]) == []
    ((board,),) = trained_boards([*parts, *networks_of("harp", 20, 27), parts[-1]])
    assert board.missing == ("hydra",)


def test_one_attacked_alone_is_left_out_of_the_verified() -> None:
    parts = [*networks_of("dense", 30, 32), *networks_of("lwm", 28, 30), *networks_of("hydra", 29, 26)]
    ((board,),) = trained_boards([*parts, *networks_of("harp", 20, 27, kind="attack")])
    assert (board.metric, board.missing) == ("verified", ("harp",))


def test_of_images_of_one_class_nobody_has_collapsed() -> None:
    parts = [*networks_of("dense", 30, 32), *networks_of("lwm", 28, 30), *networks_of("hydra", 29, 26)]
    ((board,),) = trained_boards([part.only(part.numbers[::4]) for part in parts])
    assert (board.images, board.collapsed) == (10, ())


def test_spreads_are_told_of_each_accuracy_and_compression_with_the_dense_control_among_the_methods() -> None:
    parts = [
        *networks_of("dense", 30, 32),
        *networks_of("lwm", 28, 30),
        *networks_of("hydra", 29, 26),
        *networks_of("lwm", 20, 21, compression=4.0),
    ]
    (family,) = families(parts).values()
    spreads = spreads_of(family)
    # At 4x one method and the dense control are too few.
    assert set(spreads) == {(10.0, "clean"), (10.0, "attacked"), (10.0, "verified")}
    ((board,),) = trained_boards(parts)
    assert spreads[10.0, "verified"] == board.spread


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
