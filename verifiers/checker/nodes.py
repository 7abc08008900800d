"""A network as nodes over flat vectors: affine maps of earlier nodes and ReLUs, as functions of real numbers.

An affine node applies its map forwards, and transposed, by the same index arithmetic. `terms` says of how many products
a number is the sum at most, forwards and backwards; the order of summation is that of the machine. Products with a
coefficient that is 0 are left out where a whole neuron or kernel entry has none else, which leaves fewer.
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

    def backward(self, coefs: Any, live: Any, needed: Any) -> list[tuple[Any, Any]]:
        """Maps coefficients of this node to those of each source, by the transposes: pairs such as what it gets.

        Args:
            coefs: [L, B], of B sums.
            live: [L], the neurons that they are of, ascending; coefficients of all others are 0.
            needed: For each source its neurons whose coefficients are needed; those of others may be left out.
        """
        return [(coefs * np.broadcast_to(weight, self.size)[live, None], live) for weight in self.weights]


class Dense(Node):
    """A matrix [size, source's size] times one source."""

    def __init__(self, source: int, matrix: Any, bias: Any) -> None:
        super().__init__([source], matrix.shape[:1], matrix.astype(np.float64), bias)
        self.terms = matrix.shape[::-1]

    def forward(self, values: list[Any], view: Callable[[Any], Any]) -> Any:  # noqa: D102 (inherited)
        return values[0] @ view(self.weights).T

    def backward(self, coefs: Any, live: Any, needed: Any) -> list[tuple[Any, Any]]:  # noqa: D102
        columns = np.flatnonzero(needed[0])
        return [(self.weights[live[:, None], columns].T @ coefs, columns)]


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
        self._source, self._grid = (groups, inner, height, width), (high, broad)
        # Rows and columns: step, extent of a kernel beyond its first place, padding before, and size of the source.
        self._axes = (rise, down * (tall - 1), top, height), (run, across * (wide - 1), left, width)
        self._places = [(y, x) for y in range(0, tall * down, down) for x in range(0, wide * across, across)]
        # What each place of the kernel does, transposed: [places, groups, inner, outputs of a group].
        self._transposes = matrix.reshape(groups, -1, inner, tall * wide).transpose(3, 0, 2, 1).copy()

    def _seen(self, place: tuple[int, int], counts: Any) -> Any:
        """Returns what a place of the kernel sees of a grid, over so many rows and columns of outputs."""
        every = zip(place, counts, self._axes, strict=True)
        return (..., *(slice(at, at + (count - 1) * step + 1, step) for at, count, (step, *_) in every))

    def forward(self, values: list[Any], view: Callable[[Any], Any]) -> Any:  # noqa: D102
        grid: Any = np.zeros((len(values[0]), *self._source[:2], *self._grid), values[0].dtype)
        grid[..., *(slice(pad, pad + size) for _, _, pad, size in self._axes)] = values[0].reshape(-1, *self._source)
        patches = np.stack([grid[self._seen(place, self.shape[1:])] for place in self._places], axis=3)
        return (view(self.weights) @ patches.reshape(*patches.shape[:2], self.terms[0], -1)).reshape(len(grid), -1)

    def backward(self, coefs: Any, live: Any, needed: Any) -> list[tuple[Any, Any]]:
        """See `Node`. Gone through are the channels and the rectangle of outputs that have the live ones.

        Of the source, channels are left out of which nothing is needed, and what the rectangle does not see.
        """
        (groups, inner, *_), (channel, *at), batch = self._source, np.unravel_index(live, self.shape), coefs.shape[1]
        outs, inners, transposes = np.arange(self.shape[0]), np.arange(groups * inner), self._transposes
        if groups == 1:
            outs, inners = np.unique(channel), np.flatnonzero(needed[0].reshape(inner, -1).any(axis=1))
            transposes = transposes[:, :, inners[:, None], outs]
        firsts, counts = [int(places.min()) for places in at], [int(np.ptp(places)) + 1 for places in at]
        rectangle = np.zeros((len(outs), *counts, batch))
        rectangle[np.searchsorted(outs, channel), at[0] - firsts[0], at[1] - firsts[1]] = coefs
        rectangle = rectangle.reshape(groups, -1, math.prod(counts) * batch)
        sides = [(count - 1) * step + 1 + more for count, (step, more, *_) in zip(counts, self._axes, strict=True)]
        grid = np.zeros((groups, len(inners) // groups, *sides, batch))
        for place, transpose in zip(self._places, transposes, strict=True):
            part = (transpose @ rectangle).reshape(*grid.shape[:2], *counts, batch)
            grid[:, :, *self._seen(place, counts)[1:]] += part
        # The grid begins at these rows and columns of the source: in its padding, where below 0.
        begins = [first * step - pad for first, (step, _, pad, _) in zip(firsts, self._axes, strict=True)]
        inside = [slice(max(0, -b), max(0, axis[-1] - b)) for b, axis in zip(begins, self._axes, strict=True)]
        y, x = (np.arange(b, b + side)[part] for b, side, part in zip(begins, sides, inside, strict=True))
        units = (inners[:, None, None] * self._source[2] + y[:, None]) * self._source[3] + x
        return [(grid[:, :, *inside].reshape(units.size, batch), units.ravel())]


class Network(NamedTuple):
    """Nodes, sources first, `nodes[0]` being the input; the places of those that feed ReLUs, and of the output."""

    nodes: list[Node]
    sites: list[int]
    output: int
