"""Intervals contain what runtimes and exact arithmetic give, and are exact where rounding leaves one number."""

from __future__ import annotations

import os
from fractions import Fraction

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.onnx.quantised import Grid
from prunecert.verifiers.sparse.quantised.intervals import rounded
from prunecert.verifiers.sparse.quantised.question import Quantised, quantised
from tests.verifiers.sparse.quantised.exact import Reference
from tests.verifiers.sparse.quantised.networks import KINDS, FloatArray, Kind, network, run


def points(rng: np.random.Generator, count: int, shape: tuple[int, ...]) -> FloatArray:
    """Returns points in and around [0, 1]: any, on the input's grid, and between two of its numbers."""
    x = (rng.random((count, *shape)) * 1.2 - 0.1).astype(np.float32)
    x[::3] = np.round(x[::3] * 255) / np.float32(255)
    x[1::3] = ((np.round(x[1::3] * 255) + 0.5) / 255).astype(np.float32)
    return x


def shape_of(net: Quantised) -> tuple[int, ...]:
    return net.intervals.steps[0].shape[1:]


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_of_every_runtime_lie_within_the_bounds_of_a_point(kind: Kind, coarse: bool) -> None:
    model = network(kind, 1, coarse)
    net, rng = quantised(model, "net"), np.random.default_rng(0)
    x = points(rng, 90, shape_of(net))
    everyone = Reference(model).run(x), run(model, x), run(model, x, fused=True)
    widths = []
    for place, point in enumerate(x):
        last = net.box(point, point).intervals[-1]
        widths.append(float((last.upper - last.lower).max()))
        for outputs in everyone:
            assert (last.lower <= outputs[place]).all()
            assert (outputs[place] <= last.upper).all()
    # Where nothing is near a tie, nothing but the last sum's rounding is left; averages of four are often at one.
    assert min(widths) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_over_a_box_lie_within_its_bounds_and_so_do_rows(kind: Kind) -> None:
    model = network(kind, 2)
    net, rng = quantised(model, "net"), np.random.default_rng(1)
    shape = shape_of(net)
    matrix = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0], [1.0, 1.0, 1.0]])
    for radius in (0.004, 0.03, 0.2):
        center = rng.random(shape, dtype=np.float32)
        low, high = (center - np.float32(radius)), (center + np.float32(radius))
        boxed = net.box(low, high)
        last = boxed.intervals[-1]
        rows = net.rows(boxed, matrix, np.array([0.0, 0.5, 0.0]))
        x = np.clip(low + rng.random((200, *shape), dtype=np.float32) * (high - low), low, high)
        x[::2] = np.where(rng.random(x[::2].shape) < 0.5, low, high)
        for outputs in (Reference(model).run(x), run(model, x), run(model, x, fused=True)):
            assert (last.lower <= outputs).all()
            assert (outputs <= last.upper).all()
            assert (rows <= (outputs @ matrix.T - [0.0, 0.5, 0.0]).min(axis=0)).all()
        # Rows aren't bounded worse than by the outputs' own bounds.
        plain = np.maximum(matrix, 0) @ last.lower + np.minimum(matrix, 0) @ last.upper - [0.0, 0.5, 0.0]
        assert (rows >= plain - 1e-4).all()


SUM = """<ir_version: 8, opset_import: ["": 13]> net (float[N, 1] input) => (float[N, 1] y)
<float s = {0.01}, uint8 z = {0}, float t = {%.12g}, uint8 u = {%d}>
{ q = QuantizeLinear (input, s, z) a = DequantizeLinear (q, s, z) b = DequantizeLinear (q, s, z) h = Add (a, b)
  r = QuantizeLinear (h, t, u) y = DequantizeLinear (r, t, u) }"""


@pytest.mark.parametrize(("zero", "side"), [(200, 1), (201, -1)])
def test_a_sum_near_a_tie_is_rounded_in_float32_after_its_zero_point_was_added(zero: int, side: int) -> None:
    # 0.5 + 2**-19 steps are nearer to 1; with 200 before them, float32 holds 200.5, which is rounded to 200.
    model = onnx.parser.parse_model(SUM % (float(np.float32(0.01)) * 2 * 25 / 0.5 / (1 + side * 2.0**-18), zero))
    net = quantised(model, "net")
    x = (np.arange(1, 250) * np.float32(0.01)).astype(np.float32)[:, None]
    plain, fused = run(model, x), run(model, x, fused=True)
    assert (plain != fused).any()
    for place, point in enumerate(x):
        last = net.box(point, point).intervals[-1]
        for outputs in (plain, fused):
            assert last.lower <= outputs[place] <= last.upper


