"""Stored whole numbers are the real numbers that they stand for, and geometry is refused where it doesn't fit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from prunecert.errors import UserError
from prunecert.onnx.quantised_constants import Constant, dequantised, finite, scales_of, windows_of

NODE = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=0, name="real")


@given(
    whole=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=2),
    scale=st.floats(2**-30, 2**10, width=32),
    wide=st.booleans(),
)
def test_numbers_are_exact_to_29_bits_and_then_within_a_rounding(whole: list[int], scale: float, wide: bool) -> None:
    numbers = np.array(whole, np.int32) if wide else np.array([n % 256 for n in whole], np.uint8)
    zero = np.zeros(2, numbers.dtype) if wide else np.array([7, 200], np.uint8)
    constant = dequantised(NODE, [Constant(numbers), Constant(np.array([scale, 1.0], np.float32)), Constant(zero)])
    for place, unit in enumerate((scale, 1.0)):
        exact = (int(numbers[place]) - int(zero[place])) * Fraction(unit)
        assert abs(Fraction(float(constant.values[place])) - exact) <= abs(exact) * Fraction(constant.loose)
    assert wide or constant.loose == 0.0
    assert constant.scales is not None
    assert constant.scales.tolist() == [scale, 1.0]


def test_scales_must_fit_the_axis() -> None:
    with pytest.raises(UserError, match="3 scales don't fit"):
        dequantised(
            NODE,
            [Constant(np.zeros((2, 2), np.int8)), Constant(np.ones(3, np.float32)), Constant(np.zeros(3, np.int8))],
        )


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, 1e-38])
def test_scales_that_are_none_are_refused(value: float) -> None:
    assert scales_of(NODE, np.array([0.5], np.float32)).tolist() == [0.5]
    with pytest.raises(UserError, match="can't be bounded"):
        scales_of(NODE, np.array([0.5, value], np.float32))
    with pytest.raises(UserError, match="taken is float32"):
        scales_of(NODE, np.array([0.5], np.float64))


def test_constants_must_be_finite() -> None:
    with pytest.raises(UserError, match="its bias holds 1 values that are infinite or not a number"):
        finite(NODE, Constant(np.array([np.inf, 1], np.float32)), "bias")
    with pytest.raises(UserError, match="its weight is of type float16; taken is float32"):
        finite(NODE, Constant(np.array([1], np.float16)), "weight")


def test_windows_are_counted_as_onnx_does() -> None:
    geometry = windows_of(
        NODE, {"pads": [1, 0, 1, 2], "strides": [2, 1], "dilations": [1, 2]}, (1, 1, 5, 6), (3, 2), True
    )
    assert geometry["sizes"] == (3, 6)
    for attributes in ({"pads": [1, 1]}, {"strides": [0, 1]}, {"auto_pad": b"SAME_UPPER"}, {"kernel_shape": [2, 2]}):
        with pytest.raises(UserError):
            windows_of(NODE, attributes, (1, 1, 5, 6), (3, 2), True)
    with pytest.raises(UserError, match="doesn't fit"):
        windows_of(NODE, {}, (1, 1, 2, 6), (3, 2), True)
    with pytest.raises(UserError, match="dilations"):
        windows_of(NODE, {"dilations": [2, 2]}, (1, 1, 5, 6), (2, 2), False)
