r"""Fixes phases of neurons before the last hidden layer in affine functions that are there already.

In the letters of `affine`, an unstable neuron is relu(z) = a z + (h / 2) (1 + e). Where its phase is fixed, relu(z) is
z or 0, so that e is a function of z:

    e = s z / (h / 2) - 1,        s = 1 - a where it is active, -a where it is inactive,

for the very a and h / 2 that the function was computed with. z is affine in numbers that come before e, and each row
loses its e for them. So a split costs one product of a column and a row, where drawing lines anew costs walks of every
row. What is computed is taken as exact, and what it may be off is added to the rows' errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.bab.quadratic.last_layer import LastLayer
from prunecert.verifiers.sparse.node_bounds import TINY

_UNIT = 2.0**-53


@dataclass(frozen=True, eq=False)
class NeuronRow:
    """A neuron's z before its ReLU, as an affine function.

    Args:
        coefficients: [W], 0 for its own error and for all that come after it.
        constant: What is added.
        error: How far z may be from that.
        low: Lower bound of z.
        high: Upper bound.
    """

    coefficients: Float64Array
    constant: float
    error: float
    low: float
    high: float

    @property
    def reach(self) -> float:
        """No less than the sum of all magnitudes."""
        size = float(np.abs(self.coefficients).sum()) + abs(self.constant)
        return size * (1.0 + 1e-9) + TINY


@dataclass(frozen=True, eq=False)
class Phase:
    """A neuron whose phase is fixed.

    Args:
        column: Of its error among w.
        sign: 1: z >= 0, -1: z <= 0.
        slope: a, which its column was computed with.
        half: h / 2, likewise; above 0.
        row: z, without errors of neurons whose phases are fixed.
    """

    column: int
    sign: int
    slope: float
    half: float
    row: NeuronRow

    def factors(self, coefficients: Float64Array) -> Float64Array:
        """Returns the factors of z that stand for the error's coefficients."""
        return coefficients * (((1.0 - self.slope) if self.sign > 0 else -self.slope) / self.half)


def without_error(row: NeuronRow, phase: Phase) -> NeuronRow:
    """Returns another neuron's row without the error of one whose phase is fixed.

    It is for layers that the phase is split in, too: a row that float64 doesn't hold is refused there.
    """
    coefficient = row.coefficients[phase.column]
    if coefficient == 0:
        return row
    with np.errstate(all="ignore"):
        factor = float(phase.factors(coefficient))
        coefficients = row.coefficients + factor * phase.row.coefficients
        coefficients[phase.column] = 0.0
        constant = float(row.constant - coefficient + factor * phase.row.constant)
        size = row.reach + abs(factor) * phase.row.reach
        error = (row.error + abs(factor) * phase.row.error + 16 * _UNIT * size) * (1.0 + 1e-9) + TINY
    return NeuronRow(coefficients, constant, _sure(error), row.low, row.high)


def split(layer: LastLayer, phase: Phase) -> LastLayer:
    """Returns the layer without a neuron's error; the neuron follows the layer's, with a coefficient of 0.

    Args:
        layer: Rows in which the neuron is free.
        phase: The neuron.

    Raises:
        ValueError: The neuron has no error to lose.
    """
    column, row = phase.column, phase.row
    if not phase.half > 0 or row.coefficients[column] != 0:
        raise ValueError(f"a neuron of which half of its line's height is {phase.half} has no error to lose")
    with np.errstate(all="ignore"):
        reach, base_reach = row.reach, float(np.abs(layer.base).sum()) * (1.0 + 1e-9) + abs(layer.constant)
        factors = phase.factors(layer.rows[:, column])
        sizes = (layer.reach + np.abs(factors) * reach) * (1.0 + 1e-9)
        mine = np.flatnonzero(row.coefficients)
        rows = np.concatenate([layer.rows, row.coefficients[None]])
        rows[:-1, mine] += factors[:, None] * row.coefficients[mine]
        rows[:, column] = 0.0
        constants = layer.constants - layer.rows[:, column] + factors * row.constant
        errors = (layer.errors + np.abs(factors) * row.error + 16 * _UNIT * sizes) * (1.0 + 1e-9) + TINY
        factor = float(phase.factors(layer.base[column]))
        base = layer.base.copy()
        base[mine] += factor * row.coefficients[mine]
        base[column] = 0.0
        constant = float(layer.constant - layer.base[column] + factor * row.constant)
        size = base_reach + abs(factor) * reach
        error = (layer.error + abs(factor) * row.error + 16 * _UNIT * size) * (1.0 + 1e-9) + TINY
        errors[~np.isfinite(errors)] = np.inf
    return LastLayer(
        rows=rows,
        constants=np.append(constants, row.constant),
        errors=np.append(errors, row.error),
        reach=np.append(sizes + TINY, reach),
        low=np.append(layer.low, row.low),
        high=np.append(layer.high, row.high),
        base=base,
        constant=constant,
        error=_sure(error),
        coefficients=np.append(layer.coefficients, 0.0),
    )


def _sure(error: float) -> float:
    return error if np.isfinite(error) else np.inf
