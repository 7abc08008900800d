"""Suites that ask for certificates, and certificates made by hand."""

from __future__ import annotations

import msgspec

from prunecert.bench.results.certificates import CertificateAnswer
from prunecert.bench.results.row_types import CertificateFields
from prunecert.bench.results.session_types import SessionCell
from prunecert.verifiers.certificate import certificate
from tests.bench import rowkit
from tests.bench.conftest import SUITE

NOISY = "cnn-small_smoothing_sigma0.25_dense_x1_s0"


PROVED = "cnn-small_ibp_eps2_dense_x1_s0"


BLOCKS = """\
cells:
  - networks: [cnn-small]
    objectives: [smoothing]
    sigma: [0.25]
    compression: [1]
    verify: {certify: {n: 60, n0: 10, images: 6, alpha: 0.01}}
  - networks: [cnn-small]
    objectives: [ibp]
    eps: [2/255]
    compression: [1]
    verify: {images: 10, certify: {sigma: 0.5, n: 60, n0: 10, images: 4, alpha: 0.01}}
"""


def suite_text(blocks: str = BLOCKS) -> str:
    """Returns the tiny suite with other blocks of cells."""
    before, rest = SUITE.split("cells:\n")
    return before + blocks + "verify:\n" + rest.split("verify:\n")[1]


def answer_of(label: int, predicted: int, count: int) -> CertificateAnswer:
    """Returns the certificate of an image of this label, `count` of 1,000 samples being `predicted`."""
    issued = certificate(predicted, count, n0=100, n=1000, alpha=0.001, sigma=0.5)
    return CertificateAnswer("unknown", label, msgspec.convert(issued.to_json(), CertificateFields), 0.5)


def cell_of(images: int = 5) -> SessionCell:
    """Returns a session's cell that asks for certificates of `images` images."""
    settings = {"sigma": 0.5, "n0": 100, "n": 1000, "alpha": 0.001, "batch": 500, "seed": 0}
    fields = {"key": "k", "indices": None, "images": images, "settings": settings, "trained_sigma": 0.5}
    fields |= {"verifier": "smoothing", "version": "1", "device": "cpu", "settings_hash": "h", "onnx_sha256": "o"}
    return rowkit.cell(certify={**fields, "timeout": 9.0})
