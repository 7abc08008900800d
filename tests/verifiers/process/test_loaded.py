"""The process that has a network loaded: a start or load that dies blames no instance, and is tried again so often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, Status
from prunecert.verifiers.process import loaded
from prunecert.verifiers.process.loaded import LOAD_TRIES, START_TRIES, LoadedProcess
from prunecert.verifiers.process.parent import FailureKind, ProcessError
from prunecert.verifiers.process.worker import Worker
from tests.verifiers import faulty, onnxnets

for _name, _class in [("faulty", "Faulty"), ("faulty-mortal", "Mortal"), ("faulty-cold", "Cold")]:
    VERIFIERS.register(_name, f"tests.verifiers.faulty:{_class}")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnxnets.linear(tmp_path_factory.mktemp("loaded") / "net.onnx")


def fine(network: Path, count: int) -> list[Instance]:
    return [onnxnets.instance(network, 0.01, name="fine", timeout=10.0)] * count


class Scripted:
    """Stands for all processes: each question takes the next line of a script, a kind of failure or none."""

    pid = 1
    spawn_s = 0.25
    peak_mb = None

    def __init__(self, script: list[FailureKind | None]) -> None:
        self.script = list(script)
        self.questions: list[str] = []
        self.open = 0
        self.kills = 0
        self.living = True
        self.size_mb = 60.0

    def __call__(self, **_: Any) -> Scripted:
        self.open += 1
        assert self.open == 1, "one at a time"
        self.living = True
        return self

    def ask(self, action: str, *_: Any) -> tuple[Any, float]:
        self.questions.append(action)
        kind = self.script.pop(0) if self.script else None
        if kind is not None:
            raise ProcessError(kind, "as written", fatal=kind != "error", wall_s=1.0, peak_mb=None, tail="")
        return {"ok": True}, 1.0

    def resident_mb(self) -> float:
        return self.size_mb

    def alive(self) -> bool:
        return self.living

    def kill(self) -> None:
        self.kills += 1

    def close(self) -> None:
        self.open -= 1


def process(
    monkeypatch: pytest.MonkeyPatch, *script: FailureKind | None, memory_limit_mb: int | None = None
) -> tuple[LoadedProcess, Scripted]:
    processes = Scripted(list(script))
    monkeypatch.setattr(loaded, "Process", processes)
    subject = LoadedProcess(
        faulty.Recycled,
        {},
        "cpu",
        memory_limit_mb=memory_limit_mb,
        grace_s=1.0,
        log=None,
        threads=1,
        cores=None,
        start_limit_s=60.0,
        load_limit_s=60.0,
    )
    return subject, processes


@settings(deadline=None, max_examples=60)
@given(script=st.lists(st.sampled_from([None, "crash", "error", "timeout"]), max_size=12))
def test_a_network_is_loaded_or_refused_for_good(network: Path, script: list[FailureKind | None]) -> None:
    (instance,) = fine(network, 1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        subject, processes = process(monkeypatch, *script)
        failure = None
        try:
            assert subject.ready(instance) == 2.0
        except ProcessError as error:
            failure = error
        count = len(processes.questions)
        assert processes.questions.count("read") <= LOAD_TRIES
        assert START_TRIES * "start " + "start" not in " ".join(processes.questions)
        if failure is None:
            assert processes.questions[-3:] == ["start", "read", "load"]
            assert subject.start_s == 1.25
            assert subject.ready(instance) == 0.0
        elif processes.questions[-1] != "start":
            with pytest.raises(ProcessError) as caught:
                subject.ready(instance)
            assert caught.value is failure
        else:
            # That it can't be started says nothing about the network.
            processes.script.clear()
            assert subject.ready(instance) == 2.0
            count = len(processes.questions)
        assert len(processes.questions) == count
        subject.end()
        assert processes.open == 0


@pytest.mark.parametrize(
    ("served", "size_mb", "living", "replaced"),
    [(2, 60, True, False), (3, 60, True, True), (0, 89, True, False), (0, 91, True, True), (0, 60, False, True)],
)
def test_it_is_replaced_when_it_is_worn_out_or_dead(
    served: int, size_mb: float, living: bool, replaced: bool, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (instance,) = fine(network, 1)
    subject, processes = process(monkeypatch, memory_limit_mb=100)
    subject.ready(instance)
    subject.served, processes.size_mb, processes.living = served, size_mb, living
    assert subject.ready(instance) == (2.0 if replaced else 0.0)
    assert processes.questions == ["start", "read", "load"] * (2 if replaced else 1)
    assert subject.served == (0 if replaced else served)
    subject.end()


def test_once_stopped_it_is_not_tried_again(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject, processes = process(monkeypatch, "crash")
    subject.stop()
    with pytest.raises(ProcessError):
        subject.ready(*fine(network, 1))
    assert (processes.questions, processes.kills, processes.open) == (["start"], 1, 0)
    assert subject.pid is None


def test_what_a_first_start_has_to_do_is_looked_up_while_the_process_comes_up(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, processes = process(monkeypatch)
    looks: list[list[str]] = []

    def nothing() -> str:
        looks.append([*processes.questions])
        return ""

    monkeypatch.setattr(faulty.Recycled, "preparation", nothing)
    subject.ready(*fine(network, 1))
    assert looks == [[]]
    assert processes.questions[0] == "start"
    subject.end()

    def broken() -> str:
        assert processes.open == 1
        raise RuntimeError("no such folder")

    monkeypatch.setattr(faulty.Recycled, "preparation", broken)
    with pytest.raises(RuntimeError):
        subject.ready(*fine(network, 1))
    assert (processes.open, subject.pid) == (0, None), "what has not started is asked nothing"


def mortal(place: str, deaths: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    ledger = tmp_path / "deaths"
    monkeypatch.setenv(faulty.DEATHS, f"{place},{deaths},{ledger}")
    return ledger


@pytest.mark.slow
@pytest.mark.parametrize(("place", "tries"), [("start", START_TRIES), ("load", LOAD_TRIES)])
def test_a_worker_killed_before_it_solves_is_replaced(
    place: str, tries: int, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = mortal(place, tries - 1, tmp_path, monkeypatch)
    with Worker("faulty-mortal", threads=1) as subject:
        verdicts = subject.verify(fine(network, 20))
    assert [verdict.status for verdict in verdicts] == [Status.UNKNOWN] * 20
    assert len(ledger.read_text().splitlines()) == tries - 1


@pytest.mark.slow
def test_what_is_done_once_for_a_machine_is_announced_and_counts_in_no_limit(
    network: Path, cold: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    instances = [onnxnets.instance(network, 0.01, name="fine", timeout=60.0)]
    for _ in range(2):
        with Worker("faulty-cold", threads=1, start_limit_s=0.5, grace_s=0.1) as subject:
            (verdict,) = subject.verify(instances)
        assert verdict.status is Status.UNKNOWN, verdict
        cold.unlink()
    assert verdict.times.start_s > 1
    assert capsys.readouterr().err == "prunecert: cooking, once for this machine: about 1 s\n"


@pytest.mark.slow
@pytest.mark.parametrize(("place", "tries"), [("start", START_TRIES), ("load", LOAD_TRIES)])
def test_but_not_for_ever(
    place: str, tries: int, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = mortal(place, 1000, tmp_path, monkeypatch)
    with Worker("faulty-mortal", threads=1) as subject:
        verdicts = subject.verify(fine(network, 3))
    assert [verdict.status for verdict in verdicts] == [Status.ERROR] * 3
    assert all("SIGKILL" in verdict.detail for verdict in verdicts)
    assert len(ledger.read_text().splitlines()) == tries


@pytest.mark.slow
def test_what_a_network_failed_with_is_not_asked_again(network: Path, tmp_path: Path) -> None:
    bad = onnxnets.linear(tmp_path / "crashing.onnx", seed=1)
    with Worker("faulty", threads=1) as subject:
        verdicts = subject.verify([*fine(bad, 5), *fine(network, 1)])
    assert [verdict.status for verdict in verdicts] == [Status.ERROR] * 5 + [Status.UNKNOWN]
    assert all("SIGSEGV while loading" in verdict.detail for verdict in verdicts[:5])
