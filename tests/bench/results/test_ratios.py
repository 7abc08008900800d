from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.results import ratios


def test_bootstrap_covers_and_is_seeded() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for repeat in range(200):
        base = rng.lognormal(0, 1, 60)
        ratio, low, high = ratios.bootstrap_ratio_of_medians(base * 3, base, repeats=300, seed=repeat)
        assert ratio == pytest.approx(3)
        assert (low, high) == pytest.approx((3, 3))
        other = rng.lognormal(math.log(2), 1, 60)
        _, low, high = ratios.bootstrap_ratio_of_medians(other, base, paired=False, repeats=300, seed=repeat)
        inside += low <= 2 <= high
    assert inside >= 180
    twice = [ratios.bootstrap_ratio_of_medians([1, 2, 5], [2, 2, 3], repeats=100, seed=4) for _ in range(2)]
    assert twice[0] == twice[1]


def test_par2() -> None:
    assert ratios.par2([1.0, 10.0, 4.0, 11.0], [True, False, True, True], 10.0) == (1 + 20 + 4 + 20) / 4


def test_median() -> None:
    assert ratios.median([3, 1, 2]) == 2
    assert ratios.median([]) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: ratios.bootstrap_ratio_of_medians([], [1]),
        lambda: ratios.bootstrap_ratio_of_medians([1, 0], [1, 1]),
        lambda: ratios.bootstrap_ratio_of_medians([1, 2], [1]),
        lambda: ratios.bootstrap_ratio_of_medians([1], [1], confidence=2),
        lambda: ratios.par2([1.0], [True], 0),
        lambda: ratios.par2([], [], 1),
    ],
)
def test_nonsense_is_refused(call: object) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=r"must|need|at least"):
        call()


def test_paired_ratio_covers_and_takes_the_ends() -> None:
    rng = np.random.default_rng(0)
    shares = (0.4, 0.03, 0.08, 0.49)
    true = (shares[0] + shares[1]) / (shares[0] + shares[2])
    hits = [low <= true <= high for low, high in _intervals(rng.multinomial(50, shares, size=2000))]
    assert 0.93 <= np.mean(hits) <= 0.985
    ratio, low, high = ratios.paired_ratio(0, 0, 9)
    assert ratio == low == 0
    assert 0 < high < 1
    assert ratios.paired_ratio(9, 0, 0)[0] == 1
    a, b = ratios.paired_ratio(20, 7, 2), ratios.paired_ratio(20, 2, 7)
    assert a[0] == pytest.approx(1 / b[0])
    assert a[1] == pytest.approx(1 / b[2])
    for wrong in ((0, 3, 0), (-1, 2, 3)):
        with pytest.raises(ValueError, match="counts"):
            ratios.paired_ratio(*wrong)


def _intervals(tables: Any) -> Iterator[tuple[float, float]]:
    for both, first, second, _ in tables.tolist():
        _, low, high = ratios.paired_ratio(both, first, second)
        yield low, high


@given(st.integers(1, 300), st.data())
def test_a_ratio_of_counts_lies_in_its_interval(n: int, data: st.DataObject) -> None:
    k, base = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    ratio, low, high = ratios.unpaired_ratio(k, base, n)
    assert 0 <= low <= ratio == k / base <= high


def test_a_ratio_of_counts_covers_the_true_ratio_as_often_as_promised() -> None:
    n, first, second = 40, 0.45, 0.5
    weights = [[math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(n + 1)] for p in (first, second)]
    covered = 0.0
    for k in range(n + 1):
        for base in range(1, n + 1):
            _, low, high = ratios.unpaired_ratio(k, base, n)
            covered += weights[0][k] * weights[1][base] * (low <= first / second <= high)
    assert 0.94 < covered < 0.97


def test_a_ratio_of_counts_wants_a_denominator() -> None:
    with pytest.raises(ValueError, match="base >= 1"):
        ratios.unpaired_ratio(3, 0, 10)
