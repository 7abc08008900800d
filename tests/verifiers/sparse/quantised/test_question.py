"""What a question to a quantised network becomes, and what is known of neurons beyond their own bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from prunecert.verifiers.base import UnsupportedError
from prunecert.verifiers.sparse.quantised.question import read_quantised
from tests.verifiers import onnxnets
from tests.verifiers.sparse.quantised.networks import network

TEXT = """<ir_version: 8, opset_import: ["": 13]> net (float[1, 1] x) => (float[1, 1] y)
<float s = {0.25}, uint8 z = {0}, float t = {0.5}, uint8 u = {100}, int8[1, 1] w = {2},
 float[1] ws = {0.5}, int8[1] wz = {0}>
{ q = QuantizeLinear (x, s, z) a = DequantizeLinear (q, s, z) wf = DequantizeLinear <axis = 0> (w, ws, wz)
  h = Gemm <transB = 1> (a, wf) r = QuantizeLinear (h, t, u) y = DequantizeLinear (r, t, u) }"""


def test_a_file_without_rounding_is_none_of_these(tmp_path: Path) -> None:
    assert read_quantised(onnxnets.linear(tmp_path / "n.onnx")) is None


def test_a_box_becomes_that_of_what_its_points_are_rounded_to(tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(TEXT), tmp_path / "n.onnx")
    net = read_quantised(tmp_path / "n.onnx")
    assert net is not None
    boxed = net.box(np.array([[0.3]], np.float32), np.array([[1.2]], np.float32))
    assert (boxed.lower.tolist(), boxed.upper.tolist()) == ([0.25], [1.25])
    # 0.25 lies between 0 and 0.5, 1.25 between 1.0 and 1.5: on ties either is allowed for.
    last = boxed.intervals[-1]
    assert last.lower[0] == pytest.approx(0.0, abs=1e-6)
    assert last.upper[0] == pytest.approx(1.5, abs=1e-6)
    rows = net.rows(boxed, np.array([[1.0], [-1.0]]), np.array([-0.25, 0.0]))
    np.testing.assert_allclose(rows, [0.25, -1.5], atol=1e-6)


def test_bounds_of_a_rounding_become_multiples_of_its_scale_and_what_intervals_know(tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(TEXT), tmp_path / "n.onnx")
    net = read_quantised(tmp_path / "n.onnx")
    assert net is not None
    boxed = net.box(np.array([[0.3]], np.float32), np.array([[1.2]], np.float32))
    (rounding,) = net.relaxed.roundings
    assert rounding.floor == -50.0
    low, high = np.array([50.2]), np.array([51.3])
    net.sharpen(boxed.intervals, rounding.node, low, high)
    np.testing.assert_allclose([low[0], high[0]], [50.5, 51.0], rtol=1e-9)
    low, high = np.array([-np.inf]), np.array([np.inf])
    net.sharpen(boxed.intervals, rounding.node, low, high)
    np.testing.assert_allclose([low[0], high[0]], [50.0, 51.5], rtol=1e-9)
    assert low[0] <= 50.0
    assert high[0] >= 51.5
    assert rounding.beyond is None
    other = np.array([0.1])
    net.sharpen(boxed.intervals, len(net.network.nodes) - 1, other, other)
    assert other[0] == 0.1


def test_of_a_rounded_relu_nothing_is_known_below_zero() -> None:
    from prunecert.verifiers.sparse.quantised.question import quantised

    net = quantised(network("signed", 1), "net")
    zeros, ones = np.zeros((2, 4, 4), np.float32), np.ones((2, 4, 4), np.float32)
    boxed = net.box(zeros, ones)
    first = net.relaxed.roundings[0]
    assert first.rectified
    interval = boxed.intervals[first.step]
    size = len(interval.lower)
    low, high = np.full(size, -100.0), np.full(size, 100.0)
    net.sharpen(boxed.intervals, first.node, low, high)
    below = interval.inner_lower <= 0
    assert below.any()
    assert (low[below] < -99).all()
    assert (high <= interval.inner_upper + 1e-6).all()


def test_what_is_not_taken_is_named(tmp_path: Path) -> None:
    text = TEXT.replace("h = Gemm <transB = 1> (a, wf)", "g = Gemm <transB = 1> (a, wf) h = Sigmoid (g)")
    onnx.save(onnx.parser.parse_model(text), tmp_path / "bent.onnx")
    with pytest.raises(UnsupportedError, match=r"bent\.onnx is refused\. The node 'h' \(Sigmoid\)"):
        read_quantised(tmp_path / "bent.onnx")


@pytest.mark.parametrize(("zero", "input_"), [(255, 1.0), (0, -1.0)])
def test_outputs_that_are_clamped_are_not_taken_for_what_is_clamped(zero: int, input_: float) -> None:
    text = TEXT.replace("u = {100}", f"u = {{{zero}}}").replace("z = {0}, float", "z = {128}, float")
    from prunecert.verifiers.sparse.quantised.question import quantised

    net = quantised(onnx.parser.parse_model(text), "net")
    point = np.array([[input_]], np.float32)
    boxed = net.box(point, point)
    # 1 times 1 is 2 steps beyond the end of the grid, on either side.
    assert boxed.intervals[-1].lower[0] == pytest.approx(0.0, abs=1e-6)
    assert boxed.intervals[-1].upper[0] == pytest.approx(0.0, abs=1e-6)
    (rounding,) = net.relaxed.roundings
    low, high = np.array([-np.inf]), np.array([np.inf])
    net.sharpen(boxed.intervals, rounding.node, low, high)
    np.testing.assert_allclose([low[0] + rounding.floor, high[0] + rounding.floor], [input_, input_], rtol=1e-9)
