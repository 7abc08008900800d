from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.comparison import sides
from prunecert.bench.comparison.sides import Finding
from prunecert.bench.results.row_types import VerdictRow
from prunecert.bench.results.store import Writer
from prunecert.bench.results.vnncomp import Key
from prunecert.errors import UserError
from prunecert.verifiers.base import Status
from tests.bench.comparison.sidekit import CELL, side
from tests.bench.rowkit import typed


def test_a_proof_beside_a_counterexample_is_named_and_a_time_out_is_no_contradiction() -> None:
    both = [
        side("run", 1.0, i1="unsat", i2="sat", i3="unsat", i4="timeout", i5="unknown"),
        side("loop", 9.0, i1="unsat", i2="unsat", i3="timeout", i4="sat", i5="timeout"),
    ]
    contradictions, differences = sides.disagreements(both)
    assert contradictions == [f"{CELL} image 2: run sat (run) after 2.0 s, loop unsat (loop) after 2.0 s"]
    assert [line.split(":")[0] for line in differences] == [f"{CELL} image 3", f"{CELL} image 4"]


def test_a_run_is_read_with_its_deciding_verifier_and_its_own_contradictions(tmp_path: Path) -> None:
    def verdict(image: int, verifier: str, status: str) -> VerdictRow:
        row = {"type": "verdict", "cell": CELL, "image": image, "question": f"q{image}", "verifier": verifier}
        row_: VerdictRow = typed({**row, "status": status, "times": {"wall_s": 1.0, "start_s": 0.5}})
        return row_

    with Writer(tmp_path) as writer:
        writer.append(typed({"type": "session", "cells": [{"name": CELL, "onnx_sha256": "a"}]}))
        writer.append(verdict(1, "ibp", "unknown"), verdict(1, "neuralsat", "unsat"))
        writer.append(verdict(2, "pgd", "sat"), verdict(2, "neuralsat", "unsat"), verdict(3, "neuralsat", "timeout"))
    findings, wrong = sides.read_run(tmp_path, {CELL: "a"})
    assert findings[Key(CELL, 1)] == Finding(Status.UNSAT, 3.0, "neuralsat")
    assert findings[Key(CELL, 3)] == Finding(Status.TIMEOUT, 1.5)
    assert wrong == [f"{CELL} image 2: pgd sat, neuralsat unsat, in {tmp_path.name}"]
    with pytest.raises(UserError, match="is about another network"):
        sides.read_run(tmp_path, {CELL: "b"})
