"""What a node of an ONNX graph means, as the oracle's affine maps and maxima.

It is read by what the ONNX specification says of its operator, and by nothing of the project's. Maxima of affine maps
(`Clip`, `LeakyRelu`, `MaxPool`, ...), windows and padding are written down from their definitions below. The others are
affine in what depends on the network's input: ONNX's own reference evaluator is given them, in float64, at 0 and at
every unit vector, which gives the matrix. Tests compare the whole with onnxruntime.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tests.soundness.networks import Add, Affine, Array, Largest, Node, Relu

#: Node of the oracle's that has a value, and the value's shape.
Reading: TypeAlias = tuple[int, tuple[int, ...]]
Places: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Use:
    """A node with what it reads.

    Args:
        node: The node.
        constants: Constant inputs by their places, float64 or whole numbers.
        values: The others.
    """

    node: onnx.NodeProto
    constants: Mapping[int, npt.NDArray[Any]]
    values: Mapping[int, Reading]

    def attribute(self, name: str, default: Any) -> Any:
        """Returns an attribute as ONNX stores it: floats are float32."""
        for item in self.node.attribute:
            if item.name == name:
                return helper.get_attribute_value(item)
        return float(np.float32(default)) if isinstance(default, float) else default

    def number(self, place: int) -> float | None:
        """Returns a constant input that is one number, if it is there."""
        return float(self.constants[place].reshape(())) if place in self.constants else None


@dataclass(frozen=True)
class Window:
    """Positions along one axis that each output of a convolution or pooling reads; some may be outside.

    Args:
        reads: [outputs, kernel].
        size: Of the axis.
    """

    reads: Places
    size: int


@dataclass
class Meanings:
    """Appends to the oracle's nodes what nodes of an ONNX graph mean.

    Args:
        inputs: Number of the network's inputs.
        nodes: The oracle's; number i is the value i + 1.
        opset: Of the graph.
    """

    inputs: int
    nodes: list[Node]
    opset: int

    def read(self, use: Use) -> list[Reading]:
        """Returns what each output of a node is."""
        return DEFINED.get(use.node.op_type, _affine)(self, use)

    def node(self, node: Node) -> int:
        """Adds a node; returns its index."""
        self.nodes.append(node)
        return len(self.nodes)

    def size(self, index: int) -> int:
        """Returns how many elements a node has."""
        if not index:
            return self.inputs
        match self.nodes[index - 1]:
            case Affine(_, _, shift):
                return len(shift)
            case Relu(source) | Add(source):
                return self.size(source)
            case Largest(sources):
                return self.size(sources[0])

    def map(self, source: int, matrix: Array, shift: Array | float = 0.0, exact: bool = False) -> int:
        """Adds matrix @ value(source) + shift."""
        return self.node(Affine(source, matrix, np.broadcast_to(shift, len(matrix)).astype(np.float64), exact))

    def pick(self, source: int, places: Places, fill: float = 0.0) -> int:
        """Adds an element of a value for each place, and a constant where that is negative."""
        flat = places.reshape(-1)
        matrix = np.zeros((flat.size, self.size(source)))
        matrix[np.flatnonzero(flat >= 0), flat[flat >= 0]] = 1.0
        return self.map(source, matrix, np.where(flat < 0, fill, 0.0), exact=True)

    def constant(self, values: Array | float, size: int) -> int:
        """Adds values that depend on nothing."""
        return self.map(0, np.zeros((size, self.inputs)), np.reshape(values, -1), exact=True)

    def scaled(self, source: int, factors: Array) -> int:
        """Adds factors * value(source)."""
        return self.map(source, np.diag(factors), exact=bool(np.all(np.abs(factors) == 1)))

    def largest(self, *sources: int) -> int:
        """Adds the largest of some values."""
        return self.node(Largest(sources))

    def smallest(self, *sources: int) -> int:
        """Adds the smallest of some values, -max(-a, -b, ...)."""
        negative = -np.ones(self.size(sources[0]))
        return self.scaled(self.largest(*(self.scaled(source, negative) for source in sources)), negative)

    def grouped(self, source: int, groups: Sequence[Sequence[int]], small: bool = False) -> int:
        """Adds the largest (smallest) element of each group of places; short groups repeat their first."""
        longest = max(map(len, groups))
        table = np.array([[*group, *[group[0]] * (longest - len(group))] for group in groups])
        return (self.smallest if small else self.largest)(*(self.pick(source, column) for column in table.T))


def _affine(to: Meanings, use: Use) -> list[Reading]:
    """Reads an affine operator off its values at 0 and at unit vectors, by the reference evaluator."""
    names = [f"i{place}" if name else "" for place, name in enumerate(use.node.input)]
    plain = helper.make_node(use.node.op_type, names, list(use.node.output))
    plain.attribute.extend(use.node.attribute)
    graph = helper.make_graph(
        [plain],
        "one",
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in names if name],
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in use.node.output],
    )
    evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", to.opset)]))
    feeds = {f"i{place}": value for place, value in use.constants.items()}
    feeds |= {f"i{place}": np.zeros(shape) for place, (_, shape) in use.values.items()}
    origins = [np.asarray(value, dtype=np.float64) for value in evaluator.run(None, feeds)]
    # A value that is read twice is one variable.
    matrices: dict[int, list[list[Array]]] = {index: [[] for _ in origins] for index, _ in use.values.values()}
    for index, columns in matrices.items():
        shapes = {place: shape for place, (source, shape) in use.values.items() if source == index}
        for number in range(to.size(index)):
            units = dict(feeds)
            for place, shape in shapes.items():
                units[f"i{place}"] = np.zeros(shape)
                units[f"i{place}"].flat[number] = 1.0
            for column, value, origin in zip(columns, evaluator.run(None, units), origins, strict=True):
                column.append((value - origin).reshape(-1))
    readings = []
    for output, origin in enumerate(origins):
        total, shift = 0, origin.reshape(-1)
        for index, columns in matrices.items():
            term = to.map(index, np.array(columns[output]).T, shift)
            total, shift = (to.node(Add(total, term)) if total else term), np.zeros_like(shift)
        readings.append((total, origin.shape))
    return readings


def _relu(to: Meanings, use: Use) -> list[Reading]:
    index, shape = use.values[0]
    return [(to.node(Relu(index)), shape)]


def _clip(to: Meanings, use: Use) -> list[Reading]:
    """min(max(x, min), max): of limits in the wrong order the upper one counts, as ONNX says."""
    index, shape = use.values[0]
    if to.opset < 11:
        low, high = use.attribute("min", None), use.attribute("max", None)
    else:
        low, high = use.number(1), use.number(2)
    if low is not None:
        index = to.largest(index, to.constant(low, to.size(index)))
    if high is not None:
        index = to.smallest(index, to.constant(high, to.size(index)))
    return [(index, shape)]


def _hard_sigmoid(to: Meanings, use: Use) -> list[Reading]:
    """max(0, min(1, alpha x + beta))."""
    index, shape = use.values[0]
    size = to.size(index)
    line = to.map(index, use.attribute("alpha", 0.2) * np.eye(size), use.attribute("beta", 0.5))
    return [(to.largest(to.smallest(line, to.constant(1.0, size)), to.constant(0.0, size)), shape)]


def _sloped(to: Meanings, use: Use, slopes: Array | float) -> list[Reading]:
    """x where x >= 0, and slope x elsewhere: the larger of the two for slopes up to 1, the smaller beyond."""
    index, shape = use.values[0]
    slopes = np.broadcast_to(slopes, shape).reshape(-1)
    signs = np.where(slopes <= 1, 1.0, -1.0)
    return [(to.scaled(to.largest(to.scaled(index, signs), to.scaled(index, signs * slopes)), signs), shape)]


def _leaky(to: Meanings, use: Use) -> list[Reading]:
    return _sloped(to, use, use.attribute("alpha", 0.01))


def _parametric(to: Meanings, use: Use) -> list[Reading]:
    return _sloped(to, use, use.constants[1])


def _absolute(to: Meanings, use: Use) -> list[Reading]:
    return _sloped(to, use, -1.0)


def _extreme(to: Meanings, use: Use) -> list[Reading]:
    """Max and Min of values and constants, broadcast."""
    shape = np.broadcast_shapes(
        *(shape for _, shape in use.values.values()), *(value.shape for value in use.constants.values())
    )
    parts = [to.pick(index, np.broadcast_to(_numbers(own), shape)) for index, own in use.values.values()]
    parts += [to.constant(np.broadcast_to(value, shape), int(np.prod(shape))) for value in use.constants.values()]
    return [((to.largest if use.node.op_type == "Max" else to.smallest)(*parts), shape)]


def _numbers(shape: tuple[int, ...]) -> Places:
    return np.arange(int(np.prod(shape))).reshape(shape)


def _windows(use: Use, shape: tuple[int, ...], kernel: Sequence[int]) -> list[Window]:
    """Returns the windows of each axis of [1, C, ...], by the specification's formulas for sizes and pads."""
    axes = len(shape) - 2
    strides, dilations = (use.attribute(name, [1] * axes) for name in ("strides", "dilations"))
    pads, auto = use.attribute("pads", [0] * 2 * axes), use.attribute("auto_pad", b"NOTSET")
    windows = []
    for axis in range(axes):
        size, reach, stride = shape[2 + axis], dilations[axis] * (kernel[axis] - 1) + 1, strides[axis]
        if auto in (b"SAME_UPPER", b"SAME_LOWER"):
            count = -(-size // stride)
            whole = max(0, (count - 1) * stride + reach - size)
            before = whole // 2 if auto == b"SAME_UPPER" else whole - whole // 2
        else:
            before, span = pads[axis], size + pads[axis] + pads[axes + axis] - reach
            count = span // stride + 1
            # With ceil_mode there is one more for what is left over, unless it would start in the padding behind.
            count += bool(use.attribute("ceil_mode", 0) and span % stride and count * stride < size + before)
        reads = np.arange(count)[:, None] * stride - before + np.arange(kernel[axis]) * dilations[axis]
        windows.append(Window(reads, size))
    return windows


def _max_pool(to: Meanings, use: Use) -> list[Reading]:
    """The largest element of each window; padding never is the largest."""
    index, shape = use.values[0]
    windows = _windows(use, shape, use.attribute("kernel_shape", ()))
    numbers = _numbers(shape)
    inside = [[[place for place in reads if 0 <= place < one.size] for reads in one.reads] for one in windows]
    groups = [
        [int(numbers[(0, channel, *place)]) for place in itertools.product(*window)]
        for channel in range(shape[1])
        for window in itertools.product(*inside)
    ]
    return [(to.grouped(index, groups), (1, shape[1], *(len(one.reads) for one in windows)))]


def _convolution(to: Meanings, use: Use) -> list[Reading]:
    index, shape = use.values[0]
    weight = use.constants[1]
    windows = _windows(use, shape, weight.shape[2:])
    sizes = (len(weight), *(len(one.reads) for one in windows))
    matrix = _correlation(weight, shape[1:], sizes, use.attribute("group", 1), [one.reads for one in windows])
    return [_with_bias(to, use, index, matrix, sizes)]


def _transposed(to: Meanings, use: Use) -> list[Reading]:
    """The transpose of the convolution with its attributes, whose input is this one's output."""
    index, shape = use.values[0]
    weight = use.constants[1]
    axes, groups = len(shape) - 2, use.attribute("group", 1)
    strides, dilations = (use.attribute(name, [1] * axes) for name in ("strides", "dilations"))
    pads, more = use.attribute("pads", [0] * 2 * axes), use.attribute("output_padding", [0] * axes)
    auto = use.attribute("auto_pad", b"NOTSET")
    reads, results = [], []
    for axis in range(axes):
        reach, stride = dilations[axis] * (weight.shape[2 + axis] - 1) + 1, strides[axis]
        whole = stride * (shape[2 + axis] - 1) + more[axis] + reach
        before, after = pads[axis], pads[axes + axis]
        if auto in (b"SAME_UPPER", b"SAME_LOWER"):
            cut = whole - stride * shape[2 + axis]
            before = cut // 2 if auto == b"SAME_UPPER" else cut - cut // 2
            after = cut - before
        steps = np.arange(weight.shape[2 + axis]) * dilations[axis]
        reads.append(np.arange(shape[2 + axis])[:, None] * stride - before + steps)
        results.append(whole - before - after)
    sizes = (weight.shape[1] * groups, *results)
    return [_with_bias(to, use, index, _correlation(weight, sizes, shape[1:], groups, reads).T, sizes)]


def _correlation(
    weight: Array, source: tuple[int, ...], target: tuple[int, ...], groups: int, reads: Sequence[Places]
) -> Array:
    """Returns a convolution as a matrix, straight from its definition.

    Args:
        weight: [out, in / groups, ...].
        source: [in, ...], the shape that it reads.
        target: [out, ...], the shape of its result.
        groups: Number of groups.
        reads: For each axis, positions that each output reads, [outputs, kernel].
    """
    matrix = np.zeros((*target, *source))
    outs, ins = target[0] // groups, source[0] // groups
    for place in np.ndindex(*target[1:]):
        for tap in np.ndindex(*weight.shape[2:]):
            position = [int(axis[i, j]) for axis, i, j in zip(reads, place, tap, strict=True)]
            if all(0 <= at < size for at, size in zip(position, source[1:], strict=True)):
                for out in range(target[0]):
                    first = out // outs * ins
                    matrix[(out, *place, slice(first, first + ins), *position)] += weight[(out, slice(None), *tap)]
    return matrix.reshape(int(np.prod(target)), -1)


def _with_bias(to: Meanings, use: Use, index: int, matrix: Array, sizes: tuple[int, ...]) -> Reading:
    bias = use.constants.get(2, np.zeros(sizes[0]))
    return to.map(index, matrix, np.repeat(bias, int(np.prod(sizes[1:])))), (1, *sizes)


def _pad(to: Meanings, use: Use) -> list[Reading]:
    """More places on either side of each axis, or fewer where a number is negative."""
    index, shape = use.values[0]
    counts, mode = use.constants[1].reshape(2, -1).tolist(), use.attribute("mode", b"constant")
    places = _numbers(shape)
    for axis, (size, before, after) in enumerate(zip(shape, *counts, strict=True)):
        along = np.arange(-before, size + after)
        if mode == b"edge":
            along = np.clip(along, 0, size - 1)
        elif mode == b"reflect":
            along = size - 1 - np.abs(size - 1 - np.abs(along))
        taken_off = ((along < 0) | (along >= size)).reshape(-1, *[1] * (len(shape) - axis - 1))
        places = np.where(taken_off, -1, np.take(places, np.clip(along, 0, size - 1), axis=axis))
    return [(to.pick(index, places, use.number(2) or 0.0), places.shape)]


def _global_max_pool(to: Meanings, use: Use) -> list[Reading]:
    index, shape = use.values[0]
    return [(to.grouped(index, _numbers(shape).reshape(shape[1], -1).tolist()), (*shape[:2], *[1] * (len(shape) - 2)))]


def _reduced(to: Meanings, use: Use) -> list[Reading]:
    """ReduceMax and ReduceMin, whose axes are an attribute before opset 18."""
    index, shape = use.values[0]
    axes = [axis % len(shape) for axis in use.attribute("axes", list(range(len(shape))))]
    numbers = np.moveaxis(_numbers(shape), axes, range(-len(axes), 0))
    kept = numbers.shape[: numbers.ndim - len(axes)]
    groups = numbers.reshape(int(np.prod(kept)), -1).tolist()
    if use.attribute("keepdims", 1):
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return [(to.grouped(index, groups, use.node.op_type == "ReduceMin"), kept)]


def _normalised(to: Meanings, use: Use) -> list[Reading]:
    """(x - mean) scale / sqrt(var + epsilon) + bias, step by step and multiplied out, as runtimes may round it."""
    index, shape = use.values[0]
    along = (len(shape) - 2) * (1,)
    scale, bias, mean, variance = (
        np.broadcast_to(use.constants[place].reshape(-1, *along), shape[1:]).reshape(-1) for place in range(1, 5)
    )
    deviation = np.sqrt(variance + use.attribute("epsilon", 1e-5))
    index = to.scaled(to.scaled(index, 1 / deviation), scale)
    for shift in (-scale * mean / deviation, bias):
        index = to.map(index, np.eye(len(shift)), shift)
    return [(index, shape)]


#: Operators that the reference evaluator isn't asked about: it doesn't know all of them as a runtime does.
DEFINED: dict[str, Callable[[Meanings, Use], list[Reading]]] = {
    "Abs": _absolute,
    "BatchNormalization": _normalised,
    "Clip": _clip,
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "GlobalMaxPool": _global_max_pool,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky,
    "Max": _extreme,
    "MaxPool": _max_pool,
    "Min": _extreme,
    "PRelu": _parametric,
    "Pad": _pad,
    "ReduceMax": _reduced,
    "ReduceMin": _reduced,
    "Relu": _relu,
}
