"""Two networks on one input as one ONNX file: the outputs of the first, then those of the second.

So every verifier can be asked about a pair: a difference of outputs is a row of the property, with the coefficients 1
and -1, and is taken exactly where a counterexample is judged. Nothing is evaluated here, and no number changes: the
outputs are put side by side by matrices of zeros and ones, which float32 multiplies and adds without rounding.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from prunecert.compaction import METADATA_KEY
from prunecert.errors import UserError
from prunecert.onnx.io import identity, load_model, reason_of
from prunecert.onnx.normal import DEFAULT_DOMAINS

#: Key in ``metadata_props``: JSON of both networks' identities, by which a merged file is known to people.
PAIR_KEY = "prunecert.pair"
_PREFIXES = ("first/", "second/")
_INPUT, _OUTPUT = "input", "output"


def merge(first: Path, second: Path) -> onnx.ModelProto:
    """Joins two networks.

    Args:
        first: A network with one input and one output of shape [1, n] (or with a free batch axis).
        second: Another, with the same input and as many outputs.

    Returns:
        A network with the output [1, 2 n]; in normal form if both are.

    Raises:
        UserError: A file is no network, or the two can't be joined.
    """
    models = [load_model(path) for path in (first, second)]
    shapes, sizes = zip(*(_ends(model, path) for model, path in zip(models, (first, second), strict=True)), strict=True)
    odd = [f"take inputs of the shapes {_shown(shapes[0])} and {_shown(shapes[1])}"] if shapes[0] != shapes[1] else []
    odd += [f"have {sizes[0]} and {sizes[1]} outputs"] if sizes[0] != sizes[1] else []
    if odd:
        raise UserError(
            f"{first} and {second} can't be compared because they {' and '.join(odd)}; allowed are two networks with "
            "the same."
        )
    opsets = [_opset(model, path) for model, path in zip(models, (first, second), strict=True)]
    if opsets[0] != opsets[1]:
        raise UserError(
            f"{first} and {second} can't be compared because they are written in the opsets {opsets[0]} and "
            f"{opsets[1]}; export both in one."
        )
    nodes: list[onnx.NodeProto] = []
    constants: list[TensorProto] = []
    for place, (model, prefix) in enumerate(zip(models, _PREFIXES, strict=True)):
        own = {item.name for item in model.graph.initializer}
        entry = next(value.name for value in model.graph.input if value.name not in own)
        graph = onnx.compose.add_prefix_graph(model.graph, prefix)
        # The prefixed name of its input, which both share.
        for node in graph.node:
            node.input[:] = [_INPUT if name == prefix + entry else name for name in node.input]
        nodes += graph.node
        constants += graph.initializer
        weight = np.zeros((2 * sizes[0], sizes[0]), dtype=np.float32)
        weight[place * sizes[0] + np.arange(sizes[0]), np.arange(sizes[0])] = 1.0
        # No name of the networks begins so, whatever they call their own.
        names = [f"{word} {prefix}" for word in ("place", "zeros", "placed", "placing")]
        constants += [
            numpy_helper.from_array(weight, names[0]),
            numpy_helper.from_array(np.zeros(2 * sizes[0], dtype=np.float32), names[1]),
        ]
        nodes.append(helper.make_node("Gemm", [graph.output[0].name, *names[:2]], [names[2]], name=names[3], transB=1))
    nodes.append(helper.make_node("Add", [f"placed {prefix}" for prefix in _PREFIXES], [_OUTPUT], name="both"))
    merged = helper.make_model(
        helper.make_graph(
            nodes,
            "pair",
            [helper.make_tensor_value_info(_INPUT, TensorProto.FLOAT, [size or "batch" for size in shapes[0]])],
            [helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, [shapes[0][0] or "batch", 2 * sizes[0]])],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", opsets[0])],
        ir_version=min(model.ir_version for model in models),
        producer_name="prunecert",
    )
    identities = {"first": identity(first), "second": identity(second)}
    merged.metadata_props.add(key=PAIR_KEY, value=json.dumps(identities, sort_keys=True))
    try:
        onnx.checker.check_model(merged)
    except onnx.checker.ValidationError as error:
        raise UserError(f"{first} and {second} can't be written as one network ({reason_of(error)}).") from error
    return merged


def taken_apart(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto] | None:
    """Returns the two networks that `merge` joined, with its names; None for any other file."""
    if all(item.key != PAIR_KEY for item in model.metadata_props):
        return None
    entry, shape = model.graph.input[0], model.graph.output[0].type.tensor_type.shape.dim
    halves = []
    for prefix in _PREFIXES:
        (end,) = [node.input[0] for node in model.graph.node if node.name == f"placing {prefix}"] or [""]
        nodes = [node for node in model.graph.node if node.output and node.output[0].startswith(prefix)]
        constants = [item for item in model.graph.initializer if item.name.startswith(prefix)]
        if not end or not nodes:
            return None
        size = shape[1].dim_value // 2
        output = helper.make_tensor_value_info(end, TensorProto.FLOAT, [shape[0].dim_value or "batch", size])
        half = helper.make_model(
            helper.make_graph(nodes, "half", [entry], [output], constants),
            opset_imports=model.opset_import,
            ir_version=model.ir_version,
            producer_name="prunecert",
        )
        try:
            onnx.checker.check_model(half)
        except onnx.checker.ValidationError:
            # Somebody has changed it.
            return None
        halves.append(half)
    return halves[0], halves[1]


def isomorphic(first: Path, second: Path) -> bool:
    """Whether two networks have the same layers: operators with their attributes, shapes of constants, and wires.

    That is what VNN-LIB 2.0 calls `isomorphic-to`: their weights may differ, and names.
    """
    return _layers(load_model(first)) == _layers(load_model(second))


def _layers(model: onnx.ModelProto) -> list[tuple[object, ...]]:
    """Returns what there is of each node but weights and names."""
    origins: dict[str, object] = {item.name: _constant(item) for item in model.graph.initializer}
    layers: list[tuple[object, ...]] = []
    for number, node in enumerate(model.graph.node):
        attributes = [
            _constant(item.t) if item.HasField("t") else item.SerializeToString(deterministic=True)
            for item in sorted(node.attribute, key=lambda item: str(item.name))
        ]
        sources = tuple(origins.get(name, ("input", name == "")) for name in node.input)
        layers.append((node.op_type, tuple(attributes), sources))
        origins.update({name: ("node", number, place) for place, name in enumerate(node.output)})
    return layers


def _constant(tensor: onnx.TensorProto) -> object:
    """Returns what makes a layer of a constant: its type and shape, and numbers of places, which are no weights."""
    places = numpy_helper.to_array(tensor).tobytes() if tensor.data_type == TensorProto.INT64 else b""
    return "constant", tensor.data_type, tuple(tensor.dims), places


def _ends(model: onnx.ModelProto, path: Path) -> tuple[tuple[int, ...], int]:
    """Returns the shape of the one input, 0 where it is free, and the number of outputs."""
    constants = {item.name for item in model.graph.initializer}
    entries = [value for value in model.graph.input if value.name not in constants]
    if len(entries) != 1 or len(model.graph.output) != 1:
        raise UserError(
            f"{path} has {len(entries)} inputs and {len(model.graph.output)} outputs; two networks are compared that "
            "have one of each."
        )
    kinds = [value.type.tensor_type.elem_type for value in (entries[0], model.graph.output[0])]
    if kinds != [TensorProto.FLOAT, TensorProto.FLOAT]:
        names = [TensorProto.DataType.Name(kind).lower() for kind in kinds]
        raise UserError(
            f"{path} takes {names[0]} and returns {names[1]}; two networks are compared that take and return float "
            "(float32)."
        )
    shape = tuple(dim.dim_value for dim in entries[0].type.tensor_type.shape.dim)
    output = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    if len(shape) < 2 or shape[0] > 1 or 0 in shape[1:] or len(output) != 2 or output[0] > 1 or not output[1]:
        raise UserError(
            f"{path} takes the shape {_shown(shape)} and returns {_shown(output)}; two networks are compared that take "
            "a batch of 1, or a free one, and return [1, n]."
        )
    if any(item.key == METADATA_KEY for item in model.metadata_props):
        raise UserError(
            f"{path} is a compacted network; compare the network that it was made from (bench.export --no-compact)."
        )
    return shape, output[1]


def _opset(model: onnx.ModelProto, path: Path) -> int:
    versions = [item.version for item in model.opset_import if item.domain in DEFAULT_DOMAINS]
    if len(versions) != 1 or len(model.opset_import) != 1 or model.functions:
        raise UserError(f"{path} uses functions or operators beyond ONNX's own; two networks are compared that don't.")
    return int(versions[0])


def _shown(shape: tuple[int, ...] | list[int]) -> str:
    return f"[{', '.join(str(size) if size else '?' for size in shape)}]"
