"""Rules compute what ONNX's operators do, in float64, and the squares of just what they sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from prunecert.verifiers.rounding.float64_rules import RULES, Array, is_real

RNG = np.random.default_rng(3)


def squared(array: Array) -> Array:
    return array * array


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    groups=st.sampled_from([1, 2]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
)
def test_convolutions_are_torch_s(
    seed: int,
    groups: int,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
) -> None:
    rng = np.random.default_rng(seed)
    x, weight = rng.normal(size=(1, 4, 7, 6)), rng.normal(size=(6, 4 // groups, *kernel))
    bias = rng.normal(size=6)
    attributes = {"group": groups, "strides": list(strides), "dilations": list(dilations), "pads": list(pads)}
    top, left, bottom, right = pads
    padded = F.pad(torch.from_numpy(x), (left, right, top, bottom))
    expected = F.conv2d(padded, torch.from_numpy(weight), torch.from_numpy(bias), strides, 0, dilations, groups)
    value, size, terms = RULES["Conv"](attributes, [x, weight, bias], squared)
    np.testing.assert_allclose(value, expected.numpy(), atol=1e-12)
    # What is summed, squared, is the same convolution of squares.
    np.testing.assert_allclose(size, RULES["Conv"](attributes, [x**2, weight**2, bias**2], None)[0])
    assert terms == weight[0].size + 1
    assert RULES["Conv"](attributes, [x, weight], None)[1] is None


@pytest.mark.parametrize(
    ("auto", "pads"), [(b"SAME_UPPER", [0, 0, 1, 1]), (b"SAME_LOWER", [1, 1, 0, 0]), (b"VALID", [0] * 4)]
)
def test_automatic_padding_is_the_explicit_one(auto: bytes, pads: list[int]) -> None:
    x, weight = RNG.normal(size=(1, 2, 6, 4)), RNG.normal(size=(3, 2, 2, 2))
    one = RULES["Conv"]({"auto_pad": auto}, [x, weight], None)[0]
    np.testing.assert_array_equal(one, RULES["Conv"]({"pads": pads}, [x, weight], None)[0])


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1.0, 0.5, -2.0]),
    st.sampled_from([1.0, 3.0]),
)
def test_linear_layers(seed: int, first: bool, second: bool, alpha: float, beta: float) -> None:
    rng = np.random.default_rng(seed)
    left, right, bias = rng.normal(size=(2, 5)), rng.normal(size=(5, 3)), rng.normal(size=3)
    attributes = {"transA": int(first), "transB": int(second), "alpha": alpha, "beta": beta}
    arguments = [left.T if first else left, right.T if second else right, bias]
    value, size, terms = RULES["Gemm"](attributes, arguments, squared)
    np.testing.assert_allclose(value, alpha * left @ right + beta * bias)
    np.testing.assert_allclose(size, alpha**2 * left**2 @ right**2 + (beta * bias) ** 2)
    assert terms == 6
    value, size, terms = RULES["MatMul"]({}, [left, right], squared)
    np.testing.assert_allclose(value, left @ right)
    np.testing.assert_allclose(size, left**2 @ right**2)
    assert terms == 5


@pytest.mark.parametrize("counted", [False, True])
def test_averages_count_padding_where_asked(counted: bool) -> None:
    x = RNG.normal(size=(1, 2, 6, 6))
    attributes = {
        "kernel_shape": [3, 2],
        "strides": [2, 1],
        "pads": [1, 1, 1, 1],
        "count_include_pad": int(counted),
    }
    value, size, terms = RULES["AveragePool"](attributes, [x], squared)
    expected = F.avg_pool2d(torch.from_numpy(x), (3, 2), (2, 1), 1, count_include_pad=counted)
    np.testing.assert_allclose(value, expected.numpy())
    assert terms == 6
    # A corner sees 2 x 1 of 3 x 2 pixels.
    assert size[0, 0, 0, 0] == pytest.approx(float((x[0, 0, :2, 0] ** 2).sum()) / (36 if counted else 4))
    value, size, terms = RULES["GlobalAveragePool"]({}, [x], squared)
    np.testing.assert_allclose(value, x.mean(axis=(2, 3), keepdims=True))
    np.testing.assert_allclose(size, (x**2).sum(axis=(2, 3), keepdims=True) / 36**2)
    assert (value.shape, terms) == ((1, 2, 1, 1), 36)


@pytest.mark.parametrize("epsilon", [None, 0.25])
def test_batch_norm(epsilon: float | None) -> None:
    x, scale, shift, mean = RNG.normal(size=(1, 3, 4, 2)), *RNG.normal(size=(3, 3))
    variance = RNG.random(3) * 1e-4
    attributes = {} if epsilon is None else {"epsilon": epsilon}
    value, size, _ = RULES["BatchNormalization"](attributes, [x, scale, shift, mean, variance], squared)
    # The default is the float32 number next to 1e-5, which is another one than 1e-5.
    small = float(np.float32(1e-5)) if epsilon is None else epsilon
    image, *norm = (torch.from_numpy(item) for item in (x, mean, variance, scale, shift))
    expected = F.batch_norm(image, norm[0], norm[1], norm[2], norm[3], eps=small)
    np.testing.assert_allclose(value, expected.numpy(), rtol=1e-12)
    assert np.all(size >= value**2 / 3)
    with pytest.raises(ValueError, match="training mode"):
        RULES["BatchNormalization"]({"training_mode": 1}, [x, scale, shift, mean, variance], None)


def test_arithmetic_element_by_element() -> None:
    a, b = RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3))
    cases: list[tuple[str, list[Array], Array, Any]] = [
        ("Add", [a, b], a + b, a**2 + b**2),
        ("Sum", [a, b, a], 2 * a + b, 2 * a**2 + b**2),
        ("Sub", [a, b], a - b, a**2 + b**2),
        ("Mul", [a, b], a * b, (a * b) ** 2),
        ("Div", [a, b], a / b, (a / b) ** 2),
        ("Relu", [a], np.where(a > 0, a, 0), None),
        ("Identity", [a], a, None),
    ]
    for operator, arguments, expected, sizes in cases:
        value, size, _ = RULES[operator]({}, arguments, squared)
        np.testing.assert_allclose(value, expected, err_msg=operator)
        if sizes is None:
            assert size is None, operator
        else:
            np.testing.assert_allclose(size, sizes, err_msg=operator)
            assert RULES[operator]({}, arguments, None)[1] is None, operator


def test_what_is_no_such_operation_is_said() -> None:
    x, weight = RNG.normal(size=(2, 1, 3, 3)), np.ones((1, 1, 1, 1))
    for operator, attributes, arguments, why in (
        ("Conv", {}, [x, weight], "a batch of more than one"),
        ("AveragePool", {"kernel_shape": [2, 2]}, [x], "a batch of more than one"),
        ("AveragePool", {"kernel_shape": [2, 2], "ceil_mode": 1}, [x[:1]], "ceil_mode"),
        ("Div", {}, [np.array([5]), np.array([2])], "division of integers"),
    ):
        with pytest.raises(ValueError, match=why):
            RULES[operator](attributes, arguments, None)
    assert is_real(x)
    assert not is_real(np.arange(3))
    assert not is_real(1.0)
