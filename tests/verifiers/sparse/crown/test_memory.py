"""What is said beforehand of the walks' memory, beside what they take."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.sparse.crown.engine import Engine, Question
from prunecert.verifiers.sparse.crown.memory import variables, walk_mb
from prunecert.verifiers.sparse.crown.program import lay_out
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.onnx.reader import read_network
from tests.verifiers import onnxnets

MAKERS: dict[str, Callable[[Path], Path]] = {
    "connected": lambda path: onnxnets.connected(path, hidden=200),
    "residual": lambda path: onnxnets.residual(path, shape=(3, 12, 12)),
    "convolutional": lambda path: onnxnets.convolutional(path, shape=(3, 32, 32)),
    "pruned": lambda path: onnxnets.convolutional(path, shape=(3, 32, 32), sparsity=0.95),
}
BY_ROWS, IN_UNITS = 10**9, 0


@pytest.fixture(params=MAKERS)
def network(request: pytest.FixtureRequest, tmp_path: Path) -> Network:
    return read_network(MAKERS[request.param](tmp_path / "net.onnx"))


def question(network: Network) -> Question:
    size = network.nodes[0].size
    return Question(np.full(size, 0.4), np.full(size, 0.6), np.eye(network.nodes[-1].size), np.zeros(10))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("few", [BY_ROWS, IN_UNITS])
def test_walks_take_what_is_said_within_half_and_twice(network: Network, few: int, threads: int) -> None:
    box = question(network)
    # Kernels are compiled, or read, by the first; threads share all that there is to share.
    Engine(network, threads, few_entries=few, most=0).bound(box)
    engine = Engine(network, threads, few_entries=few, most=0)
    tracemalloc.start()
    try:
        engine.bound(box)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / 2 < engine.walk_mb * 2**20 < 2 * peak
    assert engine.walk_mb == walk_mb(network, threads, by_rows=few == BY_ROWS)


def test_variables_are_counted_as_they_are_laid_out(network: Network) -> None:
    layout = lay_out(network)
    assert variables(network) == len(layout.program.level)


def test_more_of_anything_takes_more(network: Network) -> None:
    for by_rows in (True, False):
        one = walk_mb(network, 1, by_rows)
        assert one < walk_mb(network, 8, by_rows) < walk_mb(network, 8, by_rows, images=8)


def test_threads_are_given_up_before_a_network_is_refused(network: Network) -> None:
    engine = Engine(network, threads=64, few_entries=IN_UNITS)
    limit = walk_mb(network, 40, by_rows=False)
    assert engine.fit(limit)
    assert engine.threads == max(n for n in range(1, 65) if walk_mb(network, n, by_rows=False) <= limit) < 64
    given_up = engine.threads
    assert engine.fit(2 * limit)
    assert engine.threads == given_up, "what was given up stays so"
    assert not engine.fit(walk_mb(network, 1, by_rows=False) / 2)
    assert engine.threads == 1
    laid_out = Engine(network, threads=2, few_entries=IN_UNITS)
    rows = laid_out.bound(question(network)).rows
    laid_out.fit(walk_mb(network, 1, by_rows=False))
    assert laid_out.threads == 2, "its scratch is there already"
    np.testing.assert_array_equal(rows, engine.bound(question(network)).rows)
