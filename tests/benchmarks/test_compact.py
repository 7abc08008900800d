"""Compaction beside the export before it, and bounds on a compact network beside those on the masked one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from prunecert.bench.planning.exports import Export, compact_export
from prunecert.bench.planning.plan import CellPlan
from prunecert.compaction import Mode
from prunecert.models.compact import compact
from prunecert.models.export import export_onnx
from prunecert.verifiers.base import Verdict
from tests.benchmarks.ratios import Ratios, once
from tests.benchmarks.test_bounds import in_batches, loaded, one_thread

__all__ = ["one_thread"]


def test_compaction(
    benchmark: BenchmarkFixture, ratios: Ratios, export: Export, checkpoint: Path, tmp_path: Path
) -> None:
    model = onnx.load(export.path)
    domain = Mode.PIXELS.domain
    record = once(benchmark, lambda: compact(model, domain=domain)[1])
    assert record.shrank
    target = tmp_path / "one.onnx"
    ratios.measure(
        "compaction / export before it",
        lambda: compact(model, domain=domain),
        lambda: export_onnx(checkpoint, target),
    )
    compact_export(export, tmp_path)
    ratios.measure(
        "a compact network that is there / compaction",
        lambda: compact_export(export, tmp_path),
        lambda: compact(model, domain=domain),
    )


@pytest.mark.parametrize(("name", "images"), [("ibp", 100), ("crown-ibp", 20), ("crown", 4)])
def test_bounds_on_compact_networks(
    benchmark: BenchmarkFixture, ratios: Ratios, plan: CellPlan, tmp_path: Path, name: str, images: int
) -> None:
    small = replace(plan, export=compact_export(plan.export, tmp_path))
    assert small.export.path != plan.export.path

    def work(cell: CellPlan) -> Callable[[], list[Verdict]]:
        return in_batches(loaded(name, cell), [cell.instance(position, 0) for position in range(images)], images)

    on_compact, on_masked = work(small), work(plan)
    verdicts = once(benchmark, on_compact)
    assert [v.status for v in verdicts] == [v.status for v in on_masked()]
    ratios.measure(f"{name}: compact / masked network", on_compact, on_masked)
