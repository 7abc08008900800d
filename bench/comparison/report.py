"""The comparison as plain data, as a table, and as files."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunecert.bench.comparison.sides import Side
from prunecert.bench.machine import machine, utc_now, versions
from prunecert.bench.report.medium import Table
from prunecert.bench.results.ratios import bootstrap_ratio
from prunecert.bench.results.words import duration
from prunecert.files import write_text

SCHEMA_VERSION = 1


def record(
    measured_sides: Sequence[Side],
    contradictions: Sequence[str],
    differences: Sequence[str],
    *,
    options: Mapping[str, Any],
    command: Sequence[str],
    limit: float,
    workers: int,
    instances: int,
    version: str,
) -> dict[str, Any]:
    """Returns the comparison as plain data.

    Where the loop saw a sample only, its wall-clock time is that of all instances at the sample's mean, the processes
    busy from the first to the last; its interval is a bootstrap of the instances' times.

    Args:
        measured_sides: The sides.
        contradictions: One line each.
        differences: One line each.
        options: The command's options.
        command: The command.
        limit: Seconds an instance for the verifier.
        workers: Processes side by side.
        instances: How many there are.
        version: The verifier's version.
    """
    sides = {side.name: _side(side, instances, workers) for side in measured_sides}
    ratios = {}
    if "loop" in sides:
        for name, side in sides.items():
            if name != "loop":
                ratios[name] = {
                    "value": sides["loop"]["wall_s"] / side["wall_s"],
                    "low": sides["loop"]["wall_low_s"] / side["wall_s"],
                    "high": sides["loop"]["wall_high_s"] / side["wall_s"],
                }
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "comparison",
        "ended": utc_now(),
        "command": list(command),
        "options": {key: str(value) if value is not None else None for key, value in options.items()},
        "verifier_version": version,
        "versions": versions(),
        "machine": machine(),
        "limit_s": limit,
        "workers": workers,
        "instances": instances,
        "sides": sides,
        "loop_over": ratios,
        "contradictions": list(contradictions),
        "differences": list(differences),
        "rows": _rows(measured_sides),
    }


def _side(side: Side, instances: int, workers: int) -> dict[str, Any]:
    """One side's numbers; `wall_s` stands for all instances, `measured_s` is what was measured."""
    count = len(side.findings)
    wall = low = high = side.wall_s
    if side.name == "loop" and count < instances:
        seconds = [finding.seconds for finding in side.findings.values()]
        wall, low, high = (
            mean * instances / workers for mean in bootstrap_ratio(seconds, [1.0], np.mean, paired=False)
        )
    return {
        "what": side.what,
        "command": list(side.command),
        "wall_s": wall,
        "wall_low_s": low,
        "wall_high_s": high,
        "measured_s": side.wall_s,
        "asked": count,
        "peak_mb": round(side.peak_mb, 1),
        "counts": side.counts(),
    }


def _rows(sides: Sequence[Side]) -> list[dict[str, Any]]:
    rows = []
    for key in sorted({key for side in sides for key in side.findings}):
        row: dict[str, Any] = {"cell": key.cell, "image": key.image}
        for side in sides:
            answer = side.findings.get(key)
            row[f"{side.name}_status"] = "" if answer is None else str(answer.status)
            row[f"{side.name}_s"] = "" if answer is None else answer.seconds
            row[f"{side.name}_by"] = "" if answer is None else answer.by
        rows.append(row)
    return rows


_COLUMNS = (
    ("side", False),
    ("what", False),
    ("instances", True),
    ("wall clock", True),
    ("times faster than the loop", True),
    ("peak memory MiB", True),
    ("verdicts", False),
)


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the table."""
    rows = []
    for name, side in result["sides"].items():
        ratio = result["loop_over"].get(name)
        faster = ""
        if ratio is not None:
            faster = f"{ratio['value']:.1f}"
            if ratio["low"] != ratio["high"]:
                faster += f" ({ratio['low']:.1f}–{ratio['high']:.1f})"
        wall = duration(side["wall_s"])
        if side["asked"] < result["instances"] and name == "loop":
            wall += f" (scaled from {side['asked']} instances in {duration(side['measured_s'])})"
        counts = ", ".join(f"{status} {count}" for status, count in side["counts"].items())
        rows.append([name, side["what"], str(side["asked"]), wall, faster, f"{side['peak_mb']:.0f}", counts])
    lines = [*Table(_COLUMNS, rows).markdown(), ""]
    lines.append(
        f"{result['instances']} instances, {result['limit_s']:g} s each for the verifier, {result['workers']} processes"
        f" side by side; contradictions: {len(result['contradictions'])}; "
        f"decided on some sides only: {len(result['differences'])}."
    )
    return "\n".join(lines) + "\n"


def write(result: Mapping[str, Any], out: Path) -> tuple[Path, ...]:
    """Writes the table, the data, and a row an instance; returns the files."""
    write_text(out / "comparison.json", json.dumps(result, indent=1) + "\n")
    with (out / "instances.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(result["rows"][0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(result["rows"])
    write_text(out / "comparison.md", markdown(result))
    return tuple(out / name for name in ("comparison.md", "comparison.json", "instances.csv"))
