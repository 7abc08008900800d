"""Claims of the papers about their methods, and what the board's networks say to each; pure functions, no I/O.

A claim *holds* when the 95 % interval of a paired difference lies beyond what is claimed, *does not hold* when it lies
on the other side, and is *undecided* otherwise. What is counted in a training, such as epochs or rates, has no
interval: then it is said of how many networks it is so, and no more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from prunecert.bench.results.impact.contrasts import bootstrap
from prunecert.bench.results.impact.images import ImageOutcomes, Metric
from prunecert.bench.results.impact.pairs import Comparison, compare
from prunecert.bench.results.impact.trainings import TrainingSpread, change_over_trainings
from prunecert.bench.results.stats import clustered_difference, sign_flip_exact
from prunecert.models import DENSE

HOLDS, FAILS, OPEN = "holds", "does not hold", "undecided"
#: A pruner and a compression.
Place = tuple[str, float]


@dataclass(frozen=True)
class TrainingTrace:
    """What a network's training left behind.

    Args:
        seed: Its seed.
        robust: Attacked accuracy on held-out images after epochs, as triples (stage, epoch of it, share).
        images: How many held-out images those are of.
        epochs: Epochs by stage, in order.
        seconds: Seconds by stage.
        rates: Share of the weights that each layer keeps.
    """

    seed: int
    robust: Sequence[tuple[str, int, float]] = ()
    images: int = 0
    epochs: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """What there is of a family: network, objective, radius.

    Args:
        outcomes: Verified networks, seed by seed.
        records: Trained ones.
        spreads: How far another training moves an accuracy at a compression, where that can be said.
    """

    outcomes: Mapping[Place, Sequence[ImageOutcomes]]
    records: Mapping[Place, Sequence[TrainingTrace]]
    spreads: Mapping[tuple[float, Metric], TrainingSpread] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """What is said to a claim.

    Args:
        number: The number that it is judged by, with its interval.
        finding: `HOLDS`, `FAILS`, `OPEN`, what of these it is over other trainings if that differs, or of how many
            networks it is so.
    """

    number: str
    finding: str


class PaperClaim(Protocol):
    """A claim of a paper."""

    @property
    def method(self) -> str:
        """The pruner."""

    @property
    def text(self) -> str:
        """What is claimed."""

    @property
    def needs(self) -> tuple[Place, ...]:
        """What must be trained, and verified if `verified`, to judge it."""

    @property
    def verified(self) -> bool:
        """Whether answers image by image are needed, and not only what training left behind."""

    def judge(self, evidence: Evidence) -> Judgement | None:
        """Judges it; None where something of what it needs isn't there."""


def finding_of(low: float, high: float, least: float) -> str:
    """Returns what an interval says to the claim that a difference is above `least`.

    >>> finding_of(0.01, 0.05, 0.0), finding_of(-0.05, -0.01, 0.0), finding_of(-0.01, 0.05, 0.0)
    ('holds', 'does not hold', 'undecided')
    """
    return HOLDS if low > least else FAILS if high < least else OPEN


