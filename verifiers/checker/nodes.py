"""A network as nodes over flat vectors: affine maps of earlier nodes and ReLUs, as functions of real numbers.

An affine node applies its map forwards, and transposed, by the same weights and indices. `terms` says of how many
products a number is the sum at most, forwards and backwards; the order of summation is that of the machine. Products
with a coefficient that is 0 may be left out, which leaves fewer.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .files import need

#: Numbers in a value; nodes.
LARGEST, MOST_NODES = 2**24, 2**12


class Node:
    """z = sum of sources times `weights`, one number each or one for each neuron, + bias. Without sources: the input.

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
            live: [L], the neurons that they are of, each once; coefficients of all others are 0.
            needed: For each source its neurons whose coefficients are needed; those of others may be left out.
        """
        return [(coefs * np.broadcast_to(weight, self.size)[live, None], live) for weight in self.weights]


class Conv(Node):
    """A convolution of one source; a matrix times a vector is one over a single place, with a kernel of one place.

    Args:
        source: Index of the source.
        shape: Of its value: channels, height and width.
        kernel: [outputs, channels of a group, height, width].
        bias: [outputs].
        window: The operator's attributes.
        loose: See `Node`.
    """

    def __init__(
        self, source: int, shape: Any, kernel: Any, bias: Any, window: dict[str, Any], loose: float = 0.0
    ) -> None:
        groups, (top, left, bottom, right) = window.get("group", 1), window.get("pads", (0, 0, 0, 0))
        (rise, run), (down, across) = window.get("strides", (1, 1)), window.get("dilations", (1, 1))
        (channels, height, width), (outputs, inner, tall, wide) = shape, kernel.shape
        fits = min(top, left, bottom, right) >= 0 < min(groups, rise, run, down, across) and bias.shape == (outputs,)
        fits = fits and inner * groups == channels and outputs % groups == 0
        need(fits and list(window.get("kernel_shape", (tall, wide))) == [tall, wide], "a convolution doesn't fit")
        rows = (height + top + bottom - down * (tall - 1) - 1) // rise + 1
        columns = (width + left + right - across * (wide - 1) - 1) // run + 1
        need(0 < channels * tall * wide * rows * columns <= 2 * LARGEST, "a convolution doesn't fit")
        matrix = kernel.astype(np.float64).reshape(groups, outputs // groups, inner * tall * wide)
        super().__init__([source], (outputs, rows, columns), matrix, loose=loose)
        self.bias = np.repeat(bias.astype(np.float64), rows * columns)
        self.terms = inner * tall * wide, outputs // groups * tall * wide
        self._source = groups, inner, height * width
        # Which place of the source each place of the kernel sees, for each output's: [kernel's, outputs'] places. What
        # lies in the padding is one place more, at the end.
        y = (down * np.arange(tall)[:, None] + rise * np.arange(rows) - top)[:, None, :, None]
        x = (across * np.arange(wide)[:, None] + run * np.arange(columns) - left)[:, None, :]
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        self._views = np.where(inside, y * width + x, height * width).reshape(tall * wide, rows * columns)
        # What each place of the kernel does, transposed: [places, groups, inner, outputs of a group].
        self._kernels = matrix.reshape(groups, -1, inner, tall * wide).transpose(3, 0, 2, 1).copy()

    def forward(self, values: list[Any], view: Callable[[Any], Any]) -> Any:  # noqa: D102 (inherited)
        groups, inner, size = self._source
        padded = np.zeros((len(values[0]), groups, inner, size + 1), values[0].dtype)
        padded[..., :size] = values[0].reshape(-1, *self._source)
        patches = padded[..., self._views].reshape(len(padded), groups, self.weights.shape[2], -1)
        return (view(self.weights) @ patches).reshape(len(padded), -1)

    def backward(self, coefs: Any, live: Any, needed: Any) -> list[tuple[Any, Any]]:
        """See `Node`. Gone through are the channels and the places that have the live outputs.

        Of the source, channels are left out of which nothing is needed, and places that these outputs do not see.
        """
        (groups, inner, size), batch, kernels = self._source, coefs.shape[1], self._kernels
        channel, place = np.divmod(live, self._views.shape[1])
        outs, inners, places = np.arange(self.shape[0]), np.arange(groups * inner), np.unique(place)
        if groups == 1:
            outs, inners = np.unique(channel), np.flatnonzero(needed[0].reshape(inner, size).any(axis=1))
            kernels = kernels[:, :, inners[:, None], outs]
        every, grid = np.zeros((len(places), len(outs), batch)), np.zeros((size + 1, len(inners), batch))
        every[np.searchsorted(places, place), np.searchsorted(outs, channel)] = coefs
        every, views = every.reshape(len(places), groups, -1, batch), self._views[:, places]
        # One place of a kernel sees each place of the source once, but for the padding, which doesn't count.
        for kernel, at in zip(kernels, views, strict=True):
            grid[at] += (kernel @ every).reshape(len(places), -1, batch)
        reached = np.unique(views)
        reached = reached[reached < size]
        return [(grid[reached].reshape(-1, batch), (reached[:, None] + size * inners).ravel())]


def dense(source: int, matrix: Any, bias: Any) -> Node:
    """Returns a matrix [size, source's size] times one source."""
    node = Conv(source, (matrix.shape[1], 1, 1), matrix[:, :, None, None], bias, {})
    node.shape = node.shape[:1]
    return node


class Network(NamedTuple):
    """Nodes, sources first, `nodes[0]` being the input; the places of those that feed ReLUs, and of the output."""

    nodes: list[Node]
    sites: list[int]
    output: int
