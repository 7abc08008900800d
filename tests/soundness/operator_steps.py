"""What the soundness suite's networks of all operators are made of: steps from a value to the next, and their frames.

A step adds nodes to a network that is being built; a builder gets a name and a generator and returns a network.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.soundness.networks import Array, Rng
from tests.soundness.operators import OperatorNetwork

Builder = Callable[[str, Rng], OperatorNetwork]
#: Takes a network, a generator and the name of a value; returns the name of another.
Step = Callable[[OperatorNetwork, Rng, str], str]

_IMAGE, _ROW = (2, 4, 4), (5,)
#: Most elements that are scored directly.
_SCORED = 8


def drawn(rng: Rng, *shape: int, deviation: float | None = None) -> Array:
    """Draws weights, scaled by He's rule for [out, in, ...] unless a deviation is given."""
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 10
    values: Array = rng.normal(size=shape) * (np.sqrt(2.0 / fan_in) if deviation is None else deviation)
    return values


def whole(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


def add_linear(net: OperatorNetwork, rng: Rng, value: str, outputs: int) -> str:
    """Adds a linear layer to [1, outputs], flattening before it."""
    if len(net.readings[value][1]) != 2:
        value = net.apply("Flatten", value)
    weight = drawn(rng, outputs, net.size(value))
    return net.apply("Gemm", value, weight, 0.3 * rng.normal(size=outputs), transB=1)


def add_conv(net: OperatorNetwork, rng: Rng, value: str, outputs: int, kernel: int = 3, **attributes: Any) -> str:
    """Adds a convolution; padded by 1 unless said otherwise."""
    shape = net.readings[value][1]
    axes = len(shape) - 2
    if "auto_pad" not in attributes:
        attributes.setdefault("pads", [1] * 2 * axes)
    weight = drawn(rng, outputs, shape[1] // attributes.get("group", 1), *[kernel] * axes)
    return net.apply("Conv", value, weight, 0.2 * rng.normal(size=outputs), **attributes)


def scores(net: OperatorNetwork, rng: Rng, value: str, classes: int = 3) -> str:
    """Adds what makes classes of a value: at most eight neurons, and scores of which none wins everywhere."""
    if net.size(value) > _SCORED:
        value = net.apply("Relu", centred(net, rng, add_linear(net, rng, value, 4)))
    return centred(net, rng, add_linear(net, rng, value, classes))


def centred(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Takes off what scores are on average, so that no class wins everywhere."""
    net.finish(value)
    mean = net.evaluate(rng.random((200, net.inputs))).mean(axis=0)
    return net.apply("Sub", value, mean.reshape(net.readings[value][1]))


def image(step: Step, shape: tuple[int, ...] = _IMAGE, opset: int = 13) -> Builder:
    """A convolution, the step, scores."""

    def build(name: str, rng: Rng) -> OperatorNetwork:
        net = OperatorNetwork(name, shape, opset=opset)
        return net.finish(scores(net, rng, step(net, rng, add_conv(net, rng, "input", 2))))

    return build


def entrance(step: Step, shape: tuple[int, ...] = _IMAGE, opset: int = 13) -> Builder:
    """The step on the input itself, which may be negative, and scores behind it."""

    def build(name: str, rng: Rng) -> OperatorNetwork:
        net = OperatorNetwork(name, shape, opset=opset)
        return net.finish(scores(net, rng, step(net, rng, net.apply("Sub", "input", np.array(0.5)))))

    return build


def flat(step: Step, hidden: int = 6, opset: int = 13, inputs: int = 3) -> Builder:
    """A linear layer, the step, scores."""

    def build(name: str, rng: Rng) -> OperatorNetwork:
        net = OperatorNetwork(name, (inputs,), opset=opset)
        return net.finish(scores(net, rng, step(net, rng, add_linear(net, rng, "input", hidden))))

    return build


def node(operator: str, *constants: Any, **attributes: Any) -> Step:
    """One node, with constants behind the value."""

    def step(net: OperatorNetwork, rng: Rng, value: str) -> str:
        return net.apply(operator, value, *constants, **attributes)

    return step


def chain(*steps: Step) -> Step:
    def step(net: OperatorNetwork, rng: Rng, value: str) -> str:
        return functools.reduce(lambda before, one: one(net, rng, before), steps, value)

    return step


relu = node("Relu")


def conv(outputs: int, kernel: int = 3, **attributes: Any) -> Step:
    return lambda net, rng, value: add_conv(net, rng, value, outputs, kernel, **attributes)


def linear(outputs: int) -> Step:
    return lambda net, rng, value: add_linear(net, rng, value, outputs)


def slopes(*shape: int) -> Step:
    """PRelu whose slopes are of all kinds: negative, 0, between, 1 and beyond."""

    def step(net: OperatorNetwork, rng: Rng, value: str) -> str:
        kinds = np.resize(np.array([-0.6, 0.25, 1.7, 0.0, 1.0, 0.01]), int(np.prod(shape)))
        return net.apply("PRelu", value, rng.permutation(kinds).reshape(shape))

    return step


def against(operator: str, *shape: int) -> Step:
    """An operator of the value and drawn numbers, these first."""
    return lambda net, rng, value: net.apply(operator, 0.3 * rng.normal(size=shape), value)


def with_other(operator: str, *others: Any, second: Step | None = None, **attributes: Any) -> Step:
    """An operator of the value, of what a step makes of the input, and of constants."""

    def step(net: OperatorNetwork, rng: Rng, value: str) -> str:
        return net.apply(operator, value, (second or linear(6))(net, rng, "input"), *others, **attributes)

    return step


def transposed(outputs: int, kernel: int, groups: int = 1, **attributes: Any) -> Step:
    def step(net: OperatorNetwork, rng: Rng, value: str) -> str:
        shape = net.readings[value][1]
        weight = drawn(rng, shape[1], outputs // groups, *[kernel] * (len(shape) - 2), deviation=0.5)
        return net.apply("ConvTranspose", value, weight, 0.2 * rng.normal(size=outputs), group=groups, **attributes)

    return step


def batch_norm(net: OperatorNetwork, rng: Rng, value: str) -> str:
    channels = net.readings[value][1][1]
    parts = [rng.uniform(0.5, 1.5, channels), *(0.3 * rng.normal(size=(2, channels))), rng.uniform(0.5, 1.5, channels)]
    return net.apply("BatchNormalization", value, *parts)


def matmul(left: bool) -> Step:
    """MatMul and Add, as exporters write a linear layer; from the left over a column."""

    def step(net: OperatorNetwork, rng: Rng, value: str) -> str:
        if left:
            column = net.apply("Reshape", value, whole(-1, 1))
            product = net.apply("MatMul", drawn(rng, 5, net.size(value)), column)
            return net.apply("Transpose", net.apply("Add", 0.3 * rng.normal(size=(5, 1)), product), perm=[1, 0])
        product = net.apply("MatMul", value, drawn(rng, 5, net.size(value)).T)
        return net.apply("Add", product, 0.3 * rng.normal(size=5))

    return step


def batched(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Rows of an image through one linear layer, as models of tokens have it."""
    tokens = net.apply("Transpose", net.apply("Reshape", value, whole(1, 2, 16)), perm=[0, 2, 1])
    mixed = net.apply("Add", net.apply("MatMul", tokens, drawn(rng, 3, 2).T), 0.2 * rng.normal(size=3))
    across = net.apply("MatMul", drawn(rng, 2, 16), net.apply("Relu", mixed))
    return net.apply("ReduceMean", across, axes=[1], keepdims=0)


def factors(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Gemm with factors, transposed on both sides and a bias that is broadcast; Einsum; CumSum."""
    turned = net.apply("Transpose", value, perm=[1, 0])
    scaled = net.apply("Gemm", turned, drawn(rng, 6, 6), rng.normal(size=(1, 1)), transA=1, alpha=0.7, beta=-0.4)
    summed = net.apply("CumSum", scaled, np.array(1, dtype=np.int64), reverse=1)
    return net.apply("Einsum", net.apply("Relu", summed), drawn(rng, 6, 4), equation="bi,ij->bj")


def arithmetic(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Constants on either side of every operation, of several shapes."""
    value = net.apply("Sub", rng.normal(size=(1, 2, 1, 1)), value)
    value = net.apply("Mul", rng.uniform(-1.5, 1.5, (4, 1)), value)
    value = net.apply("Div", value, rng.uniform(0.5, 2.0, (2, 1, 4)) * np.array([1.0, -1.0]).reshape(2, 1, 1))
    return net.apply("Neg", net.apply("Relu", net.apply("Add", rng.normal(size=4) * 0.2, value)))


def sums(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Sums and means of several values, one of them twice."""
    other, third = add_linear(net, rng, "input", 6), net.apply("Relu", value)
    total = net.apply("Sum", third, other, third, 0.2 * rng.normal(size=6))
    return net.apply("Mean", total, net.apply("Relu", other), value)


def pieces(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Channels apart, each its own way, and together again in another order."""
    first, second = net.split("Split", 2, value, axis=1)
    cut = net.apply("Slice", second, whole(-1, 3), whole(-99, 0), whole(2, 3), whole(-1, -2))
    tall = net.apply("Tile", cut, whole(1, 1, 1, 2))
    chosen = net.apply("Gather", first, whole(3, 0, 0, -2), axis=2)
    return net.apply("Concat", tall, net.apply("Relu", chosen), 0.3 * rng.normal(size=(1, 1, 4, 4)), axis=1)


def turned(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Axes changed, merged and added; channels last in between."""
    last = net.apply("Transpose", value, perm=[0, 2, 3, 1])
    last = net.apply("Add", last, 0.3 * rng.normal(size=2))
    first = net.apply("Transpose", net.apply("Relu", last), perm=[0, 3, 1, 2])
    wide = net.apply("Reshape", first, whole(0, -1, 2, 4))
    thin = net.apply("Squeeze", net.apply("Unsqueeze", wide, whole(3)), whole(0, 3))
    return net.apply("Flatten", net.apply("Expand", net.apply("Slice", thin, whole(1), whole(4), whole(0)),
                                          whole(1, 3, 2, 4)))  # fmt: skip


def blocks(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Places to channels and back, copies of places, a part that conditions choose."""
    deep = net.apply("SpaceToDepth", value, blocksize=2)
    value = net.apply("DepthToSpace", deep, blocksize=2, mode="CRD")
    wide = net.apply("Resize", value, None, np.array([1.0, 1.0, 2.0, 1.0]), mode="nearest")
    mask = np.indices((8, 4)).sum(axis=0) % 2 == 0
    part = net.apply("Where", mask, wide, np.array(0.25))
    return net.apply("Relu", add_conv(net, rng, part, 1, pads=[0, 0, 0, 0], strides=[2, 1]))


def chosen(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Elements chosen by their places, written over, reversed and cut to a triangle."""
    lower = net.apply("Trilu", value, upper=0)
    some = net.apply("GatherElements", lower, whole(1, 0, 0, 1).reshape(1, 1, 1, 4).repeat(4, axis=2), axis=1)
    over = net.apply("ScatterElements", some, whole(3, 0).reshape(1, 1, 2, 1), np.full((1, 1, 2, 1), 0.4), axis=2)
    rows = net.apply("GatherND", value, whole(0, 1, 2, 0, 0, 0, 0, 1, 0).reshape(3, 3))
    turned = net.apply("ReverseSequence", rows, whole(3, 2, 3, 1), batch_axis=1, time_axis=0)
    placed = net.apply("ScatterND", turned, whole(1, 2).reshape(1, 2), np.array([-0.2]))
    both = net.apply("Concat", net.apply("Flatten", over), net.apply("Reshape", placed, whole(1, 12)), axis=1)
    return net.apply("Relu", both)


def idle(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """What exporters leave in: nodes that do nothing."""
    value = net.apply("Cast", net.apply("Identity", value), to=TensorProto.FLOAT)
    return net.apply("Relu", net.apply("Pow", net.apply("Dropout", value), np.array(1.0)))


def residual(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """A block as of mobile networks: depthwise, normalised, clipped, added to what came in."""
    main = batch_norm(net, rng, add_conv(net, rng, value, 2, group=2))
    main = net.apply("Clip", main, np.array(0.0), np.array(0.6))
    return net.apply("LeakyRelu", net.apply("Add", value, add_conv(net, rng, main, 2, 1, pads=[0] * 4)), alpha=0.2)


def hourglass(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Down by a maximum, up by a transposed convolution, beside what came in."""
    low = net.apply("MaxPool", net.apply("Relu", value), kernel_shape=[2, 2], strides=[2, 2])
    high = transposed(1, 2, strides=[2, 2])(net, rng, low)
    both = net.apply("Concat", value, net.apply("LeakyRelu", high), axis=1)
    return net.apply("GlobalAveragePool", net.apply("Relu", add_conv(net, rng, both, 2, 2, pads=[0] * 4)))


def ending(operator: str, moved: bool = False, opset: int = 13, **attributes: Any) -> Builder:
    """Scores behind a last operator, or what only moves behind that."""

    def build(name: str, rng: Rng) -> OperatorNetwork:
        net = OperatorNetwork(name, (3,), opset=opset)
        value = net.apply("Relu", add_linear(net, rng, net.apply("Relu", add_linear(net, rng, "input", 6)), 5))
        value = centred(net, rng, add_linear(net, rng, value, 4))
        if moved:
            value = net.apply("Reshape", value, whole(1, 4, 1, 1))
        value = net.apply(operator, value, **attributes)
        return net.finish(net.apply("Flatten", net.apply("Squeeze", value), axis=0) if moved else value)

    return build


def outputs(*order: str) -> Builder:
    """Several outputs: the first of as many values as the property has is the one that counts, here the scores."""

    def build(name: str, rng: Rng) -> OperatorNetwork:
        net = OperatorNetwork(name, (4,))
        value = net.apply("LeakyRelu", add_linear(net, rng, "input", 6), alpha=0.1)
        values = {
            "feature": net.apply("Relu", value),
            "alike": add_linear(net, rng, value, 3),
            "scalar": add_linear(net, rng, value, 1),
            "scores": scores(net, rng, net.apply("Abs", value)),
        }
        return net.finish(*(values[key] for key in order), counted=values["scores"])

    return build


def parted(name: str, rng: Rng) -> OperatorNetwork:
    """Outputs are parts of one layer."""
    net = OperatorNetwork(name, (4,))
    value = add_linear(net, rng, net.apply("Relu", add_linear(net, rng, "input", 6)), 7)
    head, tail = net.split("Split", 2, value, whole(4, 3), axis=1)
    return net.finish(head, net.apply("Max", centred(net, rng, tail), np.array(-0.4)))


def mixed(name: str, rng: Rng) -> OperatorNetwork:
    """Some steps that keep an image's shape, in any order, with a piecewise linear one after each."""
    net = OperatorNetwork(name, _IMAGE)
    value = "input"
    linears: list[Step] = [
        conv(2), batch_norm, arithmetic, node("AveragePool", kernel_shape=[3, 3], pads=[1] * 4),
        chain(node("Pad", whole(0, 0, 1, 1, 0, 0, 1, 1), mode="edge"), conv(2, pads=[0] * 4)),
        node("Transpose", perm=[0, 1, 3, 2]), transposed(2, 3, pads=[1] * 4),
    ]  # fmt: skip
    bends: list[Step] = [
        relu, node("LeakyRelu", alpha=0.3), slopes(2, 1, 1), node("Clip", np.array(-0.3), np.array(0.5)),
        node("HardSigmoid"), node("MaxPool", kernel_shape=[2, 2], pads=[1, 1, 0, 0]), node("Abs"),
    ]  # fmt: skip
    for i in range(2):
        step = linears[int(rng.integers(len(linears)))]
        value = bends[int(rng.integers(len(bends)))](net, rng, step(net, rng, value))
        if i == 0 and rng.random() < 0.5:
            value = net.apply("Add", value, "input")
    return net.finish(scores(net, rng, value))


def pool(operator: str, kernel: int, *pads: int, axes: int = 2, **attributes: Any) -> Step:
    if pads:
        attributes["pads"] = list(pads)
    return node(operator, kernel_shape=[kernel] * axes, **attributes)


def scaled(factor: float) -> Step:
    return node("Mul", np.array(factor))
