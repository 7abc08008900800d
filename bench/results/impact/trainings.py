"""How far another training moves a network, and what is left of differences between methods when that is counted.

A method's network is one training's result. Tests over images say how sure the order of such networks is on other
images; a method is the better one only where the order would also survive other trainings. Two seeds of one method tell
next to nothing about that, but the methods of a board are many: what seeds change beyond what they change in all
methods alike is pooled over them (the residual of an analysis of variance of methods by seeds; Scheffé 1959, chapter
4), and counted beside the images.

That takes methods as equally variable and independent. Where they aren't, with two seeds nothing helps: of methods that
vary more than the rest intervals are too short, and `TrainingSpread.uneven` says so where Cochran's test (1941) sees
it; what methods that share a pre-training have in common is not in a difference of two of them, but it is in one
between such a method and one from scratch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from prunecert.bench.results.impact.images import METRICS, FloatArray, ImageOutcomes, Metric
from prunecert.bench.results.impact.methods import BASELINE
from prunecert.bench.results.impact.pairs import Change, families
from prunecert.bench.results.stats import centred, holm
from prunecert.models import DENSE

#: A network that has no more than this share of the way from guessing to all images has collapsed: how far seeds move
#: it says nothing of the others.
COLLAPSED = 0.1
#: Where a deviation is cut at 0, Satterthwaite's degrees of freedom fall to one, and intervals of networks that are
#: much alike would be three times as wide as what covers in simulations; with this share of the spread's they cover.
_LEAST_FREEDOM = 1 / 3
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
        most: Place of the method that varies most.
        share: What it has of all squares.
        uneven: Whether that is more than chance gives methods that vary alike, by Cochran's test at 5 %.
    """

    deviation: float
    low: float
    high: float
    freedom: int
    mean_square: float
    most: int
    share: float
    uneven: bool


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
        most: The method that varies most between trainings.
        lines: The methods, best first; the dense control among them.
        collapsed: Methods of which a network says little but one class: in no estimate, and not compared.
        missing: Methods that lack one of the seeds, or are only attacked where the others are verified.
    """

    family: str
    compression: float
    metric: Metric
    against: str
    seeds: tuple[int, ...]
    images: int
    spread: TrainingSpread
    most: str
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
        own = [_board(_methods_at(family, level), level, against) for level in _levels(family)]
        boards.append(_adjusted([board for board in own if board is not None]))
    return [board for board in boards if board]


@dataclass(frozen=True, eq=False)
class _Answers:
    """The methods at a compression that share seeds and images.

    Args:
        metric: Which accuracy.
        pruners: Their names.
        seeds: What all of them have.
        flags: [methods, seeds, images].
        collapsed: Methods that are left out as such.
    """

    metric: Metric
    pruners: tuple[str, ...]
    seeds: tuple[int, ...]
    flags: FloatArray
    collapsed: frozenset[str]


def _answers(methods: Mapping[str, Sequence[ImageOutcomes]], metric: Metric, against: str) -> _Answers | None:
    """Returns the answers of methods of which an accuracy is known; None where too few share two seeds and images."""
    comparable = {name: parts for name, parts in methods.items() if all(metric in part.metrics for part in parts)}
    collapsed = {pruner for pruner, parts in comparable.items() if any(_has_collapsed(part) for part in parts)}
    standing = {pruner: parts for pruner, parts in comparable.items() if pruner not in collapsed}
    seeds = _shared_seeds(standing, against)
    there = {
        pruner: [part for part in parts if part.cell.seed in seeds]
        for pruner, parts in standing.items()
        if _has_seeds(parts, seeds)
    }
    if len(seeds) < 2 or len(there) < LEAST_METHODS:
        return None
    common = functools.reduce(np.intersect1d, [part.numbers for parts in there.values() for part in parts])
    if len(common) < 2:
        return None
    flags = np.array(
        [[part.only(common).flags(metric) for part in parts] for parts in there.values()], dtype=np.float64
    )
    return _Answers(metric, tuple(there), seeds, flags, frozenset(collapsed))


def spreads_of(
    networks: Mapping[tuple[str, float], Sequence[ImageOutcomes]],
) -> dict[tuple[float, Metric], TrainingSpread]:
    """Returns how far another training moves each accuracy at each compression, where that can be said.

    Args:
        networks: Those of one family by pruner and compression, one a seed; the dense control counts at each.
    """
    spreads: dict[tuple[float, Metric], TrainingSpread] = {}
    for level in _levels(networks):
        for metric in METRICS:
            if (answers := _answers(_methods_at(networks, level), metric, BASELINE)) is not None:
                spreads[level, metric] = spread_of(answers.flags)
    return spreads


def _levels(networks: Iterable[tuple[str, float]]) -> list[float]:
    return sorted({compression for pruner, compression in networks if pruner != DENSE})


def _methods_at(
    networks: Mapping[tuple[str, float], Sequence[ImageOutcomes]], level: float
) -> dict[str, Sequence[ImageOutcomes]]:
    """Returns the methods at a compression, and the dense control."""
    methods = {pruner: parts for (pruner, compression), parts in networks.items() if compression == level}
    return {**methods, DENSE: dense} if (dense := networks.get((DENSE, 1.0))) else methods


def _board(methods: Mapping[str, Sequence[ImageOutcomes]], level: float, against: str) -> TrainedBoard | None:
    answers = _answers(methods, "verified", against) or _answers(methods, "attacked", against)
    if answers is None:
        return None
    spread, names = spread_of(answers.flags), answers.pruners
    lines = []
    for place, pruner in enumerate(names):
        by_seed = tuple(float(share) for share in answers.flags[place].mean(axis=1))
        change = None
        if against in names and pruner != against:
            change = change_over_trainings(answers.flags[place] - answers.flags[names.index(against)], spread)
        lines.append(TrainedLine(pruner, float(np.mean(by_seed)), by_seed, change))
    cell = next(part.cell for pruner, parts in methods.items() if pruner != DENSE for part in parts)
    return TrainedBoard(
        family=f"{cell.network}, {cell.objective}, {cell.eps}",
        compression=level,
        metric=answers.metric,
        against=against,
        seeds=answers.seeds,
        images=answers.flags.shape[2],
        spread=spread,
        most=names[spread.most],
        lines=tuple(sorted(lines, key=lambda line: (-line.accuracy, line.pruner))),
        collapsed=tuple(sorted(answers.collapsed)),
        missing=tuple(sorted(set(methods) - answers.collapsed - set(names))),
    )


def _has_collapsed(part: ImageOutcomes) -> bool:
    classes = len(np.unique(part.labels))
    # Of images of one class nothing can be said.
    return classes > 1 and bool(part.flags("clean").mean() <= 1 / classes + COLLAPSED * (1 - 1 / classes))


def _has_seeds(parts: Sequence[ImageOutcomes], seeds: Iterable[int]) -> bool:
    """Whether there is a network of each of these seeds, and but one."""
    own = [part.cell.seed for part in parts]
    return all(own.count(seed) == 1 for seed in seeds)


def _shared_seeds(methods: Mapping[str, Sequence[ImageOutcomes]], against: str) -> tuple[int, ...]:
    """Returns the seeds that leave most to learn from: of most methods and of most seeds of each.

    Those that the method has which the others are held against come first.
    """

    def worth(seeds: tuple[int, ...]) -> tuple[bool, bool, int]:
        holders = [pruner for pruner, parts in methods.items() if _has_seeds(parts, seeds)]
        enough = len(seeds) >= 2 and len(holders) >= LEAST_METHODS
        return enough, against in holders, (len(seeds) - 1) * (len(holders) - 1)

    sets = [frozenset(part.cell.seed for part in parts) for parts in methods.values()]
    # What two methods have in common may be more than either's whole set shares with the rest.
    candidates = sorted({tuple(sorted(one & other)) for one in sets for other in sets})
    return max(candidates, key=worth, default=())


def spread_of(flags: FloatArray, confidence: float = 0.95) -> TrainingSpread:
    """Returns how far trainings move a network, from the methods' answers image by image.

    What is left of the accuracies, methods by seeds, when each method's mean and each seed's are taken away has two
    parts: other trainings, and the images' chance to see what changed between the trainings. The second is estimated
    image by image and subtracted.

    >>> answers = np.zeros((4, 2, 1000))
    >>> answers[0, 1, :100] = 1
    >>> spread = spread_of(answers)
    >>> spread.most, round(spread.share, 2), round(spread.deviation, 3)
    (0, 0.75, 0.035)

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
    squares = np.square(left.mean(axis=2)).sum(axis=1)
    mean_square = float(squares.sum()) / freedom
    most, share = int(squares.argmax()), float(squares.max() / (squares.sum() or 1.0))
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
        most,
        share,
        share > _cochran(methods, seeds),
    )


