"""Geometry of windows over one or two axes: pads, strides and dilations, made two-dimensional."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from prunecert.onnx.constants import refuse
from prunecert.onnx.reading import attributes_of
from prunecert.onnx.rearranged import image_shape
from prunecert.onnx.values import Shape, Value


@dataclass(frozen=True)
class Windows:
    """Windows over the two last axes of an image.

    Args:
        kernel: Sizes.
        strides: Steps.
        dilations: Steps within.
        pads: At the top, left, bottom, right.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]


def image(node: onnx.NodeProto, value: Value) -> Shape:
    """Returns a value's shape as [1, C, H, W].

    Raises:
        UnsupportedNetworkError: It is no image and no row of one, or several samples.
    """
    shape = value.shape
    if len(shape) not in (3, 4):
        raise refuse(node, f"its input has the shape {list(shape)}; allowed are [1, C, L] and [1, C, H, W]")
    whole = image_shape(shape)
    if whole is None:
        raise refuse(node, f"its input holds {shape[0]} samples; allowed is one")
    return whole


def unimage(shape: Shape, rank: int) -> Shape:
    """Returns the given graph's shape for that of an image."""
    return shape if rank == 4 else shape[:3]


def read_windows(node: onnx.NodeProto, value: Value, kernel: Sequence[int] | None = None) -> Windows:
    """Returns the windows of a convolution or pooling, all pads explicit.

    Args:
        node: The node.
        value: Its input.
        kernel: Size of the windows, where that isn't an attribute.
    """
    attributes = attributes_of(node)
    shape, axes = image(node, value), len(value.shape) - 2
    sizes = tuple(int(size) for size in (kernel or attributes.get("kernel_shape", ())))
    strides = _axes(node, attributes, "strides", axes)
    dilations = _axes(node, attributes, "dilations", axes)
    if len(sizes) != axes or min(sizes) < 1 or min(strides) < 1 or min(dilations) < 1:
        raise refuse(node, f"its windows {list(sizes)} don't fit {axes} axes, or a step is below 1")
    auto = attributes.get("auto_pad", b"NOTSET") or b"NOTSET"
    if auto == b"NOTSET":
        pads = tuple(int(pad) for pad in attributes.get("pads", (0,) * 2 * axes))
    elif auto == b"VALID":
        # onnxruntime takes no pads then, whatever else the node says.
        pads = (0,) * 2 * axes
    elif auto in (b"SAME_UPPER", b"SAME_LOWER"):
        if any(dilation > 1 and size > 1 for dilation, size in zip(dilations, sizes, strict=True)):
            # onnxruntime pads a MaxPool as if it weren't dilated, and refuses a Conv.
            raise refuse(
                node, "it is dilated and its auto_pad is SAME, which runtimes pad in other ways; write its pads"
            )
        before, after = [], []
        for i in range(axes):
            size = shape[2 + i]
            reach = dilations[i] * (sizes[i] - 1) + 1
            whole = max(0, ((size + strides[i] - 1) // strides[i] - 1) * strides[i] + reach - size)
            small, large = whole // 2, whole - whole // 2
            before.append(small if auto == b"SAME_UPPER" else large)
            after.append(large if auto == b"SAME_UPPER" else small)
        pads = (*before, *after)
    else:
        raise refuse(node, f"its auto_pad is {auto!r:.40}")
    if len(pads) != 2 * axes or min(pads) < 0:
        raise refuse(node, f"its pads {list(pads)} don't fit {axes} axes, or are negative")
    if axes == 1:
        # The second axis has one place, where any stride does; equal ones are what every reader takes.
        return Windows((sizes[0], 1), (strides[0], strides[0]), (dilations[0], 1), (pads[0], 0, pads[1], 0))
    return Windows(
        (sizes[0], sizes[1]),
        (strides[0], strides[1]),
        (dilations[0], dilations[1]),
        (pads[0], pads[1], pads[2], pads[3]),
    )


def _axes(node: onnx.NodeProto, attributes: dict[str, Any], name: str, axes: int) -> tuple[int, ...]:
    sizes = tuple(int(item) for item in attributes.get(name, ()) or (1,) * axes)
    if len(sizes) != axes:
        raise refuse(node, f"its {name} {list(sizes)} don't fit {axes} axes")
    return sizes


def read_transposed(node: onnx.NodeProto, value: Value, kernel: Sequence[int]) -> Windows | None:
    """Returns the windows of a convolution with the mirrored kernel that a transposed one is.

    Its input is that of the node with zeros after each place, `strides` - 1 of them along each axis: the steps that are
    returned are those, while the convolution's own are 1.

    Args:
        node: A ConvTranspose.
        value: Its input.
        kernel: Sizes of its weight.

    Returns:
        None where it pads otherwise than by numbers, or cuts off more than the kernel's ends.
    """
    attributes = attributes_of(node)
    image(node, value)
    axes = len(value.shape) - 2
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or "output_shape" in attributes:
        return None
    strides = _axes(node, attributes, "strides", axes)
    dilations = _axes(node, attributes, "dilations", axes)
    more = tuple(int(size) for size in attributes.get("output_padding", ()) or (0,) * axes)
    valid = attributes.get("auto_pad", b"NOTSET") == b"VALID"
    pads = (0,) * 2 * axes if valid else tuple(int(pad) for pad in attributes.get("pads", ()) or (0,) * 2 * axes)
    if len(kernel) != axes or len(more) != axes or len(pads) != 2 * axes or min(*strides, *dilations) < 1:
        return None
    before = [dilations[i] * (kernel[i] - 1) - pads[i] for i in range(axes)]
    after = [dilations[i] * (kernel[i] - 1) - pads[axes + i] + more[i] + 1 - strides[i] for i in range(axes)]
    if min(*before, *after) < 0:
        return None
    if axes == 1:
        return Windows((kernel[0], 1), (strides[0], 1), (dilations[0], 1), (before[0], 0, after[0], 0))
    return Windows(
        (kernel[0], kernel[1]),
        (strides[0], strides[1]),
        (dilations[0], dilations[1]),
        (before[0], before[1], after[0], after[1]),
    )
