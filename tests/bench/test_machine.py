from __future__ import annotations

import datetime
import sys

import pytest

from prunecert.bench import machine


def test_the_clock_is_utc_to_the_second() -> None:
    now = datetime.datetime.strptime(machine.utc_now(), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
    assert abs((datetime.datetime.now(datetime.UTC) - now).total_seconds()) < 60


def test_a_machine_is_described_without_its_name() -> None:
    described = machine.machine()
    assert set(described) == {"system", "architecture", "cpu", "cores", "memory_gib"}
    assert {"prunecert", "python", "numpy"} <= set(machine.versions())


def test_slurm_lowers_the_number_of_cores_and_never_raises_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    everything = machine.cores()
    for text, cores in (("1", 1), ("100000", everything), ("0", everything), ("many", everything)):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", text)
        assert machine.cores() == cores


def test_a_command_is_quoted_as_one_types_it() -> None:
    for module in ("bench.run", "prunecert.bench.run"):
        assert machine.quote([sys.executable, "-m", module, "--cells", "a b*"]) == "prunecert run --cells 'a b*'"
    assert machine.quote(["python", "-m", "bench.sparse_benchmark", "reuse"]) == "prunecert sparse-benchmark reuse"
    for other in ("python -m bench.engine.kernels bounds", "python -m", "python", "neuralsat --net x", ""):
        assert machine.quote(other.split()) == other
