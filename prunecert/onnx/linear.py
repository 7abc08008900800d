"""Layers with weights, and other linear operators, which onnxruntime is asked for on unit vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx

from prunecert.onnx.arithmetic import broadcast, settle_sum
from prunecert.onnx.constants import is_coarse, label, refuse
from prunecert.onnx.emit import SPREAD
from prunecert.onnx.layers import DENSE, check_dense
from prunecert.onnx.normal import Array
from prunecert.onnx.reading import Handler, Input, Reading, attributes_of, computed, optional, stored
from prunecert.onnx.rounding import STEP, summed
from prunecert.onnx.values import (
    Term,
    Value,
    check_products,
    check_size,
    moved,
    places,
    reshaped,
    scaled,
    shifted,
    total,
)
from prunecert.onnx.windows import image, read_transposed, read_windows, unimage

#: Most inputs of a linear operator that is asked for one unit vector after the other.
_PROBED = 2**13


def _conv(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    value = computed(node, inputs[0])
    weight = stored(node, inputs, 1, "weight")
    rank = len(value.shape)
    shape = image(node, value)
    if weight.ndim != rank:
        raise refuse(
            node, f"its weight has the shape {list(weight.shape)}, which doesn't fit an input {list(value.shape)}"
        )
    attributes = attributes_of(node)
    groups = int(attributes.get("group", 1))
    if groups < 1 or weight.shape[0] % groups or weight.shape[1] * groups != shape[1] or 0 in weight.shape:
        raise refuse(node, f"its weight {list(weight.shape)} in {groups} groups doesn't fit {shape[1]} channels")
    if "kernel_shape" in attributes and tuple(attributes["kernel_shape"]) != weight.shape[2:]:
        raise refuse(
            node, f"its kernel_shape {attributes['kernel_shape']} isn't that of its weight {list(weight.shape)}"
        )
    bias = optional(node, inputs, 2, "bias")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise refuse(node, f"its bias {list(bias.shape)} doesn't fit {weight.shape[0]} channels")
    windows = read_windows(node, value, weight.shape[2:])
    result = reading.emitter.convolution(
        reshaped(value, shape),
        weight if rank == 4 else weight[..., None],
        np.zeros(len(weight)) if bias is None else bias.astype(np.float64),
        windows.strides,
        windows.pads,
        windows.dilations,
        groups,
    )
    return [reshaped(result, unimage(result.shape, rank))]


def _gemm(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    attributes = attributes_of(node)
    first, second = inputs[0], inputs[1]
    if attributes.get("transA", 0):
        first = _transposed(first)
    if attributes.get("transB", 0):
        second = _transposed(second)
    result = scaled(_product(reading, node, first, second), _factor(node, attributes, "alpha"))
    if len(inputs) > 2 and inputs[2] is not None:
        addend = inputs[2]
        beta = _factor(node, attributes, "beta")
        try:
            if isinstance(addend, Value):
                result = total([result, scaled(broadcast(addend, result.shape), beta)])
            else:
                bias = stored(node, inputs, 2, "bias").astype(np.float64) * beta
                result = shifted(result, bias, 0.0 if beta == 1.0 else STEP * np.abs(bias))
        except ValueError as error:
            raise refuse(node, f"its bias {list(addend.shape)} doesn't fit outputs {list(result.shape)}") from error
    return [result]


def _factor(node: onnx.NodeProto, attributes: dict[str, float], name: str) -> float:
    factor = float(np.float32(attributes.get(name, 1.0)))
    if not math.isfinite(factor):
        raise refuse(node, f"its {name} is infinite or not a number")
    return factor


def _transposed(item: Input) -> Input:
    if item is None or len(item.shape) < 2:
        return item
    return moved(item, places(item).swapaxes(-1, -2)) if isinstance(item, Value) else item.swapaxes(-1, -2)


def _matmul(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    return [_product(reading, node, inputs[0], inputs[1])]


def _product(reading: Reading, node: onnx.NodeProto, first: Input, second: Input) -> Value:
    """Returns ``numpy.matmul`` of a value and a constant, either first."""
    if isinstance(first, Value) and isinstance(second, Value):
        raise refuse(node, "both its factors depend on the network's input; allowed is a product with constants")
    if isinstance(first, Value):
        return _times(reading, node, first, stored(node, [first, second], 1, "weight"))
    value = computed(node, second)
    weight = stored(node, [first, second], 0, "weight")
    if len(value.shape) == 1 or weight.ndim == 1:
        # A vector on either side is the same on the other, up to the order of the axes that are left.
        if len(value.shape) == 1:
            return _times(reading, node, value, weight.swapaxes(-1, -2) if weight.ndim > 1 else weight)
        return _times(reading, node, computed(node, _transposed(value)), weight)
    turned = _times(reading, node, computed(node, _transposed(value)), weight.swapaxes(-1, -2))
    return computed(node, _transposed(turned))


def _times(reading: Reading, node: onnx.NodeProto, value: Value, weight: Array) -> Value:
    """Returns value @ weight."""
    if not value.shape or not weight.ndim:
        raise refuse(node, "a factor has no axis")
    inputs = value.shape[-1]
    sizes = [int(size) for size in weight.shape]
    if sizes[max(0, len(sizes) - 2)] != inputs or 0 in sizes:
        raise refuse(node, f"its weight {list(weight.shape)} doesn't fit an input of shape {list(value.shape)}")
    matrix = weight.reshape(-1, 1) if weight.ndim == 1 else weight
    lead = value.shape[:-1]
    if matrix.ndim > 2 and max(matrix.shape[:-2]) > 1:
        return _stacked(reading, value, weight)
    extra = (1,) * max(0, matrix.ndim - 2 - len(lead[:-1])) if weight.ndim > 1 else ()
    flat: Array = matrix.reshape(-1, sizes[-1] if weight.ndim > 1 else 1)
    rows, outputs = math.prod(lead), flat.shape[1]
    shape = (*extra, *lead, outputs) if weight.ndim > 1 else lead
    zeros = np.zeros(outputs)
    if rows == 1:
        result = reading.emitter.linear(reshaped(value, (1, inputs)), flat.T, zeros)
        return reshaped(result, shape)
    check_size(value.size)
    # Rows as places of an image whose channels are the columns: the layer is a 1 x 1 convolution there.
    turned = moved(value, places(value).reshape(rows, inputs).T.reshape(1, inputs, rows, 1))
    if len(turned.terms) != 1 or turned.terms[0].index is None or rows * inputs * rows * outputs > DENSE:
        turned = settle_sum(reading, turned)
        columns = reading.emitter.convolution(turned, flat.T[:, :, None, None], zeros, (1, 1), (0, 0, 0, 0), (1, 1), 1)
        return moved(columns, places(columns).reshape(outputs, rows).T.reshape(shape))
    result = reading.emitter.linear(
        reshaped(value, (1, value.size)), np.kron(np.eye(rows), flat.T), np.zeros(rows * outputs)
    )
    return reshaped(result, shape)


def _stacked(reading: Reading, value: Value, weight: Array) -> Value:
    """Returns value @ weight for a stack of matrices, as one large matrix."""
    shape = np.matmul(np.empty(value.shape, np.bool_), np.empty(weight.shape, np.bool_)).shape
    check_dense(reading.layers, math.prod(shape), value.size, "A product with a stack of matrices")
    unit = np.eye(value.size).reshape(value.size, *[1] * max(0, weight.ndim - len(value.shape)), *value.shape)
    columns = np.matmul(unit, weight.astype(np.float64)).reshape(value.size, -1)
    return reshaped(reading.emitter.linear(value, columns.T, np.zeros(columns.shape[1])), shape)


def _reduced(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    value = computed(node, inputs[0])
    axes, kept = reduced_axes(reading, node, value, inputs)
    if not axes:
        return [value]
    shape = tuple(1 if i in axes else size for i, size in enumerate(value.shape))
    final = shape if kept else tuple(size for i, size in enumerate(value.shape) if i not in axes)
    count = math.prod(value.shape[i] for i in axes)
    spatial = len(value.shape) in (3, 4) and value.shape[0] == 1 and set(axes) <= set(range(2, len(value.shape)))
    if spatial:
        whole = image(node, value)
        kernel = (whole[2] if 2 in axes else 1, whole[3] if 3 in axes else 1)
        number = reading.layers.pool("AveragePool", reading.emitter.node(reshaped(value, whole), whole), kernel, kernel)
        result = Value(shape, (Term(number),))
        result = result if node.op_type == "ReduceMean" else scaled(result, float(count))
    else:
        members = np.moveaxis(places(value), axes, range(len(axes))).reshape(count, -1)
        check_dense(reading.layers, members.shape[1], value.size, "A reduction")
        matrix = np.zeros((members.shape[1], value.size))
        matrix[np.arange(members.shape[1])[None, :].repeat(count, 0), members] = (
            1.0 if node.op_type == "ReduceSum" else 1 / count
        )
        loose = 0.0 if node.op_type == "ReduceSum" else STEP
        result = reading.emitter.linear(value, matrix, np.zeros(len(matrix)), loose)
    reading.note(f"{node.op_type} is written as {'pooling' if spatial else 'a linear layer'}.")
    return [reshaped(result, final)]


def reduced_axes(
    reading: Reading, node: onnx.NodeProto, value: Value, inputs: Sequence[Input]
) -> tuple[tuple[int, ...], bool]:
    """Returns the axes that a reduction goes over, and whether it keeps them."""
    attributes, rank = attributes_of(node), len(value.shape)
    listed = optional(node, inputs, 1, "list of axes")
    axes = [int(axis) for axis in (listed.reshape(-1) if listed is not None else attributes.get("axes", ()))]
    if any(not -rank <= axis < rank for axis in axes):
        raise refuse(node, f"its axes {axes} don't fit {rank}")
    if not axes and not attributes.get("noop_with_empty_axes", 0):
        axes = list(range(rank))
    return tuple(sorted({axis % rank for axis in axes})), bool(attributes.get("keepdims", 1))


def _probed(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    """Reads a linear operator off its values at unit vectors, each of which is one constant, or 0 or 1."""
    value, arrays, name = _linear_in(node, inputs)
    # Operators take one type: 16 bits are exact in float32, for which there are more kernels.
    arrays = {key: array.astype(np.float32) if is_coarse(array) else array for key, array in arrays.items()}
    kind = np.float64 if any(array.dtype == np.float64 for array in arrays.values()) else np.float32
    matrix, origin = _columns(reading, node, arrays | {name: np.zeros(value.shape, kind)}, name)
    return _as_layer(reading, node, value, matrix, origin)


def _linear_in(node: onnx.NodeProto, inputs: Sequence[Input]) -> tuple[Value, dict[str, Array], str]:
    """Returns the input that isn't constant, and the others by name; its own name is in none of them."""
    free = [i for i, item in enumerate(inputs) if isinstance(item, Value)]
    if len(free) != 1:
        raise refuse(node, "it is linear in one input that depends on the network's input, not in several")
    value = computed(node, inputs[free[0]])
    if value.size > _PROBED:
        raise refuse(node, f"its input has {value.size:,} elements; allowed are {_PROBED:,} for this operator")
    arrays = {f"i{i}": item for i, item in enumerate(inputs) if item is not None and not isinstance(item, Value)}
    return value, arrays, f"i{free[0]}"


