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

#: Rows that one vector holds.
WIDTH = 16

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, WIDTH)
_INDEX = ir.IntType(64)
_LANE = ir.IntType(32)
_ZERO = ir.Constant(_VECTOR, None)
_DOUBLE = ir.DoubleType()
_QUAD = ir.VectorType(_DOUBLE, 4)
#: Independent sums of `accumulate`, so that one addition need not wait for the last.
_CHAINS = 4


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_INDEX, value)


def _splat(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    single = builder.insert_element(undefined, scalar, ir.Constant(_LANE, 0))
    mask = ir.Constant(ir.VectorType(_LANE, WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(single, undefined, mask)


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    signature = ir.FunctionType(_VECTOR, [_VECTOR, _VECTOR, _VECTOR])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.fmuladd.v{WIDTH}f32")
    return builder.call(function, [a, b, c])


def _unit(height: int) -> Any:
    """Returns the intrinsic for units of `height` neurons; `process1` says what it does."""

    def lower(count: int, context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def data(position: int) -> Any:
            return context.make_array(signature.args[position])(context, builder, args[position]).data

        def vector(pointer: Any, offset: Any) -> Any:
            return builder.bitcast(builder.gep(pointer, [offset]), _VECTOR.as_pointer())

        def scalar(pointer: Any, offset: Any) -> Any:
            return builder.load(builder.gep(pointer, [offset]))

        coefficients, planes, sums, columns, weights = (data(position) for position in (0, 1, 3, 4, 7))
        first, begin, end, offset = args[2], args[5], args[6], args[8]
        lanes = _constant(WIDTH * count)
        accumulators = [builder.load(vector(sums, _constant(WIDTH * k)), align=4) for k in range(count)]
        relaxed = []
        for row in range(height):
            neuron = builder.add(first, _constant(row))
            base, plane = builder.mul(neuron, lanes), builder.mul(neuron, _constant(4))
            lower_slope, upper_slope, lower_shift, upper_shift = (
                _splat(builder, scalar(planes, builder.add(plane, _constant(k)))) for k in range(4)
            )
            parts = []
            for k in range(count):
                place = vector(coefficients, builder.add(base, _constant(WIDTH * k)))
                value = builder.load(place, align=4)
                builder.store(_ZERO, place, align=4)
                positive = builder.select(builder.fcmp_ordered(">", value, _ZERO), value, _ZERO)
                # A NaN or an infinity makes a NaN here, which no later operation removes.
                negative = builder.fsub(value, positive)
                partial = _multiply_add(builder, positive, lower_shift, accumulators[k])
                accumulators[k] = _multiply_add(builder, negative, upper_shift, partial)
                parts.append(_multiply_add(builder, positive, lower_slope, builder.fmul(negative, upper_slope)))
            relaxed.append(parts)
        for k in range(count):
            builder.store(accumulators[k], vector(sums, _constant(WIDTH * k)), align=4)
        with cgutils.for_range_slice(builder, begin, end, _constant(1), _INDEX) as (entry, _):
            base = builder.mul(builder.sext(scalar(columns, entry), _INDEX), lanes)
            place = builder.add(offset, builder.mul(builder.sub(entry, begin), _constant(height)))
            factors = [_splat(builder, scalar(weights, builder.add(place, _constant(r)))) for r in range(height)]
            for k in range(count):
                target = vector(coefficients, builder.add(base, _constant(WIDTH * k)))
                value = builder.load(target, align=4)
                if height == 1:
                    value = _multiply_add(builder, relaxed[0][k], factors[0], value)
                else:
                    # The unit's own sum first: the chain of roundings is shorter by its height.
                    total = builder.fmul(relaxed[0][k], factors[0])
                    for r in range(1, height):
                        total = _multiply_add(builder, relaxed[r][k], factors[r], total)
                    value = builder.fadd(value, total)
                builder.store(value, target, align=4)
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
    result = types.UniTuple(types.float64, 4)
    signature = result(values, columns, weights, begin, end, smallest)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        quantities, indices, factors = (
            context.make_array(signature.args[k])(context, builder, args[k]).data for k in range(3)
        )
        begin, end, smallest = args[3:]
        empty = ir.Constant(_QUAD, ir.Undefined)
        lane = [ir.Constant(_LANE, k) for k in range(4)]
        order = ir.Constant(ir.VectorType(_LANE, 4), [0, 4, 4, 4])
        sums = [cgutils.alloca_once_value(builder, ir.Constant(_QUAD, None)) for _ in range(_CHAINS)]
        fused = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_QUAD, [_QUAD, _QUAD, _QUAD]), "llvm.fmuladd.v4f64"
        )
        absolute = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_DOUBLE, [_DOUBLE]), "llvm.fabs.f64")

        def add(entry: Any, chain: int) -> None:
            column = builder.sext(builder.load(builder.gep(indices, [entry])), _INDEX)
            place = builder.gep(quantities, [builder.mul(column, _constant(4))])
            value = builder.load(builder.bitcast(place, _QUAD.as_pointer()), align=8)
            weight = builder.fpext(builder.load(builder.gep(factors, [entry])), _DOUBLE)
            size = builder.call(absolute, [weight])
            size = builder.select(builder.fcmp_ordered("<", size, smallest), smallest, size)
            first = builder.insert_element(empty, weight, lane[0])
            rest = builder.insert_element(empty, size, lane[0])
            both = builder.shuffle_vector(first, rest, order)
            builder.store(builder.call(fused, [both, value, builder.load(sums[chain])]), sums[chain])

        steps = builder.sdiv(builder.sub(end, begin), _constant(_CHAINS))
        middle = builder.add(begin, builder.mul(steps, _constant(_CHAINS)))
        with cgutils.for_range_slice(builder, begin, middle, _constant(_CHAINS), _INDEX) as (entry, _):
            for chain in range(_CHAINS):
                add(builder.add(entry, _constant(chain)), chain)
        with cgutils.for_range_slice(builder, middle, end, _constant(1), _INDEX) as (entry, _):
            add(entry, 0)
        total = builder.load(sums[0])
        for chain in range(1, _CHAINS):
            total = builder.fadd(total, builder.load(sums[chain]))
        return context.make_tuple(builder, result, [builder.extract_element(total, lane[k]) for k in range(4)])

    return signature, generate
