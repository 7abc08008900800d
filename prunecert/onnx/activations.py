"""Piecewise linear functions as sums of ReLUs, and what is removed at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx

from prunecert.onnx.arithmetic import broadcast
from prunecert.onnx.constants import refuse
from prunecert.onnx.normal import Array, Last
from prunecert.onnx.reading import Handler, Input, Reading, attributes_of, computed, stored
from prunecert.onnx.rounding import STEP, one_minus
from prunecert.onnx.values import Value, constant, scaled, shifted, total

#: Beyond this, min(max(x, a), b) is a difference of two ReLUs, which leaves small x exact; below, one ReLU after the
#: other, whose intervals stay within [a, b].
_NESTED = 64.0
#: Up to this many flat values are negated by a matrix.
_DIAGONAL = 2**11
#: Beyond this, a limit is taken off the value itself, whose digits a sum with it would lose.
_FAR = 2.0**24
#: From here on a limit is none: float32's largest number, or this, is what exporters write for infinity. No value of a
#: runtime is beyond it but those within a thousandth of what float32 can hold.
_NO_LIMIT = float(np.float32(3.4e38))


def _relu(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    return [reading.relu(computed(node, inputs[0]))]


def _clipped(reading: Reading, value: Value, low: float | None, high: float | None) -> Value:
    if low is not None and low <= -_NO_LIMIT:
        low = None
    if high is not None and high >= _NO_LIMIT:
        high = None
    if low is None and high is None:
        return value
    if low is not None and high is not None and high <= low:
        return constant(np.full(value.shape, high))
    if max(abs(limit) for limit in (low, high) if limit is not None) >= _FAR:
        parts = [reading.settle(value)]
        if low is not None:
            parts.append(reading.relu(shifted(scaled(parts[0], -1.0), low)))
        if high is not None:
            parts.append(scaled(reading.relu(shifted(parts[0], -high)), -1.0))
        return total(parts)
    if high is None:
        assert low is not None
        return shifted(reading.relu(shifted(value, -low)), low)
    if low is None:
        return shifted(scaled(reading.relu(shifted(scaled(value, -1.0), high)), -1.0), high)
    if max(abs(low), abs(high)) <= _NESTED and (len(value.shape) == 4 or value.size <= _DIAGONAL):
        above = reading.relu(shifted(value, -low))
        width = high - low
        below = shifted(scaled(above, -1.0), width, STEP * width)
        return shifted(scaled(reading.relu(below), -1.0), high)
    value = reading.settle(value)
    parts = [reading.relu(shifted(value, -low)), scaled(reading.relu(shifted(value, -high)), -1.0)]
    return shifted(total(parts), low)


def _limit(node: onnx.NodeProto, inputs: Sequence[Input], number: int) -> float | None:
    item = inputs[number] if number < len(inputs) else None
    if item is None:
        return None
    if isinstance(item, Value):
        raise refuse(node, "its limits must be constants, but depend on the network's input")
    if item.size != 1 or np.isnan(item).any():
        raise refuse(node, "its limits must be single numbers")
    return float(item.reshape(-1)[0])


def _clip(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    attributes = attributes_of(node)
    value = computed(node, inputs[0])
    if reading.opset < 11:
        low, high = attributes.get("min"), attributes.get("max")
    else:
        low, high = _limit(node, inputs, 1), _limit(node, inputs, 2)
    reading.note("Clip is written as ReLUs.")
    return [_clipped(reading, value, low, high)]


def _sloped(reading: Reading, value: Value, slope: Array | float) -> Value:
    """Returns max(x, 0) + slope min(x, 0), which is slope x + (1 - slope) max(x, 0)."""
    settled = reading.settle(value)
    factor = np.asarray(slope, dtype=np.float64)
    rest, lost = one_minus(factor)
    loose = None if lost == 0 else 2 * STEP
    return total([scaled(settled, factor), scaled(reading.relu(settled), rest, loose)])


def _leaky(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    slope = float(np.float32(attributes_of(node).get("alpha", 0.01)))
    reading.note("LeakyRelu is written as a x + (1 - a) ReLU(x).")
    return [_sloped(reading, computed(node, inputs[0]), slope)]


def _parametric(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    value = computed(node, inputs[0])
    slope = np.broadcast_to(stored(node, inputs, 1, "slope"), value.shape)
    reading.note("PRelu is written as a x + (1 - a) ReLU(x).")
    return [_sloped(reading, value, slope)]


def _absolute(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    reading.note("Abs is written as 2 ReLU(x) - x.")
    return [_sloped(reading, computed(node, inputs[0]), -1.0)]


def _hard_sigmoid(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    attributes = attributes_of(node)
    alpha, beta = (
        float(np.float32(attributes.get(name, default))) for name, default in (("alpha", 0.2), ("beta", 0.5))
    )
    reading.note("HardSigmoid is written as ReLUs.")
    return [_clipped(reading, shifted(scaled(computed(node, inputs[0]), alpha), beta), 0.0, 1.0)]


def _extreme(combine: Callable[[Reading, Value, Value], Value]) -> Handler:
    def handle(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
        values = [
            item if isinstance(item, Value) else constant(stored(node, inputs, i, "operand"))
            for i, item in enumerate(inputs)
        ]
        shape = np.broadcast_shapes(*(value.shape for value in values))
        # Constants first: x + max(c - x, 0) would need one more layer than c + max(x - c, 0).
        values = sorted((broadcast(value, shape) for value in values), key=lambda value: bool(value.terms))
        result = values[0]
        for value in values[1:]:
            if result.terms:
                result, value = reading.settle(result), reading.settle(value)
            result = combine(reading, result, value)
        reading.note(f"{node.op_type} is written as ReLUs.")
        return [result]

    return handle


def _last(last: Last) -> Handler:
    def handle(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
        value = computed(node, inputs[0])
        if node.op_type in ("Softmax", "LogSoftmax"):
            rank = len(value.shape)
            axis = int(attributes_of(node).get("axis", -1 if reading.opset >= 13 else 1))
            if not -rank <= axis < max(rank, 1):
                raise refuse(node, f"its axis {axis} isn't one of {rank}")
            axis %= max(rank, 1)
            whole = value.shape[axis] if reading.opset >= 13 else math.prod(value.shape[axis:])
            if whole != value.size:
                raise refuse(node, "it normalises a part of the values; allowed is all of them, at the end")
        return [replace(value, last=last, maker=node.op_type)]

    return handle


HANDLERS: dict[str, Handler] = {
    "Abs": _absolute,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky,
    "LogSoftmax": _last("difference"),
    "Max": _extreme(lambda reading, a, b: reading.maximum(a, b)),
    "Min": _extreme(lambda reading, a, b: reading.minimum(a, b)),
    "PRelu": _parametric,
    "Relu": _relu,
    "Sigmoid": _last("order"),
    "Softmax": _last("order"),
    "Tanh": _last("order"),
}
