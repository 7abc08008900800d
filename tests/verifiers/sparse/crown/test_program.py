"""A program is the network, in another order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.sparse.crown.program import FUSED, INPUT, OVER, lay_out
from prunecert.verifiers.sparse.onnx.reader import read_network
from tests.verifiers import onnxnets

MAKERS: dict[str, Callable[[Path], Path]] = {
    "connected": onnxnets.connected,
    "residual": onnxnets.residual,
    "convolutional": onnxnets.convolutional,
}


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_its_levels_compute_the_network(name: str, flat: bool, tmp_path: Path) -> None:
    network = read_network(MAKERS[name](tmp_path / "net.onnx"))
    layout = lay_out(network, flat)
    program = layout.program
    x = np.random.default_rng(0).random(network.nodes[0].size)
    expected = [value[0] for value in network.forward(x[None])]
    variables = np.zeros(len(program.level))
    for level, kind in enumerate(program.kinds):
        for row in range(program.starts[level], program.starts[level + 1]):
            span = slice(program.pointers[row], program.pointers[row + 1])
            columns = program.columns[span]
            assert np.all(np.diff(columns) > 0)
            # Sources come first.
            assert np.all(program.level[columns] < level)
            value = program.weights[span].astype(np.float64) @ variables[columns] + program.bias[row]
            variables[row] = max(value, 0.0) if kind in (FUSED, OVER) else value
        if kind == INPUT:
            variables[: program.starts[1]] = x[layout.orders[0]]
    for index, node in enumerate(network.nodes):
        assert sorted(layout.orders[index].tolist()) == list(range(node.size))
        first = layout.values[index]
        mine = variables[first : first + node.size]
        fused = program.kinds[program.level[first]] == FUSED
        value = expected[index][layout.orders[index]]
        np.testing.assert_allclose(mine, np.maximum(value, 0) if fused else value, atol=1e-9)


@pytest.mark.parametrize("name", MAKERS)
def test_in_the_file_s_order_units_hold_one_neuron_each(name: str, tmp_path: Path) -> None:
    network = read_network(MAKERS[name](tmp_path / "net.onnx"))
    layout = lay_out(network, flat=True)
    for order in layout.orders:
        np.testing.assert_array_equal(order, np.arange(len(order)))
    affine = layout.program.kinds > INPUT
    assert np.all(layout.program.heights[affine & (layout.program.kinds != INPUT)] == 1)


@pytest.mark.parametrize("name", MAKERS)
def test_each_variable_s_chain_of_sums_is_charged_where_rows_read_it(name: str, tmp_path: Path) -> None:
    program = lay_out(read_network(MAKERS[name](tmp_path / "net.onnx"))).program
    inner = np.arange(len(program.level)) < program.starts[-2]
    read = np.bincount(program.columns, minlength=len(program.level)) > 0
    np.testing.assert_array_equal(program.gamma[inner] > 0, read[inner])
    # At least as many roundings as a product and the sum within a unit take.
    assert program.gamma[program.gamma > 0].min() >= 12 * 2.0**-24
