"""Arrays for one thread, whichever engine walks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.sparse.arrays import (
    LANES32,
    PAIRED_LANES32,
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
)


class Scratch(NamedTuple):
    """What one thread needs for a walk; all zero between walks.

    Args:
        coefficients: Float32 [V, PAIRED_LANES32].
        narrow: Float32 [V, PAIRED_LANES32 / 2], for few rows.
        flags: Whether a unit has coefficients, uint8 [U].
        words: The flags, eight a number: a view, [U / 8].
        touched: List of a level's touched variables, in the flat layout, int32 [V].
        sums: Float32 [PAIRED_LANES32].
        totals: Float64 [PAIRED_LANES32].
        work: What was taken since the start, with 16 coefficients each: in units, columns of units of 1, 4 and 8
            neurons; in the flat layout, weights, and neurons; [3].
    """

    coefficients: Float32Array
    narrow: Float32Array
    flags: npt.NDArray[np.uint8]
    words: npt.NDArray[np.uint64]
    touched: Int32Array
    sums: Float32Array
    totals: Float64Array
    work: Int64Array


def make_scratch(places: int, units: int, flat: bool) -> Scratch:
    """Returns what a thread needs for walks over so many places, in so many units, or in the flat layout."""
    flags = np.zeros(units + (-units) % 8, dtype=np.uint8)
    return Scratch(
        coefficients=_aligned(places, PAIRED_LANES32),
        narrow=_aligned(places, LANES32),
        flags=flags,
        words=flags.view(np.uint64),
        touched=np.zeros(places + 8 if flat else 0, dtype=np.int32),
        sums=np.zeros(PAIRED_LANES32, dtype=np.float32),
        totals=np.zeros(PAIRED_LANES32),
        work=np.zeros(3, dtype=np.int64),
    )


def _aligned(places: int, lanes: int) -> Float32Array:
    """Returns zeros [places, lanes]; vectors that cross a cache line take two loads."""
    raw = np.zeros(places * lanes + 16, dtype=np.float32)
    skip = (-raw.ctypes.data // 4) % 16
    return raw[skip : skip + places * lanes].reshape(places, lanes)