def _columns(reading: Reading, node: onnx.NodeProto, arrays: dict[str, Array], name: str) -> tuple[Array, Array]:
    """Returns the matrix [outputs, inputs] of a linear operator, and its value at 0.

    Args:
        reading: The graph.
        node: The node.
        arrays: Its inputs by name ``i0``, ``i1``, …; of the free one only type and shape count.
        name: Of the free one.
    """
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    del plain.input[:]
    plain.input.extend(f"i{i}" if f"i{i}" in arrays else "" for i in range(len(node.input)))
    zeros = np.zeros_like(arrays[name])
    run = reading.evaluator.session(plain, arrays, (name,), DENSE)
    origin = run({name: zeros})[0]
    check_dense(reading.layers, origin.size, zeros.size, "A linear operator")
    matrix = np.zeros((origin.size, zeros.size), zeros.dtype)
    for number in range(zeros.size):
        unit = zeros.copy()
        unit.flat[number] = 1.0
        matrix[:, number] = (run({name: unit})[0] - origin).reshape(-1)
    return matrix, origin


def _as_layer(
    reading: Reading, node: onnx.NodeProto, value: Value, matrix: Array, origin: Array, loose: float = 0.0
) -> list[Value]:
    reading.note(f"{node.op_type} is written as a linear layer.")
    result = reading.emitter.linear(value, matrix, origin.reshape(-1).astype(np.float64), loose)
    return [reshaped(result, origin.shape)]


