"""A network as nodes over flat vectors: affine maps of earlier nodes and ReLUs, as functions of real numbers.

An affine node applies its map forwards, and transposed, by the same index arithmetic. `terms` says of how many products
a number is the sum, forwards and backwards; the order of summation is that of the machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .files import need
from .onnxfile import parse

LARGEST = 2**24


class Node:
    """z = sum of sources times `weights`, one number each, + bias. Without sources it is the input.

    Args:
        sources: Indices of earlier nodes.
        shape: Of z, without the batch axis.
        weights: Of the sources.
        bias: [size] float64, or one number.
        loose: Relative error of the weights against the real numbers that they stand for; 0 where they are the file's.
        relu: Whether z = max(source, 0) instead.
    """

    terms = (2, 1)

    def __init__(
        self, sources: list[int], shape: Any, weights: Any, bias: Any = 0.0, loose: float = 0.0, relu: bool = False
    ) -> None:
        self.sources, self.shape, self.weights, self.loose, self.relu = sources, tuple(shape), weights, loose, relu
        self.size = math.prod(self.shape)
        need(min(self.shape, default=1) > 0 and self.size <= LARGEST, f"a value of shape {self.shape} isn't taken")
        self.bias = np.zeros(self.size) + bias

    def forward(self, values: list[Any], view: Callable[[Any], Any]) -> Any:
        """Maps [B, source's size] each to [B, size], without bias; `view` is what is made of weights before."""
        return sum(view(np.asarray(w)) * value for w, value in zip(self.weights, values, strict=True))

    def backward(self, rows: Any) -> list[Any]:
        """Maps [B, size] to [B, source's size] each, by the transposes."""
        return [rows * weight for weight in self.weights]


class Dense(Node):
    """A matrix [size, source's size] times one source."""

    def __init__(self, source: int, matrix: Any, bias: Any) -> None:
        super().__init__([source], matrix.shape[:1], matrix.astype(np.float64), bias)
        self.terms = matrix.shape[::-1]

    def forward(self, values: list[Any], view: Callable[[Any], Any]) -> Any:  # noqa: D102 (inherited)
        return values[0] @ view(self.weights).T

    def backward(self, rows: Any) -> list[Any]:  # noqa: D102
        live = rows.any(axis=0)
        return [rows[:, live] @ self.weights[live]]


class Conv(Node):
    """A convolution: kernel entries (group, out, inner, place) times what a shifted window of the padded grid shows."""

    def __init__(self, source: int, shape: Any, kernel: Any, bias: Any, window: dict[str, Any], loose: float) -> None:
        groups, (top, left, bottom, right) = window.get("group", 1), window.get("pads", (0, 0, 0, 0))
        (rise, run), (down, across) = window.get("strides", (1, 1)), window.get("dilations", (1, 1))
        (channels, height, width), (outputs, inner, tall, wide) = shape, kernel.shape
        high, broad = height + top + bottom, width + left + right
        rows, columns = (high - down * (tall - 1) - 1) // rise + 1, (broad - across * (wide - 1) - 1) // run + 1
        fits = min(top, left, bottom, right) >= 0 < min(groups, rise, run, down, across) and bias.shape == (outputs,)
        fits = fits and inner * groups == channels and outputs % groups == 0 and channels * high * broad <= LARGEST
        need(fits and list(window.get("kernel_shape", (tall, wide))) == [tall, wide], "a convolution doesn't fit")
        matrix = kernel.astype(np.float64).reshape(groups, outputs // groups, inner * tall * wide)
        super().__init__([source], (outputs, rows, columns), matrix, np.repeat(bias, max(rows * columns, 0)), loose)
        self.terms = inner * tall * wide, outputs // groups * tall * wide
        self._grid, self._inside = (groups, inner, high, broad), np.s_[..., top : top + height, left : left + width]
        self._source, self._target = (groups, inner, height, width), (groups, outputs // groups, rows * columns)
        self._windows = [
            np.s_[..., y : y + (rows - 1) * rise + 1 : rise, x : x + (columns - 1) * run + 1 : run]
            for y in range(0, tall * down, down) for x in range(0, wide * across, across)
        ]  # fmt: skip
        # Entry e of an output channel's kernel, at output unit n, is for place bases[n] + offsets[e] of the grid.
        corner: Any = np.arange(groups).repeat(outputs // groups)[:, None, None] * inner * high * broad
        self._bases = (corner + np.arange(rows)[:, None] * rise * broad + np.arange(columns) * run).ravel()
        entry = np.arange(tall)[:, None] * down * broad + np.arange(wide) * across
        offsets = (np.arange(inner)[:, None, None] * high * broad + entry).ravel()
        channel, place = np.nonzero(matrix.reshape(outputs, -1))
        self._offsets, self._values = offsets[place], matrix.reshape(outputs, -1)[channel, place]
        self._ends = np.searchsorted(channel, np.arange(outputs + 1))

    def forward(self, values: list[Any], view: Callable[[Any], Any]) -> Any:  # noqa: D102
        grid = np.zeros((len(values[0]), *self._grid), values[0].dtype)
        grid[self._inside] = values[0].reshape(-1, *self._source)
        seen = np.stack([grid[window] for window in self._windows], axis=3)
        return (view(self.weights) @ seen.reshape(*seen.shape[:2], self.terms[0], -1)).reshape(len(grid), -1)

    def backward(self, rows: Any) -> list[Any]:  # noqa: D102
        row, unit = np.divmod(np.flatnonzero(rows), rows.shape[1])
        channel = unit // self._target[2]
        counts = np.diff(self._ends)[channel]
        if counts.sum() * 400 < rows.size * self.terms[0]:
            # Few products, so one by one; otherwise by matrices.
            each = np.repeat(np.arange(len(row)), counts)
            entry = np.arange(len(each)) + np.repeat(self._ends[channel] - np.cumsum(counts) + counts, counts)
            size = math.prod(self._grid)
            place = row[each] * size + self._bases[unit[each]] + self._offsets[entry]
            grid: Any = np.bincount(place, rows[row, unit][each] * self._values[entry], len(rows) * size)
            grid = grid.reshape(-1, *self._grid)
        else:
            grid, parts = np.zeros((len(rows), *self._grid)), rows.reshape(-1, *self._target)
            parts = (self.weights.swapaxes(1, 2) @ parts).reshape(*grid.shape[:3], len(self._windows), -1)
            for at, window in enumerate(self._windows):
                grid[window] += parts[:, :, :, at].reshape(grid[window].shape)
        return [grid[self._inside].reshape(len(rows), -1)]


class Network(NamedTuple):
    """Nodes, sources first, `nodes[0]` being the input; the places of those that feed ReLUs, and of the output."""

    nodes: list[Node]
    sites: list[int]
    output: int


#: Operators: how many inputs they may have, and their attributes. Those of `_FIXED` must have their defaults.
_OPERATORS = {
    "Conv": (3, "auto_pad dilations group kernel_shape pads strides"),
    "AveragePool": (1, "auto_pad ceil_mode count_include_pad kernel_shape pads strides"),
    "Gemm": (3, "alpha beta transA transB"),
    **{"Flatten": (1, "axis"), "Reshape": (2, "allowzero"), "Constant": (0, "value"), "MatMul": (2, "")},
    **{"Relu": (1, ""), "Identity": (1, ""), "Add": (2, ""), "Sub": (2, "")},
}
_FIXED = {"auto_pad": "NOTSET", "alpha": 1.0, "beta": 1.0, "transA": 0, "ceil_mode": 0, "axis": 1, "allowzero": 0}


def read_network(content: bytes) -> Network:
    """Reads an ONNX file.

    Raises:
        UnreadableError: It is damaged, or holds what isn't taken.
    """
    operations, constants, entry, (batch, *first), output = parse(content)
    need(batch in (0, 1), f"the network takes {batch} inputs at once; taken is one")
    nodes, places = [Node([], first, [])], {entry: (0, tuple(first))}
    for kind, inputs, name, given in operations:
        most, names = _OPERATORS.get(kind, (-1, ""))
        plain = given.keys() <= set(names.split()) and all(given[key] == _FIXED[key] for key in given.keys() & _FIXED)
        need(plain and len(inputs) <= most, f"the network has an operator {kind} {given}, which isn't taken")
        need(name not in constants and name not in places, f"the network computes {name!r} twice")
        if kind == "Constant":
            constants[name] = given["value"]
            continue
        values, fixed = [places[i] for i in inputs if i in places], [constants[i] for i in inputs if i in constants]
        need(values, f"the network has an operator {kind} whose inputs aren't computed from its input")
        sums, swapped, (source, shape) = kind in ("Add", "Sub"), inputs[0] not in places, values[0]
        weight = fixed[0] if fixed else np.zeros((), "<f4")
        fits = len(values) == 1 or (sums and not fixed and values[1][1] == shape)
        fits = fits and (sums or not swapped) and len(values) + len(fixed) == len([i for i in inputs if i])
        fits = fits and {array.dtype.kind for array in fixed} <= {"i" if kind == "Reshape" else "f"}
        need(fits, f"the network has an operator {kind} whose inputs aren't taken")
        if kind in ("Identity", "Flatten", "Reshape"):
            whole = (1, *shape)
            target = whole if kind == "Identity" else (1, -1) if kind == "Flatten" else weight.tolist()
            new = np.empty(whole).reshape([whole[at] if size == 0 else size for at, size in enumerate(target)]).shape
            need(new[0] == 1, f"the network reshapes {whole} to {new}")
            places[name] = source, new[1:]
            continue
        if kind == "Relu":
            need(source, "the network has a ReLU on its input itself, which isn't taken")
            node = Node([source], shape, [], relu=True)
        elif kind in ("Add", "Sub"):
            minus = 1.0 if kind == "Add" else -1.0
            weights = [1.0, minus] if len(values) == 2 else [minus if swapped else 1.0]
            bias = np.broadcast_to(weight, (1, *shape)).astype(np.float64).ravel() * (1.0 if swapped else minus)
            node = Node([value[0] for value in values], shape, weights, bias)
        elif kind in ("Gemm", "MatMul"):
            matrix, bias = weight if given.get("transB") else weight.T, fixed[1] if len(fixed) > 1 else np.zeros(1)
            need(matrix.ndim == 2 and shape == matrix.shape[1:], f"a matrix {matrix.shape} times a value {shape}")
            node = Dense(source, matrix, np.broadcast_to(bias, (1, len(matrix)))[0])
        else:
            if kind == "AveragePool":
                area = given["kernel_shape"]
                need(not any(given.get("pads", ())) or given.get("count_include_pad"), "padding of AveragePool")
                given, weight = {**given, "group": shape[0]}, np.full((shape[0], 1, *area), 1.0 / math.prod(area))
            bias = fixed[1] if len(fixed) > 1 else np.zeros(len(weight))
            node = Conv(source, shape, weight, bias, given, 2.0**-52 if kind == "AveragePool" else 0.0)
        places[name] = len(nodes), node.shape
        nodes.append(node)
        need(sum(item.size for item in nodes) <= LARGEST, f"the network has more than {LARGEST} numbers")
    return Network(nodes, sorted({node.sources[0] for node in nodes if node.relu}), places[output][0])
