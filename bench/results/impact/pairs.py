"""Dense and pruned networks of the same seeds on the same images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from prunecert.bench.results.impact.images import METRICS, ImageOutcomes, IntArray, Metric
from prunecert.bench.results.stats import clustered_difference, sign_flip_exact
from prunecert.models import DENSE


@dataclass(frozen=True, eq=False)
class Comparison:
    """A pruner at a compression against the dense control, or against another pruner.

    Args:
        pruner: The pruner.
        compression: As asked for.
        control: The networks that it is compared with, one a seed.
        pruned: Its networks, of the same seeds in the same order, on the same images.
    """

    pruner: str
    compression: float
    control: tuple[ImageOutcomes, ...]
    pruned: tuple[ImageOutcomes, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(part.cell.seed for part in self.pruned)

    @property
    def family_title(self) -> str:
        """Network, objective, radius."""
        cell = self.pruned[0].cell
        return f"{cell.network}, {cell.objective}, {cell.eps}"

    @property
    def title(self) -> str:
        """The family's, pruner, compression."""
        return f"{self.family_title}: {self.pruner} {self.compression:g}×"

    @property
    def numbers(self) -> IntArray:
        """The images' numbers."""
        return self.pruned[0].numbers

    @property
    def labels(self) -> IntArray:
        """The images' classes."""
        return self.pruned[0].labels

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is known of all its networks."""
        return tuple(m for m in METRICS if all(m in part.metrics for part in (*self.control, *self.pruned)))

    def differences(self, metric: Metric) -> IntArray:
        """Returns, for each image, in how many more seeds it was gained than lost."""
        change: IntArray = self.by_seed(metric).sum(axis=0)
        return change

    def by_seed(self, metric: Metric) -> IntArray:
        """Returns, [seeds, images], 1 for what was gained, -1 for what was lost."""
        pairs = zip(self.control, self.pruned, strict=True)
        return np.array([after.flags(metric).astype(np.int64) - before.flags(metric) for before, after in pairs])

    def shares(self, metric: Metric) -> tuple[float, float]:
        """Returns the accuracy of the control and of the pruned networks, the mean over seeds."""
        before, after = (
            float(np.mean([part.flags(metric).mean() for part in side])) for side in (self.control, self.pruned)
        )
        return before, after


@dataclass(frozen=True)
class Change:
    """How an accuracy differs between two sides on the same images.

    Args:
        value: Pruned minus control.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: Of McNemar's exact test; of the sign-flip test over images where there are several seeds.
    """

    value: float
    low: float
    high: float
    p: float


def change_of(comparison: Comparison, metric: Metric) -> Change:
    """Returns the paired difference of an accuracy, its interval and its test."""
    differences = comparison.differences(metric)
    value, low, high = clustered_difference(differences, len(comparison.seeds))
    return Change(value, low, high, sign_flip_exact(differences))


def compare(control: Sequence[ImageOutcomes], pruned: Sequence[ImageOutcomes]) -> Comparison | None:
    """Returns the comparison of networks of one family by seeds that both sides have, on images that all have.

    Args:
        control: Networks of one pruner and compression, or dense ones.
        pruned: Networks of another.

    Returns:
        None where they share no seed or no image.
    """
    by_seed = {part.cell.seed: part for part in control}
    pairs = [(by_seed[part.cell.seed], part) for part in pruned if part.cell.seed in by_seed]
    if not pairs:
        return None
    common = reduce(np.intersect1d, [part.numbers for pair in pairs for part in pair])
    if not len(common):
        return None
    first = pairs[0][1].cell
    return Comparison(
        first.pruner,
        first.compression,
        tuple(before.only(common) for before, _ in pairs),
        tuple(after.only(common) for _, after in pairs),
    )


Families = dict[tuple[str, str, str, str], dict[tuple[str, float], list[ImageOutcomes]]]


def families(outcomes: Iterable[ImageOutcomes]) -> Families:
    """Returns networks by family, and within one by pruner and compression; each list in the order of the seeds."""
    table: Families = defaultdict(lambda: defaultdict(list))
    for part in outcomes:
        table[part.family][part.cell.pruner, part.cell.compression].append(part)
    for family in table.values():
        for parts in family.values():
            parts.sort(key=lambda part: part.cell.seed)
    return table


def by_family(comparisons: Iterable[Comparison]) -> list[list[Comparison]]:
    """Returns comparisons by what their networks share, each list by compression and pruner."""
    groups: dict[tuple[str, ...], list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault(comparison.pruned[0].family, []).append(comparison)
    return [sorted(group, key=lambda one: (one.compression, one.pruner)) for group in groups.values()]


def against_dense(outcomes: Iterable[ImageOutcomes]) -> list[Comparison]:
    """Returns the comparison of every pruner and compression with its dense control, where there is one."""
    comparisons = []
    for family in families(outcomes).values():
        dense = [part for (pruner, _), parts in family.items() if pruner == DENSE for part in parts]
        for (pruner, _), parts in family.items():
            if pruner != DENSE and (comparison := compare(dense, parts)) is not None:
                comparisons.append(comparison)
    return comparisons
