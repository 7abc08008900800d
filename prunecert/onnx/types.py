"""The floating-point types that a file computes in: the coarsest of them decides how far roundings move its values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import onnx
import onnx.shape_inference
from onnx import TensorProto

#: Unit roundoff of float32, which every file is taken to compute in at least.
FLOAT32_UNIT = 2.0**-24
#: Those of coarser types.
UNITS: Mapping[int, float] = {TensorProto.FLOAT16: 2.0**-11, TensorProto.BFLOAT16: 2.0**-8}
#: Attributes that name a type.
_TYPES = frozenset({"to", "dtype", "output_dtype"})


def unit_of(model: onnx.ModelProto) -> float:
    """Returns the unit roundoff of the coarsest type in which a file computes what depends on its input.

    Weights that are stored in 16 bits and cast to float32 before they are used don't count: they are what they are.
    What has a type that can't be told counts as of the coarsest one that the file mentions.

    >>> text = '''<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y)
    ... { h = Cast <to = 10> (x) y = Cast <to = 1> (h) }'''
    >>> unit_of(onnx.parser.parse_model(text)) == 2.0**-11
    True

    Args:
        model: The file, local functions written out.
    """
    mentioned = UNITS.keys() & set(_mentioned(model.graph))
    if not mentioned:
        return FLOAT32_UNIT
    types = _inferred(model)
    units = [FLOAT32_UNIT]
    # A point of the input itself is exact, in whatever type.
    for name in moving_names(model.graph) - _entries(model.graph):
        kinds = types.get(name) or mentioned
        units += [UNITS[kind] for kind in kinds if kind in UNITS]
    return max(units)


def casts_told(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with each CastLike as the Cast that it is, where the type of its second input can be told.

    Args:
        model: The file, local functions written out; it is not changed.
    """
    if not any(node.op_type == "CastLike" for node in all_nodes(model.graph.node)):
        return model
    types = _inferred(model)
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    for node in all_nodes(plain.graph.node):
        if node.op_type == "CastLike" and len(node.input) == 2 and len(kinds := types.get(node.input[1], set())) == 1:
            cast = onnx.helper.make_node("Cast", [node.input[0]], list(node.output), name=node.name, to=kinds.pop())
            node.CopyFrom(cast)
    return plain


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yields nodes, and those of the graphs that they hold."""
    for node in nodes:
        yield node
        for graph in graphs_of(node):
            yield from all_nodes(graph.node)


def graphs_of(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Returns the graphs that a node holds."""
    return [graph for item in node.attribute for graph in ([item.g] if item.HasField("g") else item.graphs)]


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for held in graphs_of(node):
            yield from _graphs(held)


def _mentioned(whole: onnx.GraphProto) -> Iterator[int]:
    """Yields every type of elements that a graph names anywhere."""
    for graph in _graphs(whole):
        yield from (item.type.tensor_type.elem_type for item in (*graph.input, *graph.output, *graph.value_info))
        yield from (item.data_type for item in graph.initializer)
        yield from (item.values.data_type for item in graph.sparse_initializer)
        for item in (item for node in graph.node for item in node.attribute):
            if item.name in _TYPES:
                yield int(item.i)
            yield from (tensor.data_type for tensor in (item.t, *item.tensors))
            yield from (sparse.values.data_type for sparse in (item.sparse_tensor, *item.sparse_tensors))
            yield from (kind.tensor_type.elem_type for kind in (item.tp, *item.type_protos))


def _inferred(model: onnx.ModelProto) -> dict[str, set[int]]:
    """Returns the types that ONNX's own inference finds, by name; several where a name stands for several values."""
    types: defaultdict[str, set[int]] = defaultdict(set)
    try:
        whole = onnx.shape_inference.infer_shapes(model)
    except Exception:
        # Whatever a file can hold: nothing is told of it then.
        return {}
    for graph in _graphs(whole.graph):
        for item in (*graph.input, *graph.output, *graph.value_info):
            if kind := item.type.tensor_type.elem_type:
                types[item.name].add(kind)
        for tensor in graph.initializer:
            types[tensor.name].add(tensor.data_type)
        for sparse in graph.sparse_initializer:
            types[sparse.values.name].add(sparse.values.data_type)
    return dict(types)


def moving_names(whole: onnx.GraphProto) -> set[str]:
    """Returns the names of the input and of all that is computed from it, in branches too.

    Args:
        whole: The graph, local functions written out.
    """
    moving = _entries(whole)

    def walk(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            held = graphs_of(node)
            for inner in held:
                walk(inner)
            ends = [value.name for inner in held for value in inner.output]
            if any(name in moving for name in (*node.input, *ends)):
                moving.update(name for name in node.output if name)

    walk(whole)
    return moving


def _entries(graph: onnx.GraphProto) -> set[str]:
    return {item.name for item in graph.input} - {item.name for item in graph.initializer}
