"""Chains of convolutions or linear layers with nothing between: factors of one weight, and that weight.

A network of low rank stores its layers as factors, which is what its weights are counted in (`prunecert.onnx.count`
counts what a file stores). Verifiers had better see the product: bounds by composition are as tight, those by intervals
are not, and depth costs time.

    x ── Conv 1x1 ──► Conv k x k ──► Conv 1x1 + bias ──► Relu          x ── Conv k x k + bias ──► Relu
          first          core             last              ══►
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from prunecert.onnx.count import count_layers, totals
from prunecert.onnx.io import load_model
from prunecert.onnx.normal import Array

#: Key of the mark that an export of factors bears in its ``metadata_props``.
METADATA_KEY = "factorised"


@dataclass(frozen=True)
class Chain:
    """Layers of which each but the last feeds the next one alone.

    Args:
        nodes: Their places among the graph's nodes.
        shape: Shape of the product, [out, in] or [out, in, height, width].
        weights: Weights of the factors.
    """

    nodes: tuple[int, ...]
    shape: tuple[int, ...]
    weights: int


def is_marked(model: onnx.ModelProto) -> bool:
    """Whether a network says of itself that its chains are factors."""
    return any(item.key == METADATA_KEY for item in model.metadata_props)


def chains(model: onnx.ModelProto) -> list[Chain]:
    """Returns the chains of a network, longest first from the input on.

    Factors have no bias but the last one's, one group, no padding or stride but the core's, and the core alone has a
    kernel of more than one tap.
    """
    graph = model.graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    outputs = {item.name for item in graph.output}
    makers = {node.output[0]: number for number, node in enumerate(graph.node) if len(node.output) == 1}
    feeds = {}
    for number, node in enumerate(graph.node):
        before = makers.get(node.input[0]) if node.input else None
        if before is None or graph.node[before].output[0] in outputs or readers[graph.node[before].output[0]] != 1:
            continue
        earlier = graph.node[before]
        alike = node.op_type == earlier.op_type and all(_is_layer(one, constants) for one in (earlier, node))
        if alike and (len(earlier.input) == 2 or not constants[earlier.input[2]].any()):
            feeds[before] = number
    parts = []
    for start in sorted(feeds.keys() - set(feeds.values())):
        members = [start]
        while members[-1] in feeds:
            members.append(feeds[members[-1]])
        weights = [constants[graph.node[number].input[1]] for number in members]
        if sum(_is_core(graph.node[number], constants) for number in members) <= 1:
            product = (weights[-1].shape[0], weights[0].shape[1])
            taps = next(
                (weight.shape[2:] for weight in weights if math.prod(weight.shape[2:]) > 1), weights[0].shape[2:]
            )
            parts.append(Chain(tuple(members), (*product, *taps), sum(weight.size for weight in weights)))
    return parts


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def _is_layer(node: onnx.NodeProto, constants: dict[str, Any]) -> bool:
    """Whether it is a plain layer with its weights stored."""
    if len(node.input) < 2 or any(name not in constants for name in node.input[1:]):
        return False
    attributes = _attributes(node)
    if node.op_type == "Gemm":
        plain = (attributes.get("alpha", 1.0), attributes.get("beta", 1.0)) == (1.0, 1.0)
        return plain and attributes.get("transB", 0) == 1 and attributes.get("transA", 0) == 0
    automatic = attributes.get("auto_pad", b"NOTSET") != b"NOTSET"
    return node.op_type == "Conv" and attributes.get("group", 1) == 1 and not automatic


def _is_core(node: onnx.NodeProto, constants: dict[str, Any]) -> bool:
    """Whether it does more than mix channels where they are."""
    attributes = _attributes(node)
    moved = any(attributes.get("pads", ())) or any(step != 1 for step in attributes.get("strides", ()))
    return math.prod(constants[node.input[1]].shape[2:]) > 1 or moved


def composed_weights(path: Path) -> int:
    """Returns how many weights a network would have with the products in the place of its factors.

    Two factors of five numbers each, for a weight of six:

    >>> text = '''<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 3] y)
    ... <float[1, 2] a = {1, 2}, float[3, 1] b = {1, 2, 3}>
    ... { h = Gemm <transB = 1> (x, a) y = Gemm <transB = 1> (h, b) }'''
    >>> onnx.save(onnx.parser.parse_model(text), "factors.onnx")
    >>> totals(count_layers(Path("factors.onnx"))), composed_weights(Path("factors.onnx"))
    ((5, 5), 6)

    Args:
        path: The ONNX file.

    Raises:
        UserError: See `count_layers`.
    """
    weights, _ = totals(count_layers(path))
    return weights + sum(math.prod(chain.shape) - chain.weights for chain in chains(load_model(path)))


def fuse(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Returns a network with each chain's product, rounded to float32 once, in its place; None if there is no chain.

    The last layer's name, bias and output stay; so do the names of all other tensors.
    """
    parts = chains(model)
    if not parts:
        return None
    fused = onnx.ModelProto()
    fused.CopyFrom(model)
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    gone: set[int] = set()
    for chain in parts:
        nodes = [model.graph.node[number] for number in chain.nodes]
        last = fused.graph.node[chain.nodes[-1]]
        name = f"{last.input[1]}_product"
        product = _product([constants[node.input[1]].astype(np.float64) for node in nodes]).astype(np.float32)
        fused.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(product), name))
        last.input[0], last.input[1] = nodes[0].input[0], name
        core = next((node for node in nodes if _is_core(node, constants)), nodes[-1])
        del last.attribute[:]
        last.attribute.extend(core.attribute)
        gone.update(chain.nodes[:-1])
    kept = [node for number, node in enumerate(fused.graph.node) if number not in gone]
    del fused.graph.node[:]
    fused.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    initializers = [item for item in fused.graph.initializer if item.name in used]
    del fused.graph.initializer[:]
    fused.graph.initializer.extend(initializers)
    del fused.graph.value_info[:]
    return fused


def _product(weights: Sequence[Array]) -> Array:
    """Returns the weight that layers make one after the other, of which at most one has more than one tap."""
    product = weights[0]
    for weight in weights[1:]:
        if weight.ndim == 2:
            product = weight @ product
        elif math.prod(weight.shape[2:]) == 1:
            product = np.einsum("or,rihw->oihw", weight[:, :, 0, 0], product)
        else:
            product = np.einsum("orhw,ri->oihw", weight, product[:, :, 0, 0])
    return product
