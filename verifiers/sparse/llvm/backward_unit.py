"""The inner loop of the backward pass, written in LLVM's intermediate representation.

Numba can't keep a block of rows in vector registers over a loop, and that is what the speed is made of. Each intrinsic
here takes one unit, 1, 4 or 8 neurons that share a list of columns: it relaxes their coefficients, adds their
constants, and scatters them to the columns. LLVM maps the 16-wide vectors to what the machine has.

No fast-math flag is set but that a product may be fused with a sum: a NaN or an infinity stays one.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from prunecert.verifiers.sparse.arrays import LANES32
from prunecert.verifiers.sparse.llvm.vectors import (
    DOUBLE,
    FLOAT,
    INDEX,
    LANE,
    Vectors,
    data,
    demand,
    index,
    read,
    read_index,
)

#: Independent sums of `accumulate`, so that one addition need not wait for the last.
_CHAINS = 4


def _unit(height: int) -> Any:
    """Returns the intrinsic for units of `height` neurons; `process1` says what it does."""

    def lower(count: int, context: Any, builder: Any, signature: Any, args: Any) -> Any:
        coefficients, planes, sums, columns, weights = (
            data(context, builder, signature, args, position) for position in (0, 1, 3, 4, 7)
        )
        first, begin, end, offset = args[2], args[5], args[6], args[8]
        rows = Vectors(builder, FLOAT, LANES32)
        lanes = index(LANES32 * count)
        accumulators = [rows.load(sums, index(LANES32 * k)) for k in range(count)]
        relaxed = []
        for row in range(height):
            neuron = builder.add(first, index(row))
            base, plane = builder.mul(neuron, lanes), builder.mul(neuron, index(4))
            lower_slope, upper_slope, lower_shift, upper_shift = (
                rows.splat(read(builder, planes, builder.add(plane, index(k)))) for k in range(4)
            )
            parts = []
            for k in range(count):
                place = builder.add(base, index(LANES32 * k))
                value = rows.load(coefficients, place)
                rows.store(rows.zero, coefficients, place)
                positive = rows.larger(value, rows.zero)
                # A NaN or an infinity makes a NaN here, which no later operation removes.
                negative = builder.fsub(value, positive)
                partial = rows.fused(positive, lower_shift, accumulators[k])
                accumulators[k] = rows.fused(negative, upper_shift, partial)
                parts.append(rows.fused(positive, lower_slope, builder.fmul(negative, upper_slope)))
            relaxed.append(parts)
        for k in range(count):
            rows.store(accumulators[k], sums, index(LANES32 * k))
        with cgutils.for_range_slice(builder, begin, end, index(1), INDEX) as (entry, _):
            base = builder.mul(read_index(builder, columns, entry), lanes)
            place = builder.add(offset, builder.mul(builder.sub(entry, begin), index(height)))
            factors = [rows.splat(read(builder, weights, builder.add(place, index(r)))) for r in range(height)]
            for k in range(count):
                target = builder.add(base, index(LANES32 * k))
                value = rows.load(coefficients, target)
                if height == 1:
                    value = rows.fused(relaxed[0][k], factors[0], value)
                else:
                    # The unit's own sum first: the chain of roundings is shorter by its height.
                    total = builder.fmul(relaxed[0][k], factors[0])
                    for r in range(1, height):
                        total = rows.fused(relaxed[r][k], factors[r], total)
                    value = builder.fadd(value, total)
                rows.store(value, coefficients, target)
        return context.get_dummy_value()

    def process(
        typing: Any, A: Any, planes: Any, first: Any, sums: Any, columns: Any, begin: Any, end: Any, weights: Any,
        offset: Any, vectors: Any,
    ) -> Any:  # fmt: skip
        """Takes one unit of the backward pass.

        For its neurons i = first, first + 1, ... and every row l of the block, with λ = A[i, l]:
        sums[l] += max(λ, 0) planes[i, 2] + min(λ, 0) planes[i, 3]; μ_i = max(λ, 0) planes[i, 0] +
        min(λ, 0) planes[i, 1]; A[i, l] = 0; then for each entry e = begin ... end - 1, with the weights of the unit's
        neurons side by side from weights[offset] on: A[columns[e], l] += sum of μ_i weights[...].

        Args:
            typing: Numba's typing context.
            A: Coefficients, float32 [variables, rows of a block].
            planes: Float32 [variables, 4].
            first: The unit's first variable.
            sums: Float32 [rows of a block].
            columns: int32.
            begin: First entry.
            end: Entry after the last.
            weights: Float32.
            offset: Of the unit's weights.
            vectors: A tuple of as many integers as a block has vectors; only its length counts.
        """
        count = vectors.count
        signature = types.void(A, planes, first, sums, columns, begin, end, weights, offset, vectors)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return lower(count, context, builder, signature, args)

        return signature, generate

    return intrinsic(process)


process1 = _unit(1)
process4 = _unit(4)
process8 = _unit(8)


@intrinsic
def accumulate(typing: Any, values: Any, columns: Any, weights: Any, begin: Any, end: Any, smallest: Any) -> Any:
    """Sums a row over four quantities at once.

    Args:
        typing: Numba's typing context.
        values: Float64 [variables, 4].
        columns: int32.
        weights: Float32.
        begin: First entry.
        end: Entry after the last.
        smallest: Float64; sizes of weights below it count as it.

    Returns:
        Sums over the entries of w values[j, 0] and of max(|w|, smallest) values[j, 1 ... 3].
    """
    demand((), values=(values, types.float64), columns=(columns, types.int32), weights=(weights, types.float32))
    result = types.UniTuple(types.float64, 4)
    signature = result(values, columns, weights, begin, end, smallest)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        quantities, indices, factors = (data(context, builder, signature, args, k) for k in range(3))
        begin, end, smallest = args[3:]
        four = Vectors(builder, DOUBLE, 4)
        empty = ir.Constant(four.type, ir.Undefined)
        lane = [ir.Constant(LANE, k) for k in range(4)]
        order = ir.Constant(ir.VectorType(LANE, 4), [0, 4, 4, 4])
        sums = [cgutils.alloca_once_value(builder, four.zero) for _ in range(_CHAINS)]
        absolute = cgutils.get_or_insert_function(builder.module, ir.FunctionType(DOUBLE, [DOUBLE]), "llvm.fabs.f64")

        def add(entry: Any, chain: int) -> None:
            value = four.load(quantities, builder.mul(read_index(builder, indices, entry), index(4)))
            weight = builder.fpext(read(builder, factors, entry), DOUBLE)
            size = builder.call(absolute, [weight])
            size = builder.select(builder.fcmp_ordered("<", size, smallest), smallest, size)
            first = builder.insert_element(empty, weight, lane[0])
            rest = builder.insert_element(empty, size, lane[0])
            both = builder.shuffle_vector(first, rest, order)
            builder.store(four.fused(both, value, builder.load(sums[chain])), sums[chain])

        steps = builder.sdiv(builder.sub(end, begin), index(_CHAINS))
        middle = builder.add(begin, builder.mul(steps, index(_CHAINS)))
        with cgutils.for_range_slice(builder, begin, middle, index(_CHAINS), INDEX) as (entry, _):
            for chain in range(_CHAINS):
                add(builder.add(entry, index(chain)), chain)
        with cgutils.for_range_slice(builder, middle, end, index(1), INDEX) as (entry, _):
            add(entry, 0)
        total = builder.load(sums[0])
        for chain in range(1, _CHAINS):
            total = builder.fadd(total, builder.load(sums[chain]))
        return context.make_tuple(builder, result, [builder.extract_element(total, lane[k]) for k in range(4)])

    return signature, generate
