"""Numbers for another tool: the series of github-action-benchmark."""

from __future__ import annotations

from typing import Any

from prunecert.bench.gating.result import GateResult, TimeRatio
from prunecert.bench.results.stats import wilson
from prunecert.bench.schema.gate import METRICS


def bigger_is_better(result: GateResult) -> list[dict[str, Any]]:
    """Returns the accuracies in per cent, for github-action-benchmark's ``customBiggerIsBetter``.

    Each has its Wilson interval as `range`.
    """
    entries = []
    for cell in result.cells:
        for name in METRICS:
            metric = cell.metrics[name]
            low, high = wilson(metric.run, metric.n)
            entries.append(
                {
                    "name": f"{cell.name} {name}",
                    "unit": "%",
                    "value": round(100 * metric.run / metric.n, 4),
                    "range": f"{100 * low:.1f}–{100 * high:.1f}",
                    "extra": f"{metric.run} of {metric.n} images\nbaseline {100 * metric.base / metric.n:.1f} %",
                }
            )
    return entries


def smaller_is_better(result: GateResult) -> list[dict[str, Any]]:
    """Returns what should stay small, for github-action-benchmark's ``customSmallerIsBetter``.

    These are the proved images lost and, where times were compared, the median seconds of an image.
    """
    entries = []
    for cell in result.cells:
        entries.append({"name": f"{cell.name} proved images lost", "unit": "images", "value": len(cell.lost)})
        if isinstance(cell.time, TimeRatio):
            entries.append(
                {
                    "name": f"{cell.name} median time",
                    "unit": "s",
                    "value": cell.time.run_median,
                    "extra": f"{cell.time.images} images\nbaseline {cell.time.base_median:.3g} s",
                }
            )
    return entries
