"""Dense blocks times what feeds them, 32 neurons of one position at once, in LLVM's intermediate representation.

The neurons of a position have their weights for one source side by side. So a source that is inactive costs nothing,
and the neurons' sums stay in registers over all sources.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from prunecert.verifiers.sparse.arrays import BLOCK_WIDTH, CONV_WIDTH
from prunecert.verifiers.sparse.llvm.vectors import DOUBLE, FLOAT, INDEX, Vectors, data, demand, index, read, read_index


def _lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    sums, channels, values, weights = (data(context, builder, signature, args, k) for k in range(4))
    begin, end, base, pitch = args[4:8]
    wide, narrow = Vectors(builder, DOUBLE, CONV_WIDTH), Vectors(builder, FLOAT, CONV_WIDTH)
    parts = range(BLOCK_WIDTH // CONV_WIDTH)
    places = [[index(BLOCK_WIDTH * kind + CONV_WIDTH * part) for part in parts] for kind in (0, 1)]
    totals = [[cgutils.alloca_once_value(builder, wide.load(sums, place)) for place in row] for row in places]
    with cgutils.for_range_slice(builder, begin, end, index(1), INDEX) as (entry, _):
        pair = builder.mul(entry, index(2))
        y = wide.splat(read(builder, values, pair))
        q = wide.splat(read(builder, values, builder.add(pair, index(1))))
        row = builder.add(base, builder.mul(read_index(builder, channels, entry), pitch))
        for part in parts:
            weight = builder.fpext(narrow.load(weights, builder.add(row, index(CONV_WIDTH * part))), wide.type)
            for kind, factor, value in ((0, weight, y), (1, wide.absolute(weight), q)):
                total = totals[kind][part]
                builder.store(wide.fused(factor, value, builder.load(total)), total)
    for kind in (0, 1):
        for part in parts:
            wide.store(builder.load(totals[kind][part]), sums, places[kind][part])
    return context.get_dummy_value()


@intrinsic
def add_columns(
    typing: Any, sums: Any, channels: Any, values: Any, weights: Any, begin: Any, end: Any, base: Any, pitch: Any
) -> Any:
    """Adds what some sources of one position feed to 32 neurons of another.

    For each entry e = begin ... end - 1, with w = weights[base + channels[e] pitch + i]: sums[0, i] += w values[e, 0]
    and sums[1, i] += |w| values[e, 1], i < 32.

    Args:
        typing: Numba's typing context.
        sums: Float64 [2, 32].
        channels: int32.
        values: Float64 [n, 2].
        weights: Float32.
        begin: First entry.
        end: Entry after the last.
        base: Of the block's first row, and the first neuron.
        pitch: From row to row.
    """
    double = types.float64
    demand((sums,), sums=(sums, double), channels=(channels, types.int32), values=(values, double))
    demand((), weights=(weights, types.float32))
    place = types.int64
    return types.void(sums, channels, values, weights, place, place, place, place), _lower
