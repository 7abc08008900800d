from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, spearmanr

from prunecert.bench.results import stats

with warnings.catch_warnings():
    # statsmodels imports pandas parts that announce their own future.
    warnings.simplefilter("ignore")
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.proportion import proportion_confint

counts = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_intervals_are_those_of_statsmodels(count: tuple[int, int], confidence: float) -> None:
    k, n = count
    for ours, method in ((stats.wilson, "wilson"), (stats.clopper_pearson, "beta")):
        low, high = proportion_confint(k, n, alpha=1 - confidence, method=method)
        assert ours(k, n, confidence) == pytest.approx((max(0.0, low), min(1.0, high)), abs=1e-9)


def test_wilson_published() -> None:
    # Newcombe (1998), Statistics in Medicine 17:857, table I, method 3.
    assert stats.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert stats.wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert stats.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert stats.wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_clopper_pearson_published() -> None:
    # The same table, method 5.
    assert stats.clopper_pearson(81, 263) == pytest.approx((0.2527, 0.3676), abs=5e-5)
    assert stats.clopper_pearson(15, 148) == pytest.approx((0.0578, 0.1617), abs=5e-5)
    assert stats.clopper_pearson(0, 20) == pytest.approx((0.0, 0.1684), abs=5e-5)
    assert stats.clopper_pearson(1, 29) == pytest.approx((0.0009, 0.1776), abs=5e-5)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_that_of_statsmodels_and_scipy(b: int, c: int) -> None:
    p = stats.mcnemar_exact(b, c)
    if b + c:
        assert p == pytest.approx(mcnemar([[5, b], [c, 5]], exact=True).pvalue, rel=1e-9)
        assert p == pytest.approx(min(1.0, 2 * binomtest(min(b, c), b + c, alternative="less").pvalue), rel=1e-9)
    else:
        assert p == 1.0


def test_mcnemar_of_many() -> None:
    assert stats.mcnemar_exact(900, 1100) == pytest.approx(binomtest(900, 2000).pvalue, rel=1e-6)
    assert stats.mcnemar_exact(0, 999) == 2 / 2**999


def test_paired_difference_is_agresti_and_min() -> None:
    # Hand-computed: b + 1/2 = 44.5, c + 1/2 = 16.5, n + 2 = 302.
    difference, low, high = stats.paired_difference(16, 44, 300)
    half = 1.959963984540054 * math.sqrt(61 - 28**2 / 302) / 302
    assert difference == pytest.approx(28 / 300)
    assert (low, high) == pytest.approx((28 / 302 - half, 28 / 302 + half), rel=1e-12)


def test_paired_difference_covers() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(2000):
        changes = rng.choice(3, 100, p=[0.85, 0.10, 0.05])
        _, low, high = stats.paired_difference(int((changes == 1).sum()), int((changes == 2).sum()), 100)
        inside += low <= 0.05 - 0.10 <= high
    assert 0.93 <= inside / 2000 <= 0.98


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_paired_difference_turns_round(b: int, c: int, rest: int) -> None:
    n = b + c + rest
    if n:
        d, low, high = stats.paired_difference(b, c, n)
        assert (-d, -high, -low) == pytest.approx(stats.paired_difference(c, b, n))
        assert -1 <= low <= d <= high <= 1 or b + c == n


@pytest.mark.parametrize(
    "call",
    [
        lambda: stats.wilson(2, 1),
        lambda: stats.wilson(0, 0),
        lambda: stats.clopper_pearson(-1, 5),
        lambda: stats.wilson(1, 2, 1.0),
        lambda: stats.mcnemar_exact(-1, 0),
        lambda: stats.paired_difference(3, 3, 5),
        lambda: stats.paired_difference(1, 1, 5, 0.0),
    ],
)
def test_nonsense_is_refused(call: object) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=r"must|need|at least"):
        call()


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 60))
def test_flipping_signs_of_one_pair_is_mcnemars_test(b: int, c: int, rest: int) -> None:
    differences = [-1] * b + [1] * c + [0] * (rest + 1)
    assert stats.sign_flip_exact(differences) == pytest.approx(stats.mcnemar_exact(b, c), rel=1e-9)
    assert stats.clustered_difference(differences) == pytest.approx(stats.paired_difference(b, c, len(differences)))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=10))
def test_flipping_signs_is_exact(differences: list[int]) -> None:
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(differences))).reshape(len(differences), -1)
    sums = np.abs(differences @ signs)
    assert stats.sign_flip_exact(differences) == pytest.approx(np.mean(sums >= abs(sum(differences))), rel=1e-9)


def test_several_seeds_narrow_an_interval_less_than_more_images_do() -> None:
    one = stats.clustered_difference([1] * 10 + [-1] * 4 + [0] * 86)
    same_twice = stats.clustered_difference([2] * 10 + [-2] * 4 + [0] * 86, 2)
    assert same_twice == pytest.approx(one)
    apart = stats.clustered_difference([1] * 20 + [-1] * 8 + [0] * 72, 2)
    assert apart[0] == pytest.approx(one[0])
    assert apart[2] - apart[1] < one[2] - one[1]
    with pytest.raises(ValueError, match="within"):
        stats.clustered_difference([2], 1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = stats.holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    assert min(adjusted) == pytest.approx(min(1.0, len(p_values) * min(p_values)))
    assert sorted(range(len(adjusted)), key=lambda i: (adjusted[i], p_values[i])) == sorted(
        range(len(adjusted)), key=lambda i: p_values[i]
    )


def test_holm_published() -> None:
    # Holm 1979, by hand: the smallest of four times four, then three, each at least the one before.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    with pytest.raises(ValueError, match="within 0 and 1"):
        stats.holm([1.5])


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        x, y = rng.integers(0, 6, 10).astype(float), rng.random(10)
        correlation, p = stats.rank_correlation(x, y, repeats=1999)
        reference = spearmanr(x, y)
        assert correlation == pytest.approx(reference.statistic)
        assert p == pytest.approx(reference.pvalue, abs=0.06)
    assert stats.rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == (0.0, 1.0)
    with pytest.raises(ValueError, match="three pairs"):
        stats.rank_correlation([1.0], [2.0])
