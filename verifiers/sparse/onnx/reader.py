"""From a network in normal form (`prunecert.onnx`) to sparse affine nodes: one node of it after the other.

What another file holds is rewritten into the normal form first, as a worker does for every verifier. So there is one
reading of ONNX, and what is left to do here is arithmetic: layers as matrices, sums as terms, exact account of what is
multiplied into one another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from prunecert.onnx.nodes import Node
from prunecert.verifiers.base import UnsupportedError
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array
from prunecert.verifiers.sparse.network import WEIGHT_ERROR, Network, Term
from prunecert.verifiers.sparse.onnx import layers
from prunecert.verifiers.sparse.onnx.folding import Draft, finish, fold

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class _Value:
    """A computed tensor: a draft's value or its ReLU, in some shape."""

    draft: int
    activated: bool
    shape: tuple[int, ...]


def read_network(path: Path) -> Network:
    """Reads an ONNX file.

    Raises:
        UserError: It is no ONNX network.
        UnsupportedError: It has no normal form, or one that is about other inputs or outputs; the reason is named.
    """
    from prunecert.onnx.io import load_model

    return read_model(load_model(path), path.name)


def read_model(model: onnx.ModelProto, name: str) -> Network:
    """Reads a network that is loaded.

    Args:
        model: What `prunecert.onnx.io.load_model` returned.
        name: What to call it.

    Raises:
        UserError: It is damaged.
        UnsupportedError: See `read_network`.
    """
    from prunecert.onnx.normal import UnsupportedNetworkError, normal_nodes
    from prunecert.onnx.normalise import normalise
    from prunecert.onnx.rounding import noted
    from prunecert.verifiers.formats.support import is_rewritten

    nodes = normal_nodes(model)
    if nodes is not None:
        # Where nobody has said which numbers stand for others, all of them do.
        return build(name, nodes, rewritten=is_rewritten(model) and noted(model) is None)
    try:
        normal = normalise(model, name=name)
    except UnsupportedNetworkError as error:
        raise UnsupportedError(str(error)) from error
    if normal.input_order is not None or normal.last != "none":
        what = "its inputs in another order" if normal.input_order is not None else f"no {normal.removed} at its end"
        raise UnsupportedError(
            f"{name}: its normal form has {what}, so that a question must be rewritten with it; ask a verifier's "
            "worker, or give the normal form."
        )
    nodes = normal_nodes(normal.model)
    assert nodes is not None
    return build(name, nodes)


def build(name: str, nodes: Sequence[Node], *, rewritten: bool = False) -> Network:
    """Returns the network that computes what nodes of a normal form do.

    Args:
        name: Of the network.
        nodes: What `prunecert.onnx.normal.normal_nodes` returned.
        rewritten: Whether all their numbers stand for others, each rounded once, and not only those that say so.
    """
    network, curves = build_curved(name, nodes, rewritten=rewritten)
    smooth = next((curve for curve in curves if curve not in ("", "Relu")), None)
    if smooth is not None:
        raise UnsupportedError(f"{name}: it has a {smooth} where this part of the sparse engine takes ReLUs alone.")
    return network


def build_curved(name: str, nodes: Sequence[Node], *, rewritten: bool = False) -> tuple[Network, tuple[str, ...]]:
    """Returns the network that computes what nodes of a normal form do, which may hold Sigmoid and Tanh.

    Args:
        name: Of the network.
        nodes: What `prunecert.onnx.normal.normal_nodes` returned.
        rewritten: As for `build`.

    Returns:
        The network, and for each of its nodes what a term that is `activated` takes of it in place of its ReLU:
        ``Relu``, ``Sigmoid``, ``Tanh``, or nothing where there is no such term.
    """
    builder = _Builder(nodes[0], rewritten)
    for node in nodes[1:]:
        builder.add(node)
    return builder.network(name)


