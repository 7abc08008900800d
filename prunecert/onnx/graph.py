"""A graph's parts, checked once: opset, constants, the input, and what an output depends on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx
import onnx.inliner
from onnx import TensorProto

from prunecert.errors import UserError
from prunecert.onnx.constants import stored_values
from prunecert.onnx.io import reason_of
from prunecert.onnx.normal import DEFAULT_DOMAINS, ELEMENTS, UnsupportedNetworkError
from prunecert.onnx.types import all_nodes, casts_told
from prunecert.onnx.values import Shape

#: Opsets that are read.
READ = range(7, 24)
_MOST_NODES = 20_000
_TYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.UINT8: "uint8",
}


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with its local functions written out, and CastLike as Cast where its type can be told."""
    if not model.functions:
        return casts_told(model)
    whole = _with_defaults(model)
    try:
        plain: onnx.ModelProto = onnx.inliner.inline_local_functions(whole)
    except Exception as error:
        raise UserError(f"Its local functions can't be inlined ({reason_of(error)}).") from error
    return casts_told(plain)


def _with_defaults(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with the default attributes of its functions at each call that leaves them out.

    ONNX's inliner forgets them, so that an operator within would have its own default.

    Raises:
        UnsupportedNetworkError: A function has a name of ONNX's own, which runtimes take for the operator; or a call
            within one hands on an attribute that may be left out, to a function that has a default for it.
    """
    functions = {(item.domain, item.name, _overload(item)): item for item in model.functions}
    for domain, name, _ in functions:
        if domain in DEFAULT_DOMAINS:
            raise UnsupportedNetworkError(
                f"Its local function {name!r:.80} is of ONNX's own domain; allowed is a domain of its own."
            )
    if not any(item.attribute_proto for item in model.functions):
        return model
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    for part in (whole.graph, *whole.functions):
        for node in all_nodes(part.node):
            called = functions.get((node.domain, node.op_type, _overload(node)))
            for attribute in called.attribute_proto if called is not None else ():
                own = next((item for item in node.attribute if item.name == attribute.name), None)
                if own is None:
                    node.attribute.append(attribute)
                elif own.ref_attr_name and own.ref_attr_name in getattr(part, "attribute", ()):
                    raise UnsupportedNetworkError(
                        f"Its local function {part.name!r:.80} hands {own.ref_attr_name!r:.80}, which has no "
                        f"default, on to {node.op_type!r:.80}, which has one; allowed is a default in both."
                    )
    return whole


def _overload(item: onnx.FunctionProto | onnx.NodeProto) -> str:
    # Files of older versions of ONNX have none.
    return str(getattr(item, "overload", ""))


class Graph:
    """A graph's parts, checked once.

    Args:
        model: The model, without functions.
        inputs: How many inputs it may have; None: any number, none of which is read.
    """

    def __init__(self, model: onnx.ModelProto, inputs: int | None = 1) -> None:
        self.proto = model.graph
        versions = {item.version for item in model.opset_import if item.domain in DEFAULT_DOMAINS}
        if len(versions) != 1:
            raise UserError(f"It names {len(versions)} opsets of ONNX's own operators; allowed is one.")
        self.opset = versions.pop()
        if self.opset not in READ:
            raise UnsupportedNetworkError(
                f"Its opset is {self.opset}; read are {READ.start} to {READ.stop - 1}: convert it with "
                "onnx.version_converter, or export it again."
            )
        if len(self.proto.node) > _MOST_NODES:
            raise UnsupportedNetworkError(f"It has {len(self.proto.node):,} nodes; allowed are {_MOST_NODES:,}.")
        if inputs is None:
            return
        self.constants = stored_values(self.proto)
        entries = [item for item in self.proto.input if item.name not in self.constants]
        if len(entries) != inputs:
            named = ", ".join(repr(item.name) for item in entries)
            raise UnsupportedNetworkError(f"It has {len(entries)} inputs ({named:.200}); allowed is one.")
        self.entry = entries[0]
        kind = self.entry.type.tensor_type
        if kind.elem_type not in _TYPES:
            word = TensorProto.DataType.Name(kind.elem_type) if kind.elem_type else "no tensor"
            raise UnsupportedNetworkError(f"Its input is {word}; allowed are {', '.join(_TYPES.values())}.")
        self.kind = _TYPES[kind.elem_type]
        if not kind.HasField("shape"):
            raise UnsupportedNetworkError("The shape of its input isn't known; export it with fixed sizes.")
        sizes = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in kind.shape.dim]
        # A free first axis is the batch's, and a batch is one input here.
        free = [i for i, size in enumerate(sizes) if size < 1 and (i > 0 or len(sizes) == 1)]
        if free or not sizes:
            raise UnsupportedNetworkError(
                f"Its input has the shape {sizes}, where axis {free[0] if free else 0} is free or empty; only the "
                "batch axis, the first, may be free: export it with fixed sizes."
            )
        self.shape: Shape = (max(1, sizes[0]), *sizes[1:])
        if math.prod(self.shape) > ELEMENTS:
            raise UnsupportedNetworkError(
                f"Its input has {math.prod(self.shape):,} elements; allowed are {ELEMENTS:,}."
            )

    def alive(self, output: str) -> tuple[set[int], dict[str, int]]:
        """Returns the nodes that an output depends on, and how often each value is read by them."""
        makers = {name: i for i, node in enumerate(self.proto.node) for name in node.output if name}
        nodes: set[int] = set()
        uses: dict[str, int] = {output: 1}
        waiting = [output]
        while waiting:
            number = makers.get(waiting.pop())
            if number is None or number in nodes:
                continue
            nodes.add(number)
            for name in _read_names(self.proto.node[number]):
                uses[name] = uses.get(name, 0) + 1
                waiting.append(name)
        return nodes, uses


def _read_names(node: onnx.NodeProto) -> Iterator[str]:
    yield from (name for name in node.input if name)
    for item in node.attribute:
        for graph in (*([item.g] if item.HasField("g") else []), *item.graphs):
            # Names of the outer graph, and of the inner one, which do no harm.
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from _read_names(inner)
