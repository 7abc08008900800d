"""Networks that the fuzzer mutates: every operator that is read, and the ways exporters combine them."""

from __future__ import annotations

import functools

import numpy as np
import onnx

from tests.prunecert.onnx.graphs import N, build, weights


@functools.cache
def models() -> tuple[onnx.ModelProto, ...]:
    """Returns the networks."""
    networks = (
        _plain(),
        _residual(),
        _channels_last(),
        _pooled(),
        _shapes(),
        _activations(),
        _masked(),
        _products(),
        _constant(),
    )
    for model in networks:
        # Their outputs' sizes are free, which the checker takes; a shape that is missing it doesn't.
        for output in model.graph.output:
            for _ in range(2):
                output.type.tensor_type.shape.dim.add()
    return networks


def _plain() -> onnx.ModelProto:
    nodes = [
        N("Gemm", ["x", "w", "b"], ["h"], transB=1),
        N("Relu", ["h"], ["r"]),
        N("Gemm", ["r", "v"], ["y"], alpha=0.5),
    ]
    return build(nodes, {"w": weights(4, 5), "b": weights(4), "v": weights(4, 3)}, (1, 5))


def _residual() -> onnx.ModelProto:
    norm = {"s": weights(3), "t": weights(3, seed=1), "m": weights(3, seed=2), "v": np.abs(weights(3, seed=3))}
    nodes = [
        N("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3], strides=[2, 2]),
        N("BatchNormalization", ["c", *norm], ["n"], epsilon=1e-5),
        N("Relu", ["n"], ["r"]),
        N("Conv", ["r", "w2", "b"], ["d"], pads=[1, 1, 1, 1], dilations=[1, 1], group=1),
        N("Add", ["d", "c"], ["a"]),
        N("GlobalAveragePool", ["a"], ["g"]),
        N("Flatten", ["g"], ["f"], axis=1),
        N("Gemm", ["f", "u"], ["l"]),
        N("Softmax", ["l"], ["y"], axis=1),
    ]
    constants = {"w": weights(3, 2, 3, 3), "b": weights(3), "w2": weights(3, 3, 3, 3), "u": weights(3, 4)}
    return build(nodes, constants | norm)


def _channels_last() -> onnx.ModelProto:
    nodes = [
        N("Sub", ["x", "mean"], ["s"]),
        N("Transpose", ["s"], ["t"], perm=[0, 3, 1, 2]),
        N("Conv", ["t", "w"], ["c"], auto_pad="SAME_UPPER", strides=[2, 2]),
        N("Transpose", ["c"], ["u"], perm=[0, 2, 3, 1]),
        N("Add", ["u", "bias"], ["a"]),
        N("Relu", ["a"], ["r"]),
        N("Reshape", ["r", "flat"], ["f"]),
        N("MatMul", ["f", "v"], ["y"]),
    ]
    constants = {"mean": weights(2), "w": weights(3, 2, 3, 3), "bias": weights(3), "flat": np.array([1, -1])}
    return build(nodes, constants | {"v": weights(18, 3)}, (1, 5, 4, 2))


def _pooled() -> onnx.ModelProto:
    nodes = [
        N("Conv", ["x", "w"], ["c"], pads=[0, 1, 2, 0]),
        N("Relu", ["c"], ["r"]),
        N("MaxPool", ["r"], ["m"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=0),
        N("AveragePool", ["m"], ["a"], kernel_shape=[2, 2], pads=[0, 1, 0, 1], count_include_pad=1),
        N("ReduceMean", ["a", "axes"], ["p"], keepdims=0),
        N("Gemm", ["p", "v"], ["y"]),
    ]
    constants = {"w": weights(3, 2, 3, 3), "axes": np.array([2, 3]), "v": weights(3, 3)}
    return build(nodes, constants, opset=18)


def _shapes() -> onnx.ModelProto:
    nodes = [
        N("Pad", ["x", "pads", "value"], ["p"], mode="constant"),
        N("Slice", ["p", "start", "end", "axes"], ["s"]),
        N("Split", ["s", "parts"], ["a", "b"], axis=1),
        N("Concat", ["b", "a", "k"], ["c"], axis=1),
        N("Gather", ["c", "chosen"], ["g"], axis=2),
        N("Expand", ["g", "sizes"], ["e"]),
        N("Unsqueeze", ["e", "axis"], ["u"]),
        N("Squeeze", ["u", "axis"], ["q"]),
        N("Tile", ["q", "times"], ["t"]),
        N("Shape", ["t"], ["shape"]),
        N("Gather", ["shape", "zero"], ["batch"]),
        N("Concat", ["batch", "rest"], ["whole"], axis=0),
        N("Reshape", ["t", "whole"], ["f"]),
        N("Relu", ["f"], ["y"]),
    ]
    constants = {
        "pads": np.array([0, 0, 1, 0, 0, 0, 0, 1]),
        "value": np.float32(0.5),
        "start": np.array([1]),
        "end": np.array([5]),
        "axes": np.array([3]),
        "parts": np.array([1, 1]),
        "k": weights(1, 1, 7, 4),
        "chosen": np.array([3, 0, 5]),
        "sizes": np.array([1, 3, 3, 4]),
        "axis": np.array([1]),
        "times": np.array([1, 1, 2, 1]),
        "zero": np.array([0]),
        "rest": np.array([-1]),
    }
    return build(nodes, constants)


def _activations() -> onnx.ModelProto:
    nodes = [
        N("Gemm", ["x", "w"], ["h"]),
        N("LeakyRelu", ["h"], ["a"], alpha=0.1),
        N("PRelu", ["a", "slope"], ["b"]),
        N("Clip", ["b", "low", "high"], ["c"]),
        N("Abs", ["c"], ["d"]),
        N("HardSigmoid", ["d"], ["e"]),
        N("Max", ["e", "h"], ["f"]),
        N("Min", ["f", "high"], ["g"]),
        N("Neg", ["g"], ["i"]),
        N("Div", ["i", "slope"], ["j"]),
        N("Sigmoid", ["j"], ["y"]),
    ]
    constants = {"w": weights(5, 4), "slope": np.array([0.2, 0.3, -0.4, 1.5], np.float32)}
    return build(nodes, constants | {"low": np.float32(-0.5), "high": np.float32(1)}, (1, 5))


def _masked() -> onnx.ModelProto:
    nodes = [
        N("Mul", ["w", "mask"], ["v"]),
        N("DequantizeLinear", ["q", "scale", "zero"], ["b"]),
        N("Dropout", ["x", "ratio"], ["d"]),
        N("Cast", ["d"], ["e"], to=1),
        N("Gemm", ["e", "v", "b"], ["h"], transB=1),
        N("Identity", ["h"], ["y"]),
    ]
    constants = {
        "w": weights(3, 5),
        "mask": (weights(3, 5, seed=1) > 0).astype(np.float32),
        "q": np.array([3, -4, 5], np.int8),
        "scale": np.float32(0.5),
        "zero": np.int8(1),
        "ratio": np.float32(0.5),
    }
    return build(nodes, constants, (1, 5))


def _products() -> onnx.ModelProto:
    nodes = [
        N("MatMul", ["x", "w"], ["h"]),
        N("Transpose", ["h"], ["t"], perm=[0, 2, 1]),
        N("MatMul", ["t", "v"], ["i"]),
        N("Conv", ["i", "k"], ["c"], pads=[1, 1]),
        N("Relu", ["c"], ["r"]),
        N("ReduceSum", ["r", "axes"], ["y"], keepdims=0),
    ]
    return build(
        nodes, {"w": weights(4, 3), "v": weights(3, 4), "k": weights(2, 3, 3), "axes": np.array([1])}, (1, 3, 4)
    )


def _constant() -> onnx.ModelProto:
    nodes = [
        N("Constant", [], ["w"], value_floats=[0.5, -1.0, 2.0, 0.25]),
        N("ConstantOfShape", ["shape"], ["o"]),
        N("Add", ["o", "w"], ["k"]),
        N("Mul", ["x", "k"], ["m"]),
        N("Sum", ["m", "x", "k"], ["y"]),
    ]
    return build(nodes, {"shape": np.array([4])}, (4,))
