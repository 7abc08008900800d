"""Which channels of a network are constant, and the values they have; interval bounds over a domain of inputs.

Constants follow from the weights alone: a channel all of whose weights on channels that vary are zero. Over a domain
of inputs, a ReLU is constant, too, where its input is never above 0. The bounds that say so enclose what float32
arithmetic computes, in whatever order it adds: every layer's bounds are widened by the largest error that n rounded
products and sums can have, n u / (1 - n u) times the sum of the magnitudes, u = 2^-24 (Higham, Accuracy and Stability
of Numerical Algorithms, 2nd ed., section 3.1). Such a unit is 0 in the masked network as it runs, not only in exact
arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunecert.models.compact_graph import Array, BoolArray, CompactGraph, CompactNode, Role, windows

_UNIT_ROUNDOFF = 2.0**-24
#: More than all products of a layer that underflow in float32 can lose.
_UNDERFLOW = 1e-30


@dataclass(eq=False)
class Values:
    """What is known of a tensor.

    Args:
        constant: Channels that have the same values for all inputs, ``[channels]``.
        value: These values, float64, ``[channels, places]``; 0 elsewhere.
        low: Lower bounds over the domain, ``[channels, places]``; -inf where nothing is known.
        high: Upper bounds.
    """

    constant: BoolArray
    value: Array
    low: Array
    high: Array

    def uniform(self) -> BoolArray:
        """Which channels have the same value in all places; sensible for constant ones."""
        same: BoolArray = np.ptp(self.value, axis=1) == 0
        return same


def evaluate(graph: CompactGraph, domain: tuple[float, float] | None) -> dict[str, Values]:
    """Returns what is known of every tensor.

    Args:
        graph: The network.
        domain: Lowest and highest value of an input, or None for all inputs.
    """
    values: dict[str, Values] = {}
    low, high = domain or (-np.inf, np.inf)
    for name in graph.tensors:
        shape = (graph.channels[name], graph.places[name])
        # Entries, and what comes out of nodes that we know nothing of; the rest is replaced below.
        bounds = (low, high) if name in graph.entries else (-np.inf, np.inf)
        values[name] = Values(np.zeros(shape[0], bool), np.zeros(shape), *(np.full(shape, b) for b in bounds))
    for node in graph.nodes:
        if node.role is Role.BARRIER:
            continue
        inputs = [values[name] for name in node.inputs]
        with np.errstate(invalid="ignore"):
            result = _STEPS[node.role](graph, node, inputs)
        unknown = ~(np.isfinite(result.low) & np.isfinite(result.high))
        result.low[unknown], result.high[unknown] = -np.inf, np.inf
        values[node.output] = result
    return values


def apply_dense(graph: CompactGraph, node: CompactNode, weight: Array, x: Array) -> Array:
    """Returns a dense node's output without bias, float64, ``[outputs, places]``.

    Args:
        graph: The network.
        node: The node.
        weight: Weights in its place, of some of its rows, ``[rows, inputs, taps]``.
        x: Its input, ``[inputs, places]``.
    """
    if not node.is_conv:
        product: Array = weight.reshape(len(weight), -1) @ x.reshape(-1, 1)
        return product
    _, _, height, width = graph.shapes[node.inputs[0]]
    (down, across), (tall, wide), (top, left, bottom, right) = windows((height, width), node)
    padded = np.pad(x.reshape(-1, height, width), ((0, 0), (top, bottom), (left, right)))
    rows, columns = graph.shapes[node.output][2:]
    out = np.zeros((len(weight), rows * columns))
    for tap in range(weight.shape[2]):
        i, j = (tap // node.kernel[1]) * tall, (tap % node.kernel[1]) * wide
        window = padded[:, i : i + down * (rows - 1) + 1 : down, j : j + across * (columns - 1) + 1 : across]
        out += weight[:, :, tap] @ window.reshape(len(padded), -1)
    return out


def _widened(low: Array, high: Array, magnitude: Array, terms: int) -> tuple[Array, Array]:
    """Returns bounds of what float32 computes as a sum of `terms` products whose magnitudes sum up to `magnitude`."""
    # Four more than the theory asks for: our own float64 arithmetic is far within them.
    relative = (terms + 4) * _UNIT_ROUNDOFF / (1 - (terms + 4) * _UNIT_ROUNDOFF)
    error = relative * magnitude + _UNDERFLOW
    return low - error, high + error


def _dense(graph: CompactGraph, node: CompactNode, inputs: list[Values]) -> Values:
    x = inputs[0]
    weight = node.weight.astype(np.float64)
    bias = node.bias[:, None]
    constant: BoolArray = ~np.any(node.weight[:, ~x.constant] != 0, axis=(1, 2))
    places = graph.places[node.output]
    value = np.zeros((len(weight), places))
    value[constant] = bias[constant]
    if constant.any() and x.value.any():
        value[constant] += apply_dense(graph, node, weight[constant], x.value)
    if not (np.isfinite(x.low).all() and np.isfinite(x.high).all()):
        return Values(constant, value, np.full_like(value, -np.inf), np.full_like(value, np.inf))
    size = np.abs(weight)
    center = apply_dense(graph, node, weight, (x.low + x.high) / 2) + bias
    radius = apply_dense(graph, node, size, (x.high - x.low) / 2)
    magnitude = apply_dense(graph, node, size, np.maximum(np.abs(x.low), np.abs(x.high))) + np.abs(bias)
    low, high = _widened(center - radius, center + radius, magnitude, weight[0].size + 1)
    return Values(constant, value, low, high)


def _affine(graph: CompactGraph, node: CompactNode, inputs: list[Values]) -> Values:
    x = inputs[0]
    constant = x.constant | ~np.any(node.factor != 0, axis=1)
    value = np.where(constant[:, None], x.value * node.factor + node.shift, 0.0)
    ends = x.low * node.factor + node.shift, x.high * node.factor + node.shift
    magnitude = np.maximum(np.abs(x.low), np.abs(x.high)) * np.abs(node.factor) + node.size
    # The factor of a batch norm is itself computed, in a few steps.
    low, high = _widened(np.minimum(*ends), np.maximum(*ends), magnitude, 8)
    return Values(constant, value, low, high)


def _relu(graph: CompactGraph, node: CompactNode, inputs: list[Values]) -> Values:
    x = inputs[0]
    dead = np.all(x.high <= 0, axis=1)
    value = np.where(dead[:, None], 0.0, np.maximum(x.value, 0.0))
    return Values(x.constant | dead, value, np.maximum(x.low, 0.0), np.maximum(x.high, 0.0))


def _pool(graph: CompactGraph, node: CompactNode, inputs: list[Values]) -> Values:
    x = inputs[0]
    places = graph.places[node.output]
    kind, attributes = node.proto.op_type, node.attributes
    # Where padding counts as zeros, an average of a constant is smaller at the border.
    steady = kind != "AveragePool" or not attributes.get("count_include_pad", 0)
    steady = steady or not (node.padded or attributes.get("ceil_mode", 0) or "auto_pad" in attributes)
    zero = ~x.value.any(axis=1)
    constant = x.constant & (zero | (x.uniform() & steady))
    value = np.where(constant[:, None], np.repeat(x.value[:, :1], places, axis=1), 0.0)
    low, high = x.low.min(axis=1, keepdims=True), x.high.max(axis=1, keepdims=True)
    if not steady:
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    if kind != "MaxPool":
        magnitude = np.maximum(np.abs(low), np.abs(high))
        low, high = _widened(low, high, magnitude, x.value.shape[1] + 1)
    return Values(constant, value, np.repeat(low, places, axis=1), np.repeat(high, places, axis=1))


def _add(graph: CompactGraph, node: CompactNode, inputs: list[Values]) -> Values:
    a, b = inputs
    constant = a.constant & b.constant
    value = np.where(constant[:, None], a.value + b.value, 0.0)
    magnitude = sum(np.maximum(np.abs(x.low), np.abs(x.high)) for x in inputs)
    low, high = _widened(a.low + b.low, a.high + b.high, np.asarray(magnitude), 1)
    return Values(constant, value, low, high)


def _reshape(graph: CompactGraph, node: CompactNode, inputs: list[Values]) -> Values:
    x = inputs[0]
    shape = (graph.channels[node.output], graph.places[node.output])
    return Values(x.constant.copy(), x.value.reshape(shape), x.low.reshape(shape).copy(), x.high.reshape(shape).copy())


_STEPS = {
    Role.DENSE: _dense,
    Role.AFFINE: _affine,
    Role.RELU: _relu,
    Role.POOL: _pool,
    Role.ADD: _add,
    Role.RESHAPE: _reshape,
}
