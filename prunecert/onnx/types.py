"""The floating-point types that a file computes in: the coarsest of them decides how far roundings move its values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx
from onnx import TensorProto

#: Unit roundoff of float32, which every file is taken to compute in at least.
FLOAT32_UNIT = 2.0**-24
#: Those of coarser types.
UNITS: Mapping[int, float] = {TensorProto.FLOAT16: 2.0**-11, TensorProto.BFLOAT16: 2.0**-8}
#: Operators whose results are whole numbers, whatever they are asked about.
_WHOLE = frozenset({"ArgMax", "ArgMin", "NonZero", "Shape", "Size"})
#: Which input has the type of the results, where that isn't the first.
_TYPED: Mapping[str, int] = {"CastLike": 1, "DequantizeLinear": 1, "OneHot": 2, "Where": 1}


def unit_of(model: onnx.ModelProto) -> float:
    """Returns the unit roundoff of the coarsest type in which a file computes what depends on its input.

    Weights that are stored in 16 bits and cast to float32 before they are used don't count: they are what they are.

    >>> text = '''<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y)
    ... { h = Cast <to = 10> (x) y = Cast <to = 1> (h) }'''
    >>> unit_of(onnx.parser.parse_model(text)) == 2.0**-11
    True

    Args:
        model: The file, local functions written out.
    """
    _, coarse = _of_graph(model.graph)
    return max((UNITS[kind] for kind in coarse), default=FLOAT32_UNIT)


def casts_told(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with each CastLike as the Cast that it is, where the type of its second input can be told.

    Args:
        model: The file, local functions written out; it is not changed.
    """
    if not any(node.op_type == "CastLike" for node in all_nodes(model.graph.node)):
        return model
    types, _ = _of_graph(model.graph)
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    for node in all_nodes(plain.graph.node):
        if node.op_type == "CastLike" and len(node.input) == 2 and types.get(node.input[1]):
            cast = onnx.helper.make_node(
                "Cast", [node.input[0]], list(node.output), name=node.name, to=types[node.input[1]]
            )
            node.CopyFrom(cast)
    return plain


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    """Yields nodes, and those of the graphs that they hold."""
    for node in nodes:
        yield node
        for graph in _graphs(node):
            yield from all_nodes(graph.node)


def _graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [graph for item in node.attribute for graph in ([item.g] if item.HasField("g") else item.graphs)]


def _of_graph(graph: onnx.GraphProto) -> tuple[dict[str, int], set[int]]:
    """Returns types by name, 0 where they can't be told, and which coarse ones what moves with the input has."""
    types: dict[str, int] = {}
    constants = {item.name for item in graph.initializer}
    # A point of the input is exact, in whatever type.
    moving = {item.name for item in graph.input} - constants
    coarse: set[int] = set()

    def note(name: str, kind: int) -> None:
        # A name that stands for several values, in branches, has a type if they all have it.
        types[name] = kind if types.get(name, kind) == kind else 0

    def walk(part: onnx.GraphProto) -> None:
        for tensor in part.initializer:
            note(tensor.name, tensor.data_type)
        for sparse in part.sparse_initializer:
            note(sparse.values.name, sparse.values.data_type)
        for node in part.node:
            inner = _graphs(node)
            for held in inner:
                walk(held)
            ends = [value.name for held in inner for value in held.output]
            moves = any(name in moving for name in (*node.input, *ends))
            for number, name in enumerate(node.output):
                kinds = {types.get(held.output[number].name, 0) for held in inner if number < len(held.output)}
                kind = (kinds.pop() if len(kinds) == 1 else 0) if inner else _result(node, types)
                note(name, kind)
                if moves:
                    moving.add(name)
                    coarse.update({kind} & UNITS.keys())

    for item in graph.input:
        note(item.name, item.type.tensor_type.elem_type)
    walk(graph)
    return types, coarse


def _result(node: onnx.NodeProto, types: Mapping[str, int]) -> int:
    """Returns the type of a node's results; 0 where it can't be told."""
    for item in node.attribute:
        if (node.op_type, item.name) == ("Cast", "to"):
            return int(item.i)
        if item.name == "value" and node.op_type in ("Constant", "ConstantOfShape"):
            return int(item.t.data_type)
        if node.op_type == "Constant" and item.name.startswith("value_"):
            return int(TensorProto.FLOAT if "float" in item.name else TensorProto.INT64)
    if node.op_type in _WHOLE:
        return int(TensorProto.INT64)
    typed = node.input[_TYPED.get(node.op_type, 0) :][:1]
    return types.get(typed[0], 0) if typed else int(TensorProto.FLOAT)
