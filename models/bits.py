"""Weights of a few bits: an exported network whose every weight is an integer times its output channel's scale.

Weight-only quantisation: symmetric, a scale for each output channel, rounding to nearest; biases and activations stay
float32. What is rounded is the exported file, so that normalisation is folded before. Its weights are stored as float32
numbers that *are* q s, exactly: a scale has so few binary digits that the product with any q fits. So the file is an
ordinary network, which every verifier takes as it is, and a proof about it is a proof about the network of integers
and scales, in real arithmetic.

Counted are bits x weights that aren't zero, 32 bits for each scale and each bias; where the zeros are is left out, as
it is of compression everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from prunecert.errors import UserError
from prunecert.files import replacing
from prunecert.models import FULL_BITS, LEAST_BITS, MOST_BITS
from prunecert.models.onnx_graph import NORM_PREFIX
from prunecert.onnx.factors import METADATA_KEY as FACTORS_KEY

#: Key in ``metadata_props``: JSON of the bits of each layer's weights, by their names, in the order of the graph.
BITS_KEY = "prunecert.bits"
#: Significant binary digits of a float32.
_DIGITS = 24
#: Channels whose weights are all smaller become zeros, so that products stay clear of subnormal numbers.
_NOTHING = 2.0**-100

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RoundedWeight:
    """A weight as integers and scales.

    Args:
        integers: Within ±(2^(bits - 1) - 1), of the weight's shape.
        scales: One for each output channel, [outputs]; 1 where all weights become 0.
        values: Their products, exact.
    """

    integers: npt.NDArray[np.int32]
    scales: Float32Array
    values: Float32Array


class UnfitBitsError(UserError):
    """Bits are given for another number of layers than a network has."""


def to_kilobytes(bits: int) -> float:
    """Returns what so many bits are in kB, of 1,000 bytes.

    >>> to_kilobytes(16_000)
    2.0
    """
    return bits / 8_000


def round_weight(weight: Float32Array, bits: int) -> RoundedWeight:
    """Rounds a weight to integers of `bits` bits times a scale for each output channel.

    >>> rounded = round_weight(np.array([[0.5, -0.75, 0.2], [0.0, 0.0, 0.0]], dtype=np.float32), 3)
    >>> rounded.integers.tolist(), rounded.scales.tolist()
    ([[2, -3, 1], [0, 0, 0]], [0.25, 1.0])

    Args:
        weight: [outputs, ...], finite.
        bits: Of an integer, its sign included, from `LEAST_BITS` to `MOST_BITS`.

    Raises:
        UserError: The bits are out of range, or a weight is too large.
    """
    check_bits(bits)
    largest_integer = 2 ** (bits - 1) - 1
    digits = _DIGITS - (bits - 1)
    rows = weight.astype(np.float64).reshape(len(weight), -1)
    largest = np.abs(rows).max(axis=1)
    # Up, so that the largest weight keeps its place; to so few digits that products with integers are exact.
    _, exponents = np.frexp(largest / largest_integer)
    unit = np.ldexp(1.0, exponents - digits)
    scales = np.where(largest >= _NOTHING, np.ceil(largest / largest_integer / unit) * unit, 1.0)
    integers = np.rint(rows / scales[:, None])
    values = integers * scales[:, None]
    if np.abs(values).max(initial=0.0) > np.finfo(np.float32).max:
        raise UserError(f"A weight of {largest.max():.4g} is refused because it can't be rounded within float32.")
    # No -0.0, as in every export.
    stored = (values + 0.0).astype(np.float32).reshape(weight.shape)
    assert np.array_equal(stored.astype(np.float64).reshape(rows.shape), values), "scales have few digits"
    assert np.abs(integers).max(initial=0) <= largest_integer
    return RoundedWeight(integers.astype(np.int32).reshape(weight.shape), scales.astype(np.float32), stored)


def check_bits(bits: int) -> None:
    """Refuses a number of bits that is out of range.

    Raises:
        UserError: It is.
    """
    if not LEAST_BITS <= bits <= MOST_BITS:
        raise UserError(f"{bits} bits are refused; allowed are {LEAST_BITS} to {MOST_BITS}.")


@dataclass(frozen=True)
class LayerBits:
    """A layer's weights.

    Args:
        name: Of the weight in the file.
        bits: Of each of its weights; 32 where they aren't rounded.
        weights: How many there are.
        nonzero: How many aren't zero.
        outputs: Output channels: as many scales, if it is rounded.
    """

    name: str
    bits: int
    weights: int
    nonzero: int
    outputs: int


@dataclass(frozen=True)
class BitCount:
    """What a network's numbers take.

    Args:
        layers: Its layers with weights, in the order of the graph.
        others: Numbers beside these, 32 bits each: biases, and normalisation that stands alone.
    """

    layers: tuple[LayerBits, ...]
    others: int

    @property
    def weight_bits(self) -> int:
        """Bits of all weights that aren't zero."""
        return sum(layer.bits * layer.nonzero for layer in self.layers)

    @property
    def scales(self) -> int:
        """How many scales there are."""
        return sum(layer.outputs for layer in self.layers if layer.bits != FULL_BITS)

    @property
    def kilobytes(self) -> float:
        """Size in kB (1,000 bytes): weights, scales and biases, without the places of the zeros."""
        return to_kilobytes(self.weight_bits + FULL_BITS * (self.scales + self.others))

    @property
    def compression(self) -> float:
        """Bits of all weights in float32 over those of the weights that are left."""
        return FULL_BITS * sum(layer.weights for layer in self.layers) / self.weight_bits


