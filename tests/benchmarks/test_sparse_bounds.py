"""The sparse engine's bounds beside auto_LiRPA's, on a shipped network and on random ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from prunecert.bench.engine import kernels as engine_benchmark
from prunecert.bench.planning.exports import Export
from prunecert.verifiers.sparse.crown.engine import METHODS, Engine, Method
from prunecert.verifiers.sparse.onnx.reader import read_network
from tests.benchmarks.ratios import Ratios, once

# torch warns of its own older ONNX tracer, which auto_LiRPA goes through to read the module.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def take(ratios: Ratios, benchmark: BenchmarkFixture, name: str, path: Path, method: Method) -> None:
    network = read_network(path)
    engine, library = Engine(network, threads=1), engine_benchmark.LirpaBounds(path)
    questions = engine_benchmark.questions(network, 1)
    bounds = once(benchmark, lambda: engine.bound_many(questions, method, hidden=False))
    assert np.all(bounds[0].rows >= library.bound(questions, method)[0] - 1e-4)
    ratios.measure(
        name, lambda: engine.bound_many(questions, method, hidden=False), lambda: library.bound(questions, method)
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_shipped_network(export: Export, method: Method, ratios: Ratios, benchmark: BenchmarkFixture) -> None:
    take(ratios, benchmark, f"sparse-{method} / {method} of auto_LiRPA, shipped cnn-small x10", export.path, method)


@pytest.mark.parametrize("sparsity", [0.0, 0.95, 0.99])
def test_random_networks(sparsity: float, tmp_path: Path, ratios: Ratios, benchmark: BenchmarkFixture) -> None:
    path = engine_benchmark.random_network("cnn-small", sparsity, tmp_path / "net.onnx")
    take(ratios, benchmark, f"sparse-crown / crown of auto_LiRPA, random cnn-small, {sparsity:.0%}", path, "crown")
