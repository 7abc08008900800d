"""Ratios of two times taken in turn in one process, beside a committed baseline; a worse one is a remark, no failure.

Absolute times depend on the machine and its load; of two pieces of work done in turn, the ratio hardly does.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pytest_benchmark.fixture import BenchmarkFixture

BASELINE = Path(__file__).parent / "baseline.json"
SCHEMA_VERSION = 1
#: Worse by more than this factor is worth a remark. Below it lies what repeated runs differ by.
REMARK_ABOVE = 1.5
ROUNDS = 7
Work = Callable[[], Any]
_T = TypeVar("_T")


def once(benchmark: BenchmarkFixture, work: Callable[[], _T]) -> _T:
    """Has pytest-benchmark time one call, after a call to warm up, and returns what it returned."""
    result: _T = benchmark.pedantic(work, rounds=1, warmup_rounds=1)  # type: ignore[no-untyped-call]
    return result


def read_baseline(path: Path = BASELINE) -> dict[str, float]:
    """Returns the committed ratios by name; none if there is no file."""
    if not path.is_file():
        return {}
    data = json.loads(path.read_text())
    assert data["schema_version"] == SCHEMA_VERSION
    return {str(name): float(value) for name, value in data["ratios"].items()}


def write_baseline(ratios: dict[str, float], path: Path = BASELINE) -> None:
    """Puts ratios beside those of other benchmarks."""
    merged = {**read_baseline(path), **{name: float(f"{value:.3g}") for name, value in ratios.items()}}
    data = {"schema_version": SCHEMA_VERSION, "kind": "ratios", "ratios": dict(sorted(merged.items()))}
    path.write_text(json.dumps(data, indent=2) + "\n")


def compare(ratios: dict[str, float], baseline: dict[str, float]) -> list[str]:
    """Returns one line a ratio: its value, the baseline's, and whether it has got worse."""
    lines = []
    for name, value in sorted(ratios.items()):
        ratio = baseline.get(name)
        if ratio is None:
            lines.append(f"{name}: {value:.3g} (not in the baseline)")
            continue
        remark = "  SLOWER" if value > ratio * REMARK_ABOVE else "  faster" if value * REMARK_ABOVE < ratio else ""
        lines.append(f"{name}: {value:.3g}, baseline {ratio:.3g} ({value / ratio:.2f} of it){remark}")
    return lines


@dataclass
class Ratios:
    """Takes ratios and keeps them for the end of the session.

    Args:
        enabled: Whether to measure; if not, all work is done once, as a test.
        values: Ratios by name; lower is better.
        notes: What else is worth showing.
    """

    enabled: bool
    values: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def measure(
        self,
        name: str,
        work: Work,
        yardstick: Work,
        *,
        each: float = 1.0,
        yardstick_each: float = 1.0,
        clock: Callable[[], float] = time.process_time,
    ) -> float | None:
        """Times two pieces of work in turn and keeps the ratio of their medians.

        Args:
            name: What the ratio is called; lower must be better.
            work: What is looked at.
            yardstick: What it is compared with.
            each: How many pieces `work` does in a call.
            yardstick_each: Likewise.
            clock: `time.process_time`, which other processes hardly disturb, or `time.perf_counter` where the work
                waits for a process.

        Returns:
            Seconds of one piece of `work`, or None if nothing is measured.
        """
        work()
        yardstick()
        if not self.enabled:
            return None
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for call, list_ in zip((work, yardstick), seconds, strict=True):
                begin = clock()
                call()
                list_.append(clock() - begin)
        one, other = statistics.median(seconds[0]) / each, statistics.median(seconds[1]) / yardstick_each
        self.values[name] = one / other
        return one

    def note(self, text: str) -> None:
        """Shows a line at the end."""
        self.notes.append(text)
