"""Loops over neighbouring neurons of one channel, eight at a time, in LLVM's intermediate representation.

A weight of a convolution multiplies a rectangle of one channel and adds to a rectangle of another, row by row: a
stripe. Numba's own vectoriser leaves stripes of 8 to 32 numbers to scalar loops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from prunecert.verifiers.sparse.arrays import CONV_WIDTH
from prunecert.verifiers.sparse.llvm.vectors import DOUBLE, INDEX, Vectors, data, index

#: What reading two numbers for one may read beyond the last.
PADDING = 2 * CONV_WIDTH

_U53 = 2.0**-53
_LEAST, _FLOOR = 2.0**-600, 2.0**-800


def _spans(builder: Any, count: Any, widths: tuple[int, ...], body: Callable[[Vectors, Any], None]) -> None:
    """Covers 0 ... count - 1 with blocks of the first width, then at most one of each other that halves it."""
    lanes = [Vectors(builder, DOUBLE, width) for width in widths]
    whole = builder.and_(count, index(-widths[0]))
    with cgutils.for_range_slice(builder, index(0), whole, index(widths[0]), INDEX) as (at, _):
        body(lanes[0], at)
    position = whole
    for lane in lanes[1:]:
        bit = builder.and_(count, index(lane.width))
        with builder.if_then(builder.icmp_signed("!=", bit, index(0))):
            body(lane, position)
        position = builder.add(position, bit)


def _stripe(step: int) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        centers, radii, y, q = (data(context, builder, signature, args, k) for k in range(4))
        weight, to, source, count = args[4:8]
        absolute = cgutils.get_or_insert_function(builder.module, ir.FunctionType(DOUBLE, [DOUBLE]), "llvm.fabs.f64")
        size = builder.call(absolute, [weight])

        def body(lanes: Vectors, at: Any) -> None:
            out = builder.add(to, at)
            inner = builder.add(source, builder.mul(at, index(step)))
            for values, sums, factor in ((y, centers, weight), (q, radii, size)):
                total = lanes.fused(lanes.splat(factor), lanes.load(values, inner, step), lanes.load(sums, out))
                lanes.store(total, sums, out)

        _spans(builder, count, (CONV_WIDTH, 4, 2, 1), body)
        return context.get_dummy_value()

    def stripe(
        typing: Any, centers: Any, radii: Any, y: Any, q: Any, weight: Any, to: Any, source: Any, count: Any
    ) -> Any:  # fmt: skip
        """Adds weight times stripes: centers[to + i] += w y[source + step i], radii[to + i] += |w| q[source + step i].

        Args:
            typing: Numba's typing context.
            centers: Float64.
            radii: Float64.
            y: Float64, `PADDING` longer than what is used.
            q: Likewise.
            weight: Float64.
            to: First place.
            source: First place.
            count: Length.
        """
        place = types.int64
        return types.void(centers, radii, y, q, types.float64, place, place, place), generate

    return intrinsic(stripe)


stripe1 = _stripe(1)
stripe2 = _stripe(2)


def _settle(rectified: bool) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        names = ("centers", "radii", "lower", "upper", "y", "r", "q", "peaks")
        arrays = {name: data(context, builder, signature, args, k) for k, name in enumerate(names)}
        begin, end, error, grow, loss = args[8:13]

        def body(lanes: Vectors, at: Any) -> None:
            place = builder.add(begin, at)
            value = lanes.load(arrays["centers"], place)
            sums = lanes.load(arrays["radii"], place)
            # Where all values are this small, products may underflow: see `crown.rounding.LEAST`.
            least, zero = lanes.number(_LEAST), lanes.number(0.0)
            small = builder.and_(builder.fcmp_ordered(">", sums, zero), builder.fcmp_ordered("<", sums, least))
            sums = builder.fadd(sums, builder.select(small, least, zero))
            radius = builder.fadd(sums, lanes.splat(error))
            radius = builder.fmul(radius, lanes.splat(grow))
            room = builder.fmul(builder.fadd(lanes.absolute(value), radius), lanes.number(4 * _U53))
            radius = builder.fadd(radius, room)
            low, high = builder.fsub(value, radius), builder.fadd(value, radius)
            lanes.store(low, arrays["lower"], place)
            lanes.store(high, arrays["upper"], place)
            spread = lanes.load(arrays["peaks"], index(CONV_WIDTH))
            lanes.store(builder.fadd(spread, builder.fsub(high, low)), arrays["peaks"], index(CONV_WIDTH))
            if rectified:
                # A bound that isn't a number stays one.
                low = builder.select(builder.fcmp_ordered("<", low, zero), zero, low)
                high = builder.select(builder.fcmp_ordered("<", high, zero), zero, high)
            half = lanes.number(0.5)
            y = builder.fadd(builder.fmul(low, half), builder.fmul(high, half))
            width = lanes.larger(builder.fsub(high, y), builder.fsub(y, low))
            lanes.store(y, arrays["y"], place)
            width = builder.fmul(width, lanes.number(1 + 8 * _U53))
            lanes.store(width, arrays["r"], place)
            size = lanes.absolute(y)
            # See `crown.rounding.FLOOR`.
            some = builder.fcmp_ordered(">", builder.fadd(size, width), zero)
            raised = builder.fadd(width, builder.select(some, lanes.number(_FLOOR), zero))
            lanes.store(lanes.fused(size, lanes.splat(loss), raised), arrays["q"], place)
            most = lanes.larger(size, lanes.load(arrays["peaks"], index(0)))
            lanes.store(most, arrays["peaks"], index(0))

        _spans(builder, builder.sub(end, begin), (CONV_WIDTH, 4, 2, 1), body)
        return context.get_dummy_value()

    def settle(
        typing: Any, centers: Any, radii: Any, lower: Any, upper: Any, y: Any, r: Any, q: Any, peaks: Any, begin: Any,
        end: Any, error: Any, grow: Any, loss: Any,
    ) -> Any:  # fmt: skip
        """Turns the sums of the rows begin ... end - 1 into bounds, references and radii.

        The radius is (radii + error) grow and 4 u (|centre| + radius) more, for the operations here.

        Args:
            typing: Numba's typing context.
            centers: z_c, float64.
            radii: Sums of |w| r.
            lower: Written.
            upper: Written.
            y: Written: the variables' references.
            r: Written: their radii.
            q: Written: r + loss |y|, and `crown.rounding.FLOOR` where that isn't 0.
            peaks: Its first eight grow to the largest |y|, its last eight by widths of bounds; [16].
            begin: First row.
            end: Row after the last.
            error: What is added to the radii's sums.
            grow: Covers the rounding of the radii's sums.
            loss: Share of |y| that rows that read it may lose.
        """
        row = types.int64
        double = types.float64
        arrays = (centers, radii, lower, upper, y, r, q, peaks)
        return types.void(*arrays, row, row, double, double, double), generate

    return intrinsic(settle)


settle_values = _settle(False)
settle_relus = _settle(True)
