"""Operators that only rearrange: the normal form is the network, as onnxruntime has both."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from prunecert.onnx import emit, moves
from prunecert.onnx.normalise import UnsupportedNetworkError, normalise
from tests.prunecert.onnx.graphs import CONV, N, assert_same, build, operators, weights


@pytest.mark.parametrize("shape", [(1, 2, 3, 4)])
@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (N("Transpose", ["c"], ["m"], perm=[0, 2, 3, 1]), {}),
        (N("Transpose", ["c"], ["m"], perm=[0, 2, 1, 3]), {}),
        (N("Transpose", ["c"], ["m"]), {}),
        (N("Reshape", ["c", "s"], ["m"]), {"s": np.array([0, -1], np.int64)}),
        (N("Reshape", ["c", "s"], ["m"]), {"s": np.array([1, 4, 2, 3], np.int64)}),
        (N("Reshape", ["c", "s"], ["m"]), {"s": np.array([-1], np.int64)}),
        (N("Flatten", ["c"], ["m"], axis=0), {}),
        (N("Flatten", ["c"], ["m"], axis=-1), {}),
        (N("Flatten", ["c"], ["m"], axis=2), {}),
        (
            N("Slice", ["c", "s", "e", "a", "t"], ["m"]),
            {"s": np.array([0, 3]), "e": np.array([2, -9]), "a": np.array([1, -1]), "t": np.array([1, -2])},
        ),
        (N("Slice", ["c", "s", "e", "a"], ["m"]), {"s": np.array([1]), "e": np.array([3]), "a": np.array([2])}),
        (
            N("Slice", ["c", "s", "e", "a", "t"], ["m"]),
            {"s": np.array([0]), "e": np.array([99]), "a": np.array([3]), "t": np.array([3])},
        ),
        (N("Gather", ["c", "i"], ["m"], axis=1), {"i": np.array([1, 0, 1])}),
        (N("Gather", ["c", "i"], ["m"], axis=3), {"i": np.array(-1)}),
        (N("Gather", ["c", "i"], ["m"], axis=2), {"i": np.array([[2, 0]])}),
        (N("Expand", ["c", "s"], ["m"]), {"s": np.array([1, 2, 1, 1])}),
        (N("Tile", ["c", "s"], ["m"]), {"s": np.array([1, 2, 1, 2])}),
        (N("Unsqueeze", ["c", "a"], ["m"]), {"a": np.array([0, -1])}),
        (N("Pad", ["c", "p"], ["m"]), {"p": np.array([0, 0, 1, 2, 0, 0, 0, 1])}),
        (N("Pad", ["c", "p", "v"], ["m"]), {"p": np.array([0, 1, 1, 0, 0, 0, 2, 0]), "v": np.float32(0.5)}),
        (N("Pad", ["c", "p"], ["m"]), {"p": np.array([0, 0, -1, 0, 0, 0, 0, -2])}),
        (N("Pad", ["c", "p"], ["m"], mode="edge"), {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
        (N("Pad", ["c", "p"], ["m"], mode="reflect"), {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
        (N("Concat", ["c", "k", "x"], ["m"], axis=1), {"k": weights(1, 1, 3, 4)}),
        (N("Concat", ["c", "c"], ["m"], axis=2), {}),
        (N("Concat", ["k", "c"], ["m"], axis=-1), {"k": weights(1, 2, 3, 1)}),
        (N("Where", ["w", "c", "k"], ["m"]), {"w": weights(1, 2, 3, 4) > 0, "k": weights(4)}),
        (N("DepthToSpace", ["q"], ["m"], blocksize=2), {}),
        (N("ScatterND", ["c", "i", "k"], ["m"]), {"i": np.array([[0, 1]]), "k": weights(1, 3, 4)}),
    ],
)
@pytest.mark.parametrize("after", ["Relu", "LeakyRelu", "Gemm"])
def test_rearrangements(shape: tuple[int, ...], node: onnx.NodeProto, constants: dict[str, Any], after: str) -> None:
    nodes = [
        N("Relu", ["x"], ["r"]),
        N("Add", ["r", "shift"], ["c"]),
        N("Concat", ["c", "x"], ["q4"], axis=1),
        N("Slice", ["q4", "q0", "q2", "q3"], ["q"]),
        node,
    ]
    more = {"shift": weights(1, 2, 1, 1), "q0": np.array([0]), "q2": np.array([2]), "q3": np.array([2])}
    if after == "Gemm":
        nodes += [N("Reshape", ["m", "flat"], ["f"]), N("MatMul", ["f", "g"], ["y"])]
        more["flat"] = np.array([1, -1])
        probe = build([*nodes[:-1]], constants | more, shape, outputs=["f"])
        more["g"] = weights(normalise(probe).outputs, 3)
    else:
        nodes += [N(after, ["m"], ["y"])]
    assert_same(build(nodes, constants | more, shape))


def test_split_and_old_forms() -> None:
    nodes = [N("Split", ["x", "s"], ["a", "b"], axis=1), N("Sub", ["a", "b"], ["y"])]
    assert_same(build(nodes, {"s": np.array([2, 2])}, (1, 4, 2, 2)))
    nodes = [N("Split", ["x"], ["a", "b"], axis=1, split=[2, 2]), N("Sub", ["a", "b"], ["y"])]
    assert_same(build(nodes, {}, (1, 4, 2, 2), opset=11))
    assert_same(build([N("Slice", ["x"], ["y"], starts=[1], ends=[3], axes=[2])], {}, opset=9))
    assert_same(build([N("Pad", ["x"], ["y"], pads=[0, 0, 1, 0, 0, 0, 0, 1], value=0.5)], {}, opset=9))
    assert_same(build([N("Squeeze", ["x"], ["y"], axes=[0, 3])], {}, (1, 3, 2, 1), opset=11))
    assert_same(build([N("Unsqueeze", ["x"], ["y"], axes=[0])], {}, (3,), opset=7))
    assert_same(build([N("Upsample", ["x", "s"], ["y"])], {"s": np.array([1, 1, 2, 2], np.float32)}, opset=9))
    nodes = [N("Resize", ["x", "", "s"], ["y"], mode="nearest")]
    assert_same(build(nodes, {"s": np.array([1, 1, 2, 2], np.float32)}, opset=13))


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("places", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
def test_images_are_shrunk_as_onnxruntime_does_it(rounding: str, places: str) -> None:
    """ONNX's own evaluator, which has kernels for all types, takes other places."""
    how = {"mode": "nearest", "nearest_mode": rounding, "coordinate_transformation_mode": places}
    constants = {"s": np.array([1, 1, 0.6, 1.3], np.float32)}
    assert_same(build([N("Resize", ["x", "", "s"], ["y"], **how)], constants, (1, 2, 4, 5)), points=1)


