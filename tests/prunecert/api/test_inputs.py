from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from prunecert.api.inputs import (
    as_array,
    as_bounds,
    as_data,
    as_device,
    as_label,
    as_pixels,
    as_radius,
    as_sample,
    as_seconds,
)
from prunecert.errors import UserError


@given(st.integers(1, 255), st.integers(1, 255))
def test_a_radius_is_read_exactly_however_it_is_written(top: int, bottom: int) -> None:
    exact = Fraction(top, bottom)
    wide = (0.0, 255.0)
    assert (
        as_radius(f"{top}/{bottom}", wide) == as_radius(f" {top} / {bottom} ", wide) == as_radius(exact, wide) == exact
    )
    assert float(as_radius(top / bottom, wide)) == top / bottom


@pytest.mark.parametrize("eps", ["", "two", "1/0", float("nan"), float("inf"), 0, -0.1, 1.5, None])
def test_what_is_no_radius_is_refused(eps: Any) -> None:
    with pytest.raises(UserError, match="is refused"):
        as_radius(eps)


def test_a_radius_of_levels_is_told_how_to_be_written() -> None:
    with pytest.raises(UserError, match='eps="8/255"'):
        as_radius(8)
    assert as_radius(8, None) == 8


def test_arrays_are_taken_from_tensors_that_need_gradients_and_from_lists() -> None:
    assert as_array(torch.ones(2, requires_grad=True), "x").tolist() == [1, 1]
    assert as_array([[1.0, 2.0]], "x").shape == (1, 2)
    assert as_array(torch.tensor([0.5, 3.0], dtype=torch.bfloat16), "x").tolist() == [0.5, 3.0]
    for nothing in (
        [[1.0], [1.0, 2.0]],
        ["a"],
        None,
        object(),
        torch.zeros(2, device="meta"),
        torch.eye(2).to_sparse(),
    ):
        with pytest.raises(UserError, match="pass an array or a tensor"):
            as_array(nothing, "x")  # type: ignore[arg-type]


@pytest.mark.parametrize("bounds", [(1, 0), (0,), (0, 0), (float("nan"), 1), "01", 0.5, (None, 1), (0, 1, 2)])
def test_what_is_no_range_is_refused(bounds: Any) -> None:
    with pytest.raises(UserError, match=r"bounds=.* is refused; pass the lowest and the highest"):
        as_bounds(bounds)


def test_ranges_limits_and_devices_come_as_people_have_them() -> None:
    assert as_bounds(None) is None
    assert as_bounds([0, 255]) == as_bounds(np.array([0.0, 255.0])) == (0.0, 255.0)  # type: ignore[arg-type]
    assert as_seconds(np.float32(0.5)) == 0.5
    for timeout in (0, -1.0, float("nan"), "60", None, True):
        with pytest.raises(UserError, match="above 0, in seconds"):
            as_seconds(timeout)
    assert as_device(torch.device("cuda", 1)) == "cuda:1"
    for device in (None, 0):
        with pytest.raises(UserError, match="allowed are 'cpu'"):
            as_device(device)


@pytest.mark.parametrize(
    ("x", "remedy"),
    [
        (np.zeros((1, 2, 2), dtype=np.uint8), "x / 255"),
        (np.full((1, 2, 2), 128.0), "pass x / 255"),
        (np.full((1, 2, 2), -1.5), "prunecert.standardised"),
        (np.full((1, 2, 2), np.nan), "not finite"),
        (np.zeros((0, 2)), "is empty"),
    ],
)
def test_inputs_that_are_no_pixels_are_told_what_to_call(x: Any, remedy: str) -> None:
    with pytest.raises(UserError, match=remedy):
        as_pixels(x, "x")


def test_inputs_without_limits_may_be_anything_finite() -> None:
    assert as_pixels(np.array([-3, 700]), "x", None).tolist() == [-3, 700]


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 3, 4, 4)])
def test_a_sample_may_have_a_batch_axis_of_one(shape: tuple[int, ...]) -> None:
    assert as_sample(np.zeros(shape), (3, 4, 4)).shape == as_sample(np.zeros(shape), None).shape == (3, 4, 4)
    assert as_sample(np.zeros(shape), (3, 0, 0)).shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((4, 4, 3), "channels come last"),
        ((48,), r"x.reshape\(3, 4, 4\)"),
        ((5, 3, 4, 4), "5 inputs; pass one"),
        ((3, 5, 5), r"one input of the shape \(3, 4, 4\)"),
    ],
)
def test_a_sample_of_another_shape_is_told_what_to_call(shape: tuple[int, ...], remedy: str) -> None:
    with pytest.raises(UserError, match=remedy):
        as_sample(np.zeros(shape), (3, 4, 4))


def test_several_samples_for_a_module_are_refused() -> None:
    with pytest.raises(UserError, match=r"prunecert\.evaluate"):
        as_sample(np.zeros((5, 3, 4, 4)), None)
    with pytest.raises(UserError, match=r"of an image without its channel x\[None\]"):
        as_sample(np.zeros((4, 4)), None)


def test_labels_are_classes_of_the_network() -> None:
    assert as_label(torch.tensor(2), 3) == as_label(np.int64(2), 3) == 2  # type: ignore[arg-type]
    for label in (3, -1, 1.5, "2", None, torch.tensor([1, 2]), np.array([[0, 1]])):
        with pytest.raises(UserError, match="whole number from 0 to 2"):
            as_label(label, 3)  # type: ignore[arg-type]


def test_data_may_be_arrays_a_data_set_or_a_loader() -> None:
    x, y = torch.rand(7, 1, 2, 2), torch.arange(7) % 3
    expected = (x.numpy(), y.numpy())
    for data in ((x, y), [x, y], TensorDataset(x, y), DataLoader(TensorDataset(x, y), batch_size=3)):
        for images in (None, 4):
            inputs, labels = as_data(data, images)  # type: ignore[arg-type]
            assert np.array_equal(inputs, expected[0][:images])
            assert np.array_equal(labels, expected[1][:images])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ((np.zeros((2, 3)), np.zeros(3, dtype=int)), "2 inputs and 3 labels"),
        ((np.zeros((2, 3)), np.zeros((2, 3), dtype=int)), "labels.argmax"),
        ((np.zeros((2, 3)), np.array([0.5, 1.0])), "whole number"),
        ((np.zeros((2, 3)), np.array([-1, 0])), "whole number"),
        ((np.zeros((2, 3)), 1), "1 labels"),
        (3, "pass \\(x, labels\\)"),
        ([np.zeros(3)] * 3, "not pairs"),
        (TensorDataset(torch.zeros(0, 2), torch.zeros(0)), "is empty"),
        ([(np.zeros(3), 1), (np.zeros(4), 1), (np.zeros(4), 1)], "different shapes"),
    ],
)
def test_data_that_is_none_is_refused(data: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        as_data(data, None)
    with pytest.raises(UserError, match="at least 1"):
        as_data((np.zeros((1, 2)), np.zeros(1, dtype=int)), 0)
