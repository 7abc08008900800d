"""Appending 100,000 rows, and reading them back."""

from __future__ import annotations

import json
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from prunecert.bench.results.store import Log, Row, Writer, collector_off
from prunecert.bench.running.recording import read_done
from tests.bench import rowkit
from tests.benchmarks.ratios import Ratios, once

ROWS = 100_000
BATCH = 100


def count_of(ratios: Ratios) -> int:
    """A hundredth where nothing is measured."""
    return ROWS if ratios.enabled else ROWS // 100


def row(number: int) -> Row:
    return {
        "type": "verdict",
        "id": f"{number:032x}",
        "question": f"{number:032x}",
        "key": f"{number // 5000:020x}",
        "cell": "cnn-small_ibp_eps2_lwm_x10_s0",
        "image": number % 5000,
        "label": number % 10,
        "settings": "0123456789ab",
        "timeout": 30.0,
        "status": "unsat" if number % 3 else "unknown",
        "bounds": [0.1234567, 1.234567, 2.345678, 3.456789, 4.56789, 0.5678901, 6.789012, 7.890123, 8.901234],
        "times": {"bound_s": 0.000123, "wall_s": 0.000234},
        "unstable": 117,
        "peak_memory_mb": 400.5,
        "batch": 100,
        "device": "cpu",
        "verifier": "ibp",
        "version": "0.6.0",
    }


def fill(folder: Path, rows: int) -> Path:
    with Writer(folder) as writer:
        writer.append(rowkit.typed({"type": "session"}))
        for start in range(0, rows, BATCH):
            writer.append(*(row(number) for number in range(start, start + BATCH)))
    return writer.path


def test_append(benchmark: BenchmarkFixture, ratios: Ratios, tmp_path: Path) -> None:
    folders, rows = iter(range(1_000_000)), count_of(ratios) // 10

    def append() -> Path:
        return fill(tmp_path / str(next(folders)), rows)

    def yardstick() -> None:
        with (tmp_path / "plain").open("w") as stream:
            for number in range(rows):
                stream.write(json.dumps(row(number), separators=(",", ":")) + "\n")

    path = once(benchmark, append)
    assert path.read_bytes().count(b"\n") == rows + 1
    ratios.measure("appending a row / json.dumps and write", append, yardstick)


def test_read(benchmark: BenchmarkFixture, ratios: Ratios, tmp_path: Path) -> None:
    rows = count_of(ratios)
    path = fill(tmp_path, rows)

    def read() -> int:
        with collector_off():
            return sum(1 for _ in Log(tmp_path).rows())

    def resume() -> int:
        return len(read_done(tmp_path, frozenset())[0].verdicts)

    def yardstick() -> None:
        with collector_off(), path.open("rb") as stream:
            for line in stream:
                json.loads(line)

    assert once(benchmark, read) == rows + 1
    assert resume() == rows
    ratios.measure("reading a row / json.loads", read, yardstick)
    ratios.measure("finding out what a row has answered / json.loads", resume, yardstick)
