"""The flat layout's stripes make up the same matrices, and only where matrices are made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from prunecert.verifiers.sparse.crown.program import Program
from prunecert.verifiers.sparse.crown.rows.layout import Taps, lay_flat
from prunecert.verifiers.sparse.network import Network, Node, Term
from prunecert.verifiers.sparse.onnx import layers
from prunecert.verifiers.sparse.onnx.reader import read_network
from tests.verifiers import onnxnets


def rebuilt(program: Program, taps: Taps, level: int) -> NDArray[np.float64]:
    """Returns the matrix of a level from its taps, over all variables."""
    first, last = program.starts[level], program.starts[level + 1]
    matrix = np.zeros((last - first, len(program.level)))
    for tap in range(taps.taps[taps.channels[level]], taps.taps[taps.channels[level + 1]]):
        to, source, rows, columns, pitch, below, step = taps.places[tap]
        for y in range(rows):
            for x in range(columns):
                row, column = to + y * pitch + x - first, source + y * below + x * step
                assert matrix[row, column] == 0
                matrix[row, column] = taps.weights[tap]
    return matrix


def stored(program: Program, level: int) -> NDArray[np.float64]:
    first, last = program.starts[level], program.starts[level + 1]
    matrix = np.zeros((last - first, len(program.level)))
    for row in range(first, last):
        span = slice(program.pointers[row], program.pointers[row + 1])
        matrix[row - first, program.columns[span]] = program.weights[span]
    return matrix


def network_of(matrix: object, shape: tuple[int, ...], before: tuple[int, ...]) -> Network:
    size, inputs = int(np.prod(shape)), int(np.prod(before))
    zeros, none = np.zeros(size, dtype=np.float32), np.zeros(inputs, dtype=np.float32)
    nodes = (
        Node("input", inputs, before, (), none, none),
        Node("layer", size, shape, (Term(0, False, matrix),), zeros, zeros),
    )
    return Network("net", before, nodes)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.tuples(st.integers(4, 12), st.integers(4, 20)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from((1, 2)),
    sparsity=st.sampled_from((0.0, 0.5, 0.95)),
)
def test_stripes_of_convolutions(
    seed: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
    sparsity: float,
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((4, 4 // groups, *kernel)).astype(np.float32)
    weight *= rng.random(weight.shape) >= sparsity
    matrix, shape = layers.convolution(weight, (4, *size), stride, pads, dilation, groups)
    assume(0 not in shape)
    layout, taps = lay_flat(network_of(matrix, shape, (4, *size)))
    program = layout.program
    if taps.tapped[1]:
        np.testing.assert_array_equal(rebuilt(program, taps, 1), stored(program, 1))
        assert 4 * len(taps.weights) <= matrix.nnz
    # Strides that the sizes tell are found, where there is something to be gained.
    told = stride[0] == round(size[0] / shape[1]) and stride[1] == round(size[1] / shape[2])
    if told and 0 < 4 * np.count_nonzero(weight) <= matrix.nnz:
        assert taps.tapped[1]


def test_other_matrices_are_no_stripes() -> None:
    rng = np.random.default_rng(0)
    matrix, shape = layers.convolution(
        rng.standard_normal((3, 2, 3, 3)).astype(np.float32), (2, 6, 6), (1, 1), (1, 1, 1, 1), (1, 1), 1
    )
    assert lay_flat(network_of(matrix, shape, (2, 6, 6)))[1].tapped[1]
    # One weight differs at one place, or is missing there.
    changed = matrix.copy()
    changed.data[40] *= np.float32(1.5)
    assert not lay_flat(network_of(changed, shape, (2, 6, 6)))[1].tapped[1]
    changed.data[40] = 0
    changed.eliminate_zeros()
    assert not lay_flat(network_of(changed, shape, (2, 6, 6)))[1].tapped[1]
    assert not lay_flat(network_of(matrix, (int(np.prod(shape)),), (72,)))[1].tapped[1]


@pytest.mark.parametrize("sparsity", [0.0, 0.8])
def test_networks_with_several_terms(sparsity: float, tmp_path: Path) -> None:
    network = read_network(onnxnets.residual(tmp_path / "net.onnx", seed=4, sparsity=sparsity))
    layout, taps = lay_flat(network)
    for level in range(len(taps.tapped)):
        if taps.tapped[level]:
            np.testing.assert_array_equal(rebuilt(layout.program, taps, level), stored(layout.program, level))
        # Weights that were folded are not exact, and their rounding is charged row by row.
        assert not (taps.tapped[level] and layout.program.inexact[level])