class _Builder:
    """Drafts of affine nodes, one operator after the other."""

    def __init__(self, entry: Node, rewritten: bool) -> None:
        shape = entry.shape[1:]
        zeros = np.zeros(math.prod(shape))
        self._rewritten = rewritten
        self._drafts = [Draft(entry.name, shape, (), zeros, zeros)]
        self._values = [_Value(0, False, shape)]

    def add(self, node: Node) -> None:
        """Takes the next node."""
        first = self._values[node.inputs[0]]
        shape = node.shape[1:]
        match node.operator:
            case "Relu" | "Sigmoid" | "Tanh":
                value = self._activate(node, first)
            case "Reshape":
                value = replace(first, shape=shape)
            case "Add":
                unit = layers.diagonal(_ones(first))
                terms = [(self._values[number], unit, True) for number in node.inputs]
                value = self._append(node.name, shape, terms)
            case "AveragePool":
                value = self._average(node, first)
            case "Gemm" | "Conv":
                value = self._layer(node, first)
            case _:
                raise UnsupportedError(
                    f"The node {node.name!r} ({node.operator}) is none that the sparse engine takes."
                )
        self._values.append(value)

    def network(self, name: str) -> tuple[Network, tuple[str, ...]]:
        """Returns the network, whose output is the last value, with nodes folded into one another, and their curves."""
        output = self._values[-1]
        if output.activated or output.draft == 0:
            output = self._append("output", output.shape, [(output, layers.diagonal(_ones(output)), True)])
        drafts = fold(self._drafts, output.draft)
        return Network(name, drafts[0].shape, finish(drafts)), tuple(draft.curve for draft in drafts)

    def _activate(self, node: Node, first: _Value) -> _Value:
        """Takes a ReLU, Sigmoid or Tanh of a value, by a node of its own where another one is taken of it already."""
        curve = self._drafts[first.draft].curve
        if first.activated and curve == node.operator == "Relu":
            return first
        apart = first.activated or curve not in ("", node.operator) or (first.draft == 0 and node.operator != "Relu")
        if apart:
            first = self._append(node.name, first.shape, [(first, layers.diagonal(_ones(first)), True)])
        self._drafts[first.draft] = replace(self._drafts[first.draft], curve=node.operator)
        return replace(first, activated=True)

    def _append(
        self,
        name: str,
        shape: tuple[int, ...],
        terms: Sequence[tuple[_Value, scipy.sparse.csr_array, bool]],
        bias: Float64Array | None = None,
        error: Float64Array | None = None,
    ) -> _Value:
        zeros = np.zeros(math.prod(shape))
        summands = tuple(Term(value.draft, value.activated, matrix, exact) for value, matrix, exact in terms)
        self._drafts.append(
            Draft(name, shape, summands, zeros if bias is None else bias, zeros if error is None else error)
        )
        return _Value(len(self._drafts) - 1, False, shape)

    def _layer(self, node: Node, value: _Value) -> _Value:
        weight, short = node.layer()
        bias = np.repeat(short.astype(np.float64), math.prod(node.shape[2:]))
        if node.operator == "Gemm":
            matrix = layers.dense(weight)
        else:
            channels, height, width = value.shape
            geometry = (node.strides, (*node.pads, *node.pads), (1, 1), node.groups)
            matrix, _ = layers.convolution(weight, (channels, height, width), *geometry)
        error = np.abs(bias) * WEIGHT_ERROR if self._rewritten else np.zeros(len(bias))
        if node.bias_error is not None:
            error = error + np.repeat(node.bias_error, math.prod(node.shape[2:]))
        exact = node.loose == 0 and not self._rewritten
        return self._append(node.name, node.shape[1:], [(value, matrix, exact)], bias, error)

    def _average(self, node: Node, value: _Value) -> _Value:
        channels, height, width = value.shape
        matrix, shape = layers.average((channels, height, width), node.kernel, node.strides, (0, 0, 0, 0), False)
        # 1 / n is a float32 only for powers of two.
        exact = bool(np.all(np.frexp(matrix.data)[0] == 0.5))
        return self._append(node.name, shape, [(value, matrix, exact)])


def _ones(value: _Value) -> Float32Array:
    return np.ones(math.prod(value.shape), dtype=np.float32)
