"""Arrays for one image, and for one thread."""

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
from prunecert.verifiers.sparse.crown.program import FUSED, Program


class Image(NamedTuple):
    """What is known of one image: bounds of all variables, and the walk's compact matrix.

    Args:
        quantities: y_c, |y_c|, r and γ r of each variable, float64 [S, 4].
        centers: z_c of each row, float64 [S].
        lower: Bounds of each row's z, float64 [S].
        upper: Likewise.
        slack: v of each row, float64 [S].
        number: Each variable's place in the walk, -1 if nothing depends on it, int32 [S].
        planes: By place: slopes for λ > 0 and λ < 0, constants likewise, float32 [V, 4].
        first: By unit: its first place, [U].
        height: By unit: 1, 4 or 8, [U].
        entries: By unit: first entry, [U + 1].
        offsets: By unit: first weight, [U + 1].
        feeders: By unit: first of the units that it feeds, [U + 1].
        columns: By entry: place, int32 [E].
        weights: Float32 [W].
        fed: Units, int32 [F].
        unit: By place: its unit, int32 [V].
        begins: By level: first unit, [L + 1].
        mark: Scratch for building units: by place, the last unit of all images that had it as column, [V].
        spot: Likewise.
        used: Places, units, entries, weights and fed units so far, and units of all images, [6].
        tiny: By level: what underflow may cost a walk from there, [L + 1].
    """

    quantities: Float64Array
    centers: Float64Array
    lower: Float64Array
    upper: Float64Array
    slack: Float64Array
    number: Int32Array
    planes: Float32Array
    first: Int64Array
    height: Int64Array
    entries: Int64Array
    offsets: Int64Array
    feeders: Int64Array
    columns: Int32Array
    weights: Float32Array
    fed: Int32Array
    unit: Int32Array
    begins: Int64Array
    mark: Int64Array
    spot: Int64Array
    used: Int64Array
    tiny: Float64Array


class Scratch(NamedTuple):
    """What one thread needs for a walk; all zero between walks.

    Args:
        coefficients: Float32 [V, PAIRED_LANES32].
        narrow: Float32 [V, PAIRED_LANES32 / 2], for few rows.
        flags: Whether a unit has coefficients, uint8 [U].
        words: The flags, eight a number: a view, [U / 8].
        touched: List of a level's touched variables, by `direct`, int32 [V].
        sums: Float32 [PAIRED_LANES32].
        totals: Float64 [PAIRED_LANES32].
        work: What was taken since the start: by `walk`, columns of units of 1, 4 and 8 neurons; by `direct`, products
            of a weight with 16 coefficients, and neurons; [3].
    """

    coefficients: Float32Array
    narrow: Float32Array
    flags: npt.NDArray[np.uint8]
    words: npt.NDArray[np.uint64]
    touched: Int32Array
    sums: Float32Array
    totals: Float64Array
    work: Int64Array


def make_image(program: Program, weights: int) -> Image:
    """Returns an image with room for so many weights in the walk's matrix."""
    variables, levels, entries = len(program.level), len(program.kinds), len(program.columns)
    places = 2 * variables + 16
    # Each level ends on a multiple of 8.
    units = places + 8 * levels
    # Rows without weights are constants, and keep these values for every image.
    quantities = np.zeros((variables, 4))
    quantities[:, 0] = np.where(program.kinds[program.level] >= FUSED, np.maximum(program.bias, 0.0), program.bias)
    quantities[:, 1] = np.abs(quantities[:, 0])
    return Image(
        quantities=quantities,
        centers=program.bias.copy(),
        lower=program.bias.copy(),
        upper=program.bias.copy(),
        slack=np.zeros(variables),
        number=np.full(variables, -1, dtype=np.int32),
        planes=np.zeros((places, 4), dtype=np.float32),
        first=np.zeros(units, dtype=np.int64),
        height=np.zeros(units, dtype=np.int64),
        entries=np.zeros(units + 1, dtype=np.int64),
        offsets=np.zeros(units + 1, dtype=np.int64),
        feeders=np.zeros(units + 1, dtype=np.int64),
        columns=np.empty(entries, dtype=np.int32),
        weights=np.empty(weights, dtype=np.float32),
        fed=np.empty(entries, dtype=np.int32),
        unit=np.zeros(places, dtype=np.int32),
        begins=np.zeros(levels + 1, dtype=np.int64),
        mark=np.full(places, -1, dtype=np.int64),
        spot=np.zeros(places, dtype=np.int64),
        used=np.zeros(6, dtype=np.int64),
        tiny=np.zeros(levels + 1),
    )


def make_scratch(places: int, units: int, narrow: bool) -> Scratch:
    """Returns what a thread needs for walks over so many places, in so many units; `narrow` ones, too."""
    flags = np.zeros(units + (-units) % 8, dtype=np.uint8)
    return Scratch(
        coefficients=_aligned(places, PAIRED_LANES32),
        narrow=_aligned(places if narrow else 0, LANES32),
        flags=flags,
        words=flags.view(np.uint64),
        touched=np.zeros(places + 8 if narrow else 0, dtype=np.int32),
        sums=np.zeros(PAIRED_LANES32, dtype=np.float32),
        totals=np.zeros(PAIRED_LANES32),
        work=np.zeros(3, dtype=np.int64),
    )


def _aligned(places: int, lanes: int) -> Float32Array:
    """Returns zeros [places, lanes]; vectors that cross a cache line take two loads."""
    raw = np.zeros(places * lanes + 16, dtype=np.float32)
    skip = (-raw.ctypes.data // 4) % 16
    return raw[skip : skip + places * lanes].reshape(places, lanes)
