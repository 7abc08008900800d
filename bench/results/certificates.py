"""From certificates to the numbers of a run, apart from all that is verified.

What counts as what, for a smoothed classifier g (see `verifiers.certificate`):

- *certified at r*: g did not abstain, its class is the label, and its radius is at least r; a share of all images.
- *ACR*: the average certified radius (Zhai et al. 2020, MACER): the mean over all images of the radius, with 0 where g
  abstains or its class is not the label.
- *abstained*: nothing is claimed. *wrong*: another class than the label is claimed.

An image whose certificate failed (error, time, memory) counts as not certified, and is counted among the failures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from prunecert.bench.results.outcome import seconds
from prunecert.bench.results.protocol_types import SmoothingSettings
from prunecert.bench.results.row_types import CertificateFields, CertificateRow
from prunecert.bench.results.session_types import SessionCell, SessionCertify, present
from prunecert.bench.results.stats import share_record
from prunecert.bench.schema.certificates import mismatch

_SHARED = ("name", "network", "objective", "pruner", "compression", "seed", "split")
#: Radii of the tables, in pixels of [0, 1]; the log has every image's own.
RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


class CertificateAnswer(NamedTuple):
    """One certificate, as far as the summary needs it; seconds are without start-up and loading."""

    status: str
    label: int
    certificate: CertificateFields | None
    seconds: float

    @property
    def abstained(self) -> bool:
        """Whether it claims nothing."""
        return self.certificate is None or not self.certificate.p_lower > 0.5

    @property
    def radius(self) -> float | None:
        """The certified radius if the label is certified, else None."""
        if self.certificate is None or self.abstained or self.certificate.predicted != self.label:
            return None
        return self.certificate.radius


def found_of(row: CertificateRow) -> CertificateAnswer:
    """Reads a `certificate` row."""
    return CertificateAnswer(row.status, row.label, row.certificate, seconds(row.times))


def largest_radius(settings: SmoothingSettings) -> float:
    """Returns the radius if all samples agree; no image can have a larger one."""
    from prunecert.verifiers.certificate import certificate

    n = settings.n
    best = certificate(0, n, n0=settings.n0, n=n, alpha=settings.alpha, sigma=settings.sigma)
    return best.radius


def summarise(
    cells: Iterable[SessionCell],
    certificates: Mapping[str, Mapping[int, CertificateAnswer]],
    correct: Mapping[str, Mapping[int, bool]],
    confidence: float,
) -> list[dict[str, Any]]:
    """Returns the numbers of all cells that are certified.

    Args:
        cells: Cells of session rows.
        certificates: By key and image.
        correct: By image key and image: whether the network itself classifies it correctly.
        confidence: Of the intervals.
    """
    return [
        _cell(cell, cell.certify, certificates.get(cell.certify.key, {}), correct.get(cell.image_key, {}), confidence)
        for cell in cells
        if cell.certify is not None
    ]


def _cell(
    cell: SessionCell,
    certify: SessionCertify,
    answers_by_image: Mapping[int, CertificateAnswer],
    correct: Mapping[int, bool],
    confidence: float,
) -> dict[str, Any]:
    answers = [answers_by_image[i] for i in present(certify.numbers, answers_by_image)]
    n, settings = len(answers), certify.settings
    radii = np.array([answer.radius or 0.0 for answer in answers])
    right = np.array([answer.radius is not None for answer in answers], dtype=bool)
    reach = largest_radius(settings)
    verdicts = [correct[i] for i in present(certify.numbers, correct)]
    statuses = Counter(answer.status for answer in answers)
    spent = [answer.seconds for answer in answers if answer.certificate is not None]
    return {
        **{key: getattr(cell, key) for key in _SHARED},
        "sparsity": cell.measured_sparsity,
        "onnx_sha256": certify.onnx_sha256,
        "checkpoint_sha256": cell.checkpoint_sha256,
        "data_fingerprint": cell.data_fingerprint,
        **{key: getattr(settings, key) for key in ("sigma", "n0", "n", "alpha", "batch")},
        "noise_seed": settings.seed,
        "trained_sigma": certify.trained_sigma,
        "largest_radius": reach,
        "verifier": certify.verifier,
        "version": certify.version,
        "device": certify.device,
        "settings_hash": certify.settings_hash,
        "images": n,
        "images_asked": certify.images,
        "finished": n == certify.images,
        "clean": share_record(sum(verdicts), len(verdicts), confidence),
        "certified": [
            {"radius": r, **share_record(int((right & (radii >= r)).sum()), n, confidence)} for r in RADII if r <= reach
        ],
        "acr": float(radii.mean()) if n else None,
        "acr_error": float(radii.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
        "radii": sorted((round(float(r), 6) for r in radii[right]), reverse=True),
        "abstained": sum(answer.abstained for answer in answers if answer.certificate is not None),
        "wrong": sum(
            not answer.abstained and answer.radius is None for answer in answers if answer.certificate is not None
        ),
        "failed": {status: count for status, count in sorted(statuses.items()) if status != "unknown"},
        "time": {
            "median_s": float(np.median(spent)) if spent else None,
            "total_s": float(sum(spent)),
            "samples_per_s": _rate(settings.n0 + settings.n, float(np.median(spent))) if spent else None,
        },
        "note": mismatch(certify.trained_sigma, settings.sigma) or "",
    }


def _rate(samples: int, spent: float) -> float | None:
    return samples / spent if spent > 0 else None


def broken(summaries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns the verifiers that failed on every image that they were asked about."""
    images: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for item in summaries:
        images[item["verifier"]] += item["images"]
        failed[item["verifier"]] += item["failed"].get("error", 0)
    return sorted(name for name in images if images[name] and images[name] == failed[name])
