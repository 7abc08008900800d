"""What is asked of a pair: linear rows over the outputs of both networks, and means of rows that are worth bounding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunecert.errors import UserError
from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array
from prunecert.verifiers.sparse.walks import UNIT

#: Means of two rows are tried where a disjunct has at most so many rows.
_MOST_ROWS = 128


@dataclass(frozen=True, eq=False)
class Candidates:
    """Rows of which one bounded above 0 proves its disjunct empty.

    Args:
        value: Coefficients of the first network's outputs, [outputs, rows].
        change: Of the differences, likewise.
        constant: [rows].
        error: What the coefficients may err by, for each unit of the first network's outputs, [outputs, rows].
        disjunct: That each belongs to, [rows].
    """

    value: Float64Array
    change: Float64Array
    constant: Float64Array
    error: Float64Array
    disjunct: Int64Array

    def of(self, disjuncts: Int64Array) -> Candidates:
        """Returns those of some disjuncts."""
        kept = np.isin(self.disjunct, disjuncts)
        return Candidates(
            self.value[:, kept], self.change[:, kept], self.constant[kept], self.error[:, kept], self.disjunct[kept]
        )


def of_rows(rows: Float64Array, offsets: Float64Array, disjunct: Int64Array) -> Candidates:
    """Returns rows over [y, y'] as rows over y and y' - y.

    Args:
        rows: [rows, 2 outputs].
        offsets: Subtracted, [rows].
        disjunct: [rows].
    """
    half = rows.shape[1] // 2
    first, second = rows[:, :half].T, rows[:, half:].T
    value = first + second
    return Candidates(value, second, -offsets, UNIT * np.abs(value), disjunct)


def candidates(spec: OutputSpec, more: Float64Array | None = None) -> Candidates:
    """Returns what to bound for each disjunct: its rows, and means of a row about each network.

    Two rows of a disjunct that speak of one network each, such as "i is the first network's class" and "j is the
    second's", may both be open where their mean, here (y_j - y_i + y'_i - y'_j) / 2, which is about differences alone,
    is above 0 everywhere.

    Args:
        spec: The unsafe outputs [y, y'].
        more: For each disjunct, how much more is to be proved.
    """
    rows: list[Float64Array] = []
    offsets: list[float] = []
    places: list[int] = []
    for place, (matrix, bounds) in enumerate(spec.disjuncts):
        limits = bounds + (0.0 if more is None else more[place])
        half = matrix.shape[1] // 2
        rows += list(matrix)
        offsets += limits.tolist()
        about = [np.any(matrix[:, :half] != 0, axis=1), np.any(matrix[:, half:] != 0, axis=1)]
        left, right = np.flatnonzero(about[0] & ~about[1]), np.flatnonzero(about[1] & ~about[0])
        pairs = [(i, j) for i in left for j in right if _cancels(matrix[i, :half], matrix[j, half:])]
        for i, j in pairs if len(bounds) <= _MOST_ROWS else []:
            # Half the sum is no more than the larger of the two.
            rows.append(0.5 * (matrix[i] + matrix[j]))
            total = 0.5 * limits[i] + 0.5 * limits[j]
            offsets.append(float(total + np.abs(total) * 2 * UNIT))
        places += [place] * (len(offsets) - len(places))
    width = spec.disjuncts[0][0].shape[1] if spec.disjuncts else 0
    return of_rows(np.array(rows).reshape(len(rows), width), np.array(offsets), np.array(places, dtype=np.int64))


def _cancels(first: Float64Array, second: Float64Array) -> bool:
    """Whether the sum of two rows is about differences alone."""
    return bool(np.array_equal(first, -second))


def difference(tolerance: float, outputs: int) -> OutputSpec:
    """Unsafe if an output of the second network is further than `tolerance` from the first's.

    >>> difference(0.5, 2).violated_by([1.0, 2.0, 1.4, 2.0])
    False
    >>> difference(0.5, 2).violated_by([1.0, 2.0, 1.6, 2.0])
    True

    Raises:
        UserError: The tolerance is not above 0.
    """
    if not 0 < tolerance < np.inf:
        raise UserError(f"The tolerance {tolerance:g} is refused; a finite number above 0 is allowed.")
    pairs, limits = [], []
    for output in range(outputs):
        for sign in (1.0, -1.0):
            row = np.zeros((1, 2 * outputs))
            row[0, output], row[0, outputs + output] = sign, -sign
            pairs.append((row, np.array([-tolerance])))
            # At the tolerance itself nothing is wrong yet.
            limits.append(np.array([np.nextafter(-tolerance, -np.inf)]))
    return OutputSpec(tuple(pairs), tuple(limits))


def same_class(outputs: int, confidence: float = 0.0) -> OutputSpec:
    """Unsafe if the second network prefers another class than the first, which is sure of its own.

    Args:
        outputs: Classes of either network.
        confidence: How far the first network's class must be ahead of all others for the question to arise.

    >>> same_class(2).violated_by([2.0, 1.0, 3.0, 3.5]), same_class(2).violated_by([2.0, 1.0, 3.0, 2.5])
    (True, False)
    >>> same_class(2, confidence=1.5).violated_by([2.0, 1.0, 3.0, 3.5])
    False

    Raises:
        UserError: There are not two classes, or the confidence is negative.
    """
    if outputs < 2:
        raise UserError(f"A network with {outputs} output has no classes; at least two outputs are allowed.")
    if not 0 <= confidence < np.inf:
        raise UserError(f"The confidence {confidence:g} is refused; a finite number of at least 0 is allowed.")
    pairs, strict = [], []
    for chosen in range(outputs):
        for other in range(outputs):
            if other == chosen:
                continue
            rows, offsets = [], []
            for rival in range(outputs):
                if rival != chosen:
                    row = np.zeros(2 * outputs)
                    row[rival], row[chosen] = 1.0, -1.0
                    rows.append(row)
                    offsets.append(-confidence)
            # Of the second network it is enough that the other class reaches the chosen one.
            row = np.zeros(2 * outputs)
            row[outputs + chosen], row[outputs + other] = 1.0, -1.0
            rows.append(row)
            offsets.append(0.0)
            pairs.append((np.array(rows), np.array(offsets)))
            # A tie of the second network's classes is no other preference yet; a proof leaves no room for it.
            strict.append(np.array([*offsets[:-1], np.nextafter(0.0, -np.inf)]))
    return OutputSpec(tuple(pairs), tuple(strict))
