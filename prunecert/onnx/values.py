"""Values of a graph that is read: sums of scaled, rearranged nodes of the normal network, not yet written as nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from prunecert.onnx.normal import Array, IntArray, Last, UnsupportedNetworkError
from prunecert.onnx.rounding import STEP, keeps_digits, summed

Float64Array = npt.NDArray[np.float64]
Shape = tuple[int, ...]
#: Most elements of a value that is rearranged or scaled.
REARRANGED = 2**25
#: Smaller products may have lost digits, to 0 in the end.
_SMALLEST = 2.0**-900


@dataclass(frozen=True, eq=False)
class Term:
    """A node's value, rearranged and scaled.

    Args:
        source: Number of the node.
        index: For each element of the value, in C order, the flat element of the node, or -1 where it gives none;
            None: the same order.
        scale: For each element, in C order; None: 1.
        exclusive: Whether nothing else will read the node, so that a factor may go into its weights.
        loose: Relative error of the scale.
    """

    source: int
    index: IntArray | None = None
    scale: Float64Array | None = None
    exclusive: bool = False
    loose: float = 0.0


@dataclass(frozen=True, eq=False)
class Value:
    """The sum of some terms and a constant.

    Args:
        shape: As the given graph has it.
        terms: The terms.
        shift: The constant, in C order; None: 0.
        last: What was removed to get here; only rearrangements may follow.
        maker: Which node that was.
        error: How far the constant may be from the real number that it stands for; None: 0.
    """

    shape: Shape
    terms: tuple[Term, ...]
    shift: Float64Array | None = None
    last: Last = "none"
    maker: str = ""
    error: Float64Array | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def plain(self) -> bool:
        """Whether it is one node, in its order, and nothing else."""
        return (
            len(self.terms) == 1
            and self.shift is None
            and self.error is None
            and self.terms[0].index is None
            and self.terms[0].scale is None
        )


def constant(array: Array) -> Value:
    """Returns a value without terms."""
    return Value(array.shape, (), np.asarray(array, dtype=np.float64).reshape(-1))


def shared(value: Value) -> Value:
    """Returns the value, to be read more than once."""
    return replace(value, terms=tuple(replace(term, exclusive=False) for term in value.terms))


def check_products(products: Float64Array, *factors: npt.NDArray[np.floating] | float) -> None:
    """Refuses products that are so small that they may have lost digits."""
    small = np.abs(products) < _SMALLEST
    if not small.any():
        return
    for factor in factors:
        small = small & (np.asarray(factor) != 0)
    if small.any():
        raise UnsupportedNetworkError("It multiplies numbers of the network so small that float64 loses them.")


def check_size(size: int) -> None:
    """Refuses to rearrange what is too large for it."""
    if size > REARRANGED:
        raise UnsupportedNetworkError(
            f"A value of {size:,} elements is rearranged or scaled element by element; allowed are {REARRANGED:,}."
        )


def places(value: Value) -> IntArray:
    """Returns the numbers of a value's elements, in its shape; rearranged, they say to `moved` what came where."""
    check_size(value.size)
    return np.arange(value.size, dtype=np.int64).reshape(value.shape)


def moved(value: Value, positions: IntArray) -> Value:
    """Rearranges a value.

    Args:
        value: The value.
        positions: In the new shape, the flat element of the value that comes there; -1 for none, which is 0.
    """
    flat = positions.reshape(-1)
    if flat.size == value.size and np.array_equal(flat, np.arange(flat.size)):
        return replace(value, shape=positions.shape)
    check_size(flat.size)
    absent = flat < 0
    full = not absent.any()
    terms = []
    for term in value.terms:
        index = flat if term.index is None else term.index[flat]
        if not full:
            index = np.where(absent, -1, index)
        if (index >= 0).any():
            terms.append(replace(term, index=index, scale=None if term.scale is None else term.scale[flat]))
    shift, error = (
        None if part is None else part[flat] if full else np.where(absent, 0.0, part[flat])
        for part in (value.shift, value.error)
    )
    return replace(value, shape=positions.shape, terms=tuple(terms), shift=_nonzero(shift), error=_nonzero(error))


def reshaped(value: Value, shape: Shape) -> Value:
    """Gives a value another shape of as many elements."""
    return replace(value, shape=shape)


