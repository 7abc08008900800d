"""Windows over axes: explicit pads give as many outputs as onnxruntime gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.onnx.normal import UnsupportedNetworkError
from prunecert.onnx.values import Term, Value
from prunecert.onnx.windows import image, read_windows, unimage
from tests.prunecert.onnx.graphs import N, build, session

PAIRS = st.lists(st.integers(1, 3), min_size=2, max_size=2)


def value(*shape: int) -> Value:
    return Value(shape, (Term(0),))


@given(PAIRS, PAIRS, PAIRS, st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"]), st.integers(7, 9))
def test_pads_are_onnxruntimes(
    kernel: list[int], strides: list[int], dilations: list[int], auto_pad: str, width: int
) -> None:
    if auto_pad.startswith("SAME"):
        # onnxruntime takes no dilation there.
        dilations = [1, 1]
    how: dict[str, Any] = {"strides": strides, "dilations": dilations, "auto_pad": auto_pad}
    if auto_pad == "NOTSET":
        how["pads"] = [1, 0, 2, 1]
    node = N("Conv", ["x", "w"], ["y"], **how)
    windows = read_windows(node, value(1, 1, 8, width), kernel)
    explicit = N("Conv", ["x", "w"], ["y"], strides=strides, dilations=dilations, pads=list(windows.pads))
    weight = np.random.default_rng(0).random((1, 1, *kernel), dtype=np.float32)
    feed = {"x": np.random.default_rng(1).random((1, 1, 8, width), dtype=np.float32)}
    one, two = (session(build([n], {"w": weight}, (1, 1, 8, width))).run(None, feed)[0] for n in (node, explicit))
    np.testing.assert_array_equal(one, two)


def test_one_axis_becomes_two() -> None:
    windows = read_windows(N("MaxPool", ["x"], ["y"], kernel_shape=[3], strides=[2], pads=[1, 0]), value(1, 2, 9))
    assert (windows.kernel, windows.strides, windows.dilations, windows.pads) == ((3, 1), (2, 2), (1, 1), (1, 0, 0, 0))
    assert image(N("MaxPool", ["x"], ["y"]), value(1, 2, 9)) == (1, 2, 9, 1)
    assert unimage((1, 2, 9, 1), 3) == (1, 2, 9)
    assert unimage((1, 2, 9, 1), 4) == (1, 2, 9, 1)


@pytest.mark.parametrize(
    ("how", "shape", "words"),
    [
        ({"kernel_shape": [2]}, (1, 2, 5, 5), "don't fit 2 axes"),
        ({"kernel_shape": [2, 0]}, (1, 2, 5, 5), "a step is below 1"),
        ({"kernel_shape": [2, 2], "strides": [0, 1]}, (1, 2, 5, 5), "a step is below 1"),
        ({"kernel_shape": [2, 2], "strides": [1]}, (1, 2, 5, 5), r"its strides \[1\] don't fit"),
        ({"kernel_shape": [2, 2], "pads": [-1, 0, 0, 0]}, (1, 2, 5, 5), "negative"),
        ({"kernel_shape": [2, 2], "pads": [1, 1]}, (1, 2, 5, 5), "don't fit 2 axes"),
        ({"kernel_shape": [2, 2], "auto_pad": "ELSE"}, (1, 2, 5, 5), "its auto_pad is b'ELSE'"),
        ({"kernel_shape": [2, 2]}, (2, 2, 5, 5), "2 samples; allowed is one"),
        ({"kernel_shape": [2, 2]}, (1, 5), r"allowed are \[1, C, L\] and"),
    ],
)
def test_windows_that_do_not_fit_are_refused(how: dict[str, Any], shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(UnsupportedNetworkError, match=words):
        read_windows(N("MaxPool", ["x"], ["y"], **how), value(*shape))


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_padding_that_runtimes_disagree_on_is_refused(auto_pad: str) -> None:
    """onnxruntime pads a dilated MaxPool as if it weren't dilated."""
    node = N("MaxPool", ["x"], ["y"], kernel_shape=[3, 2], dilations=[2, 1], auto_pad=auto_pad)
    with pytest.raises(UnsupportedNetworkError, match="write its pads"):
        read_windows(node, value(1, 1, 6, 6))
    node.attribute[1].ints[:] = [1, 1]
    assert sum(read_windows(node, value(1, 1, 6, 6)).pads) == 3
