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
        with np.errstate(all="ignore"):
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
    if row.coefficients[phase.column] == 0:
        return row
    beside = np.array([row.constant]), np.array([row.error]), np.array([row.reach])
    coefficients, constants, errors, _ = _replaced(row.coefficients[None].copy(), *beside, phase)
    return NeuronRow(coefficients[0], float(constants[0]), float(errors[0]), row.low, row.high)


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
        base_reach = float(np.abs(layer.base).sum()) * (1.0 + 1e-9) + abs(layer.constant)
    rows, constants, errors, reaches = _replaced(
        np.concatenate([layer.rows, layer.base[None]]),
        np.append(layer.constants, layer.constant),
        np.append(layer.errors, layer.error),
        np.append(layer.reach, base_reach),
        phase,
    )
    base = rows[-1].copy()
    # Where the row of the specification was, the neuron's is.
    rows[-1] = row.coefficients
    return LastLayer(
        rows=rows,
        constants=np.append(constants[:-1], row.constant),
        errors=np.append(errors[:-1], row.error),
        reach=np.append(reaches[:-1], row.reach),
        low=np.append(layer.low, row.low),
        high=np.append(layer.high, row.high),
        base=base,
        constant=float(constants[-1]),
        error=float(errors[-1]),
        coefficients=np.append(layer.coefficients, 0.0),
    )


def _replaced(
    rows: Float64Array, constants: Float64Array, errors: Float64Array, reaches: Float64Array, phase: Phase
) -> tuple[Float64Array, Float64Array, Float64Array, Float64Array]:
    """Returns rows, [n, W], which are overwritten, and what is beside them, [n] each, without a fixed phase's error."""
    column, row = phase.column, phase.row
    with np.errstate(all="ignore"):
        factors = phase.factors(rows[:, column])
        sizes = (reaches + np.abs(factors) * row.reach) * (1.0 + 1e-9) + TINY
        mine = np.flatnonzero(row.coefficients)
        constants = constants - rows[:, column] + factors * row.constant
        errors = (errors + np.abs(factors) * row.error + 16 * _UNIT * sizes) * (1.0 + 1e-9) + TINY
        rows[:, mine] += factors[:, None] * row.coefficients[mine]
        rows[:, column] = 0.0
        errors[~np.isfinite(errors)] = np.inf
    return rows, constants, errors, sizes
