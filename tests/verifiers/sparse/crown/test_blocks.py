"""Levels of blocks are found wherever they are there, and nowhere else, and say the same as the rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.arrays import BLOCK_WIDTH
from prunecert.verifiers.sparse.crown.memory import block_numbers
from prunecert.verifiers.sparse.crown.passes import UnitPass
from prunecert.verifiers.sparse.crown.program import Program, lay_out
from prunecert.verifiers.sparse.crown.units.blocks import Blocks, find_blocks
from prunecert.verifiers.sparse.network import Network, Node, Term
from prunecert.verifiers.sparse.onnx.layers import convolution, dense
from prunecert.verifiers.sparse.onnx.reader import read_network
from tests.verifiers import onnxnets

Array = npt.NDArray[np.float32]


def node(name: str, shape: tuple[int, ...], *terms: Term) -> Node:
    size = int(np.prod(shape))
    bias = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    return Node(name, size, shape, terms, bias if terms else np.zeros(size, np.float32), np.zeros(size, np.float32))


def strided(seed: int, sparsity: float = 0.0, stride: int = 2, groups: int = 1) -> Network:
    """Two convolutions, then a linear layer, then the outputs."""
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> Array:
        weight = rng.standard_normal(shape).astype(np.float32)
        return np.where(rng.random(shape) < sparsity, np.float32(0), weight)

    first, shape = convolution(drawn(8, 3, 3, 3), (3, 6, 6), (1, 1), (1, 1, 1, 1), (1, 1), 1)
    second, smaller = convolution(drawn(12, 8 // groups, 2, 2), shape, (stride, stride), (0, 0, 0, 0), (1, 1), groups)
    hidden = int(np.prod(smaller))
    return Network(
        "net",
        (3, 6, 6),
        (
            node("input", (3, 6, 6)),
            node("first", shape, Term(0, False, first)),
            node("second", smaller, Term(1, True, second)),
            node("third", (40,), Term(2, True, dense(drawn(40, hidden)))),
            node("output", (10,), Term(3, True, dense(drawn(10, 40)))),
        ),
    )


def rows_of(program: Program, blocks: Blocks, level: int) -> npt.NDArray[np.float32]:
    """Writes a level's blocks out as a matrix over all variables."""
    first, last, group = int(program.starts[level]), int(program.starts[level + 1]), int(program.groups[level])
    matrix = np.zeros((last - first, len(program.level)), dtype=np.float32)
    for number, position in enumerate(range(int(blocks.first[level]), int(blocks.first[level + 1]))):
        for pair in range(int(blocks.pairs[position]), int(blocks.pairs[position + 1])):
            source, at, pitch = int(blocks.sources[pair]), int(blocks.offsets[pair]), int(blocks.pitch[level])
            height = int(program.groups[program.level[source]])
            block = blocks.weights[at : at + height * pitch].reshape(height, pitch)
            assert not block[:, group:].any()
            matrix[number * group : (number + 1) * group, source : source + height] = block[:, :group].T
    return matrix


def program_rows(program: Program, level: int) -> npt.NDArray[np.float32]:
    first, last = int(program.starts[level]), int(program.starts[level + 1])
    pointers = program.pointers[first : last + 1]
    span = slice(pointers[0], pointers[-1])
    shape = (last - first, len(program.level))
    matrix = scipy.sparse.csr_array((program.weights[span], program.columns[span], pointers - pointers[0]), shape=shape)
    return np.asarray(matrix.toarray(), dtype=np.float32)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    sparsity=st.sampled_from((0.0, 0.5, 0.95)),
    stride=st.sampled_from((1, 2)),
    groups=st.sampled_from((1, 2, 4)),
)
def test_blocks_are_the_rows(seed: int, sparsity: float, stride: int, groups: int) -> None:
    program = lay_out(strided(seed, sparsity, stride, groups)).program
    blocks = find_blocks(program, 0.0)
    for level in range(1, len(program.kinds)):
        expected = program_rows(program, level)
        assert blocks.blocked[level] == expected.any()
        if blocks.blocked[level]:
            np.testing.assert_array_equal(rows_of(program, blocks, level), expected)


def test_positions_of_a_convolution_share_its_kernel() -> None:
    program = lay_out(strided(0)).program
    blocks = find_blocks(program)
    assert blocks.blocked.tolist() == [0, 1, 1, 1, 1]
    # Nine places of the kernel over 3 channels; four over 8; nine positions of 12; and one of 40.
    height = 9 * 3 + 4 * 8 + 9 * 12 * 2 + 40
    assert blocks.pitch.tolist() == [0, BLOCK_WIDTH, BLOCK_WIDTH, 2 * BLOCK_WIDTH, BLOCK_WIDTH]
    assert len(blocks.weights) == height * BLOCK_WIDTH
    assert blocks.read.tolist() == [1, 1, 1, 1, 0]
    # Corners see four places, edges six.
    assert sorted(np.diff(blocks.pairs[:37]))[::35] == [4, 9]