def count_bits(path: Path) -> BitCount:
    """Counts what the numbers of an exported network take; one that isn't rounded has 32 bits a weight.

    Args:
        path: The ONNX file, as `models.export` or `round_file` has written it.

    Raises:
        UserError: Its record of bits is damaged, or its weights don't keep to it.
    """
    model = onnx.load(path)
    bits = _recorded_bits(model, path)
    layers, others = [], 0
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if not _is_weight(tensor.name):
            others += values.size
            continue
        width = bits.get(tensor.name, FULL_BITS)
        if width != FULL_BITS and not np.array_equal(round_weight(values, width).values, values):
            raise UserError(f"{path} is refused: {tensor.name!r} holds other numbers than those of {width} bits.")
        layers.append(LayerBits(tensor.name, width, values.size, int(np.count_nonzero(values)), len(values)))
    return BitCount(tuple(layers), others)


def _recorded_bits(model: onnx.ModelProto, path: Path) -> dict[str, int]:
    text = next((item.value for item in model.metadata_props if item.key == BITS_KEY), "{}")
    try:
        bits = json.loads(text)
        if isinstance(bits, dict) and all(
            isinstance(width, int) and LEAST_BITS <= width <= MOST_BITS for width in bits.values()
        ):
            return bits
    except ValueError:
        pass
    raise UserError(f"{path} is refused: its record of bits ({BITS_KEY}) is damaged; make it again.")


def _is_weight(name: str) -> bool:
    return name.endswith("_weight") and not name.startswith(NORM_PREFIX)


def weights_of(path: Path) -> tuple[str, ...]:
    """Returns the names of an exported network's weights, in the order of the graph."""
    return tuple(tensor.name for tensor in onnx.load(path).graph.initializer if _is_weight(tensor.name))


def spread_bits(bits: Sequence[int], names: Sequence[str]) -> dict[str, int]:
    """Returns the bits of each weight: one number for all, or one for each.

    Raises:
        UserError: There are neither one nor as many as weights.
    """
    if len(bits) not in (1, len(names)):
        raise UnfitBitsError(
            f"The bits {'/'.join(map(str, bits))} are refused: the network has {len(names)} layers with weights; "
            "allowed is one number, or one for each layer."
        )
    return dict(zip(names, bits if len(bits) == len(names) else [bits[0]] * len(names), strict=True))


def round_file(source: Path, target: Path, bits: Sequence[int] | Mapping[str, int]) -> BitCount:
    """Writes an exported network with its weights rounded.

    Args:
        source: The ONNX file, as `models.export` has written it, without compaction.
        target: The file to write; replaced as a whole, or left as it was.
        bits: One number for all layers, one for each in the order of the graph, or by the weights' names.

    Raises:
        UserError: The bits don't fit the network; or its layers are factors of weights; or a layer would be emptied.
    """
    model = onnx.load(source)
    if any(item.key == FACTORS_KEY for item in model.metadata_props):
        raise UserError(f"{source.name} is refused: its layers are factors, whose products would have more bits.")
    names = [tensor.name for tensor in model.graph.initializer if _is_weight(tensor.name)]
    widths = dict(bits) if isinstance(bits, Mapping) else spread_bits(bits, names)
    for tensor in model.graph.initializer:
        if tensor.name not in widths:
            continue
        values = round_weight(numpy_helper.to_array(tensor), widths[tensor.name]).values
        if not values.any():
            raise UserError(
                f"{source.name} is refused at {widths[tensor.name]} bits: all of {tensor.name!r} would be zero."
            )
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    model.metadata_props.add(key=BITS_KEY, value=json.dumps(widths))
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as scratch:
        onnx.save(model, scratch)
        onnx.checker.check_model(onnx.load(scratch), full_check=True)
        return count_bits(scratch)
