from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from prunecert.bench.planning.certificates import describe_certificates, trained_sigma, with_certificates
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.stages import Installed
from prunecert.bench.schema.certificates import VERIFIER, Certify
from tests.bench.timekit import plan, stage


def certified(sigma: float | None = 0.25, images: int | None = 3) -> CellPlan:
    base = plan(2, [stage("fake-bound", 1)], 5)
    return replace(base, protocol=replace(base.protocol, certify=Certify(sigma=sigma, n=60, n0=10, images=images)))


@pytest.fixture(autouse=True)
def _any_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunecert.verifiers.process.inspection.check_supported", lambda *_: None)


def test_cells_without_certify_stay_as_they_are() -> None:
    plain = plan(2, [stage("fake-bound", 1)], 5)
    assert with_certificates([plain], Installed("cpu"), pytest.fail) == ((plain,), ())


def test_a_certified_cell_is_a_plan_of_smoothing_alone_beside_its_own() -> None:
    lines: list[str] = []
    (cell,), (smooth,) = with_certificates([certified()], Installed("cpu"), lines.append)
    assert [s.verifier for s in cell.stages] == ["fake-bound"]
    assert cell.extra["certify"] == smooth.describe()
    (one,) = smooth.stages
    assert (one.verifier, one.everyone, one.settings["sigma"], one.settings["n"]) == (VERIFIER, True, 0.25, 60)
    assert smooth.images == 3
    # A network that was trained without noise is certified, and that is said.
    assert len(lines) == 1
    assert "WARNING" in lines[0]
    assert describe_certificates([smooth]) == [
        f"{cell.cell.name}: 3 images certified by randomized smoothing, sigma 0.25, 10 + 60 samples, alpha 0.001"
    ]


def test_the_question_is_the_whole_space_round_the_image() -> None:
    _, (smooth,) = with_certificates([certified()], Installed("cpu"), lambda _: None)
    instance = smooth.instance(2, 0)
    assert np.all(np.isneginf(instance.lower))
    assert np.all(np.isposinf(instance.upper))
    assert instance.norm == "l2"
    np.testing.assert_array_equal(instance.center, smooth.data.images[2])
    assert instance.name.endswith("image 6"), "images are called by their indices"


def test_keys_change_with_what_decides_a_certificate() -> None:
    keys = set()
    for one in (certified(), certified(sigma=0.5), certified(images=2)):
        _, (smooth,) = with_certificates([one], Installed("cpu"), lambda _: None)
        keys.add(smooth.keys[0])
    # How many images are certified decides nothing of any of them.
    assert len(keys) == 2


def test_noise_in_training_is_the_cells_radius() -> None:
    base = plan(2, [], 1)
    assert trained_sigma(base) is None
    noisy = replace(base, cell=replace(base.cell, objective="smoothing", eps=Fraction(1, 4)))
    assert trained_sigma(noisy) == 0.25


def test_what_was_removed_for_pixels_is_put_back() -> None:
    base = certified()
    record: Any = SimpleNamespace(domain=(0.0, 1.0), masked_sha256="m" * 64)
    shrunk = replace(base.export, compaction=record, masked=base.export.path.with_name("masked.onnx"))
    _, (smooth,) = with_certificates([replace(base, export=shrunk)], Installed("cpu"), lambda _: None)
    assert (smooth.export.path.name, smooth.export.sha256) == ("masked.onnx", "m" * 64)
    assert smooth.export.compaction is None
