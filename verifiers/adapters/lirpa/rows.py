"""The rows of specifications, laid out for a batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.base import Instance

_Float64 = npt.NDArray[np.float64]


class SpecificationRows:
    """The rows of all disjuncts of a batch of specifications, padded with rows of zeros.

    Args:
        instances: Whose specifications.

    Attributes:
        matrix: [images, rows, classes].
        offsets: [images, rows].
    """

    def __init__(self, instances: Sequence[Instance]) -> None:
        counts = [[len(b) for _, b in item.spec.disjuncts] for item in instances]
        most = max((sum(own) for own in counts), default=0)
        classes = instances[0].spec.disjuncts[0][0].shape[1] if instances[0].spec.disjuncts else instances[0].classes
        self.matrix = np.zeros((len(instances), most, classes))
        self.offsets = np.zeros((len(instances), most))
        #: For each image, first row and number of rows of each disjunct.
        self._spans: list[list[tuple[int, int]]] = []
        for index, (item, own) in enumerate(zip(instances, counts, strict=True)):
            self._spans.append(list(zip(itertools.accumulate(own[:-1], initial=0), own, strict=True)) if own else [])
            for (start, count), (a, b) in zip(self._spans[-1], item.spec.disjuncts, strict=True):
                self.matrix[index, start : start + count] = a
                self.offsets[index, start : start + count] = b

    def disjuncts(self, index: int, lower: _Float64) -> tuple[float, ...]:
        """Returns each disjunct's best row bound; a disjunct without rows holds everywhere, so it has none."""
        values: list[float] = lower.tolist()
        return tuple(
            values[start] if count == 1 else float(lower[start : start + count].max()) if count else -math.inf
            for start, count in self._spans[index]
        )

    def open_rows(self, index: int, lower: _Float64, margin: float) -> npt.NDArray[np.int64]:
        """Returns the rows of the disjuncts that no row excludes yet."""
        bounds = self.disjuncts(index, lower)
        spans = zip(self._spans[index], bounds, strict=True)
        rows = [row for (start, count), bound in spans if not bound > margin for row in range(start, start + count)]
        return np.array(rows, dtype=np.int64)