def _points(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


def _compared(evidence: Evidence, places: Sequence[Place], metric: Metric) -> Comparison | None:
    """Returns a method's networks beside those that it is held against; None where the accuracy isn't known of both."""
    one, other = (evidence.outcomes.get(place, ()) for place in places)
    comparison = compare(other, one)
    return comparison if comparison is not None and metric in comparison.metrics else None


@dataclass(frozen=True)
class Difference:
    """That a method's accuracy is above that of another one, or of the dense control.

    Args:
        method: The pruner.
        text: The claim.
        at: Its compression.
        control: What it is held against.
        metric: Which accuracy.
        least: By how much more than this, a share; below 0: it may lose so much.
    """

    method: str
    text: str
    at: float
    control: Place
    metric: Metric = "attacked"
    least: float = 0.0
    verified: bool = True

    @property
    def needs(self) -> tuple[Place, ...]:
        """The two cells."""
        return (self.method, self.at), self.control

    def judge(self, evidence: Evidence) -> Judgement | None:
        """Compares them image by image."""
        comparison = _compared(evidence, self.needs, self.metric)
        if comparison is None:
            return None
        differences = comparison.differences(self.metric)
        value, low, high = clustered_difference(differences, len(comparison.seeds))
        test = f", p = {sign_flip_exact(differences):.2g}" if self.least == 0 else ""
        number, finding = f"{self.metric} {_points(value, low, high)}{test}", finding_of(low, high, self.least)
        spread = evidence.spreads.get((self.at, self.metric))
        if spread is None or len(comparison.seeds) < 2:
            return Judgement(number, finding)
        change = change_over_trainings(comparison.by_seed(self.metric).astype(float), spread)
        beyond = finding_of(change.low, change.high, self.least)
        return Judgement(
            f"{number}; over trainings {100 * change.low:+.1f} to {100 * change.high:+.1f}",
            finding if beyond == finding else f"{finding}; over trainings {beyond}",
        )


@dataclass(frozen=True)
class RiseAboveFall:
    """That verified accuracy rises by more than attacked accuracy falls."""

    method: str
    text: str
    at: float
    control: Place
    verified: bool = True

    @property
    def needs(self) -> tuple[Place, ...]:
        """The two cells."""
        return (self.method, self.at), self.control

    def judge(self, evidence: Evidence) -> Judgement | None:
        """Adds up both changes, image by image."""
        comparison = _compared(evidence, self.needs, "verified")
        if comparison is None:
            return None
        fall, rise = (comparison.by_seed(metric).astype(float) for metric in ("attacked", "verified"))
        change = bootstrap(fall + rise)
        both = f"verified {100 * rise.mean():+.1f}, attacked {100 * fall.mean():+.1f}"
        number = f"{both}; sum {_points(change.value, change.low, change.high)}"
        return Judgement(number, finding_of(change.low, change.high, 0.0))


@dataclass(frozen=True)
class LessOverfitting:
    """That attacked accuracy falls less from its best epoch to the last one than the dense control's.

    The shares are those of the history, of a few held-out images; their interval takes all four for independent, which
    is wider than the paired one would be.
    """

    method: str
    text: str
    at: float
    verified: bool = False

    @property
    def needs(self) -> tuple[Place, ...]:
        """The method's cell and the dense control."""
        return (self.method, self.at), (DENSE, 1.0)

    def judge(self, evidence: Evidence) -> Judgement | None:
        """Compares the falls, the mean over the seeds that both have."""
        pairs = _pairs(*(evidence.records.get(place, ()) for place in self.needs))
        pairs = [(one, other) for one, other in pairs if len(one.robust) > 1 and len(other.robust) > 1]
        if not pairs:
            return None
        values, variances, own, dense = [], [], [], []
        for one, other in pairs:
            falls = [(max(share for *_, share in side.robust), side.robust[-1][2]) for side in (one, other)]
            own.append(falls[0][0] - falls[0][1])
            dense.append(falls[1][0] - falls[1][1])
            values.append(dense[-1] - own[-1])
            variances.append(
                sum(p * (1 - p) / side.images for side, pair in zip((one, other), falls, strict=True) for p in pair)
            )
        value, half = float(np.mean(values)), 1.96 * math.sqrt(sum(variances)) / len(pairs)
        number = (
            f"falls by {100 * float(np.mean(own)):.1f} points, dense by {100 * float(np.mean(dense)):.1f}; less by "
            f"{_points(value, value - half, value + half)}"
        )
        return Judgement(number, finding_of(value - half, value + half, 0.0))


@dataclass(frozen=True)
class EarlyMask:
    """That the search for the mask takes less than a share of the training."""

    method: str
    text: str
    at: float
    most: float
    stage: str = "search"
    verified: bool = False

    @property
    def needs(self) -> tuple[Place, ...]:
        """The method's cell."""
        return ((self.method, self.at),)

    def judge(self, evidence: Evidence) -> Judgement | None:
        """Counts epochs and seconds."""
        records = [one for one in evidence.records.get(self.needs[0], ()) if self.stage in one.epochs]
        if not records:
            return None
        epochs, seconds = (
            [part[self.stage] / max(sum(part.values()), 1e-9) for part in parts]
            for parts in ([one.epochs for one in records], [one.seconds for one in records])
        )
        number = (
            f"{100 * float(np.mean(seconds)):.1f} % of the seconds, {100 * float(np.mean(epochs)):.1f} % of the epochs"
        )
        return Judgement(number, counted([share < self.most for share in seconds]))


@dataclass(frozen=True)
class UnevenRates:
    """That the largest layer rate is more than so many times the smallest one."""

    method: str
    text: str
    at: float
    least: float
    verified: bool = False

    @property
    def needs(self) -> tuple[Place, ...]:
        """The method's cell."""
        return ((self.method, self.at),)

    def judge(self, evidence: Evidence) -> Judgement | None:
        """Reads the rates."""
        records = [one for one in evidence.records.get(self.needs[0], ()) if one.rates]
        if not records:
            return None
        ratios = [max(one.rates.values()) / max(min(one.rates.values()), 1e-12) for one in records]
        number = f"max/min {', '.join(f'{ratio:.3g}' for ratio in ratios)}"
        return Judgement(number, counted([ratio > self.least for ratio in ratios]))


@dataclass(frozen=True)
class FewerEpochs:
    """That 95 % of the dense control's last attacked accuracy is reached in fewer epochs, and by a control in more.

    Epochs are those of robust training, of a ticket without the search for it, and are known as far as the history was
    measured: it is the first measured one that counts.
    """

    method: str
    text: str
    at: float
    control: Place
    saved: float = 0.3
    share: float = 0.95
    stage: str = "ticket"
    verified: bool = False

    @property
    def needs(self) -> tuple[Place, ...]:
        """The method's, the dense control's and the other control's cell."""
        return (self.method, self.at), (DENSE, 1.0), self.control

    def judge(self, evidence: Evidence) -> Judgement | None:
        """Counts epochs, seed by seed."""
        sides = [{one.seed: one for one in evidence.records.get(place, ()) if one.robust} for place in self.needs]
        seeds = sorted(set.intersection(*map(set, sides)))
        if not seeds:
            return None
        texts, so = [], []
        for seed in seeds:
            ticket, dense, control = (side[seed] for side in sides)
            target = self.share * dense.robust[-1][2]
            full, own, drawn = (
                _epochs_to(dense, target),
                _epochs_to(ticket, target, self.stage),
                _epochs_to(control, target, self.stage),
            )
            so.append(full < math.inf and own <= (1 - self.saved) * full and drawn > own)
            texts.append(f"{_whole(own)}, dense {_whole(full)}, drawn anew {_whole(drawn)}")
        return Judgement(f"epochs: {'; '.join(texts)}", counted(so))


def _whole(epochs: float) -> str:
    return "never" if math.isinf(epochs) else f"{epochs:g}"


def _epochs_to(record: TrainingTrace, target: float, stage: str | None = None) -> float:
    """Returns the epochs until a share is reached, of all stages or within one; infinity if it never is."""
    before = 0
    for name, length in record.epochs.items():
        if stage is None or name == stage:
            reached = [epoch for where, epoch, share in record.robust if where == name and share >= target]
            if reached:
                return before + min(reached)
            before += length
    return math.inf


def counted(so: Sequence[bool]) -> str:
    """Returns of how many networks something is so.

    >>> counted([True, False])
    'so in 1 of 2 networks, untested'
    """
    return f"so in {sum(so)} of {len(so)} {'network' if len(so) == 1 else 'networks'}, untested"


def _pairs(one: Sequence[TrainingTrace], other: Sequence[TrainingTrace]) -> list[tuple[TrainingTrace, TrainingTrace]]:
    by_seed = {record.seed: record for record in other}
    return [(record, by_seed[record.seed]) for record in one if record.seed in by_seed]


def missing(claim: PaperClaim, there: Mapping[Place, object]) -> list[str]:
    """Returns what a claim needs and isn't there, as parts of cells' names."""
    return [f"{pruner}_x{compression:g}" for pruner, compression in claim.needs if not there.get((pruner, compression))]
