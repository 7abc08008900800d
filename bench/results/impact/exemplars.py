"""Images whose guarantee pruning takes, or gives, in the majority of seeds.

Hooker et al. 2019, "What do compressed deep neural networks forget?", call an image a pruning identified exemplar on
which the majority of pruned networks says something else than the majority of dense ones. Asked of guarantees that is a
verification identified exemplar: proved by the majority of dense networks and by a minority of pruned ones, or the
reverse.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from prunecert.bench.results.impact.images import BoolArray, IntArray, Metric
from prunecert.bench.results.impact.pairs import Comparison


@dataclass(frozen=True)
class Exemplars:
    """Images that change sides.

    Args:
        metric: What they lose or gain.
        seeds: Networks of each side; a majority of two is both.
        images: Images in all.
        lost: Numbers of those that the majority of dense networks has and a minority of the pruned ones.
        gained: Numbers of those the other way round.
        lost_classes: The classes of those lost.
        gained_classes: The classes of those gained.
        changed: Share of the images on which a pruned network and the dense one of its seed disagree; the mean.
        churn: Share of the images on which two dense networks of different seeds disagree: what chance alone moves.
            None with one seed.
    """

    metric: Metric
    seeds: int
    images: int
    lost: tuple[int, ...]
    gained: tuple[int, ...]
    lost_classes: tuple[int, ...]
    gained_classes: tuple[int, ...]
    changed: float
    churn: float | None


def exemplars(comparison: Comparison, metric: Metric = "verified") -> Exemplars:
    """Returns the images of a comparison that change sides."""
    dense, pruned = (_votes([part.flags(metric) for part in side]) for side in (comparison.control, comparison.pruned))
    seeds = len(comparison.seeds)
    lost = (2 * dense > seeds) & (2 * pruned < seeds)
    gained = (2 * dense < seeds) & (2 * pruned > seeds)
    differing = [
        float(np.mean(one.flags(metric) != other.flags(metric)))
        for one, other in itertools.combinations(comparison.control, 2)
    ]
    changed = [
        float(np.mean(before.flags(metric) != after.flags(metric)))
        for before, after in zip(comparison.control, comparison.pruned, strict=True)
    ]
    numbers, labels = comparison.numbers, comparison.labels
    return Exemplars(
        metric,
        seeds,
        len(numbers),
        tuple(map(int, numbers[lost])),
        tuple(map(int, numbers[gained])),
        tuple(map(int, labels[lost])),
        tuple(map(int, labels[gained])),
        float(np.mean(changed)),
        float(np.mean(differing)) if differing else None,
    )


def _votes(flags: list[BoolArray]) -> IntArray:
    votes: IntArray = np.sum(flags, axis=0, dtype=np.int64)
    return votes
