"""What the handlers of operators share: the graph being read, and values in and out."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import helper

from prunecert.onnx.constants import Evaluator, refuse
from prunecert.onnx.emit import Emitter
from prunecert.onnx.layers import Layers
from prunecert.onnx.normal import Array, IntArray
from prunecert.onnx.values import Term, Value, constant, scaled, total

#: A constant, a value that depends on the input, or nothing for an optional input that is left out.
Input: TypeAlias = "Array | Value | None"


@dataclass
class Reading:
    """A graph on its way to the normal form.

    Args:
        opset: Its opset.
        layers: The normal network so far.
        emitter: Writes values as nodes.
        evaluator: Evaluates nodes of constants.
        keep: Operators that are to stay where they can.
        notes: What was rewritten.
    """

    opset: int
    layers: Layers
    emitter: Emitter
    evaluator: Evaluator
    keep: Collection[str]
    notes: dict[str, None] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Remembers what was rewritten, once."""
        self.notes[text] = None

    def settle(self, value: Value) -> Value:
        """Returns the same value as one node, to be read as often as one likes."""
        if value.plain:
            return Value(value.shape, (Term(value.terms[0].source),))
        turned = self._unturned(value)
        if turned is not None:
            base, index = turned
            return Value(value.shape, (Term(self.emitter.node(base, base.shape), index),))
        return Value(value.shape, (Term(self.emitter.node(value)),))

    def _unturned(self, value: Value) -> tuple[Value, IntArray] | None:
        """Returns the value in the order of its nodes, and the order that it has; None where nodes are chosen from.

        What is done element by element is done there, so that channels last, say, needs no layer that reorders.
        """
        indices = [term.index for term in value.terms]
        index = indices[0] if indices else None
        if index is None or any(other is None or not np.array_equal(index, other) for other in indices[1:]):
            return None
        shapes = {self.layers.nodes[term.source].shape for term in value.terms}
        if len(shapes) != 1 or math.prod(shape := shapes.pop()) != len(index):
            return None
        if not np.array_equal(np.sort(index), np.arange(len(index))):
            return None
        back = np.argsort(index)
        terms = tuple(
            replace(term, index=None, scale=None if term.scale is None else term.scale[back]) for term in value.terms
        )
        shift, error = (None if part is None else part[back] for part in (value.shift, value.error))
        return Value(shape, terms, shift, error=error), index

    def relu(self, value: Value) -> Value:
        """Returns max(value, 0)."""
        if not value.terms:
            positive = constant(np.maximum(_dense(value), 0.0).reshape(value.shape))
            return replace(positive, error=value.error)
        if not self._passes(value):
            value = self.settle(value)
        terms = tuple(Term(self.layers.relu(term.source), term.index) for term in value.terms)
        shift = None if value.shift is None else np.maximum(value.shift, 0.0)
        return Value(value.shape, terms, shift, error=value.error)

    def _passes(self, value: Value) -> bool:
        """Whether max(x, 0) may be taken before the rearrangement, at no neuron more."""
        reads = np.zeros(value.size, np.int64)
        for term in value.terms:
            if term.scale is not None:
                return False
            if term.index is None:
                reads += 1
                continue
            kept = term.index[term.index >= 0]
            source = self.layers.nodes[term.source]
            if len(np.unique(kept)) != int(np.prod(source.shape)):
                return False
            reads += term.index >= 0
        return int(reads.max()) <= 1 and (value.shift is None or not (value.shift[reads > 0]).any())

    def maximum(self, first: Value, second: Value) -> Value:
        """Returns max(first, second), which is first + max(second - first, 0)."""
        return total([first, self.relu(total([second, scaled(first, -1.0)]))])

    def minimum(self, first: Value, second: Value) -> Value:
        """Returns min(first, second), which is first - max(first - second, 0)."""
        difference = self.relu(total([first, scaled(second, -1.0)]))
        return total([first, scaled(difference, -1.0)])


def _dense(value: Value) -> Array:
    return np.zeros(value.size) if value.shift is None else value.shift


#: Takes a graph, a node and its inputs, and returns its results.
Handler: TypeAlias = Callable[[Reading, onnx.NodeProto, Sequence[Input]], "Sequence[Value | Array | None]"]


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Returns a node's attributes as plain values."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def computed(node: onnx.NodeProto, item: Input) -> Value:
    """Returns an input that must be there; a constant becomes a value."""
    if item is None:
        raise refuse(node, "an input is missing")
    return item if isinstance(item, Value) else constant(item)


def stored(node: onnx.NodeProto, inputs: Sequence[Input], number: int, what: str) -> Array:
    """Returns an input that must be a constant."""
    item = inputs[number] if number < len(inputs) else None
    if item is None:
        raise refuse(node, f"its {what} is missing")
    if isinstance(item, Value):
        raise refuse(node, f"its {what} must be a constant, but depends on the network's input")
    if item.dtype.kind not in "fiu":
        raise refuse(node, f"its {what} is of type {item.dtype}")
    if not np.isfinite(item).all():
        count = int((~np.isfinite(item)).sum())
        raise refuse(
            node, f"its {what} holds {count} values that are infinite or not a number; allowed are finite ones"
        )
    return item


def optional(node: onnx.NodeProto, inputs: Sequence[Input], number: int, what: str) -> Array | None:
    """Returns an input that may be left out and must be a constant."""
    if number >= len(inputs) or inputs[number] is None:
        return None
    return stored(node, inputs, number, what)
