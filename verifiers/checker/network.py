"""ONNX operators as nodes. What isn't known is refused; what says nothing new about a value's numbers makes no node."""

import math
from typing import Any

import numpy as np

from .files import need
from .nodes import LARGEST, MOST_NODES, Conv, Network, Node, dense
from .onnxfile import parse

#: Attributes of windows, and what each must be; None: it is read.
_WINDOW = {"auto_pad": "NOTSET", **dict.fromkeys(("dilations", "kernel_shape", "pads", "strides"))}
#: Operators: how many inputs they may have, and their attributes, likewise.
_OPERATORS: dict[str, tuple[int, dict[str, Any]]] = {
    "Conv": (3, {**_WINDOW, "group": None}),
    "AveragePool": (1, {**_WINDOW, "ceil_mode": 0, "count_include_pad": None}),
    "Gemm": (3, {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": None}),
    "BatchNormalization": (5, {"epsilon": None, "momentum": None, "spatial": 1, "training_mode": 0}),
    **{"Flatten": (1, {"axis": 1}), "Reshape": (2, {"allowzero": 0}), "Constant": (0, {"value": None})},
    **dict.fromkeys(("Relu", "Identity"), (1, {})),
    **dict.fromkeys(("Add", "Sub", "MatMul"), (2, {})),
}
#: Of weights that are computed from the file's, in up to three roundings: relative to the real numbers that they mean.
_LOOSE = 2.0**-51


def read_network(content: bytes) -> Network:
    """Reads an ONNX file.

    Raises:
        UnreadableError: It is damaged, or holds what isn't taken.
    """
    operations, constants, entry, (batch, *first), output = parse(content)
    need(batch in (0, 1), f"the network takes {batch} inputs at once; taken is one")
    nodes, places = [Node([], first, [])], {entry: (0, tuple(first))}
    for kind, inputs, name, attrs in operations:
        most, allowed = _OPERATORS.get(kind, (-1, {}))
        plain = len(inputs) <= most and all(key in allowed and allowed[key] in (None, attrs[key]) for key in attrs)
        need(plain, f"the network has an operator {kind} {attrs}, which isn't taken")
        need(name not in constants and name not in places, f"the network computes {name!r} twice")
        if kind == "Constant":
            constants[name] = attrs["value"]
            continue
        values, fixed = [places[i] for i in inputs if i in places], [constants[i] for i in inputs if i in constants]
        need(values, f"the network has an operator {kind} whose inputs aren't computed from its input")
        sums, swapped, (source, shape) = kind in ("Add", "Sub"), inputs[0] not in places, values[0]
        fits = len(values) == 1 or (sums and not fixed and values[1][1] == shape)
        fits = fits and (sums or not swapped) and len(values) + len(fixed) == len([i for i in inputs if i])
        fits = fits and {array.dtype.kind for array in fixed} <= {"i" if kind == "Reshape" else "f"}
        need(fits, f"the network has an operator {kind} whose inputs aren't taken")
        if kind in ("Identity", "Flatten", "Reshape"):
            target = {"Identity": [0] * (len(shape) + 1), "Flatten": [1, -1]}.get(kind) or fixed[0].tolist()
            places[name] = source, _reshaped((1, *shape), target)
            continue
        nodes += _nodes(kind, attrs, values, fixed, swapped, len(nodes))
        places[name] = len(nodes) - 1, nodes[-1].shape
        need(len(nodes) <= MOST_NODES and sum(item.size for item in nodes) <= LARGEST, "the network is too large")
    return Network(nodes, sorted({node.sources[0] for node in nodes if node.relu}), places[output][0])


def _reshaped(whole: tuple[int, ...], target: list[int]) -> tuple[int, ...]:
    """Returns a value's new shape; 0 is the size that there was, -1 what is left."""
    new = np.empty(whole).reshape([whole[at] if size == 0 else size for at, size in enumerate(target)]).shape
    need(new[0] == 1, f"the network reshapes {whole} to {new}")
    return new[1:]


def _nodes(kind: str, attrs: dict[str, Any], values: list[Any], fixed: list[Any], swapped: bool, at: int) -> list[Node]:
    """Returns an operator's nodes, of which the first will be number `at` and the last is its value.

    Args:
        kind: The operator.
        attrs: Its attributes, by name.
        values: Its inputs that aren't constant: node and shape.
        fixed: Its constants, in order.
        swapped: Whether a constant comes first.
        at: See above.
    """
    source, shape = values[0]
    if kind == "Relu":
        need(source, "the network has a ReLU on its input itself, which isn't taken")
        return [Node([source], shape, [], relu=True)]
    if kind in ("Add", "Sub"):
        minus = 1.0 if kind == "Add" else -1.0
        weights = [1.0, minus] if len(values) == 2 else [minus if swapped else 1.0]
        constant = np.broadcast_to(fixed[0] if fixed else 0.0, (1, *shape)).astype(np.float64).ravel()
        return [Node([value[0] for value in values], shape, weights, constant * (1.0 if swapped else minus))]
    if kind in ("Gemm", "MatMul"):
        matrix, bias = fixed[0] if attrs.get("transB") else fixed[0].T, fixed[1] if len(fixed) > 1 else np.zeros(1)
        need(matrix.ndim == 2 and shape == matrix.shape[1:], f"a matrix {matrix.shape} times a value {shape}")
        return [dense(source, matrix, np.broadcast_to(bias, (1, len(matrix)))[0])]
    if kind == "BatchNormalization":
        need(len(fixed) == 4 and {array.shape for array in fixed} == {shape[:1]}, "a batch normalisation doesn't fit")
        scale, shift, mean, variance = (np.repeat(array.astype(np.float64), math.prod(shape[1:])) for array in fixed)
        spread = variance + attrs.get("epsilon", float(np.float32(1e-5)))
        need(((spread > 0) & (spread < np.inf)).all(), "a batch normalisation has no variance above 0")
        return [Node([source], shape, [1.0], -mean), Node([at], shape, [scale / np.sqrt(spread)], shift, _LOOSE)]
    if kind == "AveragePool":
        area = attrs["kernel_shape"]
        need(not any(attrs.get("pads", ())) or attrs.get("count_include_pad"), "padding of AveragePool")
        kernel, bias = np.broadcast_to(1.0 / math.prod(area), (shape[0], 1, *area)), np.zeros(shape[0])
        return [Conv(source, shape, kernel, bias, {**attrs, "group": shape[0]}, _LOOSE)]
    return [Conv(source, shape, fixed[0], fixed[1] if len(fixed) > 1 else np.zeros(len(fixed[0])), attrs)]
