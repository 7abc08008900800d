from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from tests.bench.certificatekit import BLOCKS, NOISY, suite_text


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("sigma: [0.25]", "eps: [2/255]", "'sigma', the standard deviation"),
        ("sigma: [0.25]", "sigma: [0]", "above 0"),
        ("objectives: [smoothing]", "objectives: [smoothing, pgd]", "each kind in blocks of its own"),
        ("eps: [2/255]", "sigma: [0.25]", "have 'eps', a radius in the sup norm"),
        ("certify: {sigma: 0.5,", "certify: {", "needs 'sigma'"),
        ("{certify: {n: 60, n0: 10, images: 6, alpha: 0.01}}", "{images: 5}", "add 'verify.certify'"),
        ("alpha: 0.01, images", "alhpa: 0.01, images", "Did you mean 'alpha'"),
        ("n: 60, n0: 10, images: 6", "n: 0, n0: 10, images: 6", "within 1 and"),
        ("images: 6, alpha: 0.01", "images: 6, alpha: 1.0", "within 0 and 1"),
        ("images: 6, alpha", "images: 60000, alpha", "within 1 and 10,000"),
        ("cascade: [fake-bound, fake-complete]", "cascade: [fake-bound, smoothing]", "ask for them with 'certify'"),
    ],
)
def test_what_a_suite_must_not_say(tmp_path: Path, before: str, after: str, message: str) -> None:
    text = suite_text(BLOCKS.replace("n: 60, n0: 10, images: 4, alpha: 0.01", "alpha: 0.01, images: 4"))
    assert before in text
    path = tmp_path / "bad.yaml"
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(UserError, match=message) as refused:
        load_suite(str(path))
    assert "bad.yaml, line" in str(refused.value)


def test_names_and_digests(tmp_path: Path) -> None:
    path = tmp_path / "noisy.yaml"
    path.write_text(suite_text())
    suite = load_suite(str(path))
    (cell, protocol), (other, _) = suite.cells
    assert cell.name == NOISY
    assert (cell.norm, other.norm) == ("l2", "linf")
    assert cell.to_json()["eps"] == "1/4"
    assert cell.to_json()["norm"] == "l2"
    assert "norm" not in other.to_json()
    assert protocol.cascade == ()
    path.write_text(suite_text(BLOCKS.replace("n: 60, n0: 10, images: 4", "n: 61, n0: 10, images: 4")))
    assert load_suite(str(path)).digest() != suite.digest()
