"""How far another training moves a network, and what is left of differences between methods when that is counted.

A method's network is one training's result. Tests over images say how sure the order of such networks is on other
images; a method is the better one only where the order would also survive other trainings. Two seeds of one method tell
next to nothing about that, but the methods of a board are many: what seeds change beyond what they change in all
methods alike is pooled over them (the residual of an analysis of variance of methods by seeds; Scheffé 1959, chapter
4), and counted beside the images.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from prunecert.bench.results.impact.images import FloatArray, ImageOutcomes, Metric
from prunecert.bench.results.impact.methods import BASELINE
from prunecert.bench.results.impact.pairs import Change, families
from prunecert.bench.results.stats import holm
from prunecert.models import DENSE

#: A network that has no more than this share of the way from guessing to all images has collapsed: how far seeds move
#: it says nothing of the others.
COLLAPSED = 0.1
#: Fewer methods than this share no estimate.
LEAST_METHODS = 3


@dataclass(frozen=True)
class TrainingSpread:
    """What another training does to an accuracy, of the methods at one compression.

    Args:
        deviation: Standard deviation of a network's accuracy between trainings, beyond what a seed changes in all
            methods alike and beyond what chance in the images explains; a share.
        low: Lower end of its 95 % interval.
        high: Upper end.
        freedom: Degrees of freedom that it rests on.
        mean_square: The same as a variance with the images' chance still in it.
    """

    deviation: float
    low: float
    high: float
    freedom: int
    mean_square: float


@dataclass(frozen=True)
class TrainedLine:
    """A method against another, with other images and other trainings in mind.

    Args:
        pruner: The method, or ``dense``.
        accuracy: The mean over its seeds.
        by_seed: Each seed's.
        change: Against the other method: the mean paired difference, its 95 % interval over images and trainings, and
            the p value of its test, adjusted for all such tests of the family; None of the other method itself.
    """

    pruner: str
    accuracy: float
    by_seed: tuple[float, ...]
    change: Change | None


@dataclass(frozen=True)
class TrainedBoard:
    """The methods at a compression that share seeds.

    Args:
        family: Network, objective and radius.
        compression: As asked for.
        metric: The accuracy: verified, or under attack where nothing was proved.
        against: The method that the others are held against.
        seeds: What all of them have.
        images: How many images all have.
        spread: What another training does.
        lines: The methods, best first; the dense control among them.
        collapsed: Methods whose networks say little but one class: in no estimate, and not compared.
        missing: Methods that lack some of the seeds.
    """

    family: str
    compression: float
    metric: Metric
    against: str
    seeds: tuple[int, ...]
    images: int
    spread: TrainingSpread
    lines: tuple[TrainedLine, ...]
    collapsed: tuple[str, ...]
    missing: tuple[str, ...]


def trained_boards(outcomes: Iterable[ImageOutcomes], *, against: str = BASELINE) -> list[list[TrainedBoard]]:
    """Returns the boards of each family by compression; none where fewer than three methods share two seeds.

    The dense control stands on each of them, as one of the methods.

    Args:
        outcomes: Networks.
        against: The method that the others are held against.
    """
    boards = []
    for family in families(outcomes).values():
        dense = family.get((DENSE, 1.0), [])
        levels = sorted({compression for pruner, compression in family if pruner != DENSE})
        own = []
        for level in levels:
            methods = {pruner: parts for (pruner, compression), parts in family.items() if compression == level}
            if (board := _board({**methods, DENSE: dense} if dense else methods, level, against)) is not None:
                own.append(board)
        boards.append(_adjusted(own))
    return [board for board in boards if board]


def _board(methods: Mapping[str, Sequence[ImageOutcomes]], level: float, against: str) -> TrainedBoard | None:
    collapsed = {pruner for pruner, parts in methods.items() if any(_has_collapsed(part) for part in parts)}
    standing = {pruner: parts for pruner, parts in methods.items() if pruner not in collapsed}
    seeds = _shared_seeds(standing)
    there = {
        pruner: [part for part in parts if part.cell.seed in seeds]
        for pruner, parts in standing.items()
        if {part.cell.seed for part in parts} >= set(seeds)
    }
    if len(seeds) < 2 or len(there) < LEAST_METHODS:
        return None
    members = [part for parts in there.values() for part in parts]
    common = functools.reduce(np.intersect1d, [part.numbers for part in members])
    if len(common) < 2:
        return None
    metric: Metric = "verified" if all("verified" in part.metrics for part in members) else "attacked"
    table = np.array(
        [[part.only(common).flags(metric) for part in parts] for parts in there.values()], dtype=np.float64
    )
    spread = spread_of(table)
    names = list(there)
    lines = []
    for place, pruner in enumerate(names):
        by_seed = tuple(float(share) for share in table[place].mean(axis=1))
        change = None
        if against in there and pruner != against:
            change = change_over_trainings(table[place] - table[names.index(against)], spread)
        lines.append(TrainedLine(pruner, float(np.mean(by_seed)), by_seed, change))
    cell = next(part.cell for pruner, parts in there.items() if pruner != DENSE for part in parts)
    return TrainedBoard(
        family=f"{cell.network}, {cell.objective}, {cell.eps}",
        compression=level,
        metric=metric,
        against=against,
        seeds=seeds,
        images=len(common),
        spread=spread,
        lines=tuple(sorted(lines, key=lambda line: (-line.accuracy, line.pruner))),
        collapsed=tuple(sorted(collapsed)),
        missing=tuple(sorted(set(standing) - set(there))),
    )


def _has_collapsed(part: ImageOutcomes) -> bool:
    guessing = 1 / max(1, len(np.unique(part.labels)))
    return bool(part.flags("clean").mean() <= guessing + COLLAPSED * (1 - guessing))


def _shared_seeds(methods: Mapping[str, Sequence[ImageOutcomes]]) -> tuple[int, ...]:
    """Returns the seeds that leave most to learn from: of most methods and of most seeds of each."""
    sets = [frozenset(part.cell.seed for part in parts) for parts in methods.values()]

    def freedom(seeds: Iterable[int]) -> tuple[int, list[int]]:
        shared = sorted(seeds, reverse=True)
        return (len(shared) - 1) * (sum(own.issuperset(shared) for own in sets) - 1), shared

    # What two methods have in common may be more than either's whole set shares with the rest.
    candidates = sorted({one & other for one in sets for other in sets}, key=sorted)
    return tuple(sorted(max(candidates, key=freedom))) if candidates else ()


def spread_of(flags: FloatArray, confidence: float = 0.95) -> TrainingSpread:
    """Returns how far trainings move a network, from the methods' answers image by image.

    What is left of the accuracies, methods by seeds, when each method's mean and each seed's are taken away has two
    parts: other trainings, and the chance that these images see what changed between the trainings. The second is
    estimated image by image and subtracted.

    >>> rng = np.random.default_rng(0)
    >>> round(spread_of(rng.random((20, 2, 1000)) < 0.4).deviation, 3)
    0.0

    Args:
        flags: [methods, seeds, images], at least two of each.
        confidence: Coverage of the interval.

    Returns:
        The deviation, 0 where the images' chance explains all that was seen.
    """
    from scipy.stats import chi2

    flags = np.asarray(flags, dtype=np.float64)
    methods, seeds, images = flags.shape
    if min(methods, seeds, images) < 2:
        raise ValueError(f"need two methods, seeds and images at least, got {flags.shape}")
    left = flags - flags.mean(axis=0) - flags.mean(axis=1)[:, None] + flags.mean(axis=(0, 1))
    freedom = (methods - 1) * (seeds - 1)
    mean_square = float(np.square(left.mean(axis=2)).sum()) / freedom
    chance = float(left.var(axis=2, ddof=1).sum()) / images / freedom
    tail = (1 - confidence) / 2

    def beyond_chance(variance: float) -> float:
        return math.sqrt(max(0.0, variance - chance))

    return TrainingSpread(
        beyond_chance(mean_square),
        beyond_chance(mean_square * freedom / float(chi2.ppf(1 - tail, freedom))),
        beyond_chance(mean_square * freedom / float(chi2.ppf(tail, freedom))),
        freedom,
        mean_square,
    )


def change_over_trainings(differences: FloatArray, spread: TrainingSpread, confidence: float = 0.95) -> Change:
    """Returns the mean difference of two methods with an interval and a test over other images and other trainings.

    The variance is that of the mean over images, in which an image's seeds are one observation, and that of two
    methods' trainings. Its degrees of freedom are Satterthwaite's (1946), of Student's distribution.

    Args:
        differences: [seeds, images], one method's answers minus the other's.
        spread: See `spread_of`; its methods are among those of these two.
        confidence: Coverage of the interval.
    """
    from scipy.stats import t

    seeds, images = differences.shape
    by_image = differences.mean(axis=0)
    of_images = float(by_image.var(ddof=1)) / images
    of_trainings = 2 * spread.deviation**2 / seeds
    value, variance = float(by_image.mean()), of_images + of_trainings
    if variance == 0:
        return Change(value, value, value, 1.0 if value == 0 else 0.0)
    uncertain = of_images**2 / (images - 1) + (2 * spread.mean_square / seeds) ** 2 / spread.freedom
    freedom = max(1.0, variance**2 / uncertain)
    half = float(t.ppf(0.5 + confidence / 2, freedom)) * math.sqrt(variance)
    p = float(2 * t.sf(abs(value) / math.sqrt(variance), freedom))
    return Change(value, max(-1.0, value - half), min(1.0, value + half), p)


def _adjusted(boards: list[TrainedBoard]) -> list[TrainedBoard]:
    """Returns the boards with p values that are adjusted for all tests of the family."""
    values = iter(holm([line.change.p for board in boards for line in board.lines if line.change is not None]))
    return [
        replace(
            board,
            lines=tuple(
                line if line.change is None else replace(line, change=replace(line.change, p=next(values)))
                for line in board.lines
            ),
        )
        for board in boards
    ]
