"""Values of a graph that is read: sums of scaled, rearranged nodes of the normal network, not yet written as nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from prunecert.onnx.normal import Array, IntArray, Last, UnsupportedNetworkError

Float64Array = npt.NDArray[np.float64]
Shape = tuple[int, ...]
#: Most elements of a value that is rearranged or scaled.
REARRANGED = 2**25


@dataclass(frozen=True, eq=False)
class Term:
    """A node's value, rearranged and scaled.

    Args:
        source: Number of the node.
        index: For each element of the value, in C order, the flat element of the node, or -1 where it gives none;
            None: the same order.
        scale: For each element, in C order; None: 1.
        exclusive: Whether nothing else will read the node, so that a factor may go into its weights.
    """

    source: int
    index: IntArray | None = None
    scale: Float64Array | None = None
    exclusive: bool = False


@dataclass(frozen=True, eq=False)
class Value:
    """The sum of some terms and a constant.

    Args:
        shape: As the given graph has it.
        terms: The terms.
        shift: The constant, in C order; None: 0.
        last: What was removed to get here; only rearrangements may follow.
        maker: Which node that was.
    """

    shape: Shape
    terms: tuple[Term, ...]
    shift: Float64Array | None = None
    last: Last = "none"
    maker: str = ""

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def plain(self) -> bool:
        """Whether it is one node, in its order, and nothing else."""
        return (
            len(self.terms) == 1 and self.shift is None and self.terms[0].index is None and self.terms[0].scale is None
        )


def constant(array: Array) -> Value:
    """Returns a value without terms."""
    return Value(array.shape, (), np.asarray(array, dtype=np.float64).reshape(-1))


def shared(value: Value) -> Value:
    """Returns the value, to be read more than once."""
    return replace(value, terms=tuple(replace(term, exclusive=False) for term in value.terms))


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
    shift = None
    if value.shift is not None:
        shift = value.shift[flat] if full else np.where(absent, 0.0, value.shift[flat])
    return replace(value, shape=positions.shape, terms=tuple(terms), shift=_nonzero(shift))


def reshaped(value: Value, shape: Shape) -> Value:
    """Gives a value another shape of as many elements."""
    return replace(value, shape=shape)


def scaled(value: Value, factor: Array | float) -> Value:
    """Multiplies a value element by element with finite numbers of a shape that broadcasts to the value's."""
    factors = np.broadcast_to(np.asarray(factor, dtype=np.float64), value.shape).reshape(-1)
    if np.all(factors == 1):
        return value
    check_size(value.size)
    terms = tuple(
        replace(term, scale=factors if term.scale is None else term.scale * factors)
        for term in value.terms
        if factors.any()
    )
    shift = None if value.shift is None else value.shift * factors
    return replace(value, terms=terms, shift=_nonzero(shift))


def shifted(value: Value, addend: Array | float) -> Value:
    """Adds numbers of a shape that broadcasts to the value's."""
    addends = np.broadcast_to(np.asarray(addend, dtype=np.float64), value.shape).reshape(-1)
    check_size(value.size)
    return replace(value, shift=_nonzero(addends if value.shift is None else value.shift + addends))


def total(values: Sequence[Value]) -> Value:
    """Adds values of one shape."""
    terms: list[Term] = []
    shift: Float64Array | None = None
    for value in values:
        for term in value.terms:
            same = next((i for i, t in enumerate(terms) if t.source == term.source and _alike(t, term)), None)
            if same is None:
                terms.append(term)
                continue
            ones = np.ones(value.size)
            both = [ones if t.scale is None else t.scale for t in (terms[same], term)]
            joint = both[0] + both[1]
            if joint.any():
                terms[same] = replace(terms[same], scale=joint, exclusive=False)
            else:
                del terms[same]
        if value.shift is not None:
            shift = value.shift if shift is None else shift + value.shift
    return Value(values[0].shape, tuple(terms), _nonzero(shift))


def _alike(one: Term, two: Term) -> bool:
    if one.index is None or two.index is None:
        return one.index is two.index
    return np.array_equal(one.index, two.index)


def _nonzero(shift: Float64Array | None) -> Float64Array | None:
    return shift if shift is not None and shift.any() else None
