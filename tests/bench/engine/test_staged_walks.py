"""Stage by stage the bounds are the engine's, and so are the products."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prunecert.bench.engine.staged_walks import Staged, StagedRows, StagedUnits
from prunecert.verifiers.sparse.crown.engine import Engine, Question
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.onnx.reader import read_network
from tests.verifiers import onnxnets

MAKERS: dict[str, Callable[[Path], Path]] = {
    "connected": onnxnets.connected,
    "residual": onnxnets.residual,
    "convolutional": onnxnets.convolutional,
}
KINDS: list[tuple[type[StagedRows] | type[StagedUnits], int]] = [(StagedRows, 10**9), (StagedUnits, 0)]


@pytest.fixture(params=MAKERS)
def network(request: pytest.FixtureRequest, tmp_path: Path) -> Network:
    return read_network(MAKERS[request.param](tmp_path / "net.onnx"))


def question(network: Network, eps: float, seed: int = 0) -> Question:
    rng = np.random.default_rng(seed)
    image, outputs = rng.random(network.nodes[0].size), network.nodes[-1].size
    return Question(image - eps, image + eps, rng.standard_normal((4, outputs)), rng.standard_normal(4))


@pytest.mark.parametrize(("kind", "few"), KINDS)
def test_bounds_and_products_are_the_engines(
    kind: type[StagedRows] | type[StagedUnits], few: int, network: Network
) -> None:
    staged: Staged = kind(network)
    engine = Engine(network, 1, few_entries=few)
    ticks = itertools.count()
    for seed, eps in enumerate((0.05, 0.0, 0.2)):
        box = question(network, eps, seed)
        before = engine.multiplications()
        expected = engine.bound(box)
        # The clock ticks once whenever it is looked at.
        result = staged.bound(box, lambda: float(next(ticks)))
        assert np.array_equal(result.rows, expected.rows)
        products = sum(level.products for level in result.levels) + result.last_products
        assert products == engine.multiplications() - before
        assert {(level.interval_s, level.walk_s, level.relax_s) for level in result.levels} == {(1.0, 1.0, 1.0)}
        assert result.last_s == 1.0
        assert all(level.walked <= level.rows for level in result.levels)
        if not eps:
            assert not any(level.walked for level in result.levels)


@pytest.mark.parametrize(("kind", "few"), KINDS)
def test_every_node_has_its_level_and_rows_that_are_there(
    kind: type[StagedRows] | type[StagedUnits], few: int, tmp_path: Path
) -> None:
    del few
    network = read_network(onnxnets.convolutional(tmp_path / "net.onnx"))
    result = kind(network).bound(question(network, 0.2), lambda: 0.0)
    assert [level.neurons for level in result.levels] == [node.size for node in network.nodes[1:]]
    first, *hidden, last = result.levels
    # Of functions of the input alone intervals are CROWN's bounds; the outputs have no ReLU.
    assert first.walked == last.walked == last.rows == 0
    assert all(level.walked > 0 for level in hidden)
    entries = [sum(term.matrix.nnz for term in node.terms) for node in network.nodes]
    assert hidden[0].possible == 2 * hidden[0].rows * entries[1]
    assert result.last_possible == 4 * sum(entries)


def test_arrays_that_turn_out_too_small_grow(tmp_path: Path) -> None:
    network = read_network(onnxnets.connected(tmp_path / "net.onnx"))
    staged, box = StagedUnits(network), question(network, 0.05)
    expected = staged.bound(box, lambda: 0.0)
    staged._weights = 1
    staged._grow()
    again = staged.bound(box, lambda: 0.0)
    assert staged._weights > 2
    assert np.array_equal(again.rows, expected.rows)
    # What was walked in vain isn't counted.
    assert [level.products for level in again.levels] == [level.products for level in expected.levels]
