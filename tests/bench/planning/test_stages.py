from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from prunecert.bench.planning.stages import Installed, Stage, make_stages, supported_stages
from prunecert.bench.schema.cell import Protocol
from prunecert.errors import UserError
from prunecert.verifiers.base import Kind
from tests.verifiers import onnxnets

STAGE = Stage("fake-bound", Kind.INCOMPLETE, "1", "tests", {"share": 0.5}, 2.0, "cpu", True, 4, None)


def test_the_settings_hash_stands_for_the_settings_and_nothing_else() -> None:
    assert len(STAGE.settings_hash) == 12
    assert replace(STAGE, timeout=9.0, device="cuda", batch=1).settings_hash == STAGE.settings_hash
    assert replace(STAGE, settings={"share": 0.25}).settings_hash != STAGE.settings_hash


def test_a_session_row_has_all_that_decides_and_no_batch() -> None:
    data = STAGE.to_json()
    assert data["settings"] == {"share": 0.5}
    assert data["kind"] == "incomplete"
    assert not {"batch", "after", "repeat"} & set(data)
    assert replace(STAGE, after=("a", "b")).to_json()["after"] == ["a", "b"]


def test_each_verifier_is_looked_for_once() -> None:
    installed = Installed("cpu")
    first = installed.of("fake-missing")
    assert not first.installed
    assert installed.of("fake-missing") is first
    protocols = [Protocol(cascade=("fake-missing", "fake-bound"))] * 2
    assert installed.missing(protocols) == {"fake-missing": first.hint}


def test_the_cascade_keeps_its_order_and_loses_what_is_not_here() -> None:
    timeouts = {"fake-complete": 2.0, "fake-missing": 3.0, "fake-bound": 1.0}
    protocol = Protocol(cascade=tuple(timeouts), cross_check=("fake-bound",), timeouts=timeouts, memory_mb=512)
    stages = make_stages(protocol, Installed("cpu"))
    assert [(stage.verifier, stage.timeout, stage.everyone) for stage in stages] == [
        ("fake-complete", 2.0, False),
        ("fake-bound", 1.0, True),
    ]
    assert {stage.memory_mb for stage in stages} == {512}
    with pytest.raises(UserError, match="nonsense"):
        make_stages(replace(protocol, settings={"fake-bound": {"nonsense": 1}}), Installed("cpu"))


def test_a_network_beyond_a_verifier_costs_it_its_place_with_a_reason(tmp_path: Path) -> None:
    network = onnxnets.linear(tmp_path / "net.onnx")
    assert supported_stages([STAGE], network) == ((STAGE,), {})
    smoothing = replace(STAGE, verifier="smoothing")
    supported, reasons = supported_stages([smoothing, STAGE], network)
    assert supported == (STAGE,)
    assert list(reasons) == ["smoothing"]
    assert reasons["smoothing"]
