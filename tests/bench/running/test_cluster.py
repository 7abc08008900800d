from __future__ import annotations

import pickle
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from prunecert.bench.planning.certificates import CertifyPlan
from prunecert.bench.planning.exports import Export
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.stages import Stage
from prunecert.bench.running import cluster, outlook
from prunecert.bench.running.request import Cluster, RunRequest, RunResult
from prunecert.bench.running.run import run_suite
from prunecert.bench.running.slurm import Resources
from prunecert.bench.schema.cell import Cell, Protocol
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from prunecert.models.data import Dataset
from prunecert.verifiers.base import Kind, Status
from tests.bench.conftest import CELLS, Zoo
from tests.bench.rowkit import documents

Run = Callable[..., int]
submitit = pytest.mark.slurm


@pytest.fixture(autouse=True)
def _needs_submitit(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("slurm"):
        pytest.importorskip("submitit", reason="pip install submitit")


def command(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands that answer as Slurm does: jobs are taken, numbered, and over at once. Returns the log of sbatch."""
    folder = tmp_path / "bin"
    folder.mkdir()
    log = tmp_path / "sbatch.log"
    command(folder, "srun", "raise SystemExit(1)")
    command(folder, "sinfo", "print('main\\ngpu')")
    command(folder, "scontrol", "print('MaxArraySize            = 3')")
    command(folder, "squeue", "import sys\nsys.exit('slurm_load_jobs error: Invalid job id specified')")
    command(
        folder,
        "sbatch",
        f"import pathlib, sys\nlog = pathlib.Path({str(log)!r})\n"
        "text = log.read_text() if log.exists() else ''\nscript = pathlib.Path(sys.argv[1]).read_text()\n"
        "if '--qos=none' in script:\n"
        "    sys.exit('sbatch: error: Batch job submission failed: Invalid qos specification')\n"
        "log.write_text(text + script + '\\n=====\\n')\n"
        "print('Submitted batch job', 10 + text.count('====='))",
    )
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return log


def test_arrays_stay_below_the_limit_and_differ_by_one_at_most() -> None:
    assert outlook.arrays(1, 1001) == [1]
    assert outlook.arrays(8, 4) == [4, 4]
    assert outlook.arrays(10, 4) == [4, 3, 3]
    for tasks in range(1, 50):
        for most in (1, 3, 7):
            sizes = outlook.arrays(tasks, most)
            assert sum(sizes) == tasks
            assert max(sizes) <= most
            assert max(sizes) - min(sizes) <= 1


def plan(kind: type[CellPlan], verifiers: tuple[Stage, ...], images: int) -> CellPlan:
    data = Dataset(
        images=np.zeros((images, 3, 32, 32), np.float32),
        labels=np.zeros(images, np.int64),
        indices=np.arange(images, dtype=np.int64),
        split="test",
        fingerprint="0" * 64,
        official=False,
        sample=False,
        source="made up",
    )
    cell = Cell("cnn-small", "ibp", Fraction(2, 255), "lwm", 10.0, 0)
    export = Export(Path("net.onnx"), "a" * 64, 0.9, 10.0, "b" * 64, {})
    return kind(cell, Protocol(), export, verifiers, {}, data, images)


def stage(name: str, everyone: bool) -> Stage:
    return Stage(name, Kind.COMPLETE, "1", "tests", {}, 5.0, "cpu", everyone, 1, None)


def test_what_is_left_is_what_has_something_to_be_asked() -> None:
    one = plan(CellPlan, (stage("first", True), stage("second", False)), 6)
    first, second = one.keys
    correct = {(one.image_key, image): image != 1 for image in range(5)}
    answers = {
        (first, 0): Status.UNSAT,  # decided
        (first, 2): Status.UNKNOWN,  # the second has still to look at it
        (first, 3): Status.UNKNOWN,
        (second, 3): Status.TIMEOUT,  # everybody has
        (second, 4): Status.UNSAT,  # decided, but the first sees everyone
    }
    # Of image 5 nobody knows whether it is classified correctly; image 1 is not.
    assert outlook.left([one], (correct, answers)) == [3]
    assert outlook.left([one], ({}, {})) == [6]
    certified = plan(CertifyPlan, (stage("smoothing", True),), 6)
    statuses = {(certified.keys[0], image): Status.UNKNOWN for image in (1, 5)}
    assert outlook.left([one, certified], (correct, {**answers, **statuses})) == [3, 4]


@submitit
def test_a_dry_run_tells_tasks_time_and_options_and_sends_nothing(
    run: Run, slurm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--executor", "submitit", "--chunk", "10", "--slurm-partition", "gpu", "--slurm-cpus", "2", "--dry-run")
    assert run(tmp_path / "run", *options, "--slurm-time", "2:00:00", "--slurm-mem", "4G") == 0
    printed = capsys.readouterr().out
    assert (
        "80 images have something left to be asked: 8 tasks of about 10 images, in 3 arrays of 3 (MaxArray" in printed
    )
    # 80 images of 10 s each at most, by 8 tasks with one worker each, as the fixture asks for.
    assert (
        "time per task with 1 verifier process: at most 1 min 40 s (every limit reached); the limit is 120" in printed
    )
    assert "sbatch --time=120 --requeue --partition=gpu --cpus-per-task=2 --mem=4G" in printed
    assert not slurm.exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("executor", ["submitit", "submitit-local"])
def test_a_dry_run_needs_no_slurm(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], executor: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "submitit", None)
    options = ("--executor", executor, "--slurm-time", "30", "--slurm-partition", "any", "--dry-run")
    assert run(tmp_path / "run", *options) == 0
    printed = capsys.readouterr().out
    assert "80 images have something left to be asked" in printed
    assert ("no Slurm here: partitions aren't checked" in printed) == (executor == "submitit")
    assert not (tmp_path / "run").exists()


@submitit
def test_jobs_that_do_nothing_are_no_endless_loop(
    run: Run, slurm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="80 images still have something left to be asked, and the last tasks got none"):
        run(tmp_path / "run", "--executor", "submitit", "--chunk", "20", "--slurm-gres", "gpu:1")
    scripts = slurm.read_text().split("=====")[:-1]
    assert len(scripts) == 2
    assert all("#SBATCH --gres=gpu:1" in script and "#SBATCH --requeue" in script for script in scripts)
    assert "--array=0-1%2" in scripts[0]
    printed = capsys.readouterr().out
    assert "task 10_0 ended before its part was finished: it has printed nothing" in printed
    assert cluster.remembered(tmp_path / "run" / "slurm") == ["10_0", "10_1", "11_0", "11_1"]


@submitit
@pytest.mark.usefixtures("slurm")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--slurm-partition", "gqu"), r"Unknown partition 'gqu'\. Did you mean 'gpu'\? Available: gpu, main"),
        (("--slurm-extra", "qos=none"), r"Slurm refuses the jobs: .*Invalid qos specification"),
    ],
)
def test_what_slurm_refuses_is_said_in_a_sentence(
    run: Run, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", "--executor", "submitit", *options)


@submitit
def test_no_slurm_here(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="needs Slurm, but sbatch and srun are not in PATH here; use --executor local"):
        run(tmp_path / "run", "--executor", "submitit")


def test_without_submitit_it_says_what_to_install(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"needs the package submitit, .* pip install 'prunecert\[slurm\]'"):
        run(tmp_path / "run", "--executor", "submitit")


def test_jobs_of_an_earlier_submission_are_waited_for(tmp_path: Path) -> None:
    said: list[str] = []
    states: list[dict[str, str]] = [{"5_0": "RUNNING", "5_1": "PENDING"}, {"5_1": "RUNNING"}, {}]

    class Backend(cluster.DryRunBackend):
        def alive(self, tasks: Any) -> dict[str, str]:
            assert list(tasks) == ["5_0", "5_1"]
            return states.pop(0)

    folder = tmp_path / "slurm"
    cluster.remember(folder, ["5_0", "5_1"])
    cluster._POLL_S, before = (0.01, 0.01), cluster._POLL_S
    try:
        cluster.run(
            [],
            tmp_path,
            partial(cluster.TaskPart, run_suite, cluster_request()),
            Backend(folder, Resources()),
            Resources(),
            lambda _: ({}, {}),
            said.append,
            workers=None,
            dry_run=False,
        )
    finally:
        cluster._POLL_S = before
    assert said[0] == "2 tasks of an earlier submission still wait or run: waiting for them, sending no others"
    assert said[1].startswith("tasks: 1 running; ")
    assert not states


def kill_one(out: Path, killed: list[int]) -> None:
    """SIGKILL to the first task that has begun."""
    while not killed:
        time.sleep(0.05)
        begun = {row["pid"] for row in documents(out, "session")} if any(out.glob("*.jsonl")) else ()
        for pid in begun:
            psutil.Process(pid).kill()
            killed.append(pid)
            break


@submitit
@pytest.mark.slow
def test_a_killed_task_is_sent_again_and_nothing_is_done_twice(
    run: Run, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "_POLL_S", (0.2, 0.2))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("prunecert.bench.running.run.conclude", lambda *_, **__: None)
    out = tmp_path / "run"
    # The tasks are processes of their own, which know the real verifiers only.
    suite = tmp_path / "tiny.yaml"
    lines = [line for line in zoo.suite.read_text().splitlines() if "cross_check" not in line]
    limits = "  timeouts: {ibp: 30}"
    lines = [limits if "timeouts" in line else "  cascade: [ibp]" if "cascade" in line else line for line in lines]
    suite.write_text("\n".join(lines) + "\n")
    options = ("--suite", str(suite), "--cells", CELLS[0])
    chosen = ("--executor", "submitit-local", "--slurm-parallel", "1", "--chunk", "20", "--images", "40")
    killed: list[int] = []
    killer = threading.Thread(target=kill_one, args=(out, killed), daemon=True)
    killer.start()
    assert run(out, *options, *chosen) == 0
    killer.join(5)
    assert killed
    printed = capsys.readouterr().out
    assert "2 tasks of about 20 images" in printed
    rows = documents(out)
    images = Counter(row["image"] for row in rows if row["type"] == "image")
    verdicts = Counter(row["image"] for row in rows if row["type"] == "verdict")
    assert set(images) == set(range(40))
    assert set(images.values()) == set(verdicts.values()) == {1}
    assert set(verdicts) == {row["image"] for row in rows if row["type"] == "image" and row["correct"]}
    assert {tuple(row["shard"]) for row in rows if row["type"] == "session"} >= {(1, 2), (2, 2)}


def cluster_request() -> RunRequest:
    return RunRequest(suite=load_suite("cifar10-4nets"), cluster=Cluster("submitit", Resources()))


answered_requests: list[RunRequest] = []


def answered(request: RunRequest) -> RunResult:
    answered_requests.append(request)
    return RunResult(Path("run"), (), {})


def test_a_part_that_is_put_back_does_not_retry_again() -> None:
    pytest.importorskip("submitit", reason="pip install submitit")
    part = cluster.TaskPart(answered, replace(cluster_request(), retry=frozenset({Status.ERROR})), 2, 3, retry=True)
    again = part.checkpoint().function
    assert (again.request, again.number, again.count, again.retry) == (part.request, 2, 3, False)
    # It travels as a pickle, and what it asks for is a part, in one process, which nobody but the sender concludes.
    part, again = (pickle.loads(pickle.dumps(one)) for one in (part, again))
    assert part() == again() == 0
    first, second = answered_requests
    assert first == replace(part.request, shard=(2, 3), cluster=None, part=True)
    assert first.retry == {Status.ERROR}
    assert second == replace(first, retry=frozenset())
