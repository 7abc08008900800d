"""The rows of specifications, laid out for a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.base import Instance

_Float64 = npt.NDArray[np.float64]


class Rows:
    """The rows of all disjuncts of a batch of specifications, padded with rows of zeros.

    Args:
        instances: Whose specifications.

    Attributes:
        matrix: [images, rows, classes].
        offsets: [images, rows].
    """

    def __init__(self, instances: Sequence[Instance]) -> None:
        self._counts = [[len(b) for _, b in item.spec.disjuncts] for item in instances]
        most = max((sum(counts) for counts in self._counts), default=0)
        classes = instances[0].spec.disjuncts[0][0].shape[1] if instances[0].spec.disjuncts else instances[0].classes
        self.matrix = np.zeros((len(instances), most, classes))
        self.offsets = np.zeros((len(instances), most))
        for index, item in enumerate(instances):
            for start, (a, b) in zip(self._starts(index), item.spec.disjuncts, strict=True):
                self.matrix[index, start : start + len(b)] = a
                self.offsets[index, start : start + len(b)] = b

    def _starts(self, index: int) -> list[int]:
        return [sum(self._counts[index][:k]) for k in range(len(self._counts[index]))]

    def disjuncts(self, index: int, lower: _Float64) -> tuple[float, ...]:
        """Returns each disjunct's best row bound; a disjunct without rows holds everywhere, so it has none."""
        return tuple(
            float(lower[start : start + count].max()) if count else -math.inf
            for start, count in zip(self._starts(index), self._counts[index], strict=True)
        )

    def open_rows(self, index: int, lower: _Float64, margin: float) -> npt.NDArray[np.int64]:
        """Returns the rows of the disjuncts that no row excludes yet."""
        bounds = self.disjuncts(index, lower)
        spans = zip(self._starts(index), self._counts[index], bounds, strict=True)
        rows = [row for start, count, bound in spans if not bound > margin for row in range(start, start + count)]
        return np.array(rows, dtype=np.int64)
