from __future__ import annotations

import argparse

import pytest

from prunecert.bench.run import parser
from prunecert.bench.run_options import cluster_of
from prunecert.bench.running import slurm
from prunecert.bench.running.slurm import Resources
from prunecert.errors import UserError


def options(*words: str) -> argparse.Namespace:
    return parser().parse_args(["--suite", "cifar10-4nets", *words])


def test_the_local_executor_asks_nothing_of_slurm() -> None:
    assert cluster_of(options()) is None
    assert cluster_of(options("--executor", "local")) is None


def test_what_is_asked_is_passed_on() -> None:
    cluster = cluster_of(
        options(
            *("--executor", "submitit", "--chunk", "100", "--slurm-partition", "gpu,long", "--slurm-time", "1-2:30:01"),
            *("--slurm-cpus", "4", "--slurm-mem", "16G", "--slurm-gres", "gpu:a100:1", "--slurm-parallel", "8"),
            *("--slurm-extra", "account=verify", "--slurm-extra", "qos=low"),
        )
    )
    assert cluster is not None
    assert cluster.executor == "submitit"
    resources = cluster.resources
    extra = {"account": "verify", "qos": "low"}
    assert resources == Resources("gpu,long", 26 * 60 + 31, 4, "16G", "gpu:a100:1", 8, 100, extra)
    assert resources.parameters() == {
        "job_name": "prunecert",
        "time": 1591,
        "array_parallelism": 8,
        "signal_delay_s": 90,
        "additional_parameters": {"requeue": True, **extra},
        "cpus_per_task": 4,
        "srun_args": ["--cpus-per-task=4"],
        "partition": "gpu,long",
        "mem": "16G",
        "gres": "gpu:a100:1",
    }
    assert resources.describe() == (
        "--time=1591 --requeue --partition=gpu,long --cpus-per-task=4 --mem=16G --gres=gpu:a100:1 --account=verify "
        "--qos=low"
    )


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("00:30", 1),
        ("90:00", 90),
        ("1:30:00", 90),
        ("0:00:01", 1),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("2-00:00:00", 2880),
    ],
)
def test_times_are_read_as_slurm_writes_them(text: str, minutes: int) -> None:
    assert slurm.parse_minutes(text) == minutes


def test_a_task_is_signalled_well_before_its_limit() -> None:
    for minutes in (1, 5, 600):
        assert 10 <= int(Resources(minutes=minutes).parameters()["signal_delay_s"]) <= minutes * 60 / 4 + 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--executor", "slurm"), r"Unknown executor 'slurm'.*Available: local, submitit, submitit-local"),
        (("--chunk", "5"), r"--chunk is refused with --executor local; it is for --executor submitit"),
        (("--slurm-time", "5"), r"--slurm-time is refused with --executor local"),
        (("--executor", "submitit", "--shard", "1/2"), r"--shard is refused with --executor submitit"),
        (("--executor", "submitit", "--submit"), r"--submit is refused with --executor submitit"),
        (("--executor", "submitit", "--slurm-time", "soon"), r"--slurm-time 'soon' is refused; write it as sbatch"),
        (("--executor", "submitit", "--slurm-time", "1:2:3:4"), r"--slurm-time '1:2:3:4' is refused"),
        (("--executor", "submitit", "--slurm-time", "1-"), r"--slurm-time '1-' is refused"),
        (("--executor", "submitit", "--slurm-time", "1-2:75"), r"--slurm-time '1-2:75' is refused"),
        (("--executor", "submitit", "--slurm-time", "9" * 5000), r"\(5,002 characters\).* is refused"),
        (("--executor", "submitit", "--slurm-time", "999-0"), r"it must be between a minute and a year"),
        (("--executor", "submitit", "--slurm-time", "0"), r"it must be between a minute and a year"),
        (("--executor", "submitit", "--slurm-time", "1:75:00"), r"--slurm-time '1:75:00' is refused"),
        (("--executor", "submitit", "--slurm-mem", "8 GB"), r"--slurm-mem '8 GB' is refused; allowed are a number"),
        (("--executor", "submitit", "--slurm-mem", "0"), r"--slurm-mem '0' is refused"),
        (("--executor", "submitit", "--slurm-gres", "2"), r"--slurm-gres '2' is refused; allowed are e.g. gpu:1"),
        (("--executor", "submitit", "--slurm-partition", "a b"), r"--slurm-partition 'a b' is refused"),
        (("--executor", "submitit", "--slurm-extra", "qos"), r"--slurm-extra 'qos' is refused; write KEY=VALUE"),
        (("--executor", "submitit", "--slurm-extra", "array=0-9"), r"--slurm-extra array is refused: it is set"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cluster_of(options(*words))
