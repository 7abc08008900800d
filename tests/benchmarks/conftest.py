"""What the benchmarks share: ratios with their baseline, an exported network, and plans made of thin air.

`pytest tests/benchmarks -m '' --benchmark-enable` measures; PRUNECERT_UPDATE_RATIOS=1 writes the baseline. Without
--benchmark-enable every benchmark does its work once, as a test.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from prunecert.bench.planning.exports import Export, export_cell
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.select import CHECKPOINTS
from prunecert.bench.planning.stages import Stage
from prunecert.bench.schema.cell import Cell, Protocol
from prunecert.models.data import Dataset
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Kind
from tests.benchmarks import fakes
from tests.benchmarks.ratios import Ratios, compare, read_baseline, write_baseline

CELL = Cell("cnn-small", "ibp", Fraction(2, 255), "lwm", 10.0, 0)
_RATIOS = pytest.StashKey[Ratios]()


def pytest_configure(config: pytest.Config) -> None:
    """Measures only where pytest-benchmark does."""
    option = config.getoption
    config.stash[_RATIOS] = Ratios(not option("benchmark_disable") or bool(option("benchmark_enable")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks all of them as slow."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Shows the ratios; none of them fails anything."""
    ratios = config.stash[_RATIOS]
    if not ratios.values:
        return
    terminalreporter.section("ratios (lower is better)")
    for line in [*compare(ratios.values, read_baseline()), *ratios.notes]:
        terminalreporter.write_line(line)
    if os.environ.get("PRUNECERT_UPDATE_RATIOS"):
        write_baseline(ratios.values)
        terminalreporter.write_line("the baseline is written anew")


@pytest.fixture
def ratios(request: pytest.FixtureRequest) -> Ratios:
    """Returns what takes ratios."""
    return request.config.stash[_RATIOS]


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Returns a shipped network, exported."""
    return export_cell(CHECKPOINTS / f"{CELL.name}.safetensors", tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="session")
def data() -> Dataset:
    """Returns a thousand made-up images: smooth noise, so that bounds have something to do."""
    rng = np.random.default_rng(0)
    coarse = rng.random((1000, 3, 8, 8), dtype=np.float32)
    images = np.repeat(np.repeat(coarse, 4, axis=2), 4, axis=3)
    return Dataset(
        images=images,
        labels=rng.integers(0, 10, 1000).astype(np.int64),
        indices=np.arange(1000, dtype=np.int64),
        split="test",
        fingerprint="0" * 64,
        official=False,
        sample=False,
        source="made up",
    )


@pytest.fixture(scope="session")
def plan(export: Export, data: Dataset) -> CellPlan:
    """Returns a plan with one verifier, which answers at once."""
    name = fakes.Instant.name
    VERIFIERS.register(name, "tests.benchmarks.fakes:Instant")
    stage = Stage(
        verifier=name,
        kind=Kind.INCOMPLETE,
        version="1.0",
        source="tests",
        settings=fakes.Instant.resolve(),
        timeout=5.0,
        device="cpu",
        everyone=False,
        batch=100,
        memory_mb=None,
    )
    return CellPlan(CELL, Protocol(cascade=(name,)), export, (stage,), {}, data, len(data))


@pytest.fixture
def checkpoint() -> Path:
    """Returns the file of a shipped checkpoint."""
    return CHECKPOINTS / f"{CELL.name}.safetensors"
