"""A sparse row times 16 subdomains at once: the inner loop of the search, in LLVM's intermediate representation.

Numba keeps no array in vector registers over a loop, and sums of dependent additions wait for each other. The loop here
holds four sums of 16 lanes, and an entry costs one load of 16 values and one multiply-add.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from prunecert.verifiers.sparse.arrays import LANES32
from prunecert.verifiers.sparse.llvm.vectors import FLOAT, INDEX, Vectors, data, demand, index, read, read_index

#: Sums that don't wait for each other.
_CHAINS = 4


def _lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    values, columns, weights, out = (data(context, builder, signature, args, k) for k in (0, 2, 3, 6))
    base, begin, end, place = args[1], args[4], args[5], args[7]
    lanes = Vectors(builder, FLOAT, LANES32)
    sums = [cgutils.alloca_once_value(builder, lanes.zero) for _ in range(_CHAINS)]

    def add(entry: Any, chain: int) -> None:
        column = read_index(builder, columns, entry)
        value = lanes.load(values, builder.add(base, builder.mul(column, index(LANES32))))
        weight = lanes.splat(read(builder, weights, entry))
        builder.store(lanes.fused(value, weight, builder.load(sums[chain])), sums[chain])

    whole = builder.sub(end, builder.srem(builder.sub(end, begin), index(_CHAINS)))
    with cgutils.for_range_slice(builder, begin, whole, index(_CHAINS), INDEX) as (entry, _):
        for chain in range(_CHAINS):
            add(builder.add(entry, index(chain)), chain)
    with cgutils.for_range_slice(builder, whole, end, index(1), INDEX) as (entry, _):
        add(entry, 0)
    first, second, third, fourth = (builder.load(total) for total in sums)
    lanes.store(builder.fadd(builder.fadd(first, second), builder.fadd(third, fourth)), out, place)
    return context.get_dummy_value()


@intrinsic
def gather(
    typing: Any, values: Any, base: Any, columns: Any, weights: Any, begin: Any, end: Any, out: Any, place: Any
) -> Any:
    """Sets out[place + l] = sum over e = begin ... end - 1 of weights[e] values[base + 16 columns[e] + l], l < 16.

    Args:
        typing: Numba's typing context.
        values: Float32, flat.
        base: int64.
        columns: int32.
        weights: Float32.
        begin: int64.
        end: int64.
        out: Float32, flat; may be `values`.
        place: int64.
    """
    kind = types.float32
    demand((out,), values=(values, kind), columns=(columns, types.int32), weights=(weights, kind), out=(out, kind))
    return types.void(values, types.int64, columns, weights, types.int64, types.int64, out, types.int64), _lower
