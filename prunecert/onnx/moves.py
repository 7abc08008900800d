"""Operators that only rearrange: onnxruntime itself says, given numbered elements, what comes where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from prunecert.errors import UserError
from prunecert.onnx.constants import refuse
from prunecert.onnx.emit import SPREAD
from prunecert.onnx.normal import Array, UnsupportedNetworkError
from prunecert.onnx.reading import Handler, Input, Reading, attributes_of
from prunecert.onnx.rearranged import image_shape
from prunecert.onnx.values import (
    REARRANGED,
    Term,
    Value,
    check_size,
    constant,
    moved,
    reshaped,
    shifted,
    total,
)

#: Which inputs are rearranged; the others say how.
_DATA: dict[str, Sequence[int] | None] = {
    "CenterCropPad": (0,),
    "Concat": None,
    "DepthToSpace": (0,),
    "Expand": (0,),
    "Flatten": (0,),
    "Gather": (0,),
    "GatherElements": (0,),
    "GatherND": (0,),
    "Pad": (0, 2),
    "Reshape": (0,),
    "Resize": (0,),
    "ReverseSequence": (0,),
    "ScatterElements": (0, 2),
    "ScatterND": (0, 2),
    "Slice": (0,),
    "SpaceToDepth": (0,),
    "Split": (0,),
    "Squeeze": (0,),
    "Tile": (0,),
    "Transpose": (0,),
    "Trilu": (0,),
    "Unsqueeze": (0,),
    "Upsample": (0,),
    "Where": (1, 2),
}
#: How often an image's places are repeated, mostly.
_REPEATED = 4
#: Operators that may follow a Softmax: no element is combined with another.
MOVES = frozenset(_DATA)


def _rearranged(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input]) -> list[Value]:
    attributes = attributes_of(node)
    if node.op_type in ("Resize", "Upsample") and attributes.get("mode", b"nearest") != b"nearest":
        raise refuse(node, "only mode 'nearest' is, which copies")
    if attributes.get("extrapolation_value", 0.0) != 0.0:
        raise refuse(node, "only zeros come from outside of an image")
    if attributes.get("reduction", b"none") != b"none":
        raise refuse(node, "only what copies is, without a reduction")
    fill = float(attributes.get("value", 0.0)) if node.op_type == "Pad" else 0.0
    data = _DATA[node.op_type]
    values: dict[int, Value] = {}
    for number, item in enumerate(inputs):
        if item is None:
            continue
        if data is None or number in data:
            values[number] = item if isinstance(item, Value) else constant(item)
            if node.op_type in ("Resize", "Upsample"):
                values[number] = _as_image(reading, values[number])
        elif isinstance(item, Value):
            raise refuse(node, f"its input {node.input[number]!r:.80} must be a constant, but depends on the input")
    results = []
    for numbers in _numbered(reading, node, inputs, values):
        parts, offset = [], 0
        for value in values.values():
            there = (numbers >= offset) & (numbers < offset + value.size)
            parts.append(moved(value, np.where(there, numbers - offset, -1)))
            offset += value.size
        result = total(parts)
        lasts = {value.last: value.maker for value in values.values() if value.last != "none"}
        for last, maker in lasts.items():
            if len(values) > 1 or (numbers < 0).any():
                raise refuse(node, f"only what rearranges may follow {maker}")
            result = replace(result, last=last, maker=maker)
        if fill:
            result = shifted(result, np.where(numbers < 0, fill, 0.0))
        results.append(result)
    return results


def _as_image(reading: Reading, value: Value) -> Value:
    """Returns a large image as one node of its shape: places are repeated by convolutions there, see `emit`."""
    shape = image_shape(value.shape)
    if shape is None or not value.terms or value.size**2 * _REPEATED < SPREAD or value.last != "none":
        return value
    return Value(value.shape, (Term(reading.emitter.node(reshaped(value, shape), shape)),))


def _numbered(reading: Reading, node: onnx.NodeProto, inputs: Sequence[Input], values: dict[int, Value]) -> list[Array]:
    """Returns, for each result, which number came where: the values' elements are numbered on; -1 for none."""
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    for item in list(plain.attribute):
        if node.op_type == "Pad" and item.name == "value":
            plain.attribute.remove(item)
    names = [f"i{number}" if item is not None else "" for number, item in enumerate(inputs)]
    del plain.input[:]
    plain.input.extend(names)
    check_size(sum(value.size for value in values.values()))
    problem: UserError | None = None
    # ONNX's own evaluator resizes otherwise than onnxruntime, which is asked with every type before.
    attempts = [(np.int64, False), (np.float64, False), (np.int32, False), (np.float32, False), (np.int64, True)]
    for kind, reference in attempts:
        arrays: dict[str, Array] = {}
        offset = 1
        for number, item in enumerate(inputs):
            if number in values:
                numbers = np.arange(offset, offset + values[number].size)
                arrays[names[number]] = numbers.astype(kind).reshape(values[number].shape)
                offset += values[number].size
            elif item is not None and not isinstance(item, Value):
                arrays[names[number]] = item
        if kind == np.float32 and offset > 2**24:
            continue
        try:
            results = reading.evaluator.session(plain, arrays, (), REARRANGED, reference)({})
        except UnsupportedNetworkError:
            raise
        except UserError as error:
            problem = problem or error
            continue
        return [np.asarray(item).astype(np.int64) - 1 for item in results]
    assert problem is not None
    raise problem


HANDLERS: dict[str, Handler] = dict.fromkeys(_DATA, _rearranged)
