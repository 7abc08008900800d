from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from prunecert.bench.planning.select import CHECKPOINTS
from prunecert.bench.running.training_time import crowd_hint, expected_seconds, forecast, known_rates, trainings_at_work
from prunecert.models.pipeline import Job
from tests.bench.trainkit import SUITE, jobs

RATES = {("cnn-small", "natural"): {"pretrain": 100.0, "finetune": 50.0}}


def _thousand(job: Job) -> int:
    return 1000


@pytest.fixture
def chosen(tmp_path: Path) -> list[Job]:
    file = tmp_path / "tiny.yaml"
    file.write_text(SUITE)
    return [job for job in jobs(str(file)) if job.seed == 0 and job.compression in (1, 10)]


def test_shipped_checkpoints_say_how_fast_they_were_trained(tmp_path: Path) -> None:
    rates = known_rates([CHECKPOINTS])
    assert rates["cnn-small", "ibp"]["finetune"] > 100
    (tmp_path / "broken.json").write_text("{}")
    assert known_rates([tmp_path]) == {}
    assert known_rates([tmp_path, CHECKPOINTS]) == rates


def test_a_cell_takes_its_epochs_at_the_rate_of_their_stage(chosen: list[Job]) -> None:
    dense, lwm, grow = chosen
    assert expected_seconds(dense, 1000, RATES, pretrain=True) == 2 * 10 + 2 * 20
    assert expected_seconds(lwm, 1000, RATES, pretrain=False) == 2 * 20
    assert expected_seconds(grow, 1000, RATES, pretrain=False) == 2 * 10 + 2 * 20, "it begins at initial weights"
    assert expected_seconds(dense, 0, RATES, pretrain=True) is None
    assert expected_seconds(replace(dense, objective="ibp"), 1000, RATES, pretrain=True) is None
    scored = {("cnn-small", "natural"): {"scores": 1000.0, "finetune": 50.0}}
    assert expected_seconds(lwm, 1000, scored, pretrain=False) == 1 * 1 + 1 * 20


def test_a_forecast_has_a_line_a_cell_and_one_for_all(chosen: list[Job]) -> None:
    lwm_job = chosen[1]
    dense, lwm, grow = forecast(chosen, _thousand, RATES)[:-1]
    assert dense.endswith("dense_x1_s0: 2 + 2 epochs, about 60 s")
    assert lwm.endswith("2 + 2 epochs, about 40 s, pre-training shared with a cell above")
    assert grow.endswith("2 + 2 epochs, about 60 s")
    begun = replace(lwm_job, recipe=replace(lwm_job.recipe, parent="other"))
    assert forecast([begun], _thousand, RATES)[0].endswith("0 + 2 epochs, about 40 s"), "a parent needs no pre-training"
    assert forecast(chosen, _thousand, RATES)[-1].startswith("All: about 3 min, by the throughput")
    assert forecast([replace(chosen[0], network="vgg16")], _thousand, RATES) == [
        f"{chosen[0].name}: 2 + 2 epochs, no checkpoint of its kind says how long"
    ]
    mixed = forecast([chosen[0], replace(chosen[1], network="vgg16")], _thousand, RATES)
    assert "All: about 60 s, without 1 of which nothing is known" in mixed[-1]


@pytest.mark.parametrize(
    ("threads", "others", "cores", "hint"),
    [
        (2, 0, 2, ""),
        (1, 1, 2, ""),
        (4, 0, 2, "hint: 4 threads share 2 cores, and slow each other down; --threads 2 ends"),
        (
            2,
            1,
            2,
            "hint: 2 trainings of 2 threads each share 2 cores, and slow each other down; --threads 1 ends that.",
        ),
        (1, 2, 2, "hint: 3 trainings of 1 threads each share 2 cores, and slow each other down; let one of them wait."),
    ],
)
def test_threads_that_fight_are_told_of(threads: int, others: int, cores: int, hint: str) -> None:
    said = crowd_hint(threads, others, cores)
    assert said.startswith(hint)
    assert bool(said) == bool(hint)


def test_others_are_known_by_their_locks(tmp_path: Path) -> None:
    """By processes: one that pre-trains holds the lock of its cell, too."""
    for name in ("idle", "busy", "pretraining"):
        (tmp_path / f"{name}.lock").touch()
    program = (
        "import fcntl, sys\n"
        "files = [open(path, 'w') for path in sys.argv[1:]]\n"
        "[fcntl.flock(file, fcntl.LOCK_EX) for file in files]\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    busy = [str(tmp_path / f"{name}.lock") for name in ("busy", "pretraining")]
    command = [sys.executable, "-S", "-c", program, *busy]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert trainings_at_work(tmp_path) == 1
        other.communicate()
    assert trainings_at_work(tmp_path) == 0
    assert trainings_at_work(tmp_path / "none") == 0
    assert trainings_at_work(tmp_path, tmp_path / "no-such-list") == 0


def test_one_that_waits_holds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    file.touch()
    status = file.stat()
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    lines = [f"1: FLOCK  ADVISORY  WRITE 77 {place} 0 EOF", f"1: -> FLOCK  ADVISORY  WRITE 78 {place} 0 EOF"]
    lines += [f"2: POSIX  ADVISORY  WRITE 79 {place} 0 EOF", f"3: FLOCK  ADVISORY  WRITE {os.getpid()} {place} 0 EOF"]
    (tmp_path / "locks").write_text("\n".join(lines) + "\n")
    assert trainings_at_work(tmp_path, tmp_path / "locks") == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processes are bound to processors on Linux only")
def test_who_is_bound_to_other_processors_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.lock"
    file.touch()
    status = file.stat()
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    lines = [f"{n}: FLOCK  ADVISORY  WRITE {process} {place} 0 EOF" for n, process in enumerate((77, 78, 79))]
    (tmp_path / "locks").write_text("\n".join(lines) + "\n")
    processors = {0: {0, 1}, 77: {1, 2}, 78: {2, 3}}

    def affinity(process: int) -> set[int]:
        if process not in processors:
            raise ProcessLookupError(process)
        return processors[process]

    monkeypatch.setattr(os, "sched_getaffinity", affinity)
    assert trainings_at_work(tmp_path, tmp_path / "locks") == 2, "77 shares processor 1, 79 can't be asked"