def _cochran(methods: int, seeds: int) -> float:
    """Returns what share of all squares one of so many methods exceeds in less than 5 of 100, if all vary alike."""
    from scipy.stats import f

    ratio = float(f.isf(0.05 / methods, seeds - 1, (methods - 1) * (seeds - 1)))
    return 1 / (1 + (methods - 1) / ratio)


def change_over_trainings(differences: FloatArray, spread: TrainingSpread, confidence: float = 0.95) -> Change:
    """Returns the mean difference of two methods with an interval and a test over other images and other trainings.

    The variance is that of the mean over images, in which an image's seeds are one observation, and that of two
    methods' trainings. Its degrees of freedom are Satterthwaite's (1946), of Student's distribution, but no fewer than
    a third of the spread's.

    Args:
        differences: [seeds, images], one method's answers minus the other's.
        spread: See `spread_of`; its methods are among those of these two.
        confidence: Coverage of the interval.
    """
    from scipy.stats import t

    seeds, images = differences.shape
    by_image = differences.mean(axis=0)
    total = float(by_image.sum())
    centre, of_sum = centred(total, float(np.square(by_image).sum()), images)
    of_images = of_sum / (images + 2) ** 2
    of_trainings = 2 * spread.deviation**2 / seeds
    variance = of_images + of_trainings
    uncertain = of_images**2 / (images - 1) + (2 * spread.mean_square / seeds) ** 2 / spread.freedom
    freedom = max(1.0, spread.freedom * _LEAST_FREEDOM, variance**2 / uncertain)
    half = float(t.ppf(0.5 + confidence / 2, freedom)) * math.sqrt(variance)
    p = float(2 * t.sf(abs(centre) / math.sqrt(variance), freedom))
    return Change(total / images, max(-1.0, centre - half), min(1.0, centre + half), p)


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
