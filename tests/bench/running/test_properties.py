from __future__ import annotations

from pathlib import Path

import numpy as np

from prunecert.bench.running.properties import combined, on_original
from prunecert.hashing import sha256_file
from prunecert.verifiers.base import Instance, OutputSpec, Status, Times, Verdict
from tests.bench.propertykit import half


def test_boxes_combine() -> None:
    def verdict(status: Status, **more: object) -> Verdict:
        return Verdict(status, "why", times=Times(wall_s=1.0), domains=2, **more)  # type: ignore[arg-type]

    unsat, unknown, timeout, error, sat = (
        verdict(s) for s in (Status.UNSAT, Status.UNKNOWN, Status.TIMEOUT, Status.ERROR, Status.SAT)
    )
    assert combined([unsat, unsat], 2).status is Status.UNSAT
    assert combined([unsat, unknown], 2).status is Status.UNKNOWN
    assert combined([unknown, timeout, unsat], 3).status is Status.TIMEOUT
    assert combined([timeout, error], 2).status is Status.ERROR
    assert combined([error, sat], 2).status is Status.SAT
    joined = combined([unsat, unknown, unsat], 3)
    assert (joined.times.wall_s, joined.domains, joined.detail) == (3.0, 6, "box 2 of 3: why")
    assert combined([unsat], 1) is unsat


def test_a_counterexample_of_the_compact_network_alone_settles_nothing(tmp_path: Path) -> None:
    path = half().save(tmp_path / "net.onnx")
    corner = np.array([0.5, 0.5], dtype=np.float32)
    instance = Instance(path, sha256_file(path), corner - 0.25, corner, OutputSpec.robustness(0, 2), 1.0, classes=2)
    equal = Verdict(Status.SAT, witness=corner, stage="attack")
    assert on_original(equal, instance).status is Status.SAT
    shifted = Verdict(Status.SAT, witness=np.array([0.5, 0.4], dtype=np.float32), stage="attack")
    verdict = on_original(shifted, instance)
    assert verdict.status is Status.UNKNOWN
    assert "none for the original" in verdict.detail
    assert verdict.witness is None
    proved = Verdict(Status.UNSAT)
    assert on_original(proved, instance) is proved