def scaled(value: Value, factor: Array | float, loose: float | None = None) -> Value:
    """Multiplies a value element by element with finite numbers.

    Args:
        value: The value.
        factor: Of a shape that broadcasts to the value's.
        loose: Relative error of a product with a factor: of the factor, and of the product's own rounding. None: the
            factors are off by one rounding at most, and powers of 2 aren't.
    """
    factors = np.broadcast_to(np.asarray(factor, dtype=np.float64), value.shape).reshape(-1)
    if np.all(factors == 1) and not loose:
        return value
    check_size(value.size)
    loose = (0.0 if keeps_digits(factors) else STEP) if loose is None else loose
    terms = []
    for term in value.terms if factors.any() else ():
        scale = factors if term.scale is None else term.scale * factors
        check_products(scale, 1.0 if term.scale is None else term.scale, factors)
        terms.append(replace(term, scale=scale, loose=term.loose + loose))
    shift, error = value.shift, value.error
    if shift is not None:
        product = shift * factors
        check_products(product, shift, factors)
        error = _above(error, np.abs(factors), loose * np.abs(product))
        shift = product
    elif error is not None:
        error = _above(error, np.abs(factors), None)
    return replace(value, terms=tuple(terms), shift=_nonzero(shift), error=_nonzero(error))


def shifted(value: Value, addend: Array | float, error: Array | float = 0.0) -> Value:
    """Adds numbers of a shape that broadcasts to the value's.

    Args:
        value: The value.
        addend: The numbers.
        error: How far they may be from the real numbers that they stand for.
    """
    addends, errors = (
        np.broadcast_to(np.asarray(part, dtype=np.float64), value.shape).reshape(-1) for part in (addend, error)
    )
    check_size(value.size)
    return replace(value, **_sum(value.shift, value.error, addends, errors))


def _above(
    error: Float64Array | None, factor: Float64Array | float, addend: Float64Array | None
) -> Float64Array | None:
    """Returns error * factor + addend, rounded up."""
    if error is None:
        return None if addend is None else addend * (1 + 2.0**-40)
    product = error * factor
    return (product if addend is None else product + addend) * (1 + 2.0**-40) + 2.0**-1000


class _Sum(TypedDict):
    shift: Float64Array | None
    error: Float64Array | None


def _sum(
    shift: Float64Array | None, error: Float64Array | None, addends: Float64Array | None, errors: Float64Array | None
) -> _Sum:
    """Returns the sum of two constants and its error."""
    if shift is None or addends is None:
        both = addends if shift is None else shift
        other = error if errors is None else errors if error is None else (error + errors) * (1 + 2.0**-40)
        return {"shift": _nonzero(both), "error": _nonzero(other)}
    total = shift + addends
    # The sum with 0 is exact.
    rounding = np.where((shift != 0) & (addends != 0), STEP * np.abs(total), 0.0)
    for part in (error, errors):
        rounding = rounding if part is None else rounding + part
    return {"shift": _nonzero(total), "error": _nonzero(_above(None, 1.0, rounding))}


def total(values: Sequence[Value]) -> Value:
    """Adds values of one shape."""
    terms: list[Term] = []
    constants = _Sum(shift=None, error=None)
    for value in values:
        for term in value.terms:
            same = next((i for i, t in enumerate(terms) if t.source == term.source and _alike(t, term)), None)
            if same is None:
                terms.append(term)
                continue
            ones = np.ones(value.size)
            both = [ones if t.scale is None else t.scale for t in (terms[same], term)]
            joint = both[0] + both[1]
            loose = summed(joint, np.abs(both[0]) + np.abs(both[1]), 2, max(terms[same].loose, term.loose))
            if loose is None:
                # What is left where digits cancel is for who sums with account of it.
                terms.append(term)
            elif joint.any():
                terms[same] = replace(terms[same], scale=joint, exclusive=False, loose=loose)
            else:
                del terms[same]
        constants = _sum(constants["shift"], constants["error"], value.shift, value.error)
    return Value(values[0].shape, tuple(terms), **constants)


def _alike(one: Term, two: Term) -> bool:
    if one.index is None or two.index is None:
        return one.index is two.index
    return np.array_equal(one.index, two.index)


def _nonzero(shift: Float64Array | None) -> Float64Array | None:
    return shift if shift is not None and shift.any() else None