AVERAGE = """<ir_version: 8, opset_import: ["": 13]> net (float[N, 1, 3, 3] input) => (float[N, 1, 2, 2] y)
<float s = {0.0428514145314693}, int8 z = {127}, float t = {5.6992164}, int8 u = {0}>
{ q = QuantizeLinear (input, s, z) a = DequantizeLinear (q, s, z) h = AveragePool <kernel_shape = [2, 2]> (a)
  r = QuantizeLinear (h, t, u) y = DequantizeLinear (r, t, u) }"""


def test_int8_numbers_may_become_uint8_ones_with_a_zero_point() -> None:
    model = onnx.parser.parse_model(AVERAGE)
    net = quantised(model, "net")
    whole = np.array([30, 24, -93, 117, 66, 51, 36, 23, -51])
    x = ((whole - 127) * np.float32(0.0428514145314693)).astype(np.float32).reshape(1, 1, 3, 3)
    plain, fused = run(model, x).reshape(-1), run(model, x, fused=True).reshape(-1)
    assert plain[2] != fused[2]
    last = net.box(x[0], x[0]).intervals[-1]
    assert (last.lower <= np.minimum(plain, fused)).all()
    assert (np.maximum(plain, fused) <= last.upper).all()


PRODUCT = """<ir_version: 8, opset_import: ["": 13]> net (float[N, 2] input) => (float[N, 2] y)
<float s = {0.3}, uint8 z = {0}, float t = {0.002}, uint8 u = {128}, int8[2, 2] w = {3, -2, 1, 4}, float ws = {0.1},
 int8 wz = {0}, float[2] b = {0.0111, 0.0171}>
{ q = QuantizeLinear (input, s, z) a = DequantizeLinear (q, s, z) wf = DequantizeLinear (w, ws, wz) m = MatMul (a, wf)
  h = Add (m, b) r = QuantizeLinear (h, t, u) y = DequantizeLinear (r, t, u) }"""


def test_a_constant_after_a_product_may_become_its_bias_in_another_unit() -> None:
    model = onnx.parser.parse_model(PRODUCT)
    net, rng = quantised(model, "net"), np.random.default_rng(0)
    x = rng.random((40, 2), dtype=np.float32)
    plain, fused = run(model, x), run(model, x, fused=True)
    # Both constants are less than half of 0.3 times 0.1.
    assert (plain != fused).any(axis=1).mean() > 0.5
    for place, point in enumerate(x):
        last = net.box(point, point).intervals[-1]
        for outputs in (plain, fused):
            assert (last.lower <= outputs[place]).all()
            assert (outputs[place] <= last.upper).all()


@given(
    low=st.floats(-300, 300),
    width=st.floats(0, 5),
    scale=st.sampled_from([1.0, 0.1, 2**-7, 3.7]),
    zero=st.integers(0, 255),
)
def test_rounding_of_an_interval_is_exact_but_at_ties(low: float, width: float, scale: float, zero: int) -> None:
    grid = Grid(float(np.float32(scale)), zero, 0, 255)
    interval = rounded(grid, np.array([low]), np.array([low + width]))
    unit = Fraction(grid.scale)
    for value in (Fraction(low), Fraction(low + width), (Fraction(low) + Fraction(low + width)) / 2):
        whole = min(max(round(value / unit), -zero), 255 - zero)
        assert Fraction(float(interval.lower[0])) <= whole * unit <= Fraction(float(interval.upper[0]))
    for end, corner, side in ((interval.lower[0], low, -1), (interval.upper[0], low + width, 1)):
        quotient = corner / grid.scale
        if abs(quotient % 1 - 0.5) > 1e-3:
            assert end == np.clip(round(quotient), -zero, 255 - zero) * grid.scale, side


@pytest.mark.slow
@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_no_point_of_any_box_lies_outside(kind: Kind, coarse: bool) -> None:
    # A million points in all, or in each case.
    count = 20_000 if os.environ.get("PRUNECERT_SOUNDNESS") == "full" else 2_000
    model = network(kind, 3, coarse)
    net, rng, reference = quantised(model, "net"), np.random.default_rng(2), Reference(model)
    shape = shape_of(net)
    for turn in range(50):
        radius = np.float32((0.002, 0.008, 0.05)[turn % 3])
        center = points(rng, 1, shape)[0]
        low, high = center - radius, center + radius
        last = net.box(low, high).intervals[-1]
        x = np.clip(low + rng.random((count, *shape), dtype=np.float32) * (high - low), low, high)
        x[::2] = np.where(rng.random(x[::2].shape) < 0.5, low, high)
        exact = reference.run(x[:200])
        for outputs in (run(model, x), run(model, x, fused=True), exact):
            assert (last.lower <= outputs).all()
            assert (outputs <= last.upper).all()
