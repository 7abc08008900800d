"""Terms become one layer where no digit is lost, and weights go to the elements that they are taken from."""

from __future__ import annotations

import numpy as np
import pytest

from prunecert.onnx.sums import Constant, by_source, loosest, onto_channels, onto_elements, with_constant
from prunecert.onnx.values import Term, Value

ONE, THIRD = np.ones(2), np.full(2, 1 / 3)


@pytest.mark.parametrize(
    ("terms", "groups"),
    [
        ((Term(1), Term(2), Term(1, scale=-ONE)), [2, 1]),
        ((Term(1, scale=THIRD, loose=1e-16), Term(1, scale=ONE)), [2]),
        ((Term(1, scale=THIRD, loose=1e-16), Term(1, scale=-ONE)), [1, 1]),
        ((Term(1), Term(1, scale=-ONE), Term(1, scale=THIRD)), [1, 1, 1]),
        ((Term(1, np.array([0, -1])), Term(1, np.array([-1, 0]), -THIRD, loose=1e-16), Term(1, np.array([1, 1]))), [3]),
    ],
)  # fmt: skip
def test_terms_that_cancel_in_one_weight_stay_apart(terms: tuple[Term, ...], groups: list[int]) -> None:
    assert [len(group) for group in by_source(Value((1, 2), terms))] == groups


def test_a_sum_is_as_loose_as_its_loosest_term_and_a_little_more() -> None:
    assert loosest([Term(0)]) == 0
    assert 1e-9 < loosest([Term(0, loose=1e-9), Term(0)]) < 1.1e-9


@pytest.mark.parametrize("index", [[0, 2, -1], [1, 1, 0]])
def test_weights_of_elements_go_to_the_node_that_they_are_of(index: list[int]) -> None:
    rng = np.random.default_rng(0)
    weight, node = rng.standard_normal((2, 3)), rng.standard_normal(3)
    spread = onto_elements(weight, np.array(index), 3, 0.0)
    assert spread is not None
    elements = np.where(np.array(index) < 0, 0.0, node[index])
    np.testing.assert_allclose(spread[0] @ node, weight @ elements)
    assert (spread[1] > 0) == (len(set(index)) < 3 and min(index) >= 0)


def test_weights_that_cancel_go_nowhere() -> None:
    weight, index = np.array([[1.0, 2.0**-60, -1.0]]), np.zeros(3, np.int64)
    assert onto_elements(weight, index, 1, 0.0) is None
    assert onto_elements(np.abs(weight), index, 1, 0.0) is not None


def test_kernels_go_to_channels() -> None:
    rng = np.random.default_rng(1)
    kernel = rng.standard_normal((4, 3, 2, 5)).astype(np.float32)
    spread = onto_channels(kernel, np.array([2, -1, 0]), 4, 0.125)
    assert spread is not None
    assert spread[1] == 0.125
    assert spread[0].dtype == np.float32
    expected = np.zeros((4, 4, 2, 5), np.float32)
    expected[:, 2], expected[:, 0] = kernel[:, 0], kernel[:, 2]
    np.testing.assert_array_equal(spread[0], expected)


def test_an_error_of_a_constant_is_one_of_a_channel() -> None:
    value = Value((1, 2, 1, 2), (), None, error=np.array([0.0, 1.0, 3.0, 2.0]))
    whole = with_constant(value)
    assert whole.shift is not None
    error = Constant(whole.shift, whole.error).per_channel((1, 2, 1, 2))
    assert error is not None
    assert error.tolist() == [1.0, 3.0]
    assert with_constant(Value((1, 1), ())).shift is None
