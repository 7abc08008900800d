"""Intervals of proportions and paired tests; pure functions, no I/O. Ratios and times are in `results.ratios`.

Counts are of images, proportions are within [0, 1]. Invalid arguments are a `ValueError`:
they come from code, not from users.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]
Sample = Sequence[float] | npt.NDArray[np.float64]


def check_counts(k: int, n: int, confidence: float) -> None:
    """Raises a `ValueError` unless k of n is a proportion and the confidence can be aimed at."""
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"need 0 <= k <= n and n >= 1, got k = {k}, n = {n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be within 0 and 1, got {confidence}")


def wilson(k: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927), without continuity correction.

    Example:
        >>> low, high = wilson(47, 100)
        >>> print(f"{low:.3f} to {high:.3f}")
        0.375 to 0.567

    Args:
        k: Successes.
        n: Trials, at least 1.
        confidence: Coverage aimed at.

    Returns:
        Lower and upper bound, within [0, 1].
    """
    check_counts(k, n, confidence)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = k / n
    scale = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (0.0 if k == 0 else max(0.0, centre - half), 1.0 if k == n else min(1.0, centre + half))


def share_record(k: int, n: int, confidence: float) -> dict[str, Any]:
    """Returns k of n as summaries hold it, with Wilson's interval; of none, no value and all of [0, 1].

    >>> share_record(0, 0, 0.95)
    {'k': 0, 'n': 0, 'value': None, 'low': 0.0, 'high': 1.0}

    Args:
        k: Successes, within 0 and n.
        n: Trials.
        confidence: Of the interval, within 0 and 1.

    Raises:
        ValueError: A number is out of its range.
    """
    low, high = wilson(k, n, confidence) if n else (0.0, 1.0)
    return {"k": k, "n": n, "value": k / n if n else None, "low": low, "high": high}


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> Interval:
    """The exact interval of a proportion (Clopper and Pearson 1934); never covers less than asked.

    Example:
        >>> low, high = clopper_pearson(0, 10)
        >>> print(f"{low:.3f} to {high:.3f}")
        0.000 to 0.308

    Args:
        k: Successes.
        n: Trials, at least 1.
        confidence: Coverage guaranteed.

    Returns:
        Lower and upper bound, within [0, 1].
    """
    from scipy.stats import beta

    check_counts(k, n, confidence)
    alpha = 1 - confidence
    low = 0.0 if k == 0 else float(beta.ppf(alpha / 2, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(1 - alpha / 2, k + 1, n - k))
    return low, high


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided p value of McNemar's exact test on paired yes/no outcomes.

    Example:
        >>> mcnemar_exact(5, 0)
        0.0625

    Args:
        b: Images that changed from yes to no.
        c: Images that changed from no to yes.

    Returns:
        2 · P(X <= min(b, c)) for X binomial(b + c, 1/2), at most 1; 1 where nothing changed.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts must not be negative, got {b} and {c}")
    n = b + c
    # Integers to the end: a sum of many tiny floats loses the small p values that matter.
    tail = sum(math.comb(n, i) for i in range(min(b, c) + 1))
    return min(1.0, 2 * tail / 2**n) if n < 1000 else min(1.0, _half_binomial_tail(min(b, c), n))


def _half_binomial_tail(k: int, n: int) -> float:
    from scipy.stats import binom

    return float(2 * binom.cdf(k, n, 0.5))


def paired_difference(b: int, c: int, n: int, confidence: float = 0.95) -> tuple[float, float, float]:
    """The difference of two proportions measured on the same images, and its interval.

    The interval of Agresti and Min (2005, Statistics in Medicine 24:729): Wald's after adding 1/2 to each cell of
    the paired table, which keeps its coverage in small samples and needs the discordant counts only.

    Example:
        >>> difference, low, high = paired_difference(b=2, c=7, n=100)
        >>> print(f"{difference:+.2f} ({low:+.3f} to {high:+.3f})")
        +0.05 (-0.011 to +0.109)

    Args:
        b: Images that changed from yes to no.
        c: Images that changed from no to yes.
        n: All images, at least 1.
        confidence: Coverage aimed at.

    Returns:
        (c - b) / n, the lower and the upper bound, all within [-1, 1].
    """
    if b < 0 or c < 0 or b + c > n or n < 1:
        raise ValueError(f"need b, c >= 0, b + c <= n and n >= 1, got b = {b}, c = {c}, n = {n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be within 0 and 1, got {confidence}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    b_, c_, n_ = b + 0.5, c + 0.5, n + 2
    centre = (c_ - b_) / n_
    half = z * math.sqrt((b_ + c_) - (c_ - b_) ** 2 / n_) / n_
    return (c - b) / n, max(-1.0, centre - half), min(1.0, centre + half)


def sign_flip_exact(differences: Sequence[int] | npt.NDArray[np.int64]) -> float:
    """Two-sided p value of the exact sign-flip test on paired differences (Fisher 1935, section 21).

    With one pair of networks a difference is -1, 0 or 1, and this is McNemar's exact test. With the networks of several
    seeds an image has one difference, the sum over its pairs: images are the sample, not pairs of image and seed, which
    are not independent.

    Example:
        >>> round(sign_flip_exact([-1] * 5 + [0] * 9), 6) == mcnemar_exact(5, 0)
        True
        >>> round(sign_flip_exact([-2, -2, -1]), 6)
        0.25

    Args:
        differences: One number for each image.

    Returns:
        P(|T| >= |sum|) for T the sum with signs drawn by fair coins; 1 where all are 0.
    """
    values = np.asarray(differences, dtype=np.int64)
    observed = abs(int(values.sum()))
    if observed == 0:
        return 1.0
    from scipy.stats import binom

    weights = np.ones(1)
    for size, count in zip(*np.unique(np.abs(values[values != 0]), return_counts=True), strict=True):
        # The sum of `count` terms of +-size, shifted to begin at 0: size times twice a binomial number.
        one = np.zeros(2 * int(size) * int(count) + 1)
        one[:: 2 * int(size)] = binom.pmf(np.arange(count + 1), count, 0.5)
        weights = np.convolve(weights, one)
    sums = np.arange(len(weights)) - (len(weights) - 1) // 2
    return min(1.0, float(weights[np.abs(sums) >= observed].sum()))


def clustered_difference(
    differences: Sequence[int] | npt.NDArray[np.int64], pairs: int = 1, confidence: float = 0.95
) -> tuple[float, float, float]:
    """The mean difference of proportions over several pairs of networks on the same images, and its interval.

    Of one pair it is `paired_difference`. Of several, an image's differences are averaged first, so that the interval
    speaks of other images, and of these networks; the pseudo-observations of Agresti and Min are kept.

    Example:
        >>> clustered_difference([1] * 7 + [-1] * 2 + [0] * 91) == paired_difference(2, 7, 100)
        True

    Args:
        differences: For each image, in how many more pairs it went from no to yes than from yes to no.
        pairs: How many pairs.
        confidence: Coverage aimed at.

    Returns:
        The mean, the lower and the upper bound, all within [-1, 1].
    """
    values = np.asarray(differences, dtype=np.int64)
    n = len(values)
    if n < 1 or pairs < 1 or int(np.abs(values).max()) > pairs:
        raise ValueError(f"need an image and differences within +-{pairs}, got {n} images")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be within 0 and 1, got {confidence}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    total = int(values.sum()) / pairs
    centre, variance = centred(total, int((values * values).sum()) / pairs**2, n)
    half = z * math.sqrt(variance) / (n + 2)
    return total / n, max(-1.0, centre - half), min(1.0, centre + half)


def centred(total: float, squares: float, n: int) -> tuple[float, float]:
    """Centre and variance of differences with the pseudo-observations of Agresti and Min (see `paired_difference`).

    No difference seen isn't none: the variance is never 0.

    >>> centred(0.0, 0.0, 98)
    (0.0, 1.0)

    Args:
        total: Sum of the images' differences, each within [-1, 1].
        squares: Sum of their squares.
        n: How many images.

    Returns:
        The mean of n + 2 observations, and the variance of their sum.
    """
    return total / (n + 2), max(0.0, squares + 1 - total**2 / (n + 2))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for their number so that no false one stands in 1 - alpha of all families (Holm 1979).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    Args:
        p_values: Of one family of tests, within [0, 1].

    Returns:
        The adjusted ones in the same order, at most 1: reject where they are at most alpha.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("p values must lie within 0 and 1")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def rank_correlation(x: Sample, y: Sample, *, repeats: int = 9_999, seed: int = 0) -> tuple[float, float]:
    """Spearman's rank correlation, and the two-sided p value of its permutation test.

    Example:
        >>> rank_correlation([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 4.0, 9.0, 16.0, 25.0])[0]
        1.0

    Args:
        x: At least three numbers.
        y: As many.
        repeats: Permutations.
        seed: Of them.

    Returns:
        The correlation in [-1, 1], 0 where all of one side are equal; the p value.
    """
    from scipy.stats import rankdata

    if len(x) != len(y) or len(x) < 3:
        raise ValueError(f"need at least three pairs, got {len(x)} and {len(y)} numbers")
    # Twice the centred ranks are whole numbers, so that equal correlations are equal.
    one, other = (2 * rankdata(values) - (len(x) + 1) for values in (x, y))
    scale = math.sqrt(float((one @ one) * (other @ other)))
    if scale == 0:
        return 0.0, 1.0
    observed = float(one @ other)
    shuffled = np.random.default_rng(seed).permuted(np.tile(other, (repeats, 1)), axis=1) @ one
    p = (1 + np.count_nonzero(np.abs(shuffled) >= abs(observed))) / (1 + repeats)
    return observed / scale, float(p)
