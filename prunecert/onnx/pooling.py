"""Averages and maxima over windows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from prunecert.onnx.constants import refuse
from prunecert.onnx.linear import reduced_axes
from prunecert.onnx.normal import ELEMENTS, Array
from prunecert.onnx.reading import Handler, Input, Reading, computed
from prunecert.onnx.rounding import STEP
from prunecert.onnx.values import Shape, Term, Value, moved, places, reshaped, scaled
from prunecert.onnx.windows import Windows, image, read_windows, unimage

#: From this many weights on, an average is written in groups, one for each channel.
_GROUPED = 2**14
#: Most elements of a window of a maximum, along one axis.
_LONGEST = 64


def _global_average(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    value = computed(node, inputs[0])
    shape = image(node, value)
    source = reading.emitter.node(reshaped(value, shape), shape)
    number = reading.layers.pool("AveragePool", source, (shape[2], shape[3]), (shape[2], shape[3]))
    return [Value(unimage((1, shape[1], 1, 1), len(value.shape)), (Term(number),))]


def _runtime_result(reading: Reading, node: onnx.NodeProto, shape: Shape, channels: int = 1) -> Array:
    """Returns what onnxruntime makes of ones, for one channel: its size, its pads and its divisors are those."""
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    del plain.input[:]
    plain.input.append("i0")
    del plain.output[1:]
    ones = np.ones((1, channels, *shape[2:]), np.float32)
    return reading.evaluator.session(plain, {"i0": ones}, (), ELEMENTS)({})[0]


def _counted(windows: Windows, shape: Shape, outputs: Sequence[int]) -> Array:
    """Returns how many elements of the image each window holds, [H', W']."""
    counts = []
    for axis in range(2):
        reads = _reads(windows, axis, outputs[axis])
        counts.append(((reads >= 0) & (reads < shape[2 + axis])).sum(axis=1))
    return np.asarray(np.multiply.outer(counts[0], counts[1]))


def _reads(windows: Windows, axis: int, outputs: int) -> Array:
    """Returns the positions that each window of an axis reads, [outputs, kernel]; some may be outside."""
    steps = np.arange(windows.kernel[axis]) * windows.dilations[axis]
    return np.asarray(np.arange(outputs)[:, None] * windows.strides[axis] - windows.pads[axis] + steps[None, :])


def _average(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    value = computed(node, inputs[0])
    rank, shape = len(value.shape), image(node, value)
    windows = read_windows(node, value)
    ones = _runtime_result(reading, node, value.shape)
    outputs = (ones.shape[2], ones.shape[3] if rank == 4 else 1)
    exact = all(
        windows.dilations[i] == 1
        and windows.pads[i] == 0
        and outputs[i] == (shape[2 + i] - windows.kernel[i]) // windows.strides[i] + 1
        for i in range(2)
    )
    source = reading.emitter.node(reshaped(value, shape), shape)
    if exact and np.all(ones == 1):
        number = reading.layers.pool("AveragePool", source, windows.kernel, windows.strides)
        return [Value(unimage(reading.layers.nodes[number].shape, rank), (Term(number),))]
    members = _counted(windows, shape, outputs)
    if not np.all(members > 0) or not np.all(ones > 0):
        raise refuse(node, "a window of it lies in the padding alone")
    divisors = np.round(members / ones.reshape(outputs).astype(np.float64))
    reading.note("Padded averages are written as convolutions.")
    size = windows.kernel[0] * windows.kernel[1]
    common = float(divisors.flat[0]) if np.all(divisors == divisors.flat[0]) else float(size)
    channels = shape[1]
    after = [
        max(
            0,
            (outputs[i] - 1) * windows.strides[i]
            + windows.dilations[i] * (windows.kernel[i] - 1)
            + 1
            - windows.pads[i]
            - shape[2 + i],
        )
        for i in range(2)
    ]
    grouped = channels**2 * size > _GROUPED
    kernel = np.full((channels, 1, *windows.kernel), 1 / common)
    if not grouped:
        kernel = np.eye(channels)[:, :, None, None] * kernel
    number = reading.layers.conv(
        source,
        kernel,
        np.zeros(channels),
        windows.strides,
        (windows.pads[0], windows.pads[1], after[0], after[1]),
        windows.dilations,
        channels if grouped else 1,
        loose=STEP,
    )
    sizes = reading.layers.nodes[number].shape
    if sizes[2:] != outputs:
        raise refuse(node, f"its windows give {list(sizes[2:])} values, not {list(outputs)}")
    sums = Value(sizes, (Term(number, exclusive=True),))
    return [reshaped(scaled(sums, (common / divisors)[None, None]), unimage(sizes, rank))]


def _maximum(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    if len([name for name in node.output if name]) > 1:
        raise refuse(node, "the places of its maxima are no affine function; allowed are the maxima alone")
    value = computed(node, inputs[0])
    rank, shape = len(value.shape), image(node, value)
    windows = read_windows(node, value)
    ones = _runtime_result(reading, node, value.shape)
    outputs = (ones.shape[2], ones.shape[3] if rank == 4 else 1)
    plain = (
        "MaxPool" in reading.keep
        and windows.kernel == windows.strides
        and windows.dilations == (1, 1)
        and not any(windows.pads)
        and outputs == (shape[2] // windows.kernel[0], shape[3] // windows.kernel[1])
    )
    source = reading.emitter.node(reshaped(value, shape), shape)
    if plain:
        number = reading.layers.pool("MaxPool", source, windows.kernel, windows.strides)
        return [Value(unimage(reading.layers.nodes[number].shape, rank), (Term(number),))]
    reading.note("MaxPool is written as ReLUs.")
    maxima = Value(shape, (Term(source),))
    reads = [_reads(windows, axis, outputs[axis]) for axis in range(2)]
    if max(windows.kernel) > _LONGEST:
        raise refuse(node, f"its windows are {list(windows.kernel)} large; allowed are {_LONGEST} each way")
    if windows.strides[0] == windows.strides[1] > 1 and rank == 4:
        # Both axes at once, though it may take more ReLUs: some bounds take no convolution of unequal strides.
        maxima = _across(reading, node, maxima, {2: reads[0], 3: reads[1]})
    else:
        # One axis after the other, so that neighbouring windows share the maxima of their columns.
        for axis in range(2):
            maxima = _across(reading, node, maxima, {axis + 2: reads[axis]})
    return [reshaped(maxima, unimage(maxima.shape, rank))]


def _across(reading: Reading, node: onnx.NodeProto, value: Value, reads: Mapping[int, Array]) -> Value:
    """Returns the maxima over windows.

    Args:
        reading: The graph.
        node: The node, for messages.
        value: The value.
        reads: For each axis that windows go along, the positions that they read, [outputs, kernel].
    """
    value = reading.settle(value)
    # Nothing is below 0 there, so that 0 outside changes no maximum.
    positive = reading.layers.nodes[value.terms[0].source].positive
    columns = []
    for axis, positions in reads.items():
        inside = (positions >= 0) & (positions < value.shape[axis])
        if not inside.any(axis=1).all():
            raise refuse(node, "a window of it lies in the padding alone")
        # What is outside is never the maximum: else another element of the window stands for it.
        first = np.take_along_axis(positions, np.argmax(inside, axis=1)[:, None], axis=1)
        columns.append([(axis, column) for column in np.where(inside, positions, -1 if positive else first).T])
    where = places(value)
    taps = []
    for chosen in itertools.product(*columns):
        part = where
        for axis, column in chosen:
            along = [1] * part.ndim
            along[axis] = -1
            part = np.where(column.reshape(along) < 0, -1, np.take(part, np.maximum(column, 0), axis=axis))
        taps.append(moved(value, part))
    while len(taps) > 1:
        pairs = [reading.maximum(*taps[i : i + 2]) for i in range(0, len(taps) - 1, 2)]
        left = taps[-1:] if len(taps) % 2 else []
        taps = [reading.settle(pair) for pair in pairs] + left
    result = reading.settle(taps[0])
    source = result.terms[0].source
    if reading.layers.nodes[value.terms[0].source].positive:
        # A maximum of what isn't negative isn't negative, which sums of convolutions don't show.
        reading.layers.nodes[source] = replace(reading.layers.nodes[source], positive=True)
    return result


def _global_maximum(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    value = computed(node, inputs[0])
    shape = image(node, value)
    if max(shape[2:]) > _LONGEST:
        raise refuse(node, f"its image is {list(shape[2:])} large; allowed is {_LONGEST}")
    maxima = reshaped(value, shape)
    for axis in (2, 3):
        maxima = _across(reading, node, maxima, {axis: np.arange(shape[axis])[None]})
    reading.note("GlobalMaxPool is written as ReLUs.")
    return [reshaped(maxima, unimage(maxima.shape, len(value.shape)))]


def _reduced(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    value = computed(node, inputs[0])
    axes, kept = reduced_axes(reading, node, value, inputs)
    extremes = value if node.op_type == "ReduceMax" else scaled(value, -1.0)
    for axis in axes:
        if value.shape[axis] > _LONGEST:
            raise refuse(node, f"an axis of it is {value.shape[axis]} long; allowed is {_LONGEST}")
        extremes = _across(reading, node, extremes, {axis: np.arange(value.shape[axis])[None]})
    extremes = extremes if node.op_type == "ReduceMax" else scaled(extremes, -1.0)
    reading.note(f"{node.op_type} is written as ReLUs.")
    shape = tuple(size for i, size in enumerate(value.shape) if i not in axes)
    return [extremes if kept else reshaped(extremes, shape)]


HANDLERS: dict[str, Handler] = {
    "AveragePool": _average,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_maximum,
    "MaxPool": _maximum,
    "ReduceMax": _reduced,
    "ReduceMin": _reduced,
}
