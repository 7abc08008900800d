"""A sparse row's transpose times 16 numbers at once: what goes backwards, in LLVM's intermediate representation.

Numbers are float32 or float64, all of them alike.

The 16 values of the row stay in a register, and an entry costs one multiply-add to what its column has.
"""

from __future__ import annotations

from typing import Any

import numba
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from prunecert.verifiers.sparse.arrays import LANES32, Float32Array, Int32Array, Int64Array
from prunecert.verifiers.sparse.llvm.vectors import DOUBLE, FLOAT, INDEX, Vectors, data, demand, index, read, read_index


def _lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    values, columns, weights, out = (data(context, builder, signature, args, k) for k in (0, 2, 3, 6))
    place, begin, end, base = args[1], args[4], args[5], args[7]
    kind = DOUBLE if signature.args[0].dtype == types.float64 else FLOAT
    lanes = Vectors(builder, kind, LANES32)
    value = lanes.load(values, place)
    with cgutils.for_range_slice(builder, begin, end, index(1), INDEX) as (entry, _):
        target = builder.add(base, builder.mul(read_index(builder, columns, entry), index(LANES32)))
        weight = lanes.splat(read(builder, weights, entry))
        lanes.store(lanes.fused(value, weight, lanes.load(out, target)), out, target)
    return context.get_dummy_value()


@intrinsic
def scatter(
    typing: Any, values: Any, place: Any, columns: Any, weights: Any, begin: Any, end: Any, out: Any, base: Any
) -> Any:
    """Adds weights[e] values[place + l] to out[base + 16 columns[e] + l] for e = begin ... end - 1, l < 16.

    Args:
        typing: Numba's typing context.
        values: Float32 or float64, flat.
        place: int64.
        columns: int32.
        weights: Of the same type.
        begin: int64.
        end: int64.
        out: Likewise; may be `values`.
        base: int64.
    """
    kind = types.float64 if getattr(values, "dtype", None) == types.float64 else types.float32
    demand((out,), values=(values, kind), columns=(columns, types.int32), weights=(weights, kind), out=(out, kind))
    return types.void(values, types.int64, columns, weights, types.int64, types.int64, out, types.int64), _lower


@numba.njit(cache=True, nogil=True)
def back(
    starts: Int64Array,
    columns: Int32Array,
    weights: Float32Array,
    first: int,
    stop: int,
    values: Float32Array,
    place: int,
    out: Float32Array,
    base: int,
) -> None:
    """Adds the transposed rows times values at `place` to those at `base`; rows of zeros are left out."""
    for row in range(first, stop):
        mine = place + (row - first) * 16
        filled = False
        for lane in range(16):
            if values[mine + lane] != 0:
                filled = True
        if filled:
            scatter(values, mine, columns, weights, starts[row], starts[row + 1], out, base)
