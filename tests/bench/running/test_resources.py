from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prunecert.bench import machine
from prunecert.bench.running import resources
from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from tests.bench.conftest import Zoo
from tests.bench.rowkit import documents

Run = Callable[..., int]


def test_devices_are_shared_out_evenly() -> None:
    assert resources.parse_devices("cuda") == ("cuda",)
    assert resources.parse_devices("cuda:0, cuda:1") == ("cuda:0", "cuda:1")
    assert resources.share_out(("cuda:0", "cuda:1"), None) == ("cuda:0", "cuda:1")
    assert resources.share_out(("cuda:0", "cuda:1"), 4) == ("cuda:0", "cuda:1", "cuda:0", "cuda:1")


@pytest.mark.parametrize("text", ["cpu,cuda:0", "cuda:0,cuda:0", "cuda,cuda:1", "cuda:0,", "cuda:x,cuda:1"])
def test_a_list_of_devices_must_make_sense(text: str) -> None:
    with pytest.raises(UserError, match=r"--device .* is refused; a list must name different CUDA devices"):
        resources.parse_devices(text)


def test_workers_must_fit_the_devices() -> None:
    with pytest.raises(UserError, match="--workers 3 is refused with 2 devices; it must be a multiple of 2"):
        resources.share_out(("cuda:0", "cuda:1"), 3)


@pytest.mark.parametrize(
    ("workers", "device", "load", "hint"),
    [
        (2, "cpu", 2.9, ""),
        (3, "cuda:0", 0.0, ""),
        (3, "cpu", 0.0, "hint: 3 verifier processes share 2 cores, and slow each other down; --workers 2 ends that."),
        (
            1,
            "cpu",
            6.25,
            "hint: other work keeps 2 processors busy already (load average 6.2); answers near their time",
        ),
    ],
)
def test_what_slows_a_run_down_is_told(
    monkeypatch: pytest.MonkeyPatch, workers: int, device: str, load: float, hint: str
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    said = resources.crowd_hint(workers, device, 2)
    assert said.startswith(hint)
    assert bool(said) == bool(hint)


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Four cores with two siblings each, numbered as Linux does: n and n + 4."""
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text("0\n")
        (folder / "core_id").write_text(f"{cpu % 4}\n")
    monkeypatch.setattr(resources, "_TOPOLOGY", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)


@pytest.mark.usefixtures("eight")
def test_core_sets_are_disjoint_of_one_size_and_keep_siblings_together() -> None:
    assert resources.core_sets(4) == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert resources.core_sets(3) == ((0, 4), (1, 5), (2, 6))
    assert resources.core_sets(8) == tuple((n,) for n in (0, 4, 1, 5, 2, 6, 3, 7))


@pytest.mark.usefixtures("eight")
def test_cores_are_not_taken_for_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resources.core_sets(1) is None
    assert resources.core_sets(9) is None
    # Slurm has given two processors, but confines nobody: another job may have the same idea.
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    assert machine.cores() == 2
    assert resources.core_sets(2) is None


@pytest.fixture
def suite(zoo: Zoo, tmp_path: Path) -> str:
    VERIFIERS.register("fake-where", "tests.bench.whereabouts:FakeWhere")
    path = tmp_path / "where.yaml"
    path.write_text(zoo.suite.read_text().replace("fake-liar: 5", "fake-where: 5"))
    return str(path)


def whereabouts(out: Path) -> set[tuple[str, str]]:
    rows = documents(out, "verdict")
    assert rows
    return {(row["device"], row["detail"]) for row in rows}


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux confines processes to processors")
@pytest.mark.skipif(resources.core_sets(2) is None, reason="needs two processors")
def test_each_worker_has_its_cores_and_its_device(
    run: Run, suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunecert.bench.running.run.conclude", lambda *_, **__: None)
    options = ("--suite", suite, "--verifiers", "fake-where", "--images", "40", "--cells", "*dense*")
    sets = resources.core_sets(2)
    assert sets is not None
    words = [f"cores {','.join(map(str, cores))}" for cores in sets]
    assert run(tmp_path / "pinned", *options, "--device", "cuda:0,cuda:1", "--workers", "2") == 0
    assert whereabouts(tmp_path / "pinned") == {("cuda:0", words[0]), ("cuda:1", words[1])}
    everything = f"cores {','.join(map(str, sorted(os.sched_getaffinity(0))))}"
    assert run(tmp_path / "free", *options, "--workers", "2", "--no-pin") == 0
    assert whereabouts(tmp_path / "free") == {("cpu", everything)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "cuda:0,cpu"), "a list must name different CUDA devices"),
        (("--device", "cuda:0,cuda:1", "--workers", "3"), "must be a multiple of 2"),
        (("--image-seed", "1", "--submit"), "--image-seed is refused with --submit"),
        (("--device", "cuda:0,cuda:1"), "Device 'cuda:0' is refused"),
    ],
)
def test_bad_options_are_refused(run: Run, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    more = options if "--workers" in options else (*options, "--workers", "2")
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", *more)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_images_are_drawn_by_the_seed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunecert.bench.running.run.conclude", lambda *_, **__: None)
    options = ("--cells", "*dense*", "--images", "5", "--verifiers", "fake-bound")
    drawn = []
    for name, seed in (("one", "3"), ("again", "3"), ("other", "4")):
        assert run(tmp_path / name, *options, "--image-seed", seed) == 0
        drawn.append({row["image"] for row in documents(tmp_path / name, "image")})
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(images) == 5 for images in drawn)
    assert drawn[0] != set(range(5))
    session = documents(tmp_path / "one", "session")[0]
    assert set(session["cells"][0]["indices"]) == drawn[0]
