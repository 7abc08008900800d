"""The arithmetic of certificates, beside other people's and beside the definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scipy.special import bdtrc
from scipy.stats import beta, norm
from statsmodels.stats.proportion import proportion_confint

from prunecert.verifiers.certificate import certificate, flaw, lower_bound


@pytest.mark.parametrize("n", [1, 7, 100, 1000, 100_000])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
def test_the_bound_is_clopper_pearsons(n: int, alpha: float) -> None:
    for count in sorted({0, 1, n // 3, n // 2, n - 1, n}):
        bound = lower_bound(count, n, alpha)
        # A two-sided interval at 1 - 2 alpha has the one-sided bound at 1 - alpha for its lower end.
        right = proportion_confint(count, n, alpha=2 * alpha, method="beta")[0]
        assert bound == pytest.approx(right, rel=1e-9, abs=1e-300)
        if count:
            assert bound == pytest.approx(beta.ppf(alpha, count, n - count + 1), rel=1e-9)


@pytest.mark.parametrize(("count", "n"), [(1, 1), (1, 10), (60, 100), (99, 100), (100, 100), (99_995, 100_000)])
def test_the_bound_keeps_the_definition_and_no_more(count: int, n: int) -> None:
    """P(Binomial(n, p) >= count) is at most alpha at the bound, and above it a little higher up."""
    bound = lower_bound(count, n, 0.001)
    assert bdtrc(count - 1, n, bound) <= 0.001
    assert bdtrc(count - 1, n, bound * (1 + 1e-6)) > 0.001


def test_the_radius_is_the_papers() -> None:
    claim = certificate(3, 990, n0=100, n=1000, alpha=0.001, sigma=0.25)
    assert claim.radius == pytest.approx(0.25 * norm.ppf(proportion_confint(990, 1000, 0.002, "beta")[0]), rel=1e-9)
    assert not claim.abstained
    # All of n agree: the largest radius there is, sigma * Phi^-1(alpha^(1/n)); 100,000 samples give 3.8 sigma.
    best = certificate(3, 100_000, n0=100, n=100_000, alpha=0.001, sigma=1.0)
    assert best.radius == pytest.approx(norm.ppf(0.001**1e-5), rel=1e-9)
    assert 3.7 < best.radius < 3.9


def test_half_is_not_enough() -> None:
    for count in (0, 500, 549):
        claim = certificate(3, count, n0=100, n=1000, alpha=0.001, sigma=0.25)
        assert claim.abstained
        assert claim.radius == 0
        assert not claim.certifies(3, 0.0)
    claim = certificate(3, 550, n0=100, n=1000, alpha=0.001, sigma=0.25)
    assert not claim.abstained
    assert 0 < claim.radius < 0.01


def test_what_it_certifies() -> None:
    claim = certificate(3, 1000, n0=100, n=1000, alpha=0.001, sigma=0.25)
    assert claim.certifies(3, 0.0)
    assert claim.certifies(3, claim.radius)
    assert not claim.certifies(3, claim.radius + 1e-9)
    assert not claim.certifies(4, 0.0)


def test_flaws_are_found() -> None:
    good = certificate(3, 900, n0=100, n=1000, alpha=0.001, sigma=0.25)
    assert flaw(good, 10) is None
    bad = [
        replace(good, radius=good.radius * 1.0001),
        replace(good, p_lower=0.9),
        replace(good, count=901),
        replace(good, count=1001),
        replace(good, predicted=10),
        replace(good, n0=0),
        replace(good, sigma=0.5),
        replace(good, alpha=0.01),
        replace(good, alpha=0.0),
        replace(good, sigma=float("nan")),
        replace(good, radius=float("inf")),
    ]
    assert [claim for claim in bad if flaw(claim, 10) is None] == []
