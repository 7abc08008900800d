"""One image's arrays, and intervals over them; `test_rows` and `test_passes` have the walk in units."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prunecert.verifiers.sparse.crown.program import FUSED, lay_out
from prunecert.verifiers.sparse.crown.scratch import make_scratch
from prunecert.verifiers.sparse.crown.units.blocks import find_blocks
from prunecert.verifiers.sparse.crown.units.intervals import count_unstable, start, take_over, unstable_rows
from prunecert.verifiers.sparse.crown.units.state import UnitImage, make_image
from prunecert.verifiers.sparse.crown.units.walk import advance
from prunecert.verifiers.sparse.network import Network, Node, Term
from prunecert.verifiers.sparse.onnx.layers import dense
from prunecert.verifiers.sparse.onnx.reader import read_network
from tests.verifiers import onnxnets


def test_a_new_box_empties_the_matrix_and_unstable_rows_are_told_apart(tmp_path: Path) -> None:
    program = lay_out(read_network(onnxnets.convolutional(tmp_path / "net.onnx"))).program
    image, inputs = make_image(program, 8), program.starts[1]
    image.used[:] = 7
    image.slack[:] = 1.0
    low = np.random.default_rng(0).random(inputs)
    start.py_func(program, image, low, low + 0.5)
    assert image.used.tolist() == [0, 0, 0, 0, 0, 7]
    np.testing.assert_array_equal(image.lower[:inputs], low)
    np.testing.assert_array_equal(image.upper[:inputs], low + 0.5)
    assert not image.slack[:inputs].any()
    assert image.slack[inputs:].all()
    rng = np.random.default_rng(1)
    image.lower[:], image.upper[:] = rng.integers(-1, 2, (2, len(image.lower)))
    total = 0
    for level in range(1, len(program.kinds)):
        out = np.full(len(image.lower), -1)
        count = unstable_rows.py_func(program, image, level, out)
        rows = program.live[program.lives[level] : program.lives[level + 1]]
        straddling = rows[(image.lower[rows] < 0) & (image.upper[rows] > 0)]
        assert out[:count].tolist() == (straddling.tolist() if program.bounded[level] else [])
        total += len(straddling) if program.kinds[level] >= FUSED else 0
    assert count_unstable.py_func(program, image) == total > 0


def test_a_relu_over_a_value_takes_its_bounds_over(tmp_path: Path) -> None:
    program = lay_out(read_network(onnxnets.convolutional(tmp_path / "net.onnx"))).program
    image, row = make_image(program, 8), program.starts[1]
    raw = program.columns[program.pointers[row]]
    image.lower[raw], image.upper[raw], image.quantities[raw] = -1.0, 2.0, (0.5, 0.5, 1.5, 1e-7)
    take_over.py_func(program, image, row, row + 1)
    assert (image.lower[row], image.upper[row], image.centers[row], image.slack[row]) == (-1.0, 2.0, 0.5, 1e-7)


def columns_of(image: UnitImage, unit: int) -> dict[int, list[float]]:
    """Returns a unit's columns, and the weights of each."""
    entries, at, height = image.entries[unit : unit + 2], int(image.offsets[unit]), int(image.height[unit])
    return {
        int(column): image.weights[at + k * height : at + (k + 1) * height].tolist()
        for k, column in enumerate(image.columns[entries[0] : entries[1]])
    }


