"""A hundred thousand instances, ten SIGKILLs, and another number of shards after each: none lost, none twice.

IBP through the whole program, on the shipped `cnn-small` and `cnn-large` networks and all test images.
PRUNECERT_SCALE_IMAGES takes fewer images than 10,000.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from prunecert.bench.planning.select import CHECKPOINTS
from prunecert.bench.results.store import writer_files
from tests.bench.rowkit import documents

IMAGES = int(os.environ.get("PRUNECERT_SCALE_IMAGES", "10000"))
CELLS = "cnn-small_*eps2_*,cnn-large_ibp_eps2_*"
KILLS = 10
LIMIT_S = 3000.0


class Shards:
    """The parts of a run, each a `bench.run` of its own, side by side in one directory."""

    def __init__(self, out: Path, checkpoints: Path, count: int) -> None:
        command = [sys.executable, "-m", "bench.run", "--suite", "cifar10-4nets", "--verifiers", "ibp"]
        command += ["--cells", CELLS, "--images", str(IMAGES), "--workers", "1", "--checkpoints", str(checkpoints)]
        command += ["--exports", str(out.parent / "exports"), "--out", str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.processes = []
        for number in range(1, count + 1):
            part = [] if count == 1 else ["--shard", f"{number}/{count}"]
            with (out.parent / f"part{number}.log").open("ab") as log:
                self.processes.append(
                    subprocess.Popen([*command, *part], stdout=log, stderr=subprocess.STDOUT, env=environment)
                )

    def running(self) -> bool:
        return any(process.poll() is None for process in self.processes)

    def kill(self) -> int:
        """Ends all with SIGKILL, and returns how many it has hit."""
        hit = 0
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            hit += process.wait() == -signal.SIGKILL
        return hit


class Lines:
    """Counts the lines of a run's files, reading each byte once."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.count = 0
        self._read: Counter[Path] = Counter()

    def update(self) -> int:
        for path in writer_files(self.out) if self.out.is_dir() else []:
            with path.open("rb") as stream:
                stream.seek(min(self._read[path], path.stat().st_size))
                data = stream.read()
            self._read[path] += len(data)
            self.count += data.count(b"\n")
        return self.count


@pytest.mark.scale
@pytest.mark.cifar10
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not os.environ.get("CIFAR10_ROOT"), reason="needs a CIFAR-10 copy (CIFAR10_ROOT)")
def test_ten_kills_lose_none_of_a_hundred_thousand(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    # What is trained meanwhile must not join.
    shutil.copytree(CHECKPOINTS, checkpoints)
    out = tmp_path / "run"
    cells = len(list(checkpoints.glob("cnn-small_*eps2_*.json"))) + len(list(checkpoints.glob("cnn-large_ibp*.json")))
    rng = random.Random(0)
    # An image row for each, and a verdict row for more than four in ten.
    targets = sorted(rng.uniform(0, 1.4 * cells * IMAGES) for _ in range(KILLS))
    lines, hits, count = Lines(out), 0, 2
    begin = time.monotonic()
    for target in targets:
        count = rng.choice([n for n in (1, 2, 3, 4) if n != count])
        shards = Shards(out, checkpoints, count)
        have = lines.update()
        # At least something is written between two kills, and the kill is at no special moment.
        while shards.running() and lines.update() < max(target, have + 1):
            time.sleep(0.05)
            assert time.monotonic() - begin < LIMIT_S
        time.sleep(rng.uniform(0, 0.3))
        assert shards.running()
        hits += shards.kill()
        print(f"{time.monotonic() - begin:.0f} s: killed {count} processes at {lines.update()} lines", flush=True)
    last = Shards(out, checkpoints, 2 if count != 2 else 3)
    for number, process in enumerate(last.processes, start=1):
        assert process.wait(timeout=LIMIT_S) == 0, (tmp_path / f"part{number}.log").read_text()[-3000:]
    seconds = time.monotonic() - begin
    images: Counter[tuple[str, int]] = Counter()
    correct: set[tuple[str, int]] = set()
    verdicts: Counter[tuple[str, int]] = Counter()
    ids: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    for row in documents(out):
        if row["type"] == "image":
            images[row["cell"], row["image"]] += 1
            if row["correct"]:
                correct.add((row["cell"], row["image"]))
        elif row["type"] == "verdict":
            verdicts[row["cell"], row["image"]] += 1
            ids[row["id"]] += 1
            statuses[row["status"]] += 1
    print(
        f"{len(images)} images, {len(verdicts)} verdicts {dict(statuses)}, {hits} processes killed in {KILLS} rounds, "
        f"{seconds:.0f} s, {sum(p.stat().st_size for p in writer_files(out)) / 2**20:.0f} MiB",
        flush=True,
    )
    assert len(images) == cells * IMAGES
    assert set(images.values()) == {1}
    assert set(verdicts) == correct
    assert set(verdicts.values()) == {1}
    assert set(ids.values()) == {1}
    assert set(statuses) == {"unsat", "unknown"}
    assert hits >= KILLS
    if IMAGES == 10_000:
        assert len(verdicts) >= 100_000
    summary = json.loads((out / "summary.json").read_text())
    assert summary["finished"]
    assert len(summary["cells"]) == cells
    # One cell again, in peace and in one piece: the same answers.
    calm = tmp_path / "calm"
    name = sorted({cell for cell, _ in correct})[-1]
    command = [sys.executable, "-m", "bench.run", "--suite", "cifar10-4nets", "--verifiers", "ibp", "--cells", name]
    command += ["--images", str(IMAGES), "--checkpoints", str(checkpoints), "--exports", str(tmp_path / "exports")]
    subprocess.run([*command, "--out", str(calm)], check=True, stdout=subprocess.DEVNULL, timeout=LIMIT_S)
    answers = [
        {row["image"]: row["status"] for row in documents(run, "verdict") if row["cell"] == name} for run in (calm, out)
    ]
    assert answers[0] == answers[1]
