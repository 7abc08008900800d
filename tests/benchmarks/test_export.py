"""From a checkpoint to a checked ONNX file, and finding that it is there already."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
from pytest_benchmark.fixture import BenchmarkFixture

from prunecert.bench.planning.exports import export_cell
from prunecert.models.export import export_onnx
from tests.benchmarks.ratios import Ratios, once


def test_export(benchmark: BenchmarkFixture, ratios: Ratios, checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "one.onnx"

    def export() -> str:
        return export_onnx(checkpoint, target).sha256

    def yardstick() -> None:
        onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])

    assert once(benchmark, export) == export()
    ratios.measure("export / onnxruntime's start on it", export, yardstick)
    export_cell(checkpoint, tmp_path)
    ratios.measure("an export that is there / making it", lambda: export_cell(checkpoint, tmp_path), export)
