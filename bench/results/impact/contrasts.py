"""Groups of methods against each other: the mean over a group's methods, paired by image and seed.

A group's cells are matched with the other's by size, so that like is compared with like: by the weights that are left,
or by multiply-adds, which a method that empties convolutions has fewer of at the same weights. Of every method of the
other group the cell nearest in size counts, if it is near enough. Intervals come from a bootstrap over images and
seeds, so that they speak of other images and, as far as so few seeds can, of other trainings; methods are taken as they
are.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from prunecert.bench.results.impact.images import FloatArray, ImageOutcomes, Metric
from prunecert.bench.results.impact.pairs import Change, families
from prunecert.bench.results.impact.resamples import draws, slices
from prunecert.bench.results.stats import holm
from prunecert.models import DENSE
from prunecert.models.pruners.taxonomy import FACETS, VARIANTS, Criterion, Structure, Training, taxonomy_of

#: What cells are matched by.
Measure = Literal["weights", "multiply-adds"]
#: How far apart sizes may be, as a ratio: ranks and whole units don't meet a budget exactly.
TOLERANCES: Mapping[Measure, float] = {"weights": 1.1, "multiply-adds": 1.25}
#: Resamples of images and seeds.
REPEATS = 4_000


@dataclass(frozen=True)
class GroupQuestion:
    """Two groups of methods.

    Args:
        title: What is asked.
        one: Whether a pruner belongs to the group that is judged.
        other: Whether it belongs to the one that it is held against.
        pairs: Who may be matched with whom, a pruner and one of the other group; empty: all with all.
    """

    title: str
    one: Callable[[str], bool]
    other: Callable[[str], bool]
    pairs: frozenset[tuple[str, str]] = frozenset()

    def may_match(self, pruner: str, other: str) -> bool:
        """Whether the networks of two pruners, one of each group, may be held against each other."""
        return not self.pairs or (pruner, other) in self.pairs


def _among(*names: str) -> Callable[[str], bool]:
    return lambda pruner: pruner in names


def _group(**facets: object) -> Callable[[str], bool]:
    """Returns who stands there in the taxonomy; controls, which are there to be beaten, stand nowhere."""

    def belongs(pruner: str) -> bool:
        place = taxonomy_of(pruner)
        if place is None or pruner in VARIANTS or place.criterion is Criterion.RANDOM:
            return False
        return all(getattr(place, name) is value for name, value in facets.items())

    return belongs


def _pairwise(title: str, *pairs: tuple[str, str]) -> GroupQuestion:
    """Returns a question of methods that differ from their partners in what is asked alone, and not in their rates.

    Where one of a pair is missing its partner is left out, so that a group isn't the better for who failed.
    """
    ones, others = zip(*pairs, strict=True)
    return GroupQuestion(title, _among(*ones), _among(*others), frozenset(pairs))


#: What the board is there to settle.
QUESTIONS: tuple[GroupQuestion, ...] = (
    _pairwise("HYDRA against LWM", ("hydra", "lwm"), ("hydra-uniform", "lwm-uniform")),
    _pairwise("balanced against uniform rates", ("lwm", "lwm-uniform"), ("hydra", "hydra-uniform")),
    _pairwise("rates learned from uniform ones against uniform", ("harp-uniform", "hydra-uniform")),
    _pairwise("rates learned from balanced ones against balanced", ("harp", "hydra")),
    _pairwise("searched rates against balanced", ("heracles", "hydra")),
    GroupQuestion(
        "masks from scratch against pruning",
        _group(structure=Structure.UNSTRUCTURED, pre_training=Training.NONE),
        _group(structure=Structure.UNSTRUCTURED, pre_training=Training.OBJECTIVE),
    ),
    GroupQuestion(
        "units against single weights",
        _group(structure=Structure.STRUCTURED),
        _group(structure=Structure.UNSTRUCTURED),
    ),
)


def against(pruner: str, pruners: Iterable[str]) -> list[GroupQuestion]:
    """Returns a question for each group of the taxonomy, facet by facet, against one pruner.

    >>> [question.title for question in against("lwm", ["hydra", "structured"])]
    ['structure: structured', 'structure: unstructured', 'criterion: learned magnitude', 'criterion: magnitude']

    Args:
        pruner: What the groups are held against; it belongs to none of them.
        pruners: Those of the board; facets that tell none of them apart are left out.
    """
    questions = []
    belongs = _group()
    places = {name: taxonomy_of(name) for name in pruners if name != pruner and belongs(name)}
    for facet, label in FACETS.items():
        values = {getattr(place, facet).value for place in places.values()}
        if len(values) < 2:
            continue
        for value in sorted(values):
            members = {name for name, place in places.items() if getattr(place, facet).value == value}
            questions.append(GroupQuestion(f"{label}: {value}", _among(*members), _among(pruner)))
    return questions


@dataclass(frozen=True, eq=False)
class SizedNetworks:
    """A pruner's networks at a compression.

    Args:
        pruner: The pruner.
        nominal: The compression asked for.
        size: What is left, in the measure's unit, the mean over seeds.
        by_seed: The networks.
    """

    pruner: str
    nominal: float
    size: float
    by_seed: Mapping[int, ImageOutcomes]


@dataclass(frozen=True)
class ContrastLine:
    """The answer to a question at a compression.

    Args:
        family: Network, objective and radius.
        title: The question's.
        measure: What the cells were matched by.
        nominal: The compression asked of the group that is judged.
        methods: Its methods.
        others: Those of the other group.
        unmatched: Methods of the group that nothing of the other is near in size.
        seeds: How many seeds all have.
        images: How many images all have.
        ratio: Sizes of the group over those of the other, the geometric mean.
        matched: Pairs of networks, each as (pruner, compression, other's pruner, other's compression).
        changes: By accuracy: the group minus the other, its interval, and the test's p value, adjusted for the family.
    """

    family: str
    title: str
    measure: Measure
    nominal: float
    methods: tuple[str, ...]
    others: tuple[str, ...]
    unmatched: tuple[str, ...]
    seeds: int
    images: int
    ratio: float
    matched: frozenset[tuple[str, float, str, float]]
    changes: Mapping[Metric, Change]


def contrast_lines(
    outcomes: Iterable[ImageOutcomes],
    macs: Mapping[str, float],
    *,
    pruner: str | None = None,
    repeats: int = REPEATS,
    seed: int = 0,
) -> list[list[ContrastLine]]:
    """Returns the lines of each family: by question, measure and compression.

    Args:
        outcomes: SizedNetworks.
        macs: Multiply-adds by the cell's name; a pruner of which one network's are missing isn't matched by them.
        pruner: Hold every group of the taxonomy against this one; None: answer `QUESTIONS`.
        repeats: Resamples.
        seed: Of them.
    """
    boards: list[list[ContrastLine]] = []
    for family in families(outcomes).values():
        cells = {key: parts for key, parts in family.items() if key[0] != DENSE}
        names = sorted({name for name, _ in cells})
        questions = QUESTIONS if pruner is None else against(pruner, names)
        lines: list[ContrastLine] = []
        for question in questions:
            matched: set[frozenset[tuple[str, float, str, float]]] = set()
            for measure in TOLERANCES:
                for line in _lines(question, measure, _networks(cells.values(), measure, macs), repeats, seed):
                    # The same networks again would be the same test again, and count twice in the correction.
                    if line.matched not in matched:
                        matched.add(line.matched)
                        lines.append(line)
        boards.append(_adjusted(lines))
    return [board for board in boards if board]


def _networks(
    cells: Iterable[Sequence[ImageOutcomes]], measure: Measure, macs: Mapping[str, float]
) -> list[SizedNetworks]:
    networks = []
    for parts in cells:
        cell = parts[0].cell
        if measure == "weights":
            sizes = [1 / (part.cell.measured_compression or part.cell.compression) for part in parts]
        else:
            sizes = [macs[part.cell.name] for part in parts if part.cell.name in macs]
        if len(sizes) == len(parts) and min(sizes) > 0:
            by_seed = {part.cell.seed: part for part in parts}
            networks.append(SizedNetworks(cell.pruner, cell.compression, float(np.mean(sizes)), by_seed))
    return networks


def matches(network: SizedNetworks, others: Iterable[SizedNetworks], tolerance: float) -> list[SizedNetworks]:
    """Returns, of each other method, the networks that are nearest in size, where they are near enough.

    Args:
        network: What is matched.
        others: Candidates, of several methods.
        tolerance: The largest ratio of sizes, at least 1.
    """
    nearest: dict[str, tuple[float, SizedNetworks]] = {}
    for other in others:
        distance = abs(math.log(other.size / network.size))
        if distance <= math.log(tolerance) + 1e-9 and distance < nearest.get(other.pruner, (math.inf,))[0]:
            nearest[other.pruner] = distance, other
    return [other for _, other in nearest.values()]


def _lines(
    question: GroupQuestion, measure: Measure, networks: Sequence[SizedNetworks], repeats: int, seed: int
) -> Iterable[ContrastLine]:
    others = [network for network in networks if question.other(network.pruner)]
    levels: dict[float, list[SizedNetworks]] = defaultdict(list)
    for network in networks:
        if question.one(network.pruner):
            levels[network.nominal].append(network)
    for _, group in sorted(levels.items()):
        pairs = []
        for network in group:
            candidates = [other for other in others if question.may_match(network.pruner, other.pruner)]
            pairs.append((network, matches(network, candidates, TOLERANCES[measure])))
        unmatched = sorted(network.pruner for network, near in pairs if not near)
        pairs = [(network, near) for network, near in pairs if near]
        if pairs and (line := _line(question, measure, pairs, unmatched, repeats, seed)) is not None:
            yield line


def _line(
    question: GroupQuestion,
    measure: Measure,
    pairs: Sequence[tuple[SizedNetworks, Sequence[SizedNetworks]]],
    unmatched: Sequence[str],
    repeats: int,
    seed: int,
) -> ContrastLine | None:
    # How much each network's accuracy counts: the group's mean minus the mean over what each of it is matched with.
    parts: dict[tuple[str, float], tuple[SizedNetworks, float]] = {}
    for network, near in pairs:
        for one, share in ((network, 1.0), *((other, -1 / len(near)) for other in near)):
            key = one.pruner, one.nominal
            parts[key] = one, parts.get(key, (one, 0.0))[1] + share / len(pairs)
    seeds = sorted(set.intersection(*(set(one.by_seed) for one, _ in parts.values())))
    if not seeds:
        return None
    members = [one.by_seed[number] for one, _ in parts.values() for number in seeds]
    common = functools.reduce(np.intersect1d, [part.numbers for part in members])
    if not len(common):
        return None
    metrics: list[Metric] = [
        metric for metric in ("attacked", "verified") if all(metric in part.metrics for part in members)
    ]
    changes = {}
    for metric in metrics:
        differences = np.zeros((len(seeds), len(common)))
        for one, share in parts.values():
            for row, number in enumerate(seeds):
                differences[row] += share * one.by_seed[number].only(common).flags(metric)
        changes[metric] = bootstrap(differences, repeats=repeats, seed=seed)
    ratios = [math.log(network.size / other.size) for network, near in pairs for other in near]
    cell = members[0].cell
    return ContrastLine(
        f"{cell.network}, {cell.objective}, {cell.eps}",
        question.title,
        measure,
        pairs[0][0].nominal,
        tuple(sorted(network.pruner for network, _ in pairs)),
        tuple(sorted({other.pruner for _, near in pairs for other in near})),
        tuple(unmatched),
        len(seeds),
        len(common),
        math.exp(float(np.mean(ratios))),
        frozenset(
            (network.pruner, network.nominal, other.pruner, other.nominal) for network, near in pairs for other in near
        ),
        changes,
    )


def bootstrap(differences: FloatArray, *, repeats: int = REPEATS, confidence: float = 0.95, seed: int = 0) -> Change:
    """Returns the mean of differences, its percentile interval, and a p value, by resampling images and seeds.

    The p value is twice the smaller share of resamples on a side of 0, so that it agrees with the interval. Where none
    lies there, a share can't tell how small it is, and corrected for a hundred tests all would be chance: then it is
    that of a normal distribution of the resamples' deviation. It is never less than a sign test of as many images could
    say. Both draws are independent of each other (the pigeonhole bootstrap, Owen 2007).

    It is about other images, where it rather errs on the wide side; of trainings one or two seeds can't tell. In
    simulations with 1,000 images, where another training moves the difference by 1.4 points, a nominal 5 % is 19 % with
    one seed and 6 % with two.

    >>> bootstrap(np.array([[1.0] * 30 + [0.0] * 70])).value
    0.3

    Args:
        differences: [seeds, images].
        repeats: Resamples.
        confidence: Coverage aimed at.
        seed: Of the draws.
    """
    seeds, images = differences.shape
    columns, rows = draws(images, repeats, seed), draws(seeds, repeats, seed + 1)
    sampled = np.concatenate(
        [
            np.einsum("ri,ri->r", rows[part] / seeds @ differences, columns[part] / images)
            for part in slices(images, repeats)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(sampled, [tail, 1 - tail])
    # Sums of thirds and the like are off by a rounding.
    below, above = np.count_nonzero(sampled <= 1e-12), np.count_nonzero(sampled >= -1e-12)
    p = min(1.0, 2 * (1 + min(below, above)) / (1 + repeats))
    value, deviation = float(differences.mean()), float(sampled.std())
    if not min(below, above) and deviation > 0:
        p = min(p, math.erfc(abs(value) / deviation / math.sqrt(2)))
    changed = int(np.count_nonzero(differences.any(axis=0)))
    p = min(1.0, max(p, 2.0 ** (1 - changed)))
    return Change(value, float(low), float(high), float(p))


def _adjusted(lines: list[ContrastLine]) -> list[ContrastLine]:
    """Returns the lines with p values that are adjusted for the number of all tests of the family."""
    places = [(line, metric) for line in range(len(lines)) for metric in lines[line].changes]
    values = iter(holm([lines[line].changes[metric].p for line, metric in places]))
    return [
        replace(line, changes={metric: replace(change, p=next(values)) for metric, change in line.changes.items()})
        for line in lines
    ]
