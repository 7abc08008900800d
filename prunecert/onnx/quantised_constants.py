"""Constants of quantised networks: whole numbers with a scale as the real numbers that they stand for, and geometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from prunecert.onnx.constants import refuse
from prunecert.onnx.nodes import Shape
from prunecert.onnx.normal import Array
from prunecert.onnx.quantised import Float64Array, Grid, Step

#: Scales between which neither float32 nor float64 loses a product of two of them, or its quotient by a third, to
#: underflow or overflow.
SMALLEST_SCALE, LARGEST_SCALE = 2.0**-40, 2.0**40
#: What a number of 32 bits times a float32 number loses in float64.
_LOOSE = 2.0**-53
#: How far the unit of a bias may be from that of the products, relatively: scales are products rounded to float32.
_SAME_UNIT = 2.0**-20
#: Beyond which sums of integer kernels wrap around, and the largest weight that these take, counted in whole numbers.
_LARGEST_SUM, _LARGEST_WEIGHT = 2.0**31, 255.0


@dataclass(frozen=True, eq=False)
class Constant:
    """What a file holds: numbers, and, of quantised ones, the whole numbers' scale at each place.

    Args:
        values: The real numbers.
        scales: Of the whole numbers, at each place; None where they weren't quantised.
        loose: How far each may be from the file's number, relatively.
        turned: Whether a Transpose reads what DequantizeLinear has written: optimisers make it part of its reader.
    """

    values: Array
    scales: Float64Array | None = None
    loose: float = 0.0
    turned: bool = False


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Returns a node's attributes by name."""
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def check_float32(node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Refuses a QuantizeLinear or DequantizeLinear that divides or multiplies in another type than float32 (opset 23).

    Raises:
        UnsupportedNetworkError: It does.
    """
    key = "precision" if node.op_type == "QuantizeLinear" else "output_dtype"
    if attributes.get(key, 0) not in (0, onnx.TensorProto.FLOAT):
        raise refuse(node, f"its {key} says that it computes in another type than float32")


def scales_of(node: onnx.NodeProto, scale: Array) -> Float64Array:
    """Returns scales in float64.

    Raises:
        UnsupportedNetworkError: One is no number, or so small or large that rounding by it can't be bounded.
    """
    if scale.dtype != np.float32:
        raise refuse(node, f"its scale is {scale.dtype}; taken is float32")
    wide: Float64Array = scale.astype(np.float64)
    bad = ~((wide >= SMALLEST_SCALE) & (wide <= LARGEST_SCALE))
    if bad.any() or not wide.size:
        shown = f"{wide[bad].reshape(-1)[0]:g}" if bad.any() else "missing"
        raise refuse(
            node,
            f"its scale is {shown}, so that its rounding can't be bounded; a scale is a number from "
            f"{SMALLEST_SCALE:.1e} to {LARGEST_SCALE:.1e}",
        )
    return wide


def finite(node: onnx.NodeProto, constant: Constant, what: str) -> Float64Array:
    """Returns a constant in float64.

    Args:
        node: Whose constant it is.
        constant: The constant.
        what: What it is there, in the singular, e.g. ``"bias"``.

    Raises:
        UnsupportedNetworkError: It is not finite, or of another type than float32.
    """
    if constant.values.dtype not in (np.float32, np.float64):
        raise refuse(node, f"its {what} is of type {constant.values.dtype}; taken is float32")
    count = int((~np.isfinite(constant.values)).sum())
    if count:
        raise refuse(
            node, f"its {what} holds {count} values that are infinite or not a number; allowed are finite ones"
        )
    wide: Float64Array = constant.values.astype(np.float64)
    return wide


def windows_of(
    node: onnx.NodeProto, attributes: Mapping[str, Any], shape: Shape, kernel: tuple[int, int], dilated: bool
) -> dict[str, Any]:
    """Returns strides, pads, dilations and the sizes of the result."""
    auto = attributes.get("auto_pad", b"NOTSET") or b"NOTSET"
    pads = tuple(int(pad) for pad in attributes.get("pads", (0, 0, 0, 0))) if auto == b"NOTSET" else (0, 0, 0, 0)
    strides = tuple(int(step) for step in attributes.get("strides", (1, 1)))
    dilations = tuple(int(step) for step in attributes.get("dilations", (1, 1)))
    if auto not in (b"NOTSET", b"VALID") or (len(pads), len(strides), len(dilations)) != (4, 2, 2):
        raise refuse(node, "its padding isn't given by four numbers, or its windows aren't two-dimensional")
    if min(pads) < 0 or min(*strides, *dilations) < 1 or (not dilated and dilations != (1, 1)):
        raise refuse(node, "it has negative pads, steps below 1, or a pooling with dilations")
    if tuple(attributes.get("kernel_shape", kernel)) != kernel:
        raise refuse(node, "its kernel_shape isn't that of its weights")
    sizes = [
        (shape[2 + i] + pads[i] + pads[2 + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in range(2)
    ]
    if min(sizes) < 1:
        raise refuse(node, f"its window {list(kernel)} doesn't fit the input {list(shape)}")
    return {"strides": strides, "pads": pads, "dilations": dilations, "sizes": tuple(sizes)}


def dequantised(node: onnx.NodeProto, inputs: Sequence[Constant]) -> Constant:
    """Returns stored whole numbers as the real ones that they stand for, exactly where they have 29 bits."""
    attributes = attributes_of(node)
    check_float32(node, attributes)
    whole = inputs[0].values
    scale = scales_of(node, inputs[1].values)
    zero = inputs[2].values.astype(np.int64) if len(inputs) > 2 else np.zeros(1, dtype=np.int64)
    fits = zero.size == 1 or scale.size in (1, zero.size)
    if whole.dtype.kind not in "iu" or attributes.get("block_size", 0) or not fits:
        raise refuse(node, "it stands for numbers in blocks, or of no whole type")
    axis = int(attributes.get("axis", 1)) % max(whole.ndim, 1)
    wide = [
        item.reshape([-1 if i == axis else 1 for i in range(whole.ndim)]) if item.size > 1 else item.reshape(())
        for item in (scale, zero)
    ]
    try:
        numbers = whole.astype(np.int64) - wide[1]
        scales: Float64Array = np.broadcast_to(wide[0], numbers.shape)
    except ValueError:
        raise refuse(node, f"{scale.size} scales don't fit the shape {list(whole.shape)}") from None
    loose = _LOOSE if np.abs(numbers).max(initial=0) >= 2**29 else 0.0
    return Constant(numbers * scales, scales, loose)


def rescaled_bias(
    node: onnx.NodeProto, bias: Float64Array, own: Float64Array | None, unit: Float64Array
) -> Float64Array:
    """Bounds how far a bias is from the one that integer kernels add.

    Args:
        node: Whose bias it is.
        bias: [out].
        own: The unit in which the file counts it, [out]; None: it is stored as real numbers.
        unit: That of the products, in which integer kernels count it, [out]; 0 where they can't be used.

    Raises:
        UnsupportedNetworkError: The units are others.
    """
    if own is None:
        # Optimisers may round it to the products' unit.
        return 0.5 * unit * (1 + 2.0**-20)
    if np.any((np.abs(own - unit) > _SAME_UNIT * unit) & (bias != 0) & (unit > 0)):
        raise refuse(
            node,
            "its bias isn't counted in the unit of its products (scale of the input times that of the weights)"
            ", so that integer kernels compute another function than float32 ones",
        )
    error: Float64Array = np.where(unit > 0, np.abs(bias / own) * np.abs(own - unit) * (1 + 2.0**-40), 0.0)
    return error


def summed(node: onnx.NodeProto, step: Step, grid: Grid | None, scales: Float64Array) -> Step:
    """Returns a layer whose sums are no larger than the 32 bits in which integer kernels add whole numbers.

    Args:
        node: The layer's.
        step: The layer.
        grid: Of what it reads, if that lies on one.
        scales: Of its weights, [out, ...].

    Raises:
        UnsupportedNetworkError: They may be larger.
    """
    assert step.weight is not None
    assert step.bias is not None
    weight = np.abs(step.weight.reshape(scales.shape)) / scales
    # Wider numbers have no integer kernels, whose sums are of 32 bits.
    if grid is not None and grid.high - grid.low < 256 and weight.max(initial=0.0) <= _LARGEST_WEIGHT:
        reach = max(grid.zero - grid.low, grid.high - grid.zero)
        whole = weight.sum(axis=1) * reach + np.abs(step.bias) / (scales[:, 0] * grid.scale)
        if whole.max(initial=0.0) >= _LARGEST_SUM * (1 - 2.0**-20):
            raise refuse(node, "its sums may be beyond 32 bits, where those of integer kernels wrap around")
    return step
