"""The best convex combination of the linear bounds of a conjunction's rows, over each of many sub-boxes.

Two rows that keep apart along a slanted plane exclude a sub-box together though neither does alone, nor one after the
other along an axis. A combination of rows that are all at most 0 is at most 0, so that its line cuts like a row's
(`box_clipping`). Weights are sought in plain floating point; the line that they give is charged with all rounding.
"""

from __future__ import annotations

import numpy as np

from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array

#: Rows that the weights are moved towards, one after the other.
_STEPS = 4
#: Numbers of one table of kinks; sub-boxes are taken in parts for it, and where one alone has more, its best row stays.
_NUMBERS = 4_000_000
_UNIT = 2.0**-53


def weigh(lines: Float64Array, counts: Int64Array) -> Float64Array:
    """Returns weights of each sub-box's rows with a large least value over [-1, 1]^d, [B, R]; they sum to 1.

    Each step goes towards the row, and to the kink on the way there, where the least value is largest.

    Args:
        lines: (m, G_1, …, G_d, ρ) for each row, [B, R, d + 2].
        counts: How many rows each sub-box has, at least one, [B].
    """
    rows, inputs = lines.shape[1], lines.shape[2] - 2
    step = _NUMBERS // max(1, rows * (inputs + 1) * inputs)
    with np.errstate(all="ignore"):
        if step < 1:
            return _ascend(lines, counts, 0)
        parts = [
            _ascend(lines[begin : begin + step], counts[begin : begin + step], _STEPS)
            for begin in range(0, len(lines), step)
        ]
    return np.concatenate(parts) if parts else np.zeros((0, rows))


def _ascend(lines: Float64Array, counts: Int64Array, steps: int) -> Float64Array:
    boxes, rows = np.arange(len(lines)), np.arange(lines.shape[1])
    base, slopes = lines[:, :, 0] - lines[:, :, -1], lines[:, :, 1:-1]
    missing = rows >= counts[:, None]
    alone = np.where(missing, -np.inf, np.nan_to_num(base - np.abs(slopes).sum(axis=2), nan=-np.inf))
    best = alone.argmax(axis=1)
    weights: Float64Array = (rows == best[:, None]).astype(np.float64)
    least, at, slope = alone[boxes, best], base[boxes, best], slopes[boxes, best]
    for _ in range(steps):
        turn = slopes - slope[:, None]
        kinks = np.clip(np.nan_to_num(-slope[:, None] / turn, nan=0.0), 0.0, 1.0)
        shares = np.concatenate([kinks, np.ones_like(kinks[:, :, :1])], axis=2)
        swayed = slope[:, None, None] + shares[..., None] * turn[:, :, None]
        values = at[:, None, None] + shares * (base - at[:, None])[..., None] - np.abs(swayed).sum(axis=3)
        values = np.where(missing[..., None], -np.inf, np.nan_to_num(values, nan=-np.inf)).reshape(len(lines), -1)
        place = values.argmax(axis=1)
        row, share = place // shares.shape[2], shares.reshape(len(lines), -1)[boxes, place]
        share = np.where(values[boxes, place] > least, share, 0.0)
        least = np.maximum(values[boxes, place], least)
        weights = weights + share[:, None] * ((rows == row[:, None]) - weights)
        at = at + share * (base[boxes, row] - at)
        slope = slope + share[:, None] * (slopes[boxes, row] - slope)
    return weights


def combine(lines: Float64Array, counts: Int64Array) -> Float64Array:
    """Returns lines with one more for each sub-box, behind its own: a combination of them, [B, R + 1, d + 2].

    It is below a sum of the rows with weights of 0 or more whose sum is at most 1.

    Args:
        lines: As for `weigh`; the rows are at least m + G t - ρ in real arithmetic.
        counts: Likewise.
    """
    boxes, rows = np.arange(len(lines)), lines.shape[1]
    more = np.concatenate([lines, np.zeros_like(lines[:, :1])], axis=1)
    with np.errstate(all="ignore"):
        weights = np.maximum(weigh(lines, counts), 0.0)
        weights *= ((1.0 - 2.0**-40) / weights.sum(axis=1))[:, None]
        used = np.where((np.arange(rows) < counts[:, None])[..., None], lines, 0.0)
        line = np.einsum("br,brc->bc", weights, used)
        size = np.einsum("br,brc->b", weights, np.abs(used))
        # Rounding of all entries, each of which is a sum of so many products.
        line[:, -1] += 4.0 * (rows + lines.shape[2] + 8.0) * _UNIT * size + 1e-200
    more[boxes, counts] = line
    return more
