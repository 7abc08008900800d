"""A quantised network with both of its readings, and what a question to it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prunecert.verifiers.base import UnsupportedError
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.quantised.intervals import Interval, Intervals
from prunecert.verifiers.sparse.quantised.relaxed import Relaxed, Rounding, relax

if TYPE_CHECKING:
    import onnx

#: Relative room of a float64 product or quotient, and more.
_ROOM = 2.0**-40


@dataclass(frozen=True, eq=False)
class Boxed:
    """A box as the ReLU network takes it.

    Args:
        intervals: Of all steps, over the given box.
        lower: Lower corner of the first rounding's results, flat float32, rounded outwards.
        upper: Upper corner.
    """

    intervals: list[Interval]
    lower: Float32Array
    upper: Float32Array


class Quantised:
    """A quantised network.

    Args:
        intervals: Of its steps.
        relaxed: The ReLU network that stands for it.
    """

    def __init__(self, intervals: Intervals, relaxed: Relaxed) -> None:
        self.intervals, self.relaxed = intervals, relaxed
        self._by_node = {item.node: item for item in relaxed.roundings}
        self._beyond = {item.beyond: item for item in relaxed.roundings if item.beyond is not None}

    @property
    def network(self) -> Network:
        """The ReLU network."""
        return self.relaxed.network

    def box(self, lower: Float32Array, upper: Float32Array) -> Boxed:
        """Bounds all steps over a box by intervals, and moves the box behind the first rounding."""
        wide = [corner.astype(np.float64).reshape(-1) for corner in (lower, upper)]
        intervals = self.intervals.bound(wide[0], wide[1])
        entry = intervals[self.relaxed.entry]
        low, high = entry.lower.astype(np.float32), entry.upper.astype(np.float32)
        low[low > entry.lower] = np.nextafter(low[low > entry.lower], np.float32(-np.inf))
        high[high < entry.upper] = np.nextafter(high[high < entry.upper], np.float32(np.inf))
        return Boxed(intervals, low, high)

    def rows(self, boxed: Boxed, matrix: Float64Array, offsets: Float64Array) -> Float64Array:
        """Bounds rows of the outputs, matrix @ y - offsets, from below by intervals."""
        return self.intervals.rows(boxed.intervals, matrix, offsets)

    def sharpen(self, intervals: Sequence[Interval], node: int, lower: Float64Array, upper: Float64Array) -> None:
        """Narrows the bounds of a node to what intervals know, and to multiples of the scale.

        Args:
            intervals: Of all steps, over the box.
            node: Of the ReLU network.
            lower: Its bounds; changed in place.
            upper: Likewise.
        """
        if node in self._by_node:
            item = self._by_node[node]
            interval = intervals[item.step]
            low, high = interval.inner_lower - item.floor, interval.inner_upper - item.floor
            if item.rectified:
                # Of what is below 0 the ReLU before it says nothing but that.
                low = np.where(interval.inner_lower > 0, low, -np.inf)
            np.maximum(lower, low - _ROOM * np.abs(np.nan_to_num(low, neginf=0.0)), out=lower)
            np.minimum(upper, high + _ROOM * np.abs(high), out=upper)
            _to_grid(item, lower, upper)
        elif node in self._beyond:
            # A's bounds were narrowed before, and B's follow from them by intervals.
            _to_grid(self._beyond[node], lower, upper)


def _to_grid(item: Rounding, lower: Float64Array, upper: Float64Array) -> None:
    """Narrows bounds to multiples of the scale, but for rounding."""
    scale = item.grid.scale
    low, high = lower / scale, upper / scale
    low, high = np.ceil(low - _ROOM * np.abs(low) - _ROOM), np.floor(high + _ROOM * np.abs(high) + _ROOM)
    # Whole numbers of up to 29 bits times a float32 number are exact.
    small = (np.abs(low) < 2**29) & (np.abs(high) < 2**29)
    np.maximum(lower, low * scale, out=lower, where=small)
    np.minimum(upper, high * scale, out=upper, where=small)


def read_quantised(path: Path) -> Quantised | None:
    """Reads a QDQ file; None if the file rounds nothing that depends on its input, and has a normal form.

    Raises:
        UserError: It is no ONNX network.
        UnsupportedError: A node isn't taken; it is named.
    """
    from prunecert.onnx.io import load_model
    from prunecert.onnx.merge import taken_apart
    from prunecert.onnx.normal import normal_nodes
    from prunecert.onnx.quantised import holds_quantisation

    model = load_model(path)
    if not holds_quantisation(model) or normal_nodes(model) is not None:
        return None
    try:
        return quantised(model, path.name)
    except UnsupportedError as error:
        halves = taken_apart(model) or ()
        if any(not holds_quantisation(half) or normal_nodes(half) is not None for half in halves):
            raise UnsupportedError(
                f"{path.name} joins a network in float32 with one that rounds its activations; such a pair is taken by "
                "sparse-pair"
            ) from error
        raise


def quantised(model: onnx.ModelProto, name: str) -> Quantised:
    """Reads a QDQ network that is loaded; see `read_quantised`.

    Args:
        model: What `prunecert.onnx.io.load_model` returned.
        name: What to call it.
    """
    from prunecert.onnx.normal import UnsupportedNetworkError
    from prunecert.onnx.quantised_reading import read_steps

    try:
        intervals = Intervals(read_steps(model, name))
    except UnsupportedNetworkError as error:
        raise UnsupportedError(str(error)) from error
    return Quantised(intervals, relax(intervals, name))
