"""ONNX files, read from protobuf's wire format. What is not known is refused, so that nothing is passed over."""

import math
import struct
from typing import Any

import numpy as np

from .files import need

#: For each message its fields: number, name and kind; names in capitals may repeat. Fields without a name say nothing
#: about what the network computes: documentation, names, shapes of inner values.
_TABLE = """
model: 7 graph graph, 8 OPSETS opset, 1, 2, 3, 4, 5, 6, 14
opset: 1 domain text, 2 version int
graph: 1 NODES node, 5 TENSORS tensor, 11 INPUTS value, 12 output value, 2, 10, 13, 16
node: 1 INPUTS text, 2 output text, 4 kind text, 5 ATTRIBUTES attribute, 7 domain text, 3, 6, 9
attribute: 1 name text, 2 float float, 3 int int, 4 text text, 5 tensor tensor, 8 INTS ints, 20 type int, 13
tensor: 1 SHAPE ints, 2 type int, 4 FLOATS floats, 7 INTS ints, 8 name text, 9 raw bytes, 14 location int, 12
value: 1 name text, 2 type type, 3, 4
type: 1 array array, 6
array: 1 type int, 2 shape shape
shape: 1 SIZES size
size: 1 value int, 2, 3
"""
_FIELDS: dict[str, dict[int, list[str]]] = {
    name: {int(number): rest for number, *rest in (field.split() for field in fields.split(","))}
    for name, fields in (line.split(":") for line in _TABLE.strip().splitlines())
}
#: Wire types of numbers, alone or packed. All else is a piece of the file, which is type 2.
_WIRES = {"int": (0,), "ints": (0, 2), "float": (5,), "floats": (5, 2)}


def _varint(data: Any, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return (value & 2**63 - 1) - (value & 2**63), at
        need(shift < 70, "the ONNX file holds a number that is too long")


def _packed(data: Any) -> list[int]:
    values, at = list[int](), 0
    while at < len(data):
        value, at = _varint(data, at)
        values.append(value)
    return values


def _decode(data: Any, message: str) -> dict[str, Any]:
    """Returns a message's fields by name: lists of those that may repeat, else a value, or None.

    Nesting is bounded, because no message of the table holds its own kind.
    """
    fields, at = _FIELDS[message], 0
    values = {name: list[Any]() for name, _ in filter(None, fields.values())}
    while at < len(data):
        key, at = _varint(data, at)
        field, wire = divmod(key, 8)
        need(field in fields, f"the ONNX file has a field {field} in a {message}, which isn't taken")
        value: Any
        value, at = (8, at) if wire == 1 else (4, at) if wire == 5 else _varint(data, at)
        if wire:
            need(wire in (1, 2, 5) and 0 <= value <= len(data) - at, "the ONNX file is cut off or damaged")
            value, at = data[at : at + value], at + value
        if fields[field]:
            name, kind = fields[field]
            need(wire in _WIRES.get(kind, (2,)), f"the ONNX file's field {name} is of another type")
            more = _decode(value, kind) if kind in _FIELDS else bytes(value).decode() if kind == "text" else value
            values[name] += _packed(value) if kind == "ints" and wire else [more]
    for name, items in values.items():
        need(name.isupper() or len(items) < 2, f"the ONNX file has two fields {name} in a {message}")
    return {name: items if name.isupper() else next(iter(items), None) for name, items in values.items()}


def _tensor(tensor: dict[str, Any]) -> Any:
    need(tensor["type"] in (1, 7) and not tensor["location"], "the ONNX file has a tensor that isn't taken")
    shape, raw, floats, ints = (tensor[name] for name in ("SHAPE", "raw", "FLOATS", "INTS"))
    twice = (raw is not None) + bool(floats) + bool(ints) > 1 or (ints if tensor["type"] == 1 else floats)
    need(not twice, "the ONNX file has a tensor's values twice")
    pieces = [raw or b"", *floats, np.array(ints, "<i8").tobytes()]
    values = np.frombuffer(b"".join(pieces), "<f4" if tensor["type"] == 1 else "<i8")
    need(min(shape, default=0) >= 0 and math.prod(shape) == values.size, "the ONNX file has a tensor of another size")
    need(np.isfinite(values).all(), "the ONNX file has numbers that are not finite")
    return values.reshape(shape)


def _attribute(attribute: dict[str, Any]) -> Any:
    name = {1: "float", 2: "int", 3: "text", 4: "tensor", 7: "INTS"}.get(attribute["type"], "")
    need(name, f"the ONNX file has an attribute of type {attribute['type']}, which isn't taken")
    value = attribute[name]
    # An integer that is 0 may be left out.
    return _tensor(value) if name == "tensor" else struct.unpack("<f", value)[0] if name == "float" else value or 0


def parse(content: bytes) -> tuple[list[Any], dict[str, Any], str, list[int], str]:
    """Returns operations (kind, inputs, output, attributes), constants, the input, its shape (0: free), the output."""
    model = _decode(memoryview(content), "model")
    graph, operations = model["graph"], []
    versions = [item["version"] for item in model["OPSETS"] if _plain(item)]
    need(versions and {*versions} <= {*range(7, 22)}, "the ONNX file's operator set isn't one of 7 to 21")
    constants = {item["name"]: _tensor(item) for item in graph["TENSORS"]}
    entries = [item for item in graph["INPUTS"] if item["name"] not in constants]
    several = len(entries) != 1 or len(constants) < len(graph["TENSORS"])
    need(not several, "the ONNX file has several inputs, or a name twice")
    array = entries[0]["type"]["array"]
    need(array["type"] == 1, "the ONNX file's input isn't float32")
    for node in graph["NODES"]:
        attributes = {item["name"]: _attribute(item) for item in node["ATTRIBUTES"]}
        plain = _plain(node) and len(attributes) == len(node["ATTRIBUTES"])
        need(plain, f"the ONNX file has a {node['kind']} of another domain, or one with an attribute twice")
        operations.append((node["kind"], node["INPUTS"], node["output"], attributes))
    shape = [item["value"] or 0 for item in array["shape"]["SIZES"]]
    return operations, constants, entries[0]["name"], shape, graph["output"]["name"]


def _plain(item: dict[str, Any]) -> bool:
    return item["domain"] in (None, "", "ai.onnx")
