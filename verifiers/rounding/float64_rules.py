"""Operators in float64: a node's value, and how large what is summed in it is, from which errors of float32 are drawn.

A rule takes a node's attributes, its arguments and, where sizes are asked for, how to square an array. It returns the
value, the sum of the squares of what is summed in each of its numbers (None: nothing rounds, or nobody asked), and how
many terms that has.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_Result = tuple[Array, Array | None, float]
_Square = Callable[[Array], Array] | None


def is_real(value: Any) -> bool:
    """Whether a value is an array of floating-point numbers."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _product(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    left, right = arguments
    value = left @ right
    return value, None if square is None else square(left) @ square(right), left.shape[-1]


def _gemm(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    left = arguments[0].T if attributes.get("transA", 0) else arguments[0]
    right = arguments[1].T if attributes.get("transB", 0) else arguments[1]
    alpha, beta = float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0))
    value = left @ right if alpha == 1.0 else alpha * (left @ right)
    size = None
    if square is not None:
        squares = square(arguments[1])
        size = alpha * alpha * (square(left) @ (squares.T if attributes.get("transB", 0) else squares))
    if len(arguments) > 2 and arguments[2] is not None:
        shift = beta * arguments[2]
        value = value + shift
        size = None if size is None else size + shift * shift
    return value, size, left.shape[-1] + 1


def _windows(x: Array, kernel: Sequence[int], attributes: dict[str, Any], fill: float = 0.0) -> npt.NDArray[Any]:
    """Returns the windows of [1, C, *sizes] as a view [C, *positions, *kernel] of its padded form."""
    rank = len(kernel)
    strides = list(attributes.get("strides", [1] * rank))
    dilations = list(attributes.get("dilations", [1] * rank))
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    auto = attributes.get("auto_pad", b"NOTSET")
    pads = list(attributes.get("pads", [0] * 2 * rank))
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        missing = [
            max(0, (-(-size // stride) - 1) * stride + far - size)
            for size, stride, far in zip(x.shape[2:], strides, reach, strict=True)
        ]
        less = [size // 2 for size in missing]
        more = [size - half for size, half in zip(missing, less, strict=True)]
        pads = [*less, *more] if auto == b"SAME_UPPER" else [*more, *less]
    elif auto == b"VALID":
        pads = [0] * 2 * rank
    padded = np.pad(x[0], [(0, 0), *zip(pads[:rank], pads[rank:], strict=True)], constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(1, rank + 1)))
    steps = tuple(slice(None, None, stride) for stride in strides)
    inner = tuple(slice(None, None, step) for step in dilations)
    result: npt.NDArray[Any] = view[(slice(None), *steps, *inner)]
    return result


def _convolution(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    x, weight = arguments[0], arguments[1]
    if len(x) != 1:
        raise ValueError("a batch of more than one")
    rank, groups = weight.ndim - 2, int(attributes.get("group", 1))
    view = _windows(x, weight.shape[2:], attributes)
    places = view.shape[1 : 1 + rank]
    # [positions, channels * kernel], group by group.
    columns = np.moveaxis(view, 0, rank).reshape(math.prod(places), groups, -1)
    flat = weight.reshape(groups, weight.shape[0] // groups, -1)
    value = _grouped(columns, flat, places)
    size = None if square is None else _grouped(columns * columns, square(weight).reshape(flat.shape), places)
    if len(arguments) > 2 and arguments[2] is not None:
        shift = arguments[2].reshape(1, -1, *[1] * rank)
        value = value + shift
        size = None if size is None else size + shift * shift
    return value, size, flat.shape[-1] + 1


def _grouped(columns: Array, weights: Array, places: Sequence[int]) -> Array:
    parts = [weights[group] @ columns[:, group].T for group in range(len(weights))]
    return np.concatenate(parts).reshape(1, -1, *places)


def _average(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    (x,) = arguments
    if attributes.get("ceil_mode", 0) or len(x) != 1:
        raise ValueError("ceil_mode or a batch of more than one")
    kernel = attributes["kernel_shape"]
    axes = tuple(range(-len(kernel), 0))
    counted: Any = 1.0 if attributes.get("count_include_pad", 0) else 0.0
    counts = _windows(np.ones((1, 1, *x.shape[2:])), kernel, attributes, counted).sum(axis=axes)
    view = _windows(x, kernel, attributes)
    value = (view.sum(axis=axes) / counts)[None]
    size = None if square is None else ((view * view).sum(axis=axes) / counts**2)[None]
    return value, size, math.prod(kernel)


def _global_average(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    (x,) = arguments
    axes = tuple(range(2, x.ndim))
    count = math.prod(x.shape[2:])
    value = x.mean(axis=axes, keepdims=True)
    return value, None if square is None else (x * x).sum(axis=axes, keepdims=True) / count**2, count


def _normalise(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    if attributes.get("training_mode", 0):
        raise ValueError("in training mode it is no function of its input")
    x = arguments[0]
    shape = (1, -1, *[1] * (x.ndim - 2))
    scale, shift, mean, variance = (item.reshape(shape) for item in arguments[1:5])
    # The default is a float32 number like every attribute.
    epsilon = float(attributes.get("epsilon", np.float32(1e-5)))
    factor = scale / np.sqrt(variance + epsilon)
    value = (x - mean) * factor + shift
    # The runtime may take the mean and the shift together first, so each of the three counts.
    size = None if square is None else (x * factor) ** 2 + (mean * factor) ** 2 + shift**2
    return value, size, 8


def _sum(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    value = functools.reduce(np.add, arguments)
    return (
        value,
        None if square is None else functools.reduce(np.add, [item * item for item in arguments]),
        len(arguments),
    )


def _difference(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    left, right = arguments
    return left - right, None if square is None else left * left + right * right, 1


def _multiply(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    value = arguments[0] * arguments[1]
    return value, None if square is None else value * value, 1


def _divide(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    if not (is_real(arguments[0]) and is_real(arguments[1])):
        raise ValueError("a division of integers")
    value = arguments[0] / arguments[1]
    return value, None if square is None else value * value, 1


def _identity(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    return arguments[0], None, 1


def _rectify(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    return np.maximum(arguments[0], 0), None, 1


#: Operators that round, by their ONNX names.
RULES: dict[str, Any] = {
    "Add": _sum,
    "AveragePool": _average,
    "BatchNormalization": _normalise,
    "Conv": _convolution,
    "Div": _divide,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "Identity": _identity,
    "MatMul": _product,
    "Mul": _multiply,
    "Relu": _rectify,
    "Sub": _difference,
    "Sum": _sum,
}
