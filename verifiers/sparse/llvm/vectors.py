"""What the kernels in LLVM's intermediate representation are written with: numbers side by side."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError

FLOAT = ir.FloatType()
DOUBLE = ir.DoubleType()
INDEX = ir.IntType(64)
LANE = ir.IntType(32)


def index(value: int) -> ir.Constant:
    """Returns a constant that counts or addresses."""
    return ir.Constant(INDEX, value)


def data(context: Any, builder: Any, signature: Any, args: Any, position: int) -> Any:
    """Returns the pointer to the numbers of the array that is the argument at a position."""
    return context.make_array(signature.args[position])(context, builder, args[position]).data


def demand(written: tuple[Any, ...], **arrays: tuple[Any, Any]) -> None:
    """Refuses arrays that a kernel would misread: it has pointers only, and knows nothing of steps.

    Args:
        written: Types of the arrays that the kernel writes.
        **arrays: The type of each array, and that of its numbers.

    Raises:
        TypingError: Numbers are of another type, don't lie side by side, or may not be written.
    """
    for name, (array, number) in arrays.items():
        if not isinstance(array, types.Array) or array.dtype != number or array.layout != "C":
            raise TypingError(f"{name} is {array}; allowed is an array of {number} in C order")
    for array in written:
        if not array.mutable:
            raise TypingError(f"{array} can't be written")


def read(builder: Any, pointer: Any, offset: Any) -> Any:
    """Loads one number."""
    return builder.load(builder.gep(pointer, [offset]))


def read_index(builder: Any, pointer: Any, offset: Any) -> Any:
    """Loads one int32 as an index."""
    return builder.sext(read(builder, pointer, offset), INDEX)


class Vectors:
    """Builds operations on numbers side by side.

    No fast-math flag is set but that a product may be fused with a sum: a NaN or an infinity stays one.

    Args:
        builder: LLVM's.
        kind: `FLOAT` or `DOUBLE`.
        width: How many numbers.
    """

    def __init__(self, builder: Any, kind: Any, width: int) -> None:
        self.builder, self.kind, self.width = builder, kind, width
        self.type = ir.VectorType(kind, width)
        self.zero = ir.Constant(self.type, None)
        self._align, self._suffix = (4, f"v{width}f32") if kind is FLOAT else (8, f"v{width}f64")

    def _call(self, name: str, *values: Any) -> Any:
        signature = ir.FunctionType(self.type, [self.type] * len(values))
        function = cgutils.get_or_insert_function(self.builder.module, signature, f"llvm.{name}.{self._suffix}")
        return self.builder.call(function, values)

    def splat(self, scalar: Any) -> Any:
        """Returns a number as often as there are lanes."""
        empty = ir.Constant(self.type, ir.Undefined)
        single = self.builder.insert_element(empty, scalar, ir.Constant(LANE, 0))
        return self.builder.shuffle_vector(
            single, empty, ir.Constant(ir.VectorType(LANE, self.width), [0] * self.width)
        )

    def number(self, value: float) -> Any:
        """Returns a constant as often as there are lanes."""
        return ir.Constant(self.type, [value] * self.width)

    def load(self, pointer: Any, offset: Any, step: int = 1) -> Any:
        """Loads numbers from `offset` on that are `step` (1 or 2) apart."""
        both = ir.VectorType(self.kind, step * self.width)
        place = self.builder.bitcast(self.builder.gep(pointer, [offset]), both.as_pointer())
        value = self.builder.load(place, align=self._align)
        if step == 1:
            return value
        even = ir.Constant(ir.VectorType(LANE, self.width), [step * lane for lane in range(self.width)])
        return self.builder.shuffle_vector(value, ir.Constant(both, ir.Undefined), even)

    def store(self, value: Any, pointer: Any, offset: Any) -> None:
        """Stores numbers from `offset` on."""
        place = self.builder.bitcast(self.builder.gep(pointer, [offset]), self.type.as_pointer())
        self.builder.store(value, place, align=self._align)

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """Returns a b + c."""
        return self._call("fmuladd", a, b, c)

    def absolute(self, value: Any) -> Any:
        """Returns |value|."""
        return self._call("fabs", value)

    def larger(self, a: Any, b: Any) -> Any:
        """Returns a where it is larger, else b: b where a is not a number."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)