def test_the_matrix_is_the_same_from_blocks_and_from_rows(tmp_path: Path) -> None:
    path = onnxnets.convolutional(tmp_path / "net.onnx", shape=(3, 12, 12), sparsity=0.4)
    program = lay_out(read_network(path)).program
    low = np.random.default_rng(0).random(program.starts[1])
    images = []
    for density in (0.0, 2.0):
        image, places = make_image(program, 2 * len(program.columns)), 2 * len(program.level) + 16
        scratch = make_scratch(places, places + 8 * len(program.kinds), False)
        rows = np.empty(len(program.level), dtype=np.int64)
        blocks = find_blocks(program, density)
        assert blocks.blocked.any() == (density == 0.0)
        level, *_ = advance(program, blocks, image, scratch, low, low + 0.01, 0, False, True, rows, True, 10**9)
        assert level == len(program.kinds)
        images.append(image)
    one, other = images
    np.testing.assert_array_equal(one.number, other.number)
    assert one.used[1] == other.used[1]
    filled = 0
    for unit in range(one.used[1]):
        assert one.height[unit] == other.height[unit]
        # Columns that only zeros would fill stand in neither; their order doesn't matter.
        assert columns_of(one, unit) == columns_of(other, unit)
        sources = [set(image.fed[image.feeders[unit] : image.feeders[unit + 1]].tolist()) for image in images]
        assert sources[0] == sources[1]
        filled += bool(sources[0])
    assert filled > 20
    np.testing.assert_allclose(one.planes, other.planes, rtol=1e-5, atol=1e-7)


def test_where_nothing_is_walked_no_matrix_is_made(tmp_path: Path) -> None:
    program = lay_out(read_network(onnxnets.convolutional(tmp_path / "net.onnx"))).program
    blocks, rows = find_blocks(program, 0.0), np.empty(len(program.level), dtype=np.int64)
    low = np.random.default_rng(0).random(program.starts[1])
    alone, walked = make_image(program, 0), make_image(program, 2 * len(program.columns))
    scratch = make_scratch(2 * len(program.level) + 16, 2 * len(program.level) + 16 + 8 * len(program.kinds), False)
    advance(program, blocks, alone, scratch, low, low + 0.1, 0, False, False, rows, True, 10**9)
    advance(program, blocks, walked, scratch, low, low + 0.1, 0, False, True, rows, True, 10**9)
    assert not alone.used[:5].any()
    np.testing.assert_array_equal(alone.lower, walked.lower)
    np.testing.assert_array_equal(alone.upper, walked.upper)
    np.testing.assert_array_equal(alone.quantities, walked.quantities)


def test_columns_of_zeros_are_not_written_beyond_the_last_weight() -> None:
    """A unit that fills the matrix to its end may look at columns that it doesn't use."""
    sources, rows = 24, 8
    matrix = np.zeros((rows, 2, sources, 2), dtype=np.float32)
    # At the first position four rows of three columns; at the second four that read the last column, and four others.
    matrix[:4, 0, :3, 0] = 1 + np.arange(12).reshape(4, 3)
    matrix[:4, 1, -1, 1] = 2 + np.arange(4)
    for row in range(4):
        matrix[4 + row, 1, 2 * row : 2 * row + 2, 1] = 1 + row
    flat = matrix.reshape(2 * rows, 2 * sources)
    none = np.zeros(2 * sources, dtype=np.float32)
    zeros = none[: 2 * rows]
    network = Network(
        "net",
        (sources, 1, 2),
        (
            Node("input", 2 * sources, (sources, 1, 2), (), none, none),
            Node("output", 2 * rows, (rows, 1, 2), (Term(0, False, dense(flat)),), zeros, zeros),
        ),
    )
    program = lay_out(network).program
    places = 2 * len(program.level) + 16
    low, unstable = np.zeros(2 * sources), np.empty(len(program.level), dtype=np.int64)
    levels = []
    for capacity in range(20, 80):
        guarded = np.full(capacity + 16, np.float32(-777))
        image = make_image(program, capacity)._replace(weights=guarded[:capacity])
        scratch = make_scratch(places, places + 8 * len(program.kinds), False)
        level, *_ = advance(
            program, find_blocks(program, 0.0), image, scratch, low, low + 1, 0, False, True, unstable, True, 10**9
        )
        assert (guarded[capacity:] == -777).all()
        levels.append(level)
    assert set(levels) == {-1, len(program.kinds)}
