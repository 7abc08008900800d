"""How a suite's networks are certified by randomized smoothing: the `certify` section, checked on load."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from prunecert.bench.schema.yamlfile import Section

VERIFIER = "smoothing"
_LARGEST_SIGMA = 10.0


@dataclass(frozen=True)
class Certify:
    """How many samples of which noise, on how many images.

    Args:
        sigma: Standard deviation of the noise, in pixels of [0, 1]; None: the one that the network was trained with.
        n0: Samples for choosing the class.
        n: Samples for estimating its probability; Cohen et al. take 100,000.
        alpha: Probability with which a certificate may be wrong.
        images: How many, from the first on; None: as many as are verified. All are certified, whether the network
            itself classifies them correctly or not: the smoothed classifier is another one.
        timeout: Seconds an image.
        batch: Samples in a pass through the network.
        seed: Of the noise.
    """

    sigma: float | None = None
    n0: int = 100
    n: int = 1000
    alpha: float = 0.001
    images: int | None = None
    timeout: float = 600.0
    batch: int = 500
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Returns plain data."""
        return {**self.settings(self.sigma), "images": self.images, "timeout": self.timeout}

    def settings(self, sigma: float | None) -> dict[str, Any]:
        """Returns the settings of the verifier, at a standard deviation."""
        return {
            "sigma": sigma,
            "n0": self.n0,
            "n": self.n,
            "alpha": self.alpha,
            "batch": self.batch,
            "seed": self.seed,
        }


def mismatch(trained: float | None, sigma: float) -> str | None:
    """Says, where the noise of certificates is not that of training, so; a smoothed network is bad at other noise."""
    if trained == sigma:
        return None
    with_what = "without noise" if trained is None else f"with sigma {trained:g}"
    return f"certified with sigma {sigma:g}, but trained {with_what}"


def take_certify(section: Section, base: Certify | None, most_images: int) -> Certify:
    """Reads a `certify` section.

    Args:
        section: The section.
        base: What it changes, if a level above has one.
        most_images: Images of the split.

    Raises:
        UserError: A key is unknown, or a value of the wrong type or out of range.
    """
    certify = base or Certify()
    if "sigma" in section:
        certify = replace(certify, sigma=take_sigma(section))
    if "images" in section:
        certify = replace(certify, images=_whole(section, "images", 1, most_images))
    alpha, timeout = section.take("alpha", float, certify.alpha), section.take("timeout", float, certify.timeout)
    if not 0 < alpha < 1:
        raise section.refusal("alpha", f"{alpha:g} is refused; it must be within 0 and 1, both excluded.")
    if not 0 < timeout <= 86_400:
        raise section.refusal("timeout", f"{timeout:g} is refused; it must be above 0 and at most 86,400 seconds.")
    certify = replace(
        certify,
        alpha=alpha,
        timeout=timeout,
        **{key: _whole(section, key, getattr(certify, key), 10**8) for key in ("n0", "n", "batch")},
        seed=_whole(section, "seed", certify.seed, 2**31 - 1, least=0),
    )
    section.finish(("sigma", "images"))
    return certify


def take_sigma(section: Section) -> float:
    """Reads a standard deviation."""
    return check_sigma(section, section.take("sigma", float))


def check_sigma(section: Section, value: float) -> float:
    """Returns a standard deviation that is within range."""
    if not 0 < value <= _LARGEST_SIGMA:
        raise section.refusal("sigma", f"{value:g} is refused; it must be above 0 and at most {_LARGEST_SIGMA:g}.")
    return value


def _whole(section: Section, key: str, default: int, most: int, least: int = 1) -> int:
    value = section.take(key, int, default)
    if not least <= value <= most:
        raise section.refusal(key, f"{value} is refused; it must be within {least} and {most:,}.")
    return value
