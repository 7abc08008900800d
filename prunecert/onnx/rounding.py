"""What rewriting rounds: charged while numbers are folded into one another, and carried in the normal form as data.

A number of the normal form stands for the real number that the given file's own numbers make. Factors and sums are
float64, so that a weight is within a relative `LOOSEST` of it, and a constant within a bound that goes along with it;
then both are rounded once to float32. Constants that the file computes of constants are those that onnxruntime makes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from prunecert.errors import UserError

Float64Array = npt.NDArray[np.float64]

#: Key in a normal form's ``metadata_props``.
KEY = "prunecert.rounding"
#: Relative error of a product of float64 numbers of which each is off by one rounding at most, with room to spare.
STEP = 2.0**-51
#: Most that a weight may be off before it is rounded to float32: `WEIGHT` leaves room for no more.
LOOSEST = 2.0**-44
#: Relative error of a weight or constant after that rounding.
WEIGHT = 2.0**-24 * (1 + 2.0**-20)
_LINE = re.compile(r"(\d{1,9}) ([01]) ([01]) (0x[0-9a-f.]{1,20}p(?:[-+]\d{1,3}|-\d{4}))")


@dataclass(frozen=True)
class Rounding:
    """What became of a layer's numbers on their way into the normal form.

    Args:
        weights: Whether weights are rounded: within a relative `WEIGHT` of what they stand for.
        bias: Whether biases are, too.
        error: How far biases may be off besides, 0 or more.
    """

    weights: bool
    bias: bool
    error: float

    def bias_error(self, bias: npt.NDArray[np.float32]) -> Float64Array:
        """Returns how far a layer's biases may be from what they stand for."""
        share = np.abs(bias.astype(np.float64)) * WEIGHT + 2.0**-149 if self.bias else np.zeros(len(bias))
        return share + self.error


def note(model: onnx.ModelProto, roundings: Mapping[int, Rounding]) -> None:
    """Writes into a normal form what was rounded, by the number of the graph's node; others are the file's own."""
    lines = (f"{n} {int(r.weights)} {int(r.bias)} {float(r.error).hex()}" for n, r in sorted(roundings.items()))
    model.metadata_props.add(key=KEY, value="\n".join(lines))


def noted(model: onnx.ModelProto) -> dict[int, Rounding] | None:
    """Returns what a normal form says was rounded, by the number of the graph's node; None if it says nothing.

    Raises:
        UserError: What it says isn't understood.
    """
    texts = [item.value for item in model.metadata_props if item.key == KEY]
    if not texts:
        return None
    roundings = {}
    for line in "\n".join(texts).splitlines():
        match = _LINE.fullmatch(line)
        try:
            error = float.fromhex(match[4]) if match else math.nan
        except (OverflowError, ValueError):
            error = math.nan
        if match is None or not 0 <= error < math.inf:
            raise UserError(
                f"The network's metadata, {KEY!r}, hold {line[:60]!r}, which isn't understood; remove them."
            )
        roundings[int(match[1])] = Rounding(match[2] == "1", match[3] == "1", error)
    return roundings


def forget(model: onnx.ModelProto) -> None:
    """Removes what a normal form says of rounding, where all its numbers stand for others."""
    others = [item for item in model.metadata_props if item.key != KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(others)


def keeps_digits(factors: npt.NDArray[np.floating]) -> bool:
    """Whether products with these factors are exact but for underflow: each is 0 or a power of 2, of either sign."""
    return bool(np.isin(np.abs(np.frexp(factors)[0]), (0.0, 0.5)).all())


def one_minus(numbers: Float64Array) -> tuple[Float64Array, float]:
    """Returns 1 - numbers, and their relative error: 0 where no digit is lost (Knuth's sum of two numbers)."""
    differences = 1.0 - numbers
    back = differences - 1.0
    lost = (1.0 - (differences - back)) + (-numbers - back)
    return differences, STEP if lost.any() else 0.0


def summed(total: Float64Array, sizes: Float64Array, summands: int, loose: float) -> float | None:
    """Returns the relative error of sums, or None where they lose digits to cancellation.

    Args:
        total: The sums.
        sizes: The sums of the summands' absolute values.
        summands: Most that are added up in one.
        loose: Relative error of each summand.
    """
    if summands <= 1:
        return loose
    if summands == 2 and loose == 0:
        # One rounding, whatever cancels.
        return STEP
    return loose + summands * STEP if bool((np.abs(total) >= sizes * (1 - 2.0**-40)).all()) else None