def _transposed_conv(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    weight = stored(node, inputs, 1, "weight")
    bias = optional(node, inputs, 2, "bias")
    result = _spread_conv(reading, node, computed(node, inputs[0]), weight)
    if result is None:
        result = _probed(reading, node, inputs[:2])[0]
    if bias is None:
        return [result]
    return [shifted(result, bias.astype(np.float64).reshape(1, -1, *[1] * (len(result.shape) - 2)))]


def _spread_conv(reading: Reading, node: onnx.NodeProto, value: Value, weight: Array) -> Value | None:
    """Returns a large transposed convolution as one with the mirrored kernel over the input with zeros between."""
    shape, groups, rank = image(node, value), int(attributes_of(node).get("group", 1)), len(value.shape)
    windows = read_transposed(node, value, weight.shape[2:])
    if windows is None or weight.ndim != rank or groups < 1 or weight.shape[0] != shape[1] or shape[1] % groups:
        return None
    _, channels, height, width = shape
    down, across = windows.strides
    results = weight.shape[1] * groups
    if value.size**2 * down * across * results < SPREAD * channels:
        return None
    settled = Value(shape, (Term(reading.emitter.node(reshaped(value, shape), shape)),))
    positions = np.full((1, channels, height, down, width, across), -1)
    positions[:, :, :, 0, :, 0] = places(settled)
    wide = moved(settled, positions.reshape(1, channels, height * down, width * across))
    kernel = weight if rank == 4 else weight[..., None]
    kernel = kernel.reshape(groups, channels // groups, *kernel.shape[1:])[..., ::-1, ::-1]
    kernel = kernel.swapaxes(1, 2).reshape(results, channels // groups, *kernel.shape[3:])
    result = reading.emitter.convolution(
        wide, kernel, np.zeros(results), (1, 1), windows.pads, windows.dilations, groups
    )
    reading.note("ConvTranspose is written as a convolution over its input with zeros between.")
    return reshaped(result, unimage(result.shape, rank))


def _einsum(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    equation = attributes_of(node).get("equation", b"").decode(errors="replace")
    terms = equation.split("->")[0].split(",")
    for number, item in enumerate(inputs):
        if isinstance(item, Value) and number >= len(terms):
            raise refuse(node, f"its equation {equation!r:.60} has fewer operands than the node {label(node)}")
    value, arrays, name = _linear_in(node, inputs)
    for number in (number for number, item in enumerate(inputs) if item is not None and not isinstance(item, Value)):
        stored(node, inputs, number, "operand")
    # How many products of constants each weight is the sum of: those that aren't 0 for their factors alone.
    wide = {key: array.astype(np.float64) for key, array in arrays.items()} | {name: np.zeros(value.shape)}
    counts, origin = _columns(reading, node, {key: (array != 0) * 1.0 for key, array in wide.items()}, name)
    if len(arrays) <= 1 and counts.max(initial=0) <= 1:
        return _probed(reading, node, inputs)
    # onnxruntime would round sums and products of the file's own numbers to float32, and nobody would charge that.
    matrix, _ = _columns(reading, node, wide, name)
    sizes, _ = _columns(reading, node, {key: np.abs(array) for key, array in wide.items()}, name)
    check_products(sizes, counts)
    loose = summed(matrix, sizes, int(counts.max(initial=0)), STEP * len(arrays))
    if loose is None:
        raise refuse(node, "it adds up constants that cancel; allowed are sums that lose no digits")
    return _as_layer(reading, node, value, matrix, origin, loose)


HANDLERS: dict[str, Handler] = {
    "Conv": _conv,
    "ConvTranspose": _transposed_conv,
    "CumSum": _probed,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "ReduceMean": _reduced,
    "ReduceSum": _reduced,
}
