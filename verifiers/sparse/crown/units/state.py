"""Arrays for one image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from prunecert.verifiers.sparse.arrays import BLOCK_WIDTH, Float32Array, Float64Array, Int8Array, Int32Array, Int64Array
from prunecert.verifiers.sparse.crown.program import FUSED, Program
from prunecert.verifiers.sparse.crown.rounding import FLOOR


class UnitImage(NamedTuple):
    """What is known of one image: bounds of all variables, and the walk's compact matrix.

    Args:
        quantities: y_c, |y_c| (`crown.rounding.magnitude`), r and γ r of each variable, float64 [S, 4].
        centers: z_c of each row, float64 [S].
        lower: Bounds of each row's z, float64 [S].
        upper: Likewise.
        slack: v of each row, float64 [S].
        slopes: Of each row's lower plane as walks say, -1 where none has, int8 [S].
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
        channels: From each position's first variable on, those of its variables that are not 0, by their place in the
            position, int32 [S]; of levels that levels of blocks read, as the next three.
        values: Of these, y_c and r + loss |y_c|, float64 [S, 2].
        counts: At a position's first variable, how many these are, [S].
        peaks: By level: the largest |y_c|, float64 [L].
        sums: Scratch of one position's sums, float64 [2, 32].
    """

    quantities: Float64Array
    centers: Float64Array
    lower: Float64Array
    upper: Float64Array
    slack: Float64Array
    slopes: Int8Array
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
    channels: Int32Array
    values: Float64Array
    counts: Int64Array
    peaks: Float64Array
    sums: Float64Array


def make_image(program: Program, weights: int) -> UnitImage:
    """Returns an image with room for so many weights in the walk's matrix."""
    variables, levels, entries = len(program.level), len(program.kinds), len(program.columns)
    places = 2 * variables + 16
    # Each level ends on a multiple of 8.
    units = places + 8 * levels
    # Rows without weights are constants, and keep these values for every image.
    quantities = np.zeros((variables, 4))
    quantities[:, 0] = np.where(program.kinds[program.level] >= FUSED, np.maximum(program.bias, 0.0), program.bias)
    quantities[:, 1] = np.abs(quantities[:, 0]) + FLOOR * (quantities[:, 0] != 0)
    return UnitImage(
        quantities=quantities,
        centers=program.bias.copy(),
        lower=program.bias.copy(),
        upper=program.bias.copy(),
        slack=np.zeros(variables),
        slopes=np.full(variables, -1, dtype=np.int8),
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
        channels=np.empty(variables, dtype=np.int32),
        values=np.empty((variables, 2)),
        counts=np.zeros(variables, dtype=np.int64),
        peaks=np.zeros(levels),
        sums=np.zeros((2, BLOCK_WIDTH)),
    )
