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
        patches = np.stack([grid[window] for window in self._windows], axis=3)
        return (view(self.weights) @ patches.reshape(*patches.shape[:2], self.terms[0], -1)).reshape(len(grid), -1)

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
