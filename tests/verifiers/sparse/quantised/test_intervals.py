"""Intervals contain what runtimes and exact arithmetic give, and are exact where rounding leaves one number."""

from __future__ import annotations

import os
from fractions import Fraction

import numpy as np
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
