"""Sums, and products with constants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto

from prunecert.onnx.constants import refuse
from prunecert.onnx.normal import Array
from prunecert.onnx.reading import Handler, Input, Reading, attributes_of, computed, stored
from prunecert.onnx.values import Shape, Value, check_products, moved, places, scaled, shifted, total

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
#: Relative error of the factors that batch norm's statistics make.
_STATISTICS = 2.0**-50


def broadcast(value: Value, shape: Shape) -> Value:
    """Repeats a value to a larger shape."""
    return value if value.shape == shape else moved(value, np.broadcast_to(places(value), shape))


def _joined(node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    """Returns the operands in one shape."""
    values = [computed(node, item) for item in inputs]
    shape = np.broadcast_shapes(*(value.shape for value in values))
    for value in values:
        if not value.terms and value.shift is not None and not np.isfinite(value.shift).all():
            raise refuse(node, "a constant is infinite or not a number; allowed are finite ones")
    return [broadcast(value, shape) for value in values]


def _add(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    return [total(_joined(node, inputs))]


def _mean(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    return [scaled(total(_joined(node, inputs)), 1 / len(inputs))]


def _subtract(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    first, second = _joined(node, inputs)
    return [total([first, scaled(second, -1.0)])]


def _negate(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    return [scaled(computed(node, inputs[0]), -1.0)]


def settle_sum(reading: Reading, value: Value) -> Value:
    """Writes a sum of whole nodes as a node before it is scaled, so that one factor serves for all."""
    whole = len(value.terms) > 1 and all(term.index is None and term.scale is None for term in value.terms)
    return reading.settle(value) if whole else value


def _multiply(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    first, second = inputs
    if isinstance(first, Value) and isinstance(second, Value):
        raise refuse(node, "both its factors depend on the network's input; allowed is a product with constants")
    value, number = (first, 1) if isinstance(first, Value) else (second, 0)
    factor = stored(node, inputs, number, "factor")
    assert isinstance(value, Value)
    shape = np.broadcast_shapes(value.shape, factor.shape)
    return [scaled(settle_sum(reading, broadcast(value, shape)), factor)]


def _divide(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    value = inputs[0]
    if not isinstance(value, Value):
        raise refuse(node, "its divisor depends on the network's input; allowed is a constant")
    divisor = stored(node, inputs, 1, "divisor")
    if (divisor == 0).any():
        raise refuse(node, "its divisor holds a zero")
    shape = np.broadcast_shapes(value.shape, divisor.shape)
    return [scaled(settle_sum(reading, broadcast(value, shape)), 1.0 / divisor.astype(np.float64))]


def _power(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    if isinstance(inputs[1], Value) or not np.all((exponent := stored(node, inputs, 1, "exponent")) == 1):
        raise refuse(node, "it is no affine function; allowed is the exponent 1")
    value = computed(node, inputs[0])
    return [broadcast(value, np.broadcast_shapes(value.shape, exponent.shape))]


def _identity(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    return [computed(node, inputs[0])]


def _cast(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    target = attributes_of(node).get("to")
    if target is None:
        # One whose type can be told has become a Cast.
        raise refuse(node, "the type that it casts to can't be told; export the network with Cast")
    if target not in _FLOATS:
        raise refuse(node, f"it rounds what depends on the input to {TensorProto.DataType.Name(target)}")
    value = computed(node, inputs[0])
    if target in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        if value.last != "none":
            raise refuse(node, f"it comes after {value.maker}, of which 16 bits don't keep the outputs' order")
        reading.note("What is computed in 16 bits in the file is computed in float32.")
    return [value]


def _dropout(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value | None]:
    attributes = attributes_of(node)
    training = reading.opset < 7 and not attributes.get("is_test", 0)
    if reading.opset >= 12 and len(inputs) > 2 and inputs[2] is not None:
        training = isinstance(inputs[2], Value) or bool(np.any(inputs[2]))
    ratio = inputs[1] if len(inputs) > 1 else None
    if training and not (ratio is not None and not isinstance(ratio, Value) and np.all(ratio == 0)):
        raise refuse(
            node,
            "it was exported in training mode and drops values at random, so that the file is no function; call "
            "model.eval() and export again",
        )
    return [computed(node, inputs[0]), None]


def _batch_norm(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    attributes = attributes_of(node)
    outputs = [name for name in node.output if name]
    if attributes.get("training_mode", 0) or len(outputs) > 1 or (reading.opset < 7 and not attributes.get("is_test")):
        raise refuse(node, "it was exported in training mode; call model.eval() and export again")
    value = computed(node, inputs[0])
    scale, bias, mean, variance = (
        stored(node, inputs, i, what).astype(np.float64)
        for i, what in ((1, "scale"), (2, "bias"), (3, "mean"), (4, "variance"))
    )
    channels = value.shape[1] if len(value.shape) > 1 else 1
    if any(part.shape != (channels,) for part in (scale, bias, mean, variance)):
        raise refuse(node, f"its statistics don't fit {channels} channels")
    # ONNX attributes are float32, the default too.
    spread = variance + float(np.float32(attributes.get("epsilon", 1e-5)))
    if not (spread > 0).all():
        raise refuse(node, "a variance is negative")
    factor = scale / np.sqrt(spread)
    along = (1, channels, *[1] * (len(value.shape) - 2))
    offset = (bias - mean * factor).reshape(along)
    # The factor is off by three roundings, the offset by two more.
    error = _STATISTICS * (np.abs(bias) + np.abs(mean * factor)).reshape(along)
    if not np.isfinite(factor).all() or not np.isfinite(offset).all():
        raise refuse(node, "its factors are infinite or not a number")
    check_products(mean * factor, mean, factor)
    return [shifted(scaled(settle_sum(reading, value), factor.reshape(along), _STATISTICS), offset, error)]


def _shape(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Array]:
    attributes, shape = attributes_of(node), computed(node, inputs[0]).shape
    return [np.array(shape[attributes.get("start", 0) : attributes.get("end")], dtype=np.int64)]


def _size(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Array]:
    return [np.array(computed(node, inputs[0]).size, dtype=np.int64)]


HANDLERS: dict[str, Handler] = {
    "Add": _add,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": _cast,
    "Div": _divide,
    "Dropout": _dropout,
    "Identity": _identity,
    "Mean": _mean,
    "Mul": _multiply,
    "Neg": _negate,
    "Pow": _power,
    "Shape": _shape,
    "Size": _size,
    "Sub": _subtract,
    "Sum": _add,
}
