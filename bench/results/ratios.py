"""Ratios of proportions and of times with their intervals, and penalised times; pure functions, no I/O.

Counts are of images, times are in seconds. Invalid arguments are a `ValueError`: they come from code, not from users.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from prunecert.bench.results.stats import Sample, check_counts, wilson


def bootstrap_ratio_of_medians(
    numerator: Sample,
    denominator: Sample,
    *,
    paired: bool = True,
    confidence: float = 0.95,
    repeats: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """The ratio of two medians with a percentile bootstrap interval; see `bootstrap_ratio`."""
    return bootstrap_ratio(
        numerator, denominator, np.median, paired=paired, confidence=confidence, repeats=repeats, seed=seed
    )


def bootstrap_ratio(
    numerator: Sample,
    denominator: Sample,
    statistic: Callable[..., Any],
    *,
    paired: bool = True,
    confidence: float = 0.95,
    repeats: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """The ratio of a statistic of two samples with a percentile bootstrap interval.

    Efron and Tibshirani 1993, chapter 13.

    Example:
        >>> bootstrap_ratio([2.0, 4.0, 8.0], [1.0, 2.0, 4.0], np.median, repeats=100)
        (2.0, 2.0, 2.0)

    Args:
        numerator: Times, each above 0.
        denominator: Times, each above 0; of the same images in the same order if `paired`.
        statistic: `np.median` or `np.mean`.
        paired: Resample images (both times together) rather than each side for itself.
        confidence: Coverage aimed at.
        repeats: Bootstrap samples.
        seed: Seed of the resampling; equal seeds give equal intervals.

    Returns:
        The ratio, the lower and the upper bound.
    """
    a, b = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    if a.size < 1 or b.size < 1 or not (np.all(a > 0) and np.all(b > 0)):
        raise ValueError("both samples must hold at least one time, and each time must be above 0")
    if paired and a.shape != b.shape:
        raise ValueError(f"paired samples must have equal lengths, got {a.size} and {b.size}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be within 0 and 1, got {confidence}")
    rng = np.random.default_rng(seed)
    ratios = np.empty(repeats)
    # In slices, so that 10,000 resamples of 10,000 times don't ask for gigabytes.
    step = max(1, 2_000_000 // max(a.size, b.size))
    for start in range(0, repeats, step):
        count = min(step, repeats - start)
        index = rng.integers(0, a.size, (count, a.size))
        other = index if paired else rng.integers(0, b.size, (count, b.size))
        ratios[start : start + count] = statistic(a[index], axis=1) / statistic(b[other], axis=1)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(statistic(a) / statistic(b)), float(low), float(high)


def par2(times: Sequence[float], solved: Sequence[bool], timeout: float) -> float:
    """Penalised average running time: an unsolved instance, or one over the limit, counts twice the limit.

    Example:
        >>> par2([3.0, 10.0], solved=[True, False], timeout=10.0)
        11.5

    Args:
        times: Seconds by instance.
        solved: Whether the instance was decided.
        timeout: The limit in seconds, above 0.

    Returns:
        The mean in seconds.
    """
    if len(times) != len(solved) or not times:
        raise ValueError(f"need one flag a time and at least one, got {len(times)} times and {len(solved)} flags")
    if not timeout > 0:
        raise ValueError(f"timeout must be above 0, got {timeout}")
    total = sum(t if ok and t <= timeout else 2 * timeout for t, ok in zip(times, solved, strict=True))
    return total / len(times)


def median(values: Sequence[float]) -> float | None:
    """The median, or None of nothing.

    Example:
        >>> median([3.0, 1.0, 2.0])
        2.0
    """
    return float(np.median(np.asarray(values, dtype=np.float64))) if len(values) else None


def paired_ratio(both: int, first: int, second: int, confidence: float = 0.95) -> tuple[float, float, float]:
    """The ratio of two proportions measured on the same images, and its interval.

    The hybrid score interval of Bonett and Price (2006, Biometrics 62:1135), for paired yes/no outcomes; images on
    which both say no have no say in a ratio.

    Example:
        >>> ratio, low, high = paired_ratio(both=40, first=2, second=8)
        >>> print(f"{ratio:.3f} ({low:.3f} to {high:.3f})")
        0.875 (0.758 to 1.010)

    Args:
        both: Images on which both say yes.
        first: Images on which only the numerator's side does.
        second: Images on which only the denominator's side does.
        confidence: Coverage aimed at.

    Returns:
        (both + first) / (both + second), the lower and the upper bound.
    """
    if min(both, first, second) < 0 or both + second < 1:
        raise ValueError(f"need counts >= 0 and both + second >= 1, got {both}, {first}, {second}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be within 0 and 1, got {confidence}")
    n, a, b = both + first + second, both + first, both + second
    spread = math.sqrt((first + second + 2) / ((a + 1) * (b + 1)))
    apart = math.sqrt((1 - (a + 1) / (n + 2)) / (a + 1)) + math.sqrt((1 - (b + 1) / (n + 2)) / (b + 1))
    z = NormalDist().inv_cdf(0.5 + confidence / 2) * spread / apart
    level = 2 * NormalDist().cdf(z) - 1
    (low_a, high_a), (low_b, high_b) = wilson(a, n, level), wilson(b, n, level)
    return a / b, low_a / high_b, high_a / low_b


def unpaired_ratio(k: int, base: int, n: int, confidence: float = 0.95) -> tuple[float, float, float]:
    """The ratio of two proportions of which only the counts are known, and its interval.

    The adjusted log interval (Walter 1975, Biometrika 62:371). It takes the two for independent; of networks judged on
    the same images, which mostly agree, it is wider than it need be, never too narrow. `paired_ratio` is for those
    whose images are known.

    Example:
        >>> ratio, low, high = unpaired_ratio(425, 432, 1000)
        >>> print(f"{ratio:.3f} ({low:.3f} to {high:.3f})")
        0.984 (0.889 to 1.089)

    Args:
        k: Successes of the numerator's side.
        base: Successes of the denominator's side, at least 1.
        n: Trials of each.
        confidence: Coverage aimed at.

    Returns:
        k / base, the lower and the upper bound.
    """
    check_counts(k, n, confidence)
    check_counts(base, n, confidence)
    if base < 1:
        raise ValueError("need base >= 1, got 0")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    half = z * math.sqrt(max(0.0, 1 / (k + 0.5) + 1 / (base + 0.5) - 2 / (n + 0.5)))
    centre = (k + 0.5) / (base + 0.5)
    return k / base, min(k / base, centre * math.exp(-half)), max(k / base, centre * math.exp(half))
