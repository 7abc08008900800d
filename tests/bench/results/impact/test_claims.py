"""Claims: an interval decides, what is counted is counted, and what isn't there is named."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from prunecert.bench.results.impact.claims import (
    FAILS,
    HOLDS,
    OPEN,
    Difference,
    EarlyMask,
    Evidence,
    FewerEpochs,
    LessOverfitting,
    Place,
    RiseAboveFall,
    TrainingTrace,
    UnevenRates,
    missing,
)
from prunecert.bench.results.impact.images import ImageOutcomes
from prunecert.bench.results.impact.trainings import TrainingSpread
from prunecert.models import DENSE
from tests.bench.results.impact.networks import network, proved

ARD, LWM = ("ard", 10.0), ("lwm", 10.0)


def verified(*parts: ImageOutcomes) -> Evidence:
    return Evidence({(part.cell.pruner, part.cell.compression): [part] for part in parts}, {})


def records(**sides: Sequence[TrainingTrace]) -> Evidence:
    names: dict[str, Place] = {
        "ticket": ("boosting", 10.0), "dense": (DENSE, 1.0), "drawn": ("boosting-random", 10.0),
    }  # fmt: skip
    return Evidence({}, {names[name]: side for name, side in sides.items()})


@pytest.mark.parametrize(
    ("own", "least", "finding"),
    [(30, 0.0, HOLDS), (2, 0.0, FAILS), (13, 0.0, OPEN), (13, -0.2, HOLDS), (30, 0.6, FAILS)],
)
def test_a_difference_holds_where_its_interval_does(own: int, least: float, finding: str) -> None:
    claim = Difference("ard", "", 10.0, LWM, least=least)
    judgement = claim.judge(verified(network(proved(*range(own)), pruner="ard"), network(proved(*range(12)))))
    assert judgement is not None
    assert judgement.finding == finding
    assert judgement.number.startswith(f"attacked {100 * (own - 12) / 40:+.1f} points (")
    assert ("p = " in judgement.number) == (least == 0)


@pytest.mark.parametrize(("deviation", "finding"), [(0.0, HOLDS), (0.3, f"{HOLDS}; over trainings {OPEN}")])
def test_of_two_seeds_a_difference_is_said_over_other_trainings_too(deviation: float, finding: str) -> None:
    claim = Difference("ard", "", 10.0, LWM)
    sides = {
        (pruner, 10.0): [network(proved(*range(count)), pruner=pruner, seed=seed) for seed in (0, 1)]
        for pruner, count in (("ard", 30), ("lwm", 12))
    }
    spread = TrainingSpread(deviation, 0.0, 1.0, 20, max(deviation**2, 1e-4), 0, 0.1, False)
    judgement = claim.judge(Evidence(sides, {}, {(10.0, "attacked"): spread}))
    assert judgement is not None
    assert judgement.finding == finding
    assert "; over trainings " in judgement.number
    # Of one seed, or at another compression, nothing is said of them.
    one = {place: parts[:1] for place, parts in sides.items()}
    for evidence in (Evidence(one, {}, {(10.0, "attacked"): spread}), Evidence(sides, {}, {(4.0, "attacked"): spread})):
        alone = claim.judge(evidence)
        assert alone is not None
        assert (alone.finding, "over trainings" in alone.number) == (HOLDS, False)


def test_without_the_other_side_nothing_is_said_but_what_is_missing() -> None:
    claim = Difference("ard", "", 10.0, LWM)
    evidence = verified(network(proved(1), pruner="ard"))
    assert claim.judge(evidence) is None
    assert missing(claim, evidence.outcomes) == ["lwm_x10"]
    other_seed = verified(network(proved(1), pruner="ard"), network(proved(1), seed=1))
    assert claim.judge(other_seed) is None


def test_a_rise_is_held_against_a_fall_image_by_image() -> None:
    claim = RiseAboveFall("grafting", "", 10.0, LWM)
    before = network(proved(*range(4)), attacked=proved(*range(40)))
    better = network(proved(*range(30)), pruner="grafting", attacked=proved(*range(36)))
    judgement = claim.judge(verified(better, before))
    assert judgement is not None
    assert judgement.finding == HOLDS
    assert judgement.number.startswith("verified +65.0, attacked -10.0; sum +55.0 points")
    worse = network(proved(*range(6)), pruner="grafting", attacked=proved(*range(10)))
    judgement = claim.judge(verified(worse, before))
    assert judgement is not None
    assert judgement.finding == FAILS


def history(*shares: float, seed: int = 0, stage: str = "ticket", images: int = 200) -> TrainingTrace:
    rows = [(stage, number, share) for number, share in enumerate(shares, 1)]
    return TrainingTrace(seed, rows, images, {stage: len(shares)}, {stage: 10.0 * len(shares)})


def test_overfitting_is_the_fall_from_the_best_epoch_and_its_interval_is_wide() -> None:
    claim = LessOverfitting("boosting", "", 10.0)
    steady, falling = history(0.3, 0.5, 0.5), history(0.3, 0.6, 0.4)
    judgement = claim.judge(records(ticket=[steady], dense=[falling]))
    assert judgement is not None
    assert judgement.number.startswith("falls by 0.0 points, dense by 20.0; less by +20.0 points (")
    # Four shares of 200 images each: ± 13.7 points, though they are of the same images.
    assert judgement.finding == HOLDS
    few = claim.judge(records(ticket=[history(0.3, 0.5, 0.5, images=40)], dense=[history(0.6, 0.4, images=40)]))
    assert few is not None
    assert few.finding == OPEN
    assert claim.judge(records(ticket=[history(0.3, 0.5)], dense=[history(0.3, 0.5, seed=1)])) is None
    assert claim.judge(records(ticket=[history(0.5)], dense=[history(0.5)])) is None


def test_the_search_s_share_of_the_seconds_is_counted() -> None:
    claim = EarlyMask("boosting", "", 10.0, 0.15)
    cheap = TrainingTrace(0, epochs={"search": 5, "ticket": 25}, seconds={"search": 10.0, "ticket": 90.0})
    dear = TrainingTrace(1, epochs={"search": 5, "ticket": 25}, seconds={"search": 30.0, "ticket": 70.0})
    judgement = claim.judge(records(ticket=[cheap, dear]))
    assert judgement is not None
    assert judgement.number == "20.0 % of the seconds, 16.7 % of the epochs"
    assert judgement.finding == "so in 1 of 2 networks, untested"
    assert claim.judge(records(ticket=[TrainingTrace(0)])) is None


def test_rates_are_uneven_by_the_largest_over_the_smallest() -> None:
    judgement = UnevenRates("boosting", "", 10.0, 10.0).judge(
        records(ticket=[TrainingTrace(0, rates={"a": 0.9, "b": 0.05}), TrainingTrace(1, rates={"a": 0.2, "b": 0.1})])
    )
    assert judgement is not None
    assert (judgement.number, judgement.finding) == ("max/min 18, 2", "so in 1 of 2 networks, untested")


def test_epochs_to_the_target_are_those_of_the_ticket_alone() -> None:
    claim = FewerEpochs("boosting", "", 10.0, ("boosting-random", 10.0))
    dense = TrainingTrace(0, [("pretrain", 10, 0.3), ("finetune", 10, 0.5)], 200, {"pretrain": 20, "finetune": 10})
    ticket = TrainingTrace(0, [("search", 9, 0.5), ("ticket", 12, 0.48)], 200, {"search": 9, "ticket": 21})
    drawn = TrainingTrace(0, [("ticket", 12, 0.4), ("ticket", 20, 0.48)], 200, {"search": 9, "ticket": 21})
    judgement = claim.judge(records(ticket=[ticket], dense=[dense], drawn=[drawn]))
    assert judgement is not None
    assert judgement.number == "epochs: 12, dense 30, drawn anew 20"
    assert judgement.finding == "so in 1 of 1 network, untested"
    never = claim.judge(records(ticket=[history(0.1)], dense=[dense], drawn=[drawn]))
    assert never is not None
    assert never.number == "epochs: never, dense 30, drawn anew 20"
    assert never.finding.startswith("so in 0 of 1")
    assert claim.judge(records(ticket=[ticket], dense=[dense])) is None