def test_what_is_sparse_stays_in_rows() -> None:
    program = lay_out(strided(1, sparsity=0.97)).program
    assert not find_blocks(program).blocked.any()
    assert not find_blocks(program, 2.0).blocked.any()
    assert find_blocks(program, 0.0).blocked.any()


@pytest.mark.parametrize("weight", [1e-40, -1e-44])
def test_a_weight_below_the_normal_numbers_stays_in_rows(weight: float) -> None:
    network = strided(2)
    nodes = list(network.nodes)
    matrix = nodes[2].terms[0].matrix.copy()
    matrix.data[7] = weight
    nodes[2] = replace(nodes[2], terms=(replace(nodes[2].terms[0], matrix=matrix),))
    blocked = find_blocks(lay_out(replace(network, nodes=tuple(nodes))).program).blocked
    assert blocked.tolist() == [0, 1, 0, 1, 1]


def test_inexact_weights_stay_in_rows() -> None:
    network = strided(3)
    nodes = list(network.nodes)
    nodes[3] = replace(nodes[3], terms=(replace(nodes[3].terms[0], exact=False),))
    assert find_blocks(lay_out(replace(network, nodes=tuple(nodes))).program).blocked.tolist() == [0, 1, 1, 0, 1]


def test_a_column_that_stands_twice_is_refused() -> None:
    """A walk would take one of the two weights, and a forged hash could pass one block for another."""
    network = strided(4)
    nodes = list(network.nodes)
    nodes[3] = replace(nodes[3], terms=(nodes[3].terms[0], nodes[3].terms[0]))
    twice = replace(network, nodes=tuple(nodes))
    for flat in (False, True):
        with pytest.raises(ValueError, match="read the same values"):
            lay_out(twice, flat)


def test_blocks_that_are_mostly_padding_stay_in_rows() -> None:
    """A linear layer that is reshaped to an image has few neurons a position, and a block for each of all pairs."""
    size = 300
    rng = np.random.default_rng(0)
    hidden = dense(rng.standard_normal((size, size)).astype(np.float32))
    picture = dense(rng.standard_normal((3 * 64, size)).astype(np.float32))
    outputs = dense(rng.standard_normal((10, 3 * 64)).astype(np.float32))
    network = Network(
        "net",
        (size,),
        (
            node("input", (size,)),
            node("hidden", (size,), Term(0, False, hidden)),
            node("picture", (3, 8, 8), Term(1, True, picture)),
            node("output", (10,), Term(2, True, outputs)),
        ),
    )
    assert find_blocks(lay_out(network).program).blocked.tolist() == [0, 1, 0, 1]
    assert block_numbers(network) == 320 * size + BLOCK_WIDTH * 3 * 64


def test_one_weight_of_one_position_makes_a_block_of_its_own() -> None:
    network = strided(5)
    nodes = list(network.nodes)
    matrix = nodes[2].terms[0].matrix.copy()
    before = find_blocks(lay_out(network).program)
    matrix.data[matrix.indptr[4]] += 1
    nodes[2] = replace(nodes[2], terms=(replace(nodes[2].terms[0], matrix=matrix),))
    program = lay_out(replace(network, nodes=tuple(nodes))).program
    blocks = find_blocks(program)
    assert len(blocks.weights) == len(before.weights) + 8 * BLOCK_WIDTH
    np.testing.assert_array_equal(rows_of(program, blocks, 2), program_rows(program, 2))


@pytest.mark.parametrize("density", [0.0, 2.0])
def test_a_pass_with_blocks_and_one_without_bound_alike(density: float, tmp_path: Path) -> None:
    network = read_network(onnxnets.convolutional(tmp_path / "net.onnx", shape=(3, 16, 16)))
    rng = np.random.default_rng(0)
    image = rng.random(network.nodes[0].size)
    query = (image - 0.02, image + 0.02, rng.standard_normal((20, 10)), rng.standard_normal(20))
    rows, unstable = UnitPass(network, 1, lambda work: work(0), least_density=density).bound(
        0, query, True, True, True, False
    )
    expected, same = UnitPass(network, 1, lambda work: work(0)).bound(0, query, True, True, True, False)
    np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-5)
    assert unstable == same > 0
