"""Which ReLU to split next: two cheap scores propose, real bounds of the children decide.

Filtered smart branching (De Palma et al. 2021, "Improved Branch and Bound for Neural Network Verification via
Lagrangian Decomposition", section 4): BaBSR's estimate (Bunel et al. 2020) of what a relaxation costs is refined by
bounding both children of a few candidates. A second score proposes, too: how far the lines are from the ReLU at the
minimiser of the bound, which is 0 everywhere only if the minimiser is a true point.
"""

from __future__ import annotations

import numpy as np

from prunecert.verifiers.sparse.arrays import Float32Array, Int64Array
from prunecert.verifiers.sparse.bab.dual import Batch, Dual, Look


def scores(dual: Dual, batch: Batch, look: Look) -> tuple[Float32Array, Float32Array]:
    """Returns both scores [D, U], 0 or more; -1 for neurons that are split.

    Args:
        dual: Of the network.
        batch: Subdomains.
        look: What the walk of their bounds saw.
    """
    net = dual.net
    lam, z = look.lam, np.clip(look.z, net.lower, net.upper)
    falling = lam < 0
    intercept = np.where(
        falling,
        lam * dual.slope * net.lower,
        lam * np.maximum(-batch.alpha * net.lower, (1 - batch.alpha) * net.upper) * 0.5,
    )
    line = np.where(falling, dual.slope * (z - net.lower), batch.alpha * z)
    gap = lam * (np.maximum(z, 0) - line)
    free = batch.sign == 0
    # Both are 0 or more but for rounding, and a negative score would pass for a split neuron's.
    intercept, gap = (np.where(free, np.maximum(score, 0), -1).astype(np.float32) for score in (intercept, gap))
    return intercept, gap


def candidates(intercept: Float32Array, gap: Float32Array, count: int) -> Int64Array:
    """Returns `count` different neurons for each subdomain, [D, count], the best of both scores; -1 where none is left.

    Args:
        intercept: First score, [D, U].
        gap: Second score.
        count: How many.
    """
    width = intercept.shape[1]
    count = min(count, width)
    rank = np.empty_like(gap)
    rows = np.arange(len(gap))[:, None]
    best = np.full(gap.shape, np.inf, dtype=np.float32)
    for score in (gap, intercept):
        order = np.argsort(-score, axis=1)
        rank[rows, order] = np.arange(width, dtype=np.float32)
        best = np.minimum(best, rank + (0.5 if score is intercept else 0.0))
    best[gap < 0] = np.inf
    chosen = np.argpartition(best, count - 1, axis=1)[:, :count]
    neurons: Int64Array = np.where(np.isinf(best[rows, chosen]), -1, chosen).astype(np.int64)
    return neurons


def children(batch: Batch, neuron: Int64Array) -> Batch:
    """Returns the active children of all subdomains, then the inactive ones, with their parents' dual variables."""
    both = batch.take(np.tile(np.arange(len(batch)), 2))
    rows, columns = np.arange(2 * len(batch)), np.tile(neuron, 2)
    both.sign[rows, columns] = np.repeat(np.array([1, -1], dtype=np.int8), len(batch))
    both.beta[rows, columns] = 0.0
    return both


def choose(dual: Dual, batch: Batch, look: Look, count: int, most: int = 1024) -> Int64Array:
    """Returns the neuron to split for each subdomain, [D].

    Args:
        dual: Of the network.
        batch: Subdomains with at least one free neuron each.
        look: What the walk of their bounds saw.
        count: Candidates whose children are bounded; with 1, none is.
        most: Subdomains to bound together.
    """
    neurons = candidates(*scores(dual, batch, look), count)
    if neurons.shape[1] == 1:
        return neurons[:, 0]
    owner, column = np.nonzero(neurons >= 0)
    values = np.full(neurons.shape, -np.inf)
    for begin in range(0, len(owner), most // 2):
        part = slice(begin, begin + most // 2)
        both = children(batch.take(owner[part]), neurons[owner[part], column[part]])
        bound = np.minimum(dual.bound(both), 0.0).reshape(2, -1) - batch.bound[owner[part]]
        # The weaker child decides; the stronger one breaks ties.
        values[owner[part], column[part]] = bound.min(axis=0) + 0.1 * bound.max(axis=0)
    chosen: Int64Array = neurons[np.arange(len(batch)), values.argmax(axis=1)]
    return chosen
