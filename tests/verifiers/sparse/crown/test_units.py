"""One image's arrays, and intervals over them; `test_rows` and `test_passes` have the walk in units."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prunecert.verifiers.sparse.crown.program import FUSED, lay_out
from prunecert.verifiers.sparse.crown.units.intervals import count_unstable, start, take_over, unstable_rows
from prunecert.verifiers.sparse.crown.units.state import make_image
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
