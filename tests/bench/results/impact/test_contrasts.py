"""Groups against each other: who is matched with whom, what the mean is, and how often a test without a cause fires."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from prunecert.bench.results.impact.contrasts import (
    QUESTIONS,
    ContrastLine,
    SizedNetworks,
    against,
    bootstrap,
    contrast_lines,
    matches,
)
from prunecert.bench.results.impact.images import ImageOutcomes
from prunecert.models import PRUNERS
from tests.bench.results.impact.networks import network, proved


def lines(parts: list[ImageOutcomes], macs: dict[str, float] | None = None, **fields: str) -> list[ContrastLine]:
    (board,) = contrast_lines(parts, macs or {}, repeats=400, **fields)  # type: ignore[arg-type]
    return board


def test_the_mean_is_over_the_methods_of_each_group_and_over_seeds() -> None:
    parts = [network(proved(*range(20)), pruner="dense", seed=seed) for seed in (0, 1)]
    # From scratch 10 and 30 of 40 images; pruned 16 in the one seed, 20 in the other.
    for seed, kept in ((0, 16), (1, 20)):
        parts += [
            network(proved(*range(10)), pruner="boosting", seed=seed),
            network(proved(*range(30)), pruner="robust-bird", seed=seed),
            network(proved(*range(kept)), pruner="mad", seed=seed),
            # A control is in no group.
            network(proved(), pruner="random", seed=seed),
        ]
    (line,) = [line for line in lines(parts) if line.title.startswith("masks from scratch")]
    assert (line.methods, line.others, line.seeds, line.images) == (("boosting", "robust-bird"), ("mad",), 2, 40)
    change = line.changes["verified"]
    assert change.value == pytest.approx((10 + 30) / 80 - (16 + 20) / 80)
    assert change.low < change.value < change.high
    assert line.ratio == pytest.approx(1)


def test_cells_are_matched_by_multiply_adds_where_weights_differ() -> None:
    parts = [
        network(proved(*range(20)), pruner="structured", compression=4.0),
        network(proved(*range(30)), pruner="lwm", compression=4.0),
        network(proved(*range(12)), pruner="lwm", compression=10.0),
    ]
    names = [part.cell.name for part in parts]
    by_name = {line.measure: line for line in lines(parts, dict(zip(names, (100.0, 400.0, 110.0), strict=True)))}
    assert by_name["weights"].changes["verified"].value == pytest.approx(-10 / 40)
    assert by_name["multiply-adds"].changes["verified"].value == pytest.approx(8 / 40)
    assert by_name["multiply-adds"].ratio == pytest.approx(100 / 110)
    # Of one network's multiply-adds nothing is known: it is matched with nobody.
    alone = lines(parts, dict(zip(names[:2], (100.0, 400.0), strict=True)))
    assert [line.measure for line in alone] == ["weights"]


def test_methods_with_other_rates_are_not_each_other_s_match() -> None:
    parts = [
        network(proved(*range(30)), pruner="hydra"),
        network(proved(*range(20)), pruner="lwm"),
        network(proved(*range(2)), pruner="hydra-uniform"),
    ]
    (line,) = [line for line in lines(parts) if line.title == "HYDRA against LWM"]
    # LWM with uniform rates is missing: HYDRA with them isn't held against LWM with balanced ones.
    assert (line.methods, line.others, line.unmatched) == (("hydra",), ("lwm",), ("hydra-uniform",))
    assert line.changes["verified"].value == pytest.approx(10 / 40)
    both = lines([*parts, network(proved(0), pruner="lwm-uniform")])
    (line,) = [line for line in both if line.title == "HYDRA against LWM"]
    assert (line.methods, line.others) == (("hydra", "hydra-uniform"), ("lwm", "lwm-uniform"))
    assert line.changes["verified"].value == pytest.approx((10 + 1) / 80)


def test_the_same_networks_are_not_tested_twice() -> None:
    parts = [network(proved(*range(kept)), pruner=name) for name, kept in (("lwm", 10), ("hydra", 14), ("harp", 18))]
    by_name = {part.cell.name: 100.0 for part in parts}
    assert [(line.title, line.measure) for line in lines(parts, by_name)] == [
        ("HYDRA against LWM", "weights"),
        ("rates learned from balanced ones against balanced", "weights"),
    ]
    # HARP has half of the multiply-adds: by them HYDRA at a higher compression is its match.
    more = [*parts, network(proved(*range(5)), pruner="hydra", compression=20.0)]
    by_name |= {parts[2].cell.name: 50.0, more[3].cell.name: 50.0}
    learned = [line for line in lines(more, by_name) if line.title.startswith("rates learned from balanced")]
    assert [(line.measure, line.nominal) for line in learned] == [("weights", 10.0), ("multiply-adds", 10.0)]
    assert learned[1].matched == {("harp", 10.0, "hydra", 20.0)}


def test_what_nothing_is_near_to_is_said() -> None:
    ranks = network(proved(1), pruner="cstar")
    ranks = replace(ranks, cell=msgspec.structs.replace(ranks.cell, measured_compression=12.0))
    (line,) = lines([ranks, network(proved(1, 2), pruner="structured"), network(proved(1), pruner="lwm")])
    assert (line.methods, line.others, line.unmatched) == (("structured",), ("lwm",), ("cstar",))
    assert line.changes["verified"].value == pytest.approx(1 / 40)


def test_the_nearest_within_the_tolerance_is_taken_one_of_each_method() -> None:
    def sized(pruner: str, size: float) -> SizedNetworks:
        return SizedNetworks(pruner, 1.0, size, {})

    others = [sized("a", 1.2), sized("a", 1.05), sized("b", 0.7), sized("c", 0.95)]
    assert [(one.pruner, one.size) for one in matches(sized("x", 1.0), others, 1.25)] == [("a", 1.05), ("c", 0.95)]


def test_groups_of_the_taxonomy_are_held_against_one() -> None:
    parts = [network(proved(*range(kept)), pruner=name) for name, kept in (("lwm", 10), ("hydra", 14), ("mad", 18))]
    by_name = {line.title: line for line in lines(parts, pruner="lwm")}
    assert set(by_name) == {"scope: global", "scope: local", "criterion: gradient or curvature",
                          "criterion: learned magnitude"}  # fmt: skip
    assert by_name["scope: global"].changes["attacked"].value == pytest.approx(8 / 40)
    assert against("lwm", ["lwm", "hydra"]) == []


def test_p_values_are_adjusted_for_all_tests_of_the_family() -> None:
    parts = [network(proved(*range(10)), pruner="lwm"), network(proved(*range(30)), pruner="hydra")]
    (line,) = lines(parts)
    raw = bootstrap(np.array([[1.0] * 20 + [0.0] * 20]), repeats=400).p
    # Of verified and of attacked accuracy.
    assert [change.p for change in line.changes.values()] == pytest.approx([2 * raw, 2 * raw])


def test_a_p_value_beyond_what_resamples_tell_is_no_less_than_a_sign_test_s() -> None:
    # Of 1,000 images 150 are lost and 50 gained: McNemar's exact p is 7e-13, a hundred such tests are still sure.
    many = bootstrap(np.array([[-1.0] * 150 + [1.0] * 50 + [0.0] * 800]), repeats=400)
    assert 1e-14 < many.p < 1e-9
    # Six of ten changed, all to one side: a sign test says 2^-5.
    assert bootstrap(np.array([[1.0] * 6 + [0.0] * 4]), repeats=4000).p >= 2**-5 * (1 - 1e-9)
    # Where resamples lie on both sides they tell.
    few = bootstrap(np.array([[1.0] * 30 + [-1.0] * 20 + [0.0] * 50]), repeats=4000)
    assert few.p == pytest.approx(0.16, abs=0.04)


def test_without_a_cause_a_test_fires_no_oftener_than_it_may() -> None:
    rng = np.random.default_rng(0)
    samples = (rng.integers(-1, 2, size=(2, 60)).astype(float) for _ in range(80))
    assert np.mean([bootstrap(sample, repeats=200).p <= 0.05 for sample in samples]) <= 0.05


def test_a_bootstrap_of_one_seed_is_that_of_its_images_and_says_the_same_again() -> None:
    sample = np.array([[1.0] * 30 + [0.0] * 70])
    change = bootstrap(sample)
    assert change == bootstrap(sample)
    assert [change.low, change.high] == pytest.approx([0.21, 0.39], abs=0.02)
    # Two seeds that say the opposite say nothing.
    assert bootstrap(np.array([[1.0] * 50, [-1.0] * 50])).p == 1


def test_every_question_has_two_groups_that_share_nobody() -> None:
    for question in QUESTIONS:
        one, other = ([name for name in PRUNERS if belongs(name)] for belongs in (question.one, question.other))
        assert one, question.title
        assert other, question.title
        assert not set(one) & set(other), question.title
