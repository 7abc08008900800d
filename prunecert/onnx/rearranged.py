"""Rearrangements that convolutions do.

In one, each output channel reads one channel, in even steps along both axes; two can repeat places along the axes, or
set zeros between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunecert.onnx.normal import Array, IntArray
from prunecert.onnx.values import Float64Array, Shape, Term


@dataclass(frozen=True)
class Axis:
    """Output i of an axis reads position start + stride * i, or nothing outside of the axis."""

    start: int
    stride: int
    size: int
    outputs: int

    @property
    def padding(self) -> int:
        """Places outside that are read, on the side where there are more."""
        return max(0, -self.start, self.start + self.stride * (self.outputs - 1) - (self.size - 1))


@dataclass(frozen=True, eq=False)
class Window:
    """A rearrangement that a convolution does: each output channel reads one channel, or none (-1)."""

    channels: IntArray
    down: Axis
    across: Axis


@dataclass(frozen=True, eq=False)
class Spread:
    """A rearrangement that puts each place of an image where `down` times `across` places are, at some of them.

    Args:
        down: Which of these rows are read, bool.
        across: Which of their columns.
        factor: What each place is multiplied with, flat; None: 1.
    """

    down: Array
    across: Array
    factor: Float64Array | None


def image_shape(shape: Shape) -> Shape | None:
    """Returns [1, C, H, W] for a shape of three or four axes whose first is 1, else None."""
    if len(shape) == 4 and shape[0] == 1:
        return shape
    if len(shape) == 3 and shape[0] == 1:
        return (*shape, 1)
    return None


def per_channel(values: Float64Array, shape: Shape) -> Float64Array | None:
    """Returns one number a channel if the values of each channel of an image of this shape are one number."""
    table = values.reshape(shape[1], -1)
    return table[:, 0] if np.array_equal(table, np.broadcast_to(table[:, :1], table.shape)) else None


def present_per_channel(factor: Float64Array, present: Array, shape: Shape) -> Float64Array | None:
    """Returns one factor a channel, if those at the places where something is read agree; 1 where nothing is."""
    table, there = factor.reshape(shape[1], -1), present.reshape(shape[1], -1)
    first = np.argmax(there, axis=1)
    factors = table[np.arange(shape[1]), first]
    if not np.all((table == factors[:, None]) | ~there):
        return None
    return np.where(there.any(axis=1), factors, 1.0)


def find_window(term: Term, target: Shape, source: Shape) -> Window | None:
    """Returns the convolution's geometry that a term is, if it is one.

    Args:
        term: The term.
        target: Shape of its value, [1, C', H', W'].
        source: Shape of its node, [1, C, H, W].
    """
    if term.index is None:
        if target != source:
            return None
        channels = np.arange(source[1])
        return Window(channels, Axis(0, 1, source[2], source[2]), Axis(0, 1, source[3], source[3]))
    index = term.index.reshape(target[1:])
    valid = index >= 0
    some = np.argmax(valid)
    c, y, x = np.unravel_index(int(some), valid.shape)
    if not valid[c, y, x]:
        return None
    area = source[2] * source[3]
    channels = np.where(valid[:, y, x], index[:, y, x] // area, -1)
    rows = np.where(valid[c, :, x], index[c, :, x] % area // source[3], -1)
    columns = np.where(valid[c, y, :], index[c, y, :] % source[3], -1)
    whole = channels[:, None, None] * area + rows[None, :, None] * source[3] + columns[None, None, :]
    there = (channels >= 0)[:, None, None] & (rows >= 0)[None, :, None] & (columns >= 0)[None, None, :]
    if not np.array_equal(np.where(there, whole, -1), index):
        return None
    down, across = _axis(rows, source[2]), _axis(columns, source[3])
    return None if down is None or across is None else Window(channels, down, across)


def _axis(reads: IntArray, size: int) -> Axis | None:
    there = np.flatnonzero(reads >= 0)
    first = int(there[0])
    if len(there) > 1:
        stride = int(reads[there[1]] - reads[first]) // int(there[1] - first) if there[1] > first else 0
    else:
        # What the others read is outside, one step of the whole axis away.
        stride = size if len(reads) > 1 else 1
    if stride < 1:
        return None
    start = int(reads[first]) - stride * first
    steps = start + stride * np.arange(len(reads))
    steps = np.where((steps >= 0) & (steps < size), steps, -1)
    return Axis(start, stride, size, len(reads)) if np.array_equal(steps, reads) else None


def find_spread(term: Term, target: Shape, source: Shape) -> Spread | None:
    """Returns how a term repeats its node's places, or sets zeros between them, if it does nothing else.

    Args:
        term: The term.
        target: Shape of its value, [1, C, H', W'].
        source: Shape of its node, [1, C, H, W].
    """
    _, channels, height, width = source
    if term.index is None or target[1] != channels or target[2] % height or target[3] % width:
        return None
    steps = (target[2] // height, target[3] // width)

    def parted(values: Array) -> Array:
        """Returns [down, across, place]."""
        table = values.reshape(channels, height, steps[0], width, steps[1])
        return table.transpose(2, 4, 0, 1, 3).reshape(*steps, -1)

    reads = parted(term.index)
    present = reads[:, :, 0] >= 0
    down, across = np.asarray(present.any(axis=1)), np.asarray(present.any(axis=0))
    whole = np.where(present[:, :, None], np.arange(reads.shape[2]), -1)
    if not np.array_equal(present, np.outer(down, across)) or not np.array_equal(reads, whole) or not present.any():
        return None
    if term.scale is None:
        return Spread(down, across, None)
    factors = parted(term.scale)[present]
    return Spread(down, across, factors[0]) if np.all(factors == factors[0]) else None
