"""Sub-boxes that are still open, the worst of which are taken first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array


@dataclass(frozen=True, eq=False)
class Boxes:
    """Sub-boxes, N of them, each for one disjunct: over the d inputs that vary.

    Args:
        low: Lower corners, [N, d].
        high: Upper corners.
        disjunct: [N].
        bound: Lower bound of the disjunct's best row, or that of the sub-box it comes from, [N].
        axis: Which input to split, [N]; -1: none, the sub-box has just been clipped to half or less.
    """

    low: Float64Array
    high: Float64Array
    disjunct: Int64Array
    bound: Float64Array
    axis: Int64Array

    def __len__(self) -> int:
        return len(self.bound)

    def take(self, index: Int64Array) -> Boxes:
        """Returns some of them."""
        return Boxes(self.low[index], self.high[index], self.disjunct[index], self.bound[index], self.axis[index])


class OpenBoxes:
    """A heap of sub-boxes, in no order.

    Args:
        inputs: d.
    """

    def __init__(self, inputs: int) -> None:
        self._boxes = _empty(64, inputs)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def megabytes(self) -> float:
        """What they take."""
        return float(self._count * (16 * self._boxes.low.shape[1] + 24) / 2**20)

    def lowest(self) -> float:
        """Returns the least bound; infinite if none is open."""
        return float(self._boxes.bound[: self._count].min(initial=np.inf))

    def open(self) -> Boxes:
        """Returns all of them."""
        return self._boxes.take(np.arange(self._count))

    def put(self, boxes: Boxes) -> None:
        """Adds some."""
        count, more = self._count, len(boxes)
        if count + more > len(self._boxes):
            larger = _empty(2 * (count + more), self._boxes.low.shape[1])
            _copy(self._boxes.take(np.arange(count)), larger, np.arange(count))
            self._boxes = larger
        _copy(boxes, self._boxes, np.arange(count, count + more))
        self._count += more

    def worst(self, most: int) -> Boxes:
        """Takes out those with the least bounds, so many of them at most."""
        count = self._count
        most = min(most, count)
        bounds = self._boxes.bound[:count]
        index = np.argpartition(bounds, most - 1)[:most] if most < count else np.arange(count)
        boxes = self._boxes.take(index)
        # The last ones fill the gaps.
        rest = count - most
        last = np.setdiff1d(np.arange(rest, count), index)
        _copy(self._boxes.take(last), self._boxes, np.sort(index[index < rest]))
        self._count = rest
        return boxes


def _empty(count: int, inputs: int) -> Boxes:
    corners = (np.zeros((count, inputs)), np.zeros((count, inputs)))
    return Boxes(*corners, np.zeros(count, dtype=np.int64), np.zeros(count), np.zeros(count, dtype=np.int64))


def _copy(source: Boxes, target: Boxes, index: Int64Array) -> None:
    target.low[index], target.high[index] = source.low, source.high
    target.disjunct[index], target.bound[index], target.axis[index] = source.disjunct, source.bound, source.axis
