"""The ReLU network with intervals for biases contains what rounding does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from prunecert.verifiers.base import UnsupportedError
from prunecert.verifiers.sparse.quantised.question import Quantised, quantised
from tests.verifiers.sparse.quantised.exact import Reference
from tests.verifiers.sparse.quantised.networks import KINDS, Kind, network

Array = npt.NDArray[np.float64]


def rounded_forward(net: Quantised, points: npt.NDArray[np.float32]) -> Array:
    """Evaluates the ReLU network with the errors that rounding makes, each of which must lie in its interval."""
    relaxed = net.relaxed
    by_node = {item.node: item for item in relaxed.roundings}
    entry = np.stack([net.box(point, point).intervals[relaxed.entry].lower for point in points])
    values = [entry]
    for number, node in enumerate(net.network.nodes[1:], 1):
        total = np.tile(node.bias.astype(np.float64), (len(points), 1))
        for term in node.terms:
            value = values[term.source]
            total += (term.matrix.astype(np.float64) @ (np.maximum(value, 0) if term.activated else value).T).T
        if number in by_node:
            item = by_node[number]
            scale = item.grid.scale
            whole = np.rint((total + item.floor) / scale) * scale - item.floor
            assert (np.abs(whole - total) <= node.bias_error).all()
            # A step is not much more than its half on either side.
            assert (node.bias_error < 0.51 * scale).all()
            total = whole
        else:
            assert (node.bias_error < 1e-3).all()
        values.append(total)
    return values[-1]


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_with_the_errors_of_rounding_it_is_the_quantised_network(kind: Kind, coarse: bool) -> None:
    model = network(kind, 4, coarse)
    net, rng = quantised(model, "net"), np.random.default_rng(0)
    x = rng.random((300, *net.intervals.steps[0].shape[1:]), dtype=np.float32)
    gaps = np.abs(rounded_forward(net, x) - Reference(model).run(x)).max(axis=1)
    # Both round half to even, but a tie may be none in float64; averages are at one for a quarter of all numbers.
    assert (gaps < 1e-5).mean() > (0.6 if kind == "pooled" else 0.95)


TEXT = """<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 1] y)
<float s = {%g}, uint8 z = {0}, float t = {%g}, int8[1, 2] w = {1, 2}, float[1] ws = {%g}, int8[1] wz = {0}>
{ q = QuantizeLinear (x, s, z) a = DequantizeLinear (q, s, z) wf = DequantizeLinear <axis = 0> (w, ws, wz)
  h = Gemm <transB = 1> (a, wf) r = QuantizeLinear (h, t, z) y = DequantizeLinear (r, t, z) }"""


@pytest.mark.parametrize(("scale", "reached"), [(0.01, False), (0.005, True)])
def test_a_clamp_out_of_reach_takes_no_neurons(scale: float, reached: bool) -> None:
    net = quantised(onnx.parser.parse_model(TEXT % (1 / 255, scale, 0.5)), "net")
    (rounding,) = net.relaxed.roundings
    assert (rounding.beyond is not None) == reached
    assert len(net.network.nodes) == 3 + reached
    assert net.network.roundings == (rounding.node,)
    assert net.network.nodes[rounding.node].bias_error[0] == pytest.approx(scale / 2, rel=1e-3)


def test_values_beyond_float32_are_refused() -> None:
    two = "g = Gemm <transB = 1> (a, wf) kf = DequantizeLinear <axis = 0> (k, ws, wz) h = Gemm <transB = 1> (g, kf)"
    text = TEXT.replace("h = Gemm <transB = 1> (a, wf)", two).replace("int8[1] wz", "int8[1, 1] k = {1}, int8[1] wz")
    with pytest.raises(UnsupportedError, match="may be beyond what float32 holds"):
        quantised(onnx.parser.parse_model(text % (2.0**39, 0.01, 2.0**39)), "net")
