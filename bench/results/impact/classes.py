"""Which classes pay for pruning (Tran et al. 2022, "Pruning has a disparate impact on model accuracy").

Two questions are asked of each class and accuracy, and each answered with a test corrected by Holm's procedure for
the classes and accuracies of the comparison:

- Did it change? Paired, image by image: McNemar's exact test, or the sign-flip test over several seeds.
- Did it change otherwise than the rest? The mean change is taken off, as Hooker et al. 2019 do; the distribution if
  classes made no difference comes from permuting the labels of the images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunecert.bench.results.impact.images import IntArray, Metric
from prunecert.bench.results.impact.pairs import Comparison
from prunecert.bench.results.stats import clustered_difference, holm, sign_flip_exact

#: Permutations of the labels: the smallest p value is one over one more than these.
REPEATS = 9_999


@dataclass(frozen=True)
class ClassChange:
    """What became of an accuracy of one class.

    Args:
        label: The class.
        metric: The accuracy.
        images: Images of the class.
        dense: The control's accuracy on it, the mean over seeds.
        pruned: The pruned networks'.
        change: Pruned minus dense.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: That nothing changed, adjusted.
        excess: Its change minus that of all images.
        excess_p: That classes don't differ in what they lose, adjusted.
    """

    label: int
    metric: Metric
    images: int
    dense: float
    pruned: float
    change: float
    low: float
    high: float
    p: float
    excess: float
    excess_p: float


def class_changes(comparison: Comparison, *, repeats: int = REPEATS, seed: int = 0) -> list[ClassChange]:
    """Returns the changes of all classes that have images, accuracy by accuracy.

    Args:
        comparison: Dense and pruned networks.
        repeats: Permutations of the labels.
        seed: Of them.
    """
    labels, pairs = comparison.labels, len(comparison.seeds)
    classes = [int(label) for label in np.unique(labels)]
    rows: list[tuple[int, Metric, IntArray, float]] = []
    p_values, excess_p_values = [], []
    for metric in comparison.metrics:
        differences = comparison.differences(metric)
        mean = float(differences.mean()) / pairs
        for label in classes:
            own = differences[labels == label]
            rows.append((label, metric, own, mean))
            p_values.append(sign_flip_exact(own))
            excess_p_values.append(_excess_p(own, differences, repeats, seed))
    changes = []
    for (label, metric, own, mean), p, excess_p in zip(rows, holm(p_values), holm(excess_p_values), strict=True):
        value, low, high = clustered_difference(own, pairs)
        dense, pruned = (
            float(np.mean([part.flags(metric)[labels == label].mean() for part in side]))
            for side in (comparison.control, comparison.pruned)
        )
        changes.append(ClassChange(label, metric, len(own), dense, pruned, value, low, high, p, value - mean, excess_p))
    return changes


def _excess_p(own: IntArray, differences: IntArray, repeats: int, seed: int) -> float:
    """Returns how often so many images, drawn without regard to their class, deviate as far from the mean change."""
    n, size = len(differences), len(own)
    values, counts = np.unique(differences, return_counts=True)
    rng = np.random.default_rng(seed)
    # The marginals method's memory grows with the values, not with the images.
    draws = rng.multivariate_hypergeometric(counts, size, size=repeats, method="marginals")
    # In whole numbers, so that equal deviations are equal.
    expected = size * int(differences.sum())
    deviations = np.abs(n * (draws @ values) - expected)
    return float(1 + np.count_nonzero(deviations >= abs(n * int(own.sum()) - expected))) / (1 + repeats)
