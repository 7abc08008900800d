"""Prune potential (Liebenwein et al. 2021, "Lost in Pruning", section 3): how much can go before an accuracy falls.

For an accuracy and a method: the largest pruned share whose error is at most the dense network's and an allowance.
Shares that weren't measured are not interpolated, so that a potential is one that somebody has reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prunecert.bench.results.impact.images import FloatArray, Metric
from prunecert.bench.results.impact.pairs import Comparison
from prunecert.bench.results.impact.resamples import draws, slices

#: What the published figures allow, a share of the images.
ALLOWANCE = 0.005


@dataclass(frozen=True)
class Potential:
    """How much of a network can go.

    Args:
        pruner: The method.
        metric: The accuracy.
        share: The largest pruned share that passes, of those measured; 0 is the dense network.
        low: Lower end of the 95 % bootstrap interval over images.
        high: Upper end.
        measured: The shares that were measured, ascending.
    """

    pruner: str
    metric: Metric
    share: float
    low: float
    high: float
    measured: tuple[float, ...]


def potential(
    ladder: Mapping[float, FloatArray],
    allowance: float = ALLOWANCE,
    *,
    repeats: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Returns the potential and its percentile bootstrap interval.

    Example:
        >>> worse = np.array([-1.0] + [0.0] * 99)
        >>> potential({0.5: np.zeros(100), 0.9: worse}, 0.005)[0], potential({0.5: np.zeros(100), 0.9: worse}, 0.02)[0]
        (0.5, 0.9)

    Args:
        ladder: By pruned share in (0, 1), each image's change of the accuracy against the dense network; the same
            images in the same order.
        allowance: Loss of accuracy that is allowed, a share.
        repeats: Bootstrap samples of the images.
        confidence: Coverage aimed at.
        seed: Of the resampling.
    """
    if not ladder:
        return 0.0, 0.0, 0.0
    shares = np.array([0.0, *sorted(ladder)])
    changes = np.stack([np.zeros(len(next(iter(ladder.values())))), *(ladder[share] for share in shares[1:])])
    n = changes.shape[1]
    # All shares see the same resample.
    drawn = draws(n, repeats, seed)
    means = [drawn[part] / n @ changes.T for part in slices(n, repeats)]
    sampled = _largest(np.concatenate(means), shares, allowance)
    value = float(_largest(changes.mean(axis=1), shares, allowance))
    tail = (1 - confidence) / 2
    # Potentials are a few values; an interval ends at ones that occur.
    low, high = np.quantile(sampled, [tail, 1 - tail], method="inverted_cdf")
    return value, float(low), float(high)


def _largest(means: FloatArray, shares: FloatArray, allowance: float) -> FloatArray:
    """Returns the largest share whose mean change, on the last axis, is within the allowance; rounding is forgiven."""
    largest: FloatArray = np.max(np.where(means >= -allowance - 1e-12, shares, 0.0), axis=-1)
    return largest


def pruned_share(comparison: Comparison) -> float:
    """Returns the share of the weights that went, as counted: some methods don't end where they were asked to."""
    ratios = [part.cell.measured_compression or part.cell.compression for part in comparison.pruned]
    return 1 - 1 / float(np.mean(ratios))


def potentials(comparisons: list[Comparison], allowance: float = ALLOWANCE) -> list[Potential]:
    """Returns each pruner's potential by each accuracy.

    Args:
        comparisons: Comparisons of one family with its dense control, all compressions.
        allowance: See `potential`.
    """
    results = []
    for pruner in dict.fromkeys(comparison.pruner for comparison in comparisons):
        rungs = [comparison for comparison in comparisons if comparison.pruner == pruner]
        common = rungs[0].numbers
        for rung in rungs[1:]:
            common = np.intersect1d(common, rung.numbers)
        for metric in rungs[0].metrics:
            if not len(common) or not all(metric in rung.metrics for rung in rungs):
                continue
            ladder = {
                pruned_share(rung): rung.differences(metric)[np.searchsorted(rung.numbers, common)] / len(rung.seeds)
                for rung in rungs
            }
            value, low, high = potential(ladder, allowance)
            results.append(Potential(pruner, metric, value, low, high, tuple(sorted(ladder))))
    return results
