"""Certificates of randomized smoothing (Cohen et al. 2019, arXiv 1902.02918): what is claimed, and the arithmetic.

A certificate speaks of the *smoothed* classifier, g(x) = the class that the network gives most often at
x + N(0, sigma^2 I), and not of the network itself. It holds with probability 1 - alpha over the noise that was drawn,
and in the l2 norm, over all of R^d (no clipping to [0, 1]). So it is neither `unsat` nor comparable with one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

#: Relative amount by which a computed bound is lowered, a thousand times the rounding of the inverse beta function.
_DOWN = 1e-12


@dataclass(frozen=True)
class Certificate:
    """What smoothing found at one image (CERTIFY in section 3.2.2 of the paper).

    Args:
        predicted: The class that led among the first `n0` samples.
        count: How many of the `n` other samples had that class.
        n0: Samples that chose the class.
        n: Samples that estimated its probability.
        alpha: Probability with which the certificate may be wrong.
        sigma: Standard deviation of the noise, in pixels of [0, 1].
        p_lower: Lower Clopper-Pearson bound of the class's probability under noise, one-sided at 1 - `alpha`.
        radius: l2 radius, in pixels of [0, 1], within which g has this class: sigma * Phi^-1(p_lower); 0 if abstained.
    """

    predicted: int
    count: int
    n0: int
    n: int
    alpha: float
    sigma: float
    p_lower: float
    radius: float

    @property
    def abstained(self) -> bool:
        """Whether nothing is claimed, not even the class at the image itself."""
        return not self.p_lower > 0.5

    def certifies(self, label: int, radius: float) -> bool:
        """Whether g is shown to have class `label` at every point within `radius`."""
        return not self.abstained and self.predicted == label and self.radius >= radius

    def to_json(self) -> dict[str, Any]:
        """Returns plain data."""
        return asdict(self)


def lower_bound(count: int, n: int, alpha: float) -> float:
    """Returns the one-sided Clopper-Pearson bound: the largest p with P(Binomial(n, p) >= count) <= alpha.

    It is rounded down, so that the probability at the float returned is at most `alpha`.

    Args:
        count: Successes, from 0 to `n`.
        n: Trials, 1 or more.
        alpha: Within (0, 1).
    """
    from scipy.special import betaincinv

    if count == 0:
        return 0.0
    return float(betaincinv(count, n - count + 1, alpha)) * (1 - _DOWN)


def certificate(predicted: int, count: int, *, n0: int, n: int, alpha: float, sigma: float) -> Certificate:
    """Returns the certificate that follows from the counts; arguments as the fields of `Certificate`."""
    from scipy.special import ndtri

    p_lower = lower_bound(count, n, alpha)
    radius = sigma * float(ndtri(p_lower)) * (1 - _DOWN) if p_lower > 0.5 else 0.0
    return Certificate(predicted, count, n0, n, alpha, sigma, p_lower, radius)


def flaw(claim: Certificate, classes: int) -> str | None:
    """Says what about a certificate can't be, or None; bound and radius are computed again from the counts."""
    numbers = (claim.alpha, claim.sigma, claim.p_lower, claim.radius)
    if not all(math.isfinite(value) for value in numbers) or not (0 < claim.alpha < 1 and claim.sigma > 0):
        return f"gave a certificate whose numbers can't be: {claim}"
    if not (0 <= claim.predicted < classes and claim.n0 >= 1 and 0 <= claim.count <= claim.n and claim.n >= 1):
        return f"gave a certificate whose counts can't be: {claim}"
    own = certificate(claim.predicted, claim.count, n0=claim.n0, n=claim.n, alpha=claim.alpha, sigma=claim.sigma)
    if claim != own:
        return f"gave a radius of {claim.radius} and a bound of {claim.p_lower}; the counts give {own}"
    return None