def test_what_comes_from_outside_of_an_image_is_zero_or_refused() -> None:
    crop: dict[str, Any] = {"mode": "nearest", "coordinate_transformation_mode": "tf_crop_and_resize"}
    constants = {"r": np.array([0, 0, -0.5, -0.5, 1, 1, 1.5, 1.5], np.float32), "s": np.array([1, 2, 6, 6])}
    assert_same(build([N("Resize", ["x", "r", "", "s"], ["y"], **crop)], constants, (1, 2, 4, 4)))
    nodes = [N("Resize", ["x", "r", "", "s"], ["y"], extrapolation_value=3.0, **crop)]
    with pytest.raises(UnsupportedNetworkError, match="only zeros come from outside"):
        normalise(build(nodes, constants, (1, 2, 4, 4)))


@pytest.mark.parametrize("scales", [(1, 1, 2, 3), (1, 1, 2, 1), (1, 1, 1, 3)])
@pytest.mark.parametrize("before", ["Conv", "Gemm", "Relu"])
def test_large_images_are_repeated_by_convolutions(
    scales: tuple[int, ...], before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (emit, moves):
        monkeypatch.setattr(module, "SPREAD", 0)
    first = {
        "Conv": [N("Conv", ["x", "v"], ["h"])],
        "Gemm": [N("Flatten", ["x"], ["f"]), N("Gemm", ["f", "g"], ["k"]), N("Reshape", ["k", "s"], ["h"])],
        "Relu": [N("Relu", ["x"], ["h"])],
    }[before]
    nodes = [
        *first,
        N("Mul", ["h", "m"], ["a"]),
        N("Add", ["a", "p"], ["n"]),
        N("Resize", ["n", "", "z"], ["u"], mode="nearest"),
        N("Conv", ["u", "w", "b"], ["y"], pads=[1] * 4),
    ]
    constants = CONV | {"v": weights(2, 2, 1, 1), "g": weights(24, 24), "s": np.array([1, 2, 3, 4])}
    constants |= {"m": weights(2, 1, 1), "p": weights(1, 1, 1), "z": np.array(scales, np.float32)}
    normal = assert_same(build(nodes, constants, (1, 2, 3, 4)), points=2)
    assert operators(normal).count("Gemm") == (before == "Gemm")


def test_channels_last_there_and_back() -> None:
    nodes = [
        N("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        N("Conv", ["t", "w", "b"], ["c"], pads=[1] * 4),
        N("Transpose", ["c"], ["u"], perm=[0, 2, 3, 1]),
        N("Add", ["u", "k"], ["a"]),
        N("Relu", ["a"], ["r"]),
        N("Transpose", ["r"], ["v"], perm=[0, 3, 1, 2]),
        N("Conv", ["v", "v2", "b2"], ["d"]),
        N("Transpose", ["d"], ["z"], perm=[0, 2, 3, 1]),
        N("Reshape", ["z", "s"], ["f"]),
        N("MatMul", ["f", "g"], ["y"]),
    ]
    constants = CONV | {"k": weights(3), "v2": weights(2, 3, 3, 3), "b2": weights(2), "s": np.array([1, -1])}
    normal = assert_same(build(nodes, constants | {"g": weights(24, 3)}, (1, 5, 6, 2)))
    assert operators(normal) == ["Conv", "Relu", "Conv", "Flatten", "Gemm"]
    assert normal.input_order is not None
    assert [dim.dim_value for dim in normal.model.graph.input[0].type.tensor_type.shape.dim] == [1, 2, 5, 6]


def test_channels_last_after_normalisation_and_reshape() -> None:
    nodes = [
        N("Reshape", ["x", "s"], ["i"]),
        N("Mul", ["i", "k"], ["m"]),
        N("Transpose", ["m"], ["t"], perm=[0, 3, 1, 2]),
        N("Conv", ["t", "w", "b"], ["y"]),
    ]
    normal = assert_same(build(nodes, CONV | {"k": weights(2), "s": np.array([1, 4, 5, 2])}, (1, 40)))
    assert operators(normal) == ["Conv", "Flatten"]


def test_channel_shuffle_is_a_small_convolution() -> None:
    nodes = [
        N("Conv", ["x", "w", "b"], ["c"]),
        N("Reshape", ["c", "s"], ["r"]),
        N("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3, 4]),
        N("Reshape", ["t", "u"], ["v"]),
        N("MaxPool", ["v"], ["y"], kernel_shape=[2, 2]),
    ]
    constants = {"w": weights(4, 2, 3, 3), "b": weights(4), "s": np.array([1, 2, 2, 4, 4]), "u": np.array([1, 4, 4, 4])}
    assert "Gemm" not in operators(assert_same(build(nodes, constants)))
