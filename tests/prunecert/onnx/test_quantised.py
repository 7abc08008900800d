"""Grids of quantised values, and whether a file rounds at all."""

from __future__ import annotations

import onnx
import pytest

from prunecert.onnx.quantised import Grid, holds_quantisation

TEXT = """<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y)
<float s = {0.5}, uint8 z = {3}> { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }"""


@pytest.mark.parametrize(
    ("grid", "floor", "ceiling"), [(Grid(0.5, 0, 0, 255), 0.0, 127.5), (Grid(0.25, -128, -128, 127), 0.0, 63.75),
                                   (Grid(2.0, 3, 0, 255), -6.0, 504.0)]
)  # fmt: skip
def test_a_grid_ends_where_its_whole_numbers_do(grid: Grid, floor: float, ceiling: float) -> None:
    assert (grid.floor, grid.ceiling, grid.width) == (floor, ceiling, ceiling - floor)


def test_a_file_rounds_if_it_has_the_operator() -> None:
    assert holds_quantisation(onnx.parser.parse_model(TEXT))
    plain = '<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y) { y = Relu (x) }'
    assert not holds_quantisation(onnx.parser.parse_model(plain))
