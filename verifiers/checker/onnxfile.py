"""ONNX files, read from protobuf's wire format. What is not known is refused, so that nothing is passed over."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from .files import need

#: For each message its fields: number, name and type; names in capitals may repeat. Fields without a name say nothing
#: about what the network computes: documentation, names, shapes of inner values.
_TABLE = """
model: 7 graph graph, 8 OPSETS opset, 1, 2, 3, 4, 5, 6, 14
opset: 1 domain text, 2 version int
graph: 1 NODES node, 5 TENSORS tensor, 11 INPUTS value, 12 output value, 2, 10, 13, 16
node: 1 INPUTS text, 2 output text, 4 kind text, 5 ATTRIBUTES attribute, 7 domain text, 3, 6, 9
attribute: 1 name text, 2 float bytes, 3 int int, 4 text text, 5 tensor tensor, 8 ints ints, 20 type int, 13
tensor: 1 shape ints, 2 type int, 4 float bytes, 7 ints ints, 8 name text, 9 raw bytes, 14 location int, 12
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


def _varint(data: Any, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return (value & 2**63 - 1) - (value & 2**63), at
        need(shift < 70, "the ONNX file holds a number that is too long")


def _decode(data: Any, message: str) -> dict[str, Any]:
    """Returns a message's fields by name; nesting is bounded, because no message of the table holds its own kind."""
    values, at = dict[str, Any](), 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire = key >> 3, key & 7
        value: Any
        value, at = (8, at) if wire == 1 else (4, at) if wire == 5 else _varint(data, at)
        if wire:
            need(wire in (1, 2, 5) and 0 <= value <= len(data) - at, "the ONNX file is cut off or damaged")
            value, at = data[at : at + value], at + value
        need(field in _FIELDS[message], f"the ONNX file has a field {field} in a {message}, which isn't taken")
        if not _FIELDS[message][field]:
            continue
        name, kind = _FIELDS[message][field]
        need(kind == "ints" or (kind == "int") == (wire == 0), f"the ONNX file's field {name} is of another type")
        if kind == "ints":
            items, end = values.setdefault(name, []), 0
            while end < (len(value) if wire else 1):
                number, end = _varint(value, end) if wire else (value, 1)
                items.append(number)
        elif kind == "bytes":
            values[name] = values.get(name, b"") + bytes(value)
        elif name.isupper():
            values.setdefault(name, []).append(_text(value) if kind == "text" else _decode(value, kind))
        else:
            need(name not in values, f"the ONNX file has two fields {name} in a {message}")
            values[name] = value if kind == "int" else _text(value) if kind == "text" else _decode(value, kind)
    return values


def _text(value: Any) -> str:
    return bytes(value).decode()


def _tensor(tensor: dict[str, Any]) -> Any:
    need(tensor["type"] in (1, 7) and not tensor.get("location"), "the ONNX file has a tensor that isn't taken")
    shape, (dtype, key) = tensor.get("shape", []), ("<f4", "float") if tensor["type"] == 1 else ("<i8", "ints")
    content = [tensor[name] for name in ("raw", "float", "ints") if name in tensor]
    need(len(content) < 2 and tensor.keys() & {"float", "ints"} <= {key}, "the ONNX file has a tensor's values twice")
    listed = np.array(content[0], dtype) if "ints" in tensor else np.frombuffer(b"".join(content), dtype)
    need(min(shape, default=0) >= 0 and math.prod(shape) == listed.size, "the ONNX file has a tensor of another size")
    need(np.isfinite(listed).all(), "the ONNX file has numbers that are not finite")
    return listed.reshape(shape)


def _attribute(attribute: dict[str, Any]) -> Any:
    kind = {1: "float", 2: "int", 3: "text", 4: "tensor", 7: "ints"}.get(attribute["type"], "")
    need(kind, f"the ONNX file has an attribute of type {attribute['type']}, which isn't taken")
    value = attribute.get(kind, {"int": 0, "ints": []}.get(kind))
    return _tensor(value) if kind == "tensor" else struct.unpack("<f", value)[0] if kind == "float" else value


def parse(content: bytes) -> tuple[list[Any], dict[str, Any], str, list[int], str]:
    """Returns operations (kind, inputs, output, attributes), constants, the input, its shape (0: free), the output."""
    model = _decode(memoryview(content), "model")
    for item in model.get("OPSETS", []):
        plain = item.get("domain", "") in ("", "ai.onnx")
        need(not plain or 7 <= item["version"] <= 21, "the ONNX file's operator set isn't one of 7 to 21")
    tensors = (graph := model["graph"]).get("TENSORS", [])
    constants = {item["name"]: _tensor(item) for item in tensors}
    entries = [item for item in graph.get("INPUTS", []) if item["name"] not in constants]
    need(len(entries) == 1 and len(constants) == len(tensors), "the ONNX file has several inputs, or a name twice")
    array, operations = entries[0]["type"]["array"], []
    need(array["type"] == 1, "the ONNX file's input isn't float32")
    for node in graph.get("NODES", []):
        attributes = [(item["name"], _attribute(item)) for item in node.get("ATTRIBUTES", [])]
        plain = node.get("domain", "") in ("", "ai.onnx") and len(dict(attributes)) == len(attributes)
        need(plain, f"the ONNX file has a {node['kind']} of another domain, or one with an attribute twice")
        operations.append((node["kind"], node.get("INPUTS", []), node["output"], dict(attributes)))
    shape = [item.get("value", 0) for item in array["shape"].get("SIZES", [])]
    return operations, constants, entries[0]["name"], shape, graph["output"]["name"]
