"""What the walks in float64 have in common, over balls, through curves, and of pairs: their sums, and the end of time.

A walk replaces a node's value by what it is computed from, row by row, down to the input. On the way it sums constants,
each rounded, and what the computed coefficients are off, which `Checker.charge` and the walks themselves say. What is
left in the end is the value less all that rounding may have raised it by: γ times the magnitudes that were summed
(Higham 2002, section 3.1), and the errors. As in `verifiers.sparse.certify`, underflow errs by less than 1e-323 a
product, which the constant 1e-200 covers as long as no magnitude exceeds 1e50; where one does, or a number is none, the
bound is minus infinity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.node_bounds import gamma

#: Unit roundoff of float64.
UNIT = 2.0**-53
#: What all products of a walk that underflow may lose.
TINY = 1e-200
#: Coefficients and magnitudes beyond which they may lose more.
HUGE = 1e50


class LateError(Exception):
    """Time was over before all nodes were bounded."""


@dataclass(eq=False)
class RowSums:
    """Of each row of a walk, [rows] each.

    Args:
        value: What was summed.
        size: The magnitudes of that.
        error: What coefficients that were computed may be off, times what they multiply.
        largest: The largest magnitude of a coefficient.
    """

    value: Float64Array
    size: Float64Array
    error: Float64Array
    largest: Float64Array

    @classmethod
    def of(cls, constant: Float64Array) -> RowSums:
        """Begins with a constant of each row, which is exact."""
        zeros = np.zeros(len(constant))
        return cls(constant.astype(np.float64), np.abs(constant).astype(np.float64), zeros, zeros.copy())

    def add(self, value: Float64Array, size: Float64Array) -> None:
        """Adds a summand and its magnitude."""
        self.value += value
        self.size += size

    def charge(self, error: Float64Array) -> None:
        """Adds an error, 0 or more."""
        self.error += error

    def reach(self, largest: Float64Array) -> None:
        """Takes in the largest magnitudes of some coefficients; what is no number stays so."""
        self.largest = np.maximum(self.largest, largest)

    def lower(self, terms: npt.ArrayLike) -> Float64Array:
        """Returns lower bounds: values less what sums of so many terms, and the errors, may have raised them by."""
        with np.errstate(all="ignore"):
            slack = 1.01 * (gamma(terms) * self.size + self.error) + TINY
            bound: Float64Array = self.value - slack - 4 * UNIT * (np.abs(self.value) + slack)
            bound[~(self.largest < HUGE) | ~(self.size < HUGE) | ~np.isfinite(bound)] = -np.inf
        return bound
