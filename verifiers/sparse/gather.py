"""A sparse row times 16 subdomains at once: the inner loop of the search, in LLVM's intermediate representation.

Numba keeps no array in vector registers over a loop, and sums of dependent additions wait for each other. The loop here
holds four sums of 16 lanes, and an entry costs one load of 16 values and one multiply-add.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

#: Subdomains side by side: one AVX-512 register of float32.
LANES = 16

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INDEX = ir.IntType(64)
_LANE = ir.IntType(32)
#: Sums that don't wait for each other.
_CHAINS = 4


def _lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    def data(position: int) -> Any:
        return context.make_array(signature.args[position])(context, builder, args[position]).data

    def vector(pointer: Any, offset: Any) -> Any:
        return builder.bitcast(builder.gep(pointer, [offset]), _VECTOR.as_pointer())

    def constant(value: int) -> ir.Constant:
        return ir.Constant(_INDEX, value)

    values, columns, weights, out = (data(position) for position in (0, 2, 3, 6))
    base, begin, end, place = args[1], args[4], args[5], args[7]
    fused = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fmuladd.v{LANES}f32"
    )
    sums = [cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, None)) for _ in range(_CHAINS)]

    def add(entry: Any, chain: int) -> None:
        column = builder.sext(builder.load(builder.gep(columns, [entry])), _INDEX)
        offset = builder.add(base, builder.mul(column, constant(LANES)))
        value = builder.load(vector(values, offset), align=4)
        single = builder.insert_element(
            ir.Constant(_VECTOR, ir.Undefined), builder.load(builder.gep(weights, [entry])), ir.Constant(_LANE, 0)
        )
        weight = builder.shuffle_vector(
            single, ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.VectorType(_LANE, LANES), [0] * LANES)
        )
        builder.store(builder.call(fused, [value, weight, builder.load(sums[chain])]), sums[chain])

    whole = builder.sub(end, builder.srem(builder.sub(end, begin), constant(_CHAINS)))
    with cgutils.for_range_slice(builder, begin, whole, constant(_CHAINS), _INDEX) as (entry, _):
        for chain in range(_CHAINS):
            add(builder.add(entry, constant(chain)), chain)
    with cgutils.for_range_slice(builder, whole, end, constant(1), _INDEX) as (entry, _):
        add(entry, 0)
    first, second, third, fourth = (builder.load(place_) for place_ in sums)
    total = builder.fadd(builder.fadd(first, second), builder.fadd(third, fourth))
    builder.store(total, vector(out, place), align=4)
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
    return types.void(values, types.int64, columns, weights, types.int64, types.int64, out, types.int64), _lower
