"""Small random networks for the soundness suite, one for each way to use an operator, and some that mix them.

Each builder gets a name and a generator. What `tests.soundness.networks` has is not repeated: these are about the other
operators that exporters write, with the attributes that change what they mean.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.soundness.networks import Array, Rng
from tests.soundness.operators import OperatorNetwork

Builder = Callable[[str, Rng], OperatorNetwork]
#: Takes a network, a generator and the name of a value; returns the name of another.
Step = Callable[[OperatorNetwork, Rng, str], str]

_IMAGE, _ROW = (2, 4, 4), (5,)
#: Most elements that are scored directly.
_SCORED = 8


def _drawn(rng: Rng, *shape: int, deviation: float | None = None) -> Array:
    """Draws weights, scaled by He's rule for [out, in, ...] unless a deviation is given."""
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 10
    values: Array = rng.normal(size=shape) * (np.sqrt(2.0 / fan_in) if deviation is None else deviation)
    return values


def _whole(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


def linear(net: OperatorNetwork, rng: Rng, value: str, outputs: int) -> str:
    """Adds a linear layer to [1, outputs], flattening before it."""
    if len(net.readings[value][1]) != 2:
        value = net.apply("Flatten", value)
    weight = _drawn(rng, outputs, net.size(value))
    return net.apply("Gemm", value, weight, 0.3 * rng.normal(size=outputs), transB=1)


def conv(net: OperatorNetwork, rng: Rng, value: str, outputs: int, kernel: int = 3, **attributes: Any) -> str:
    """Adds a convolution; padded by 1 unless said otherwise."""
    shape = net.readings[value][1]
    axes = len(shape) - 2
    if "auto_pad" not in attributes:
        attributes.setdefault("pads", [1] * 2 * axes)
    weight = _drawn(rng, outputs, shape[1] // attributes.get("group", 1), *[kernel] * axes)
    return net.apply("Conv", value, weight, 0.2 * rng.normal(size=outputs), **attributes)


def scores(net: OperatorNetwork, rng: Rng, value: str, classes: int = 3) -> str:
    """Adds what makes classes of a value: at most eight neurons, and scores of which none wins everywhere."""
    if net.size(value) > _SCORED:
        value = net.apply("Relu", centred(net, rng, linear(net, rng, value, 4)))
    return centred(net, rng, linear(net, rng, value, classes))


def centred(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Takes off what scores are on average, so that no class wins everywhere."""
    net.finish(value)
    mean = net.evaluate(rng.random((200, net.inputs))).mean(axis=0)
    return net.apply("Sub", value, mean.reshape(net.readings[value][1]))


def _image(step: Step, shape: tuple[int, ...] = _IMAGE, opset: int = 13) -> Builder:
    """A convolution, the step, scores."""

    def build(name: str, rng: Rng) -> OperatorNetwork:
        net = OperatorNetwork(name, shape, opset=opset)
        return net.finish(scores(net, rng, step(net, rng, conv(net, rng, "input", 2))))

    return build


def _entrance(step: Step, shape: tuple[int, ...] = _IMAGE, opset: int = 13) -> Builder:
    """The step on the input itself, which may be negative, and scores behind it."""

    def build(name: str, rng: Rng) -> OperatorNetwork:
        net = OperatorNetwork(name, shape, opset=opset)
        return net.finish(scores(net, rng, step(net, rng, net.apply("Sub", "input", np.array(0.5)))))

    return build


def _flat(step: Step, hidden: int = 6, opset: int = 13, inputs: int = 3) -> Builder:
    """A linear layer, the step, scores."""

    def build(name: str, rng: Rng) -> OperatorNetwork:
        net = OperatorNetwork(name, (inputs,), opset=opset)
        return net.finish(scores(net, rng, step(net, rng, linear(net, rng, "input", hidden))))

    return build


def _node(operator: str, *constants: Any, **attributes: Any) -> Step:
    """One node, with constants behind the value."""

    def step(net: OperatorNetwork, rng: Rng, value: str) -> str:
        return net.apply(operator, value, *constants, **attributes)

    return step


def _chain(*steps: Step) -> Step:
    def step(net: OperatorNetwork, rng: Rng, value: str) -> str:
        return functools.reduce(lambda before, one: one(net, rng, before), steps, value)

    return step


_relu = _node("Relu")


def _conv(outputs: int, kernel: int = 3, **attributes: Any) -> Step:
    return lambda net, rng, value: conv(net, rng, value, outputs, kernel, **attributes)


def _linear(outputs: int) -> Step:
    return lambda net, rng, value: linear(net, rng, value, outputs)


def _slopes(*shape: int) -> Step:
    """PRelu whose slopes are of all kinds: negative, 0, between, 1 and beyond."""

    def step(net: OperatorNetwork, rng: Rng, value: str) -> str:
        kinds = np.resize(np.array([-0.6, 0.25, 1.7, 0.0, 1.0, 0.01]), int(np.prod(shape)))
        return net.apply("PRelu", value, rng.permutation(kinds).reshape(shape))

    return step


def _against(operator: str, *shape: int) -> Step:
    """An operator of the value and drawn numbers, these first."""
    return lambda net, rng, value: net.apply(operator, 0.3 * rng.normal(size=shape), value)


def _with_other(operator: str, *others: Any, second: Step = _linear(6), **attributes: Any) -> Step:
    """An operator of the value, of what a step makes of the input, and of constants."""

    def step(net: OperatorNetwork, rng: Rng, value: str) -> str:
        return net.apply(operator, value, second(net, rng, "input"), *others, **attributes)

    return step


def _transposed(outputs: int, kernel: int, groups: int = 1, **attributes: Any) -> Step:
    def step(net: OperatorNetwork, rng: Rng, value: str) -> str:
        shape = net.readings[value][1]
        weight = _drawn(rng, shape[1], outputs // groups, *[kernel] * (len(shape) - 2), deviation=0.5)
        return net.apply("ConvTranspose", value, weight, 0.2 * rng.normal(size=outputs), group=groups, **attributes)

    return step


def _batch_norm(net: OperatorNetwork, rng: Rng, value: str) -> str:
    channels = net.readings[value][1][1]
    parts = [rng.uniform(0.5, 1.5, channels), *(0.3 * rng.normal(size=(2, channels))), rng.uniform(0.5, 1.5, channels)]
    return net.apply("BatchNormalization", value, *parts)


def _matmul(left: bool) -> Step:
    """MatMul and Add, as exporters write a linear layer; from the left over a column."""

    def step(net: OperatorNetwork, rng: Rng, value: str) -> str:
        if left:
            column = net.apply("Reshape", value, _whole(-1, 1))
            product = net.apply("MatMul", _drawn(rng, 5, net.size(value)), column)
            return net.apply("Transpose", net.apply("Add", 0.3 * rng.normal(size=(5, 1)), product), perm=[1, 0])
        product = net.apply("MatMul", value, _drawn(rng, 5, net.size(value)).T)
        return net.apply("Add", product, 0.3 * rng.normal(size=5))

    return step


def _batched(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Rows of an image through one linear layer, as models of tokens have it."""
    tokens = net.apply("Transpose", net.apply("Reshape", value, _whole(1, 2, 16)), perm=[0, 2, 1])
    mixed = net.apply("Add", net.apply("MatMul", tokens, _drawn(rng, 3, 2).T), 0.2 * rng.normal(size=3))
    across = net.apply("MatMul", _drawn(rng, 2, 16), net.apply("Relu", mixed))
    return net.apply("ReduceMean", across, axes=[1], keepdims=0)


def _factors(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Gemm with factors, transposed on both sides and a bias that is broadcast; Einsum; CumSum."""
    turned = net.apply("Transpose", value, perm=[1, 0])
    scaled = net.apply("Gemm", turned, _drawn(rng, 6, 6), rng.normal(size=(1, 1)), transA=1, alpha=0.7, beta=-0.4)
    summed = net.apply("CumSum", scaled, np.array(1, dtype=np.int64), reverse=1)
    return net.apply("Einsum", net.apply("Relu", summed), _drawn(rng, 6, 4), equation="bi,ij->bj")


def _arithmetic(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Constants on either side of every operation, of several shapes."""
    value = net.apply("Sub", rng.normal(size=(1, 2, 1, 1)), value)
    value = net.apply("Mul", rng.uniform(-1.5, 1.5, (4, 1)), value)
    value = net.apply("Div", value, rng.uniform(0.5, 2.0, (2, 1, 4)) * np.array([1.0, -1.0]).reshape(2, 1, 1))
    return net.apply("Neg", net.apply("Relu", net.apply("Add", rng.normal(size=4) * 0.2, value)))


def _sums(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Sums and means of several values, one of them twice."""
    other, third = linear(net, rng, "input", 6), net.apply("Relu", value)
    total = net.apply("Sum", third, other, third, 0.2 * rng.normal(size=6))
    return net.apply("Mean", total, net.apply("Relu", other), value)


def _pieces(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Channels apart, each its own way, and together again in another order."""
    first, second = net.split("Split", 2, value, axis=1)
    cut = net.apply("Slice", second, _whole(-1, 3), _whole(-99, 0), _whole(2, 3), _whole(-1, -2))
    tall = net.apply("Tile", cut, _whole(1, 1, 1, 2))
    chosen = net.apply("Gather", first, _whole(3, 0, 0, -2), axis=2)
    return net.apply("Concat", tall, net.apply("Relu", chosen), 0.3 * rng.normal(size=(1, 1, 4, 4)), axis=1)


def _turned(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Axes changed, merged and added; channels last in between."""
    last = net.apply("Transpose", value, perm=[0, 2, 3, 1])
    last = net.apply("Add", last, 0.3 * rng.normal(size=2))
    first = net.apply("Transpose", net.apply("Relu", last), perm=[0, 3, 1, 2])
    wide = net.apply("Reshape", first, _whole(0, -1, 2, 4))
    thin = net.apply("Squeeze", net.apply("Unsqueeze", wide, _whole(3)), _whole(0, 3))
    return net.apply("Flatten", net.apply("Expand", net.apply("Slice", thin, _whole(1), _whole(4), _whole(0)),
                                          _whole(1, 3, 2, 4)))  # fmt: skip


def _blocks(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Places to channels and back, copies of places, a part that conditions choose."""
    deep = net.apply("SpaceToDepth", value, blocksize=2)
    value = net.apply("DepthToSpace", deep, blocksize=2, mode="CRD")
    wide = net.apply("Resize", value, None, np.array([1.0, 1.0, 2.0, 1.0]), mode="nearest")
    mask = np.indices((8, 4)).sum(axis=0) % 2 == 0
    part = net.apply("Where", mask, wide, np.array(0.25))
    return net.apply("Relu", conv(net, rng, part, 1, pads=[0, 0, 0, 0], strides=[2, 1]))


def _residual(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """A block as of mobile networks: depthwise, normalised, clipped, added to what came in."""
    main = _batch_norm(net, rng, conv(net, rng, value, 2, group=2))
    main = net.apply("Clip", main, np.array(0.0), np.array(0.6))
    return net.apply("LeakyRelu", net.apply("Add", value, conv(net, rng, main, 2, 1, pads=[0] * 4)), alpha=0.2)


def _hourglass(net: OperatorNetwork, rng: Rng, value: str) -> str:
    """Down by a maximum, up by a transposed convolution, beside what came in."""
    low = net.apply("MaxPool", net.apply("Relu", value), kernel_shape=[2, 2], strides=[2, 2])
    high = _transposed(1, 2, strides=[2, 2])(net, rng, low)
    both = net.apply("Concat", value, net.apply("LeakyRelu", high), axis=1)
    return net.apply("GlobalAveragePool", net.apply("Relu", conv(net, rng, both, 2, 2, pads=[0] * 4)))


def _softmax(operator: str, moved: bool = False, opset: int = 13, **attributes: Any) -> Builder:
    """Scores behind a last operator, or what only moves behind that."""

    def build(name: str, rng: Rng) -> OperatorNetwork:
        net = OperatorNetwork(name, (3,), opset=opset)
        value = net.apply("Relu", linear(net, rng, net.apply("Relu", linear(net, rng, "input", 6)), 5))
        value = centred(net, rng, linear(net, rng, value, 4))
        if moved:
            value = net.apply("Reshape", value, _whole(1, 4, 1, 1))
        value = net.apply(operator, value, **attributes)
        return net.finish(net.apply("Flatten", net.apply("Squeeze", value), axis=0) if moved else value)

    return build


def _outputs(*order: str) -> Builder:
    """Several outputs, of different sizes but for one: the first of so many values as the property has counts."""

    def build(name: str, rng: Rng) -> OperatorNetwork:
        net = OperatorNetwork(name, (4,))
        value = net.apply("LeakyRelu", linear(net, rng, "input", 6), alpha=0.1)
        values = {
            "feature": net.apply("Relu", value),
            "scalar": linear(net, rng, value, 1),
            "scores": scores(net, rng, net.apply("Abs", value)),
        }
        return net.finish(*(values[key] for key in order))

    return build


def _parted(name: str, rng: Rng) -> OperatorNetwork:
    """Outputs are parts of one layer."""
    net = OperatorNetwork(name, (4,))
    value = linear(net, rng, net.apply("Relu", linear(net, rng, "input", 6)), 7)
    head, tail = net.split("Split", 2, value, _whole(4, 3), axis=1)
    return net.finish(head, net.apply("Max", centred(net, rng, tail), np.array(-0.4)))


def _mixed(name: str, rng: Rng) -> OperatorNetwork:
    """Some steps that keep an image's shape, in any order, with a piecewise linear one after each."""
    net = OperatorNetwork(name, _IMAGE)
    value = "input"
    linears: list[Step] = [
        _conv(2), _batch_norm, _arithmetic, _node("AveragePool", kernel_shape=[3, 3], pads=[1] * 4),
        _chain(_node("Pad", _whole(0, 0, 1, 1, 0, 0, 1, 1), mode="edge"), _conv(2, pads=[0] * 4)),
        _node("Transpose", perm=[0, 1, 3, 2]), _transposed(2, 3, pads=[1] * 4),
    ]  # fmt: skip
    bends: list[Step] = [
        _relu, _node("LeakyRelu", alpha=0.3), _slopes(2, 1, 1), _node("Clip", np.array(-0.3), np.array(0.5)),
        _node("HardSigmoid"), _node("MaxPool", kernel_shape=[2, 2], pads=[1, 1, 0, 0]), _node("Abs"),
    ]  # fmt: skip
    for i in range(2):
        step = linears[int(rng.integers(len(linears)))]
        value = bends[int(rng.integers(len(bends)))](net, rng, step(net, rng, value))
        if i == 0 and rng.random() < 0.5:
            value = net.apply("Add", value, "input")
    return net.finish(scores(net, rng, value))


def _pool(operator: str, kernel: int, *pads: int, axes: int = 2, **attributes: Any) -> Step:
    if pads:
        attributes["pads"] = list(pads)
    return _node(operator, kernel_shape=[kernel] * axes, **attributes)


def _scaled(factor: float) -> Step:
    return _node("Mul", np.array(factor))


FAMILIES: Mapping[str, Builder] = {
    "max-pool": _image(_pool("MaxPool", 2, strides=[2, 2])),
    "max-pool-overlapping": _image(_chain(_relu, _pool("MaxPool", 3, strides=[1, 1]))),
    "max-pool-padded": _image(_pool("MaxPool", 3, 1, 0, 1, 1, strides=[2, 2])),
    "max-pool-positive": _image(_chain(_relu, _pool("MaxPool", 3, 1, 1, 0, 1, strides=[2, 1]))),
    "max-pool-dilated": _image(_pool("MaxPool", 2, dilations=[2, 2])),
    "max-pool-ceiling": _entrance(_pool("MaxPool", 2, strides=[2, 2], ceil_mode=1), (1, 5, 3)),
    "max-pool-same": _entrance(_pool("MaxPool", 2, auto_pad="SAME_LOWER", strides=[2, 1]), (1, 3, 4)),
    "max-pool-row": _entrance(_pool("MaxPool", 3, 1, 1, axes=1, strides=[2]), (2, 6)),
    "max-pool-twice": _entrance(_chain(_pool("MaxPool", 2), _pool("MaxPool", 2, 1, 0, 0, 1))),
    "global-max-pool": _image(_chain(_conv(3), _node("GlobalMaxPool"))),
    "reduce-max": _image(_node("ReduceMax", axes=[1], keepdims=0)),
    "reduce-min": _image(_node("ReduceMin", axes=[-1, 1])),
    "average-pool": _image(_chain(_relu, _pool("AveragePool", 2, strides=[2, 2]))),
    "average-pool-padded": _image(_chain(_relu, _pool("AveragePool", 3, 1, 1, 1, 1, strides=[2, 2]))),
    "average-pool-counted": _image(_chain(_relu, _pool("AveragePool", 3, 1, 0, 0, 1, count_include_pad=1))),
    "average-pool-row": _entrance(_chain(_pool("AveragePool", 3, 1, 1, axes=1), _node("Abs")), (2, 6)),
    "global-average-pool": _image(_chain(_relu, _conv(3), _relu, _node("GlobalAveragePool"))),
    "reduce-mean": _image(_chain(_relu, _node("ReduceMean", axes=[2, 3]))),
    "reduce-mean-channels": _image(_chain(_relu, _node("ReduceMean", axes=[1, -1], keepdims=0))),
    "reduce-sum": _image(_chain(_node("Abs"), _node("ReduceSum", _whole(2), keepdims=0))),
    "leaky-relu": _flat(_chain(_node("LeakyRelu"), _linear(5), _node("LeakyRelu", alpha=0.3))),
    "leaky-relu-steep": _flat(_node("LeakyRelu", alpha=1.7)),
    "leaky-relu-falling": _flat(_chain(_node("LeakyRelu", alpha=-0.4), _linear(4), _relu)),
    "leaky-relu-conv": _image(_chain(_node("LeakyRelu", alpha=0.1), _conv(1), _node("LeakyRelu"))),
    "prelu": _flat(_slopes(6)),
    "prelu-channels": _image(_slopes(2, 1, 1)),
    "prelu-elements": _entrance(_slopes(2, 4, 4)),
    "prelu-one": _flat(_chain(_slopes(1), _linear(4), _slopes(4))),
    "abs": _flat(_chain(_node("Abs"), _linear(4), _node("Abs"))),
    "max-two": _flat(_with_other("Max")),
    "max-three": _flat(_chain(_with_other("Max", np.array([0.1, -0.2, 0.0, 0.3, -5.0, 5.0])))),
    "min-two": _flat(_chain(_with_other("Min"), _against("Max", 6))),
    "min-constant": _flat(_chain(_against("Min", 1, 6), _linear(5), _against("Max", 1))),
    "max-broadcast": _image(_with_other("Min", second=_chain(_conv(1), _relu))),
    "clip": _flat(_chain(_node("Clip", np.array(-0.3), np.array(0.4)), _linear(4), _relu)),
    "clip-relu6": _flat(_chain(_scaled(8.0), _node("Clip", np.array(0.0), np.array(6.0)), _scaled(0.125))),
    "clip-lower": _flat(_chain(_node("Clip", np.array(0.2)), _linear(4), _relu)),
    "clip-upper": _flat(_chain(_node("Clip", None, np.array(0.2)), _linear(4), _relu)),
    "clip-attributes": _flat(_chain(_node("Clip", min=-0.2, max=0.5), _linear(4), _node("Clip", min=0.0)), opset=9),
    "clip-wide": _flat(_chain(_scaled(90.0), _node("Clip", np.array(-70.0), np.array(25.0)), _scaled(0.02))),
    "clip-far": _flat(_chain(_node("Clip", np.array(-0.1), np.array(1e30)), _linear(4),
                             _node("Clip", np.array(-3e7), np.array(0.2)))),
    "clip-unlimited": _flat(_chain(_node("Clip", np.array(0.0), np.array(np.finfo(np.float32).max)), _linear(4),
                                   _node("Clip", np.array(np.finfo(np.float32).min), np.array(0.3)))),
    "clip-crossed": _flat(_chain(_with_other("Add", second=_chain(_linear(6), _node("Clip", np.array(1.0),
                                                                                    np.array(0.5)))), _relu)),
    "clip-image": _image(_chain(_node("Clip", np.array(-0.2), np.array(0.3)), _conv(1),
                                _node("Clip", np.array(0.0), np.array(6.0)))),
    "hard-sigmoid": _flat(_chain(_scaled(3.0), _node("HardSigmoid"), _linear(4), _relu)),
    "hard-sigmoid-steep": _flat(_node("HardSigmoid", alpha=-0.7, beta=0.3)),
    "conv-transpose": _image(_chain(_relu, _pool("AveragePool", 2, strides=[2, 2]), _transposed(1, 3, strides=[2, 2],
                             pads=[1] * 4, output_padding=[1, 1]), _relu)),
    "conv-transpose-groups": _image(_chain(_relu, _transposed(2, 2, groups=2, dilations=[2, 1], pads=[1, 0, 2, 1]))),
    "conv-transpose-row": _entrance(_chain(_transposed(2, 3, strides=[2], pads=[1, 0]), _relu), (2, 4)),
    "conv-transpose-same": _entrance(_chain(_transposed(1, 3, strides=[2, 1], auto_pad="SAME_UPPER"), _relu), (1, 2, 4)),
    "conv-groups": _image(_chain(_relu, _conv(2, 2, group=2, pads=[0, 1, 1, 0], strides=[2, 1]), _relu)),
    "conv-dilated": _image(_chain(_relu, _conv(1, 2, dilations=[2, 1], pads=[1, 0, 0, 1]), _relu)),
    "conv-same": _image(_chain(_relu, _conv(1, 2, auto_pad="SAME_LOWER", strides=[2, 2]), _relu)),
    "conv-row": _entrance(_chain(_conv(3, 3, strides=[2]), _relu), (2, 6)),
    "pad-constant": _image(_chain(_node("Pad", _whole(0, 0, 1, 0, 0, 1, 0, 2), np.array(0.7)), _conv(1, pads=[0] * 4),
                                  _relu)),
    "pad-reflect": _image(_chain(_relu, _node("Pad", _whole(0, 0, 2, 1, 0, 0, 0, 1), mode="reflect"),
                                 _conv(1, pads=[0] * 4, strides=[2, 2]), _relu)),
    "pad-edge": _image(_chain(_node("Pad", _whole(0, 0, 1, 1, 0, 0, 1, 2), mode="edge"),
                              _pool("MaxPool", 3, strides=[2, 2]))),
    "pad-cropping": _entrance(_chain(_node("Pad", _whole(0, -1, -1, 1, 0, 0, 2, -1)), _conv(2), _relu)),
    "batch-norm": _image(_chain(_batch_norm, _relu, _conv(1), _batch_norm, _relu)),
    "arithmetic": _image(_arithmetic),
    "pieces": _image(_pieces),
    "turned": _image(_turned),
    "blocks": _image(_blocks),
    "matmul": _flat(_chain(_relu, _matmul(left=False), _relu)),
    "matmul-left": _flat(_chain(_relu, _matmul(left=True), _relu)),
    "matmul-tokens": _image(_batched),
    "factors": _flat(_chain(_relu, _factors, _relu)),
    "sums": _flat(_sums),
    "residual-clipped": _image(_residual),
    "hourglass": _image(_hourglass),
    "softmax": _softmax("Softmax"),
    "softmax-moved": _softmax("Softmax", moved=True, axis=1),
    "softmax-old": _softmax("Softmax", opset=11),
    "log-softmax": _softmax("LogSoftmax"),
    "log-softmax-moved": _softmax("LogSoftmax", moved=True, axis=1),
    "outputs-last": _outputs("feature", "scalar", "scores"),
    "outputs-parted": _parted,
    **{f"mixed-{number}": _mixed for number in range(10)},
}  # fmt: skip
