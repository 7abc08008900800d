from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunecert.bench.gating import run as module
from prunecert.bench.gating.certificates import Sources
from prunecert.bench.gating.result import GateResult
from prunecert.bench.gating.run import GateRequest, run_gate
from prunecert.bench.running.request import RunRequest
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from tests.bench import gatekit as kit
from tests.bench.gatekit import BROKEN, PROVED

BASE, WORSE = kit.pair([PROVED, PROVED], [PROVED, BROKEN])


@pytest.fixture(autouse=True)
def _finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "of_run", lambda _: WORSE)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[RunRequest]:
    """The runs that were made; none is."""
    requests: list[RunRequest] = []
    monkeypatch.setattr("prunecert.bench.running.run.run_suite", lambda request, *, inspect: requests.append(request))
    return requests


def test_rules_are_those_of_the_file_or_the_suite_or_the_defaults(tmp_path: Path) -> None:
    request = GateRequest(base=BASE, directory=tmp_path)
    assert run_gate(request).exit_code == 1
    rules = tmp_path / "rules.yaml"
    rules.write_text("gate: {verified: -60pp, attacked: -60pp, broken: 1, undecided: 1, timeouts: 1}\n")
    assert run_gate(GateRequest(base=BASE, directory=tmp_path, rules=rules)).exit_code == 0
    assert request.rule_set() == GateRequest(base=kit.snapshot(suite="own"), directory=tmp_path).rule_set()
    shipped = GateRequest(base=BASE, directory=tmp_path, suite="cifar10-4nets").rule_set()
    assert shipped == load_suite("cifar10-4nets").gate


def test_cells_are_the_baselines(tmp_path: Path) -> None:
    assert GateRequest(base=BASE, directory=tmp_path).chosen_cells() is None
    assert GateRequest(base=BASE, directory=tmp_path, cells="*lwm*").chosen_cells() == [kit.NAME]
    with pytest.raises(UserError, match=r"Unknown cell '.*' of the baseline"):
        run_gate(GateRequest(base=BASE, directory=tmp_path, cells="nothing"))


def test_a_run_is_made_without_a_sample_in_place_of_data(tmp_path: Path, runs: list[RunRequest]) -> None:
    request = RunRequest(suite=load_suite("cifar10-4nets"), argv=("--suite", "cifar10-4nets"))
    run_gate(GateRequest(base=BASE, directory=tmp_path, run=request, suite="cifar10-4nets"))
    (run,) = runs
    assert (run.sample, run.certificates, run.argv) == (False, False, ("--suite", "cifar10-4nets"))


def test_proofs_that_are_required_are_asked_of_the_run_and_checked(
    tmp_path: Path, runs: list[RunRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    sources: list[Any] = []

    def check(result: GateResult, _: object, directory: Path, source: object) -> GateResult:
        sources.extend((directory, source))
        return result

    monkeypatch.setattr(module, "with_certificates", check)
    request = RunRequest(suite=load_suite("cifar10-4nets"), argv=("--suite", "cifar10-4nets"))
    run_gate(
        GateRequest(
            base=BASE,
            directory=tmp_path,
            run=request,
            suite="cifar10-4nets",
            require="certificates",
            exports=tmp_path / "e",
            data_root=tmp_path / "d",
        )
    )
    assert (runs[0].certificates, runs[0].argv) == (True, ("--suite", "cifar10-4nets", "--certificates"))
    assert sources == [tmp_path, Sources(tmp_path / "e", tmp_path / "d", "cifar10-4nets")]


def test_a_run_that_could_not_be_compared_ends_before_its_first_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(request: RunRequest, *, inspect: Callable[[Any], None]) -> None:
        inspect(object())

    monkeypatch.setattr("prunecert.bench.running.run.run_suite", begin)
    monkeypatch.setattr(module, "planned", lambda session, base: kit.snapshot())
    request = RunRequest(suite=load_suite("cifar10-4nets"))
    with pytest.raises(UserError, match="The run lacks 1 of the baseline's 1 cells"):
        run_gate(GateRequest(base=BASE, directory=tmp_path, run=request, suite="cifar10-4nets"))
