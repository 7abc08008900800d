"""Random graphs of harsh numbers, and what they compute in rational arithmetic, operator by operator."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.prunecert.onnx.graphs import Array, N, session
from tests.prunecert.onnx.test_random_graphs import Rng, Writer

#: Numbers whose sums and products lose digits in float32, in float64, or in neither.
_SIZES = (2.0**-60, 2.0**-30, 1 / 3, 1.0, 3.0, 2.0**40, 0.1, 1e-7)
_ZERO = Fraction(0)
#: Square roots are off by less than 2 to the power of minus this.
_BITS = 300
_larger: Any = np.frompyfunc(max, 2, 1)
_smaller: Any = np.frompyfunc(min, 2, 1)


class SkippedError(Exception):
    """onnxruntime's answer isn't what the standard says: no window of an average fits into its padded image."""


class Harsh(Writer):
    """Writes graphs with constants of all sizes, and more operators that fold them.

    Args:
        rng: Random numbers.
        largest: Most elements of a value.
    """

    def __init__(self, rng: Rng, largest: int) -> None:
        super().__init__(rng)
        self.largest = largest

    def constant(self, *shape: int) -> str:
        rng, name = self.rng, f"k{len(self.constants)}"
        signed = rng.choice(_SIZES, shape) * rng.choice([-1, 1], shape)
        odd = np.where(rng.random(shape) < 0.5, signed, rng.standard_normal(shape) * rng.choice([1e-44, 1e-30, 1e20]))
        kinds = [rng.standard_normal(shape), signed, rng.choice([-1.0, 1.0, 0.0, 0.5], shape), odd]
        self.constants[name] = np.asarray(kinds[int(rng.choice(4, p=[0.35, 0.35, 0.15, 0.15]))], dtype=np.float32)
        return name

    def scalar(self, number: float) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = np.array(number, dtype=np.float32)
        return name

    def node(self, name: str, shape: tuple[int, ...]) -> onnx.NodeProto | None:
        out, rank, rng = [f"v{len(self.nodes)}"], len(shape), self.rng
        match self.some("gemm", "transposed", "several", "clip", "leaky", "einsum", "split", *["other"] * 7):
            case "gemm" if rank == 2:
                inputs = [name, self.constant(shape[1], 2), *([self.constant(2)] if rng.random() < 0.7 else [])]
                alpha, beta = rng.choice([0.1, 1.0, 2.0, 3.0], 2).tolist()
                return N("Gemm", inputs, out, alpha=alpha, beta=beta)
            case "transposed" if rank == 4:
                kernel, strides = rng.integers(1, 3, 2).tolist(), rng.integers(1, 3, 2).tolist()
                inputs = [name, self.constant(shape[1], 2, *kernel), self.constant(2)]
                return N("ConvTranspose", inputs[: int(rng.integers(2, 4))], out, strides=strides)
            case "several":
                alike = [key for key, other in self.values.items() if other == shape]
                return N(self.some("Mean", "Sum", "Max"), [name, self.some(*alike), self.some(*alike)], out)
            case "clip":
                ends = self.scalar(self.some(-1, 0, 0.1, -1e6, -1e30)), self.scalar(self.some(0.5, 6, 1e8, 1e31))
                return N("Clip", [name, *(self.some(end, "") for end in ends)], out)
            case "leaky":
                return N("LeakyRelu", [name], out, alpha=float(self.some(0.1, 2.0**-40, 1 / 3, -0.3, 1.5)))
            case "einsum" if rank == 2:
                return N("Einsum", [name, self.constant(shape[1], 2)], out, equation=self.some(*_EINSUMS))
            case "split" if shape[-1] % 2 == 0:
                return N("Split", [name], [*out, f"{out[0]}b"], axis=rank - 1)
            case _:
                return super().node(name, shape)


#: Axes that are summed of x [i, j, 1] times w [1, j, k].
_EINSUMS: dict[str, tuple[int, ...]] = {"ij,jk->ik": (1,), "ij,jk->i": (1, 2), "ij,jk->k": (0, 1)}


def rational(array: Any) -> Array:
    """Returns float numbers as an array of fractions."""
    numbers = np.asarray(array)
    result = np.empty(numbers.shape, dtype=object)
    for place in np.ndindex(numbers.shape):
        result[place] = Fraction(float(numbers[place]))
    return result


def _root(number: Fraction) -> Fraction:
    top = math.isqrt((number.numerator * number.denominator) << (2 * _BITS))
    return Fraction(top, number.denominator << _BITS)


class Exact:
    """All values of a graph at one point.

    Args:
        writer: The graph.
        point: Input in its shape.

    Raises:
        ZeroDivisionError: Something is divided by 0.
        SkippedError: See there.
    """

    def __init__(self, writer: Writer, point: Array) -> None:
        self._writer = writer
        self.values: dict[str, Array] = {"x": rational(point)}
        for node in writer.nodes:
            attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
            result = self._result(node, attributes, writer.values[node.output[0]])
            self.values.update(zip(node.output, result, strict=True))

    def _get(self, name: str) -> Array:
        return self.values[name] if name in self.values else rational(self._writer.constants[name])

    def _result(self, node: onnx.NodeProto, attributes: dict[str, Any], shape: tuple[int, ...]) -> Sequence[Array]:
        name = node.op_type
        if name in ("Conv", "MaxPool", "AveragePool"):
            return [self._windows(node, attributes, shape)]
        handler = getattr(self, f"_{name.lower()}", None)
        if handler is None:
            return self._moved(node)
        inputs = [self._get(item) if item else None for item in node.input if not self._whole(item)]
        return [handler(inputs, attributes, node)]

    def _whole(self, name: str) -> bool:
        return name in self._writer.constants and self._writer.constants[name].dtype == np.int64

    def _relu(self, inputs: Any, *_: Any) -> Array:
        return np.asarray(_larger(inputs[0], _ZERO))

    def _leakyrelu(self, inputs: Any, attributes: dict[str, Any], *_: Any) -> Array:
        return self._prelu([inputs[0], Fraction(float(np.float32(attributes.get("alpha", 0.01))))])

    def _prelu(self, inputs: Any, *_: Any) -> Array:
        return np.asarray(_larger(inputs[0], _ZERO) + inputs[1] * _smaller(inputs[0], _ZERO))

    def _abs(self, inputs: Any, *_: Any) -> Array:
        return np.asarray(abs(inputs[0]))

    def _neg(self, inputs: Any, *_: Any) -> Array:
        return np.asarray(-inputs[0])

    def _identity(self, inputs: Any, *_: Any) -> Array:
        return np.asarray(inputs[0])

    def _hardsigmoid(self, inputs: Any, *_: Any) -> Array:
        factor, shift = (Fraction(float(np.float32(number))) for number in (0.2, 0.5))
        return np.asarray(_larger(_ZERO, _smaller(Fraction(1), factor * inputs[0] + shift)))

    def _clip(self, inputs: Any, *_: Any) -> Array:
        value, low, high = [*inputs, None, None][:3]
        value = value if low is None else _larger(value, low[()])
        return np.asarray(value if high is None else _smaller(value, high[()]))

    def _add(self, inputs: Any, *_: Any) -> Array:
        return np.asarray(inputs[0] + inputs[1])

    def _sub(self, inputs: Any, *_: Any) -> Array:
        return np.asarray(inputs[0] - inputs[1])

    def _mul(self, inputs: Any, *_: Any) -> Array:
        return np.asarray(inputs[0] * inputs[1])

    def _div(self, inputs: Any, *_: Any) -> Array:
        return np.asarray(inputs[0] / inputs[1])

    def _sum(self, inputs: Any, *_: Any) -> Array:
        return np.asarray(sum(inputs[1:], inputs[0]))

    def _mean(self, inputs: Any, *_: Any) -> Array:
        return np.asarray(self._sum(inputs) / Fraction(len(inputs)))

    def _max(self, inputs: Any, *_: Any) -> Array:
        return np.asarray(_larger(self._max(inputs[:-1]), inputs[-1]) if len(inputs) > 1 else inputs[0])

    def _min(self, inputs: Any, *_: Any) -> Array:
        return np.asarray(_smaller(self._min(inputs[:-1]), inputs[-1]) if len(inputs) > 1 else inputs[0])

    def _matmul(self, inputs: Any, *_: Any) -> Array:
        return np.asarray(np.matmul(*inputs))

    def _gemm(self, inputs: Any, attributes: dict[str, Any], *_: Any) -> Array:
        alpha, beta = (Fraction(float(np.float32(attributes[key]))) for key in ("alpha", "beta"))
        product = alpha * (inputs[0] @ inputs[1])
        return np.asarray(product + beta * inputs[2] if len(inputs) > 2 else product)

    def _einsum(self, inputs: Any, attributes: dict[str, Any], *_: Any) -> Array:
        products = inputs[0][:, :, None] * inputs[1][None]
        return np.asarray(products.sum(axis=_EINSUMS[attributes["equation"].decode()]))

    def _reduced(self, inputs: Any, attributes: dict[str, Any], node: onnx.NodeProto, how: Any) -> Array:
        axes = attributes.get("axes") or self._writer.constants[node.input[1]].tolist()
        return np.asarray(how.reduce(inputs[0], axis=axes[0], keepdims=bool(attributes["keepdims"])))

    def _reducesum(self, inputs: Any, attributes: dict[str, Any], node: onnx.NodeProto) -> Array:
        return self._reduced(inputs, attributes, node, np.add)

    def _reducemean(self, inputs: Any, attributes: dict[str, Any], node: onnx.NodeProto) -> Array:
        size = inputs[0].shape[attributes["axes"][0]]
        return np.asarray(self._reduced(inputs, attributes, node, np.add) / Fraction(size))

    def _reducemax(self, inputs: Any, attributes: dict[str, Any], node: onnx.NodeProto) -> Array:
        return self._reduced(inputs, attributes, node, _larger)

    def _reducemin(self, inputs: Any, attributes: dict[str, Any], node: onnx.NodeProto) -> Array:
        return self._reduced(inputs, attributes, node, _smaller)

    def _globalaveragepool(self, inputs: Any, *_: Any) -> Array:
        return np.asarray(inputs[0].sum(axis=(2, 3), keepdims=True) / Fraction(math.prod(inputs[0].shape[2:])))

    def _batchnormalization(self, inputs: Any, *_: Any) -> Array:
        value = inputs[0]
        scale, shift, mean, variance = (part.reshape(1, -1, *[1] * (value.ndim - 2)) for part in inputs[1:])
        roots = np.frompyfunc(lambda number: _root(number + Fraction(float(np.float32(1e-5)))), 1, 1)(variance)
        return np.asarray(scale * (value - mean) / roots + shift)

    def _convtranspose(self, inputs: Any, attributes: dict[str, Any], node: onnx.NodeProto) -> Array:
        value, weight, strides = inputs[0], inputs[1], attributes["strides"]
        result = rational(np.zeros(self._writer.values[node.output[0]]))
        for c, out, i, j, p, q in itertools.product(
            *map(range, (*weight.shape[:2], *value.shape[2:], *weight.shape[2:]))
        ):
            result[0, out, i * strides[0] + p, j * strides[1] + q] += value[0, c, i, j] * weight[c, out, p, q]
        return np.asarray(result + inputs[2].reshape(1, -1, 1, 1) if len(inputs) > 2 else result)

    def _windows(self, node: onnx.NodeProto, attributes: dict[str, Any], shape: tuple[int, ...]) -> Array:
        value, convolved = self._get(node.input[0]), node.op_type == "Conv"
        weight = (
            self._get(node.input[1]) if convolved else rational(np.ones((shape[1], 1, *attributes["kernel_shape"])))
        )
        groups = attributes.get("group", 1) if convolved else shape[1]
        steps, gaps = attributes["strides"], attributes.get("dilations", [1, 1])
        reach = [gaps[i] * (weight.shape[2 + i] - 1) + 1 for i in range(2)]
        pads = attributes.get("pads", [0] * 4)
        if attributes.get("auto_pad", b"VALID") != b"VALID":
            both = [max(0, (shape[2 + i] - 1) * steps[i] + reach[i] - value.shape[2 + i]) for i in range(2)]
            less, more = [size // 2 for size in both], [size - size // 2 for size in both]
            pads = less + more if attributes["auto_pad"] == b"SAME_UPPER" else more + less
        if any(reach[i] > value.shape[2 + i] + pads[i] + pads[2 + i] for i in range(2)):
            raise SkippedError
        ends = [value.shape[2 + i] + pads[2 + i] for i in range(2)]
        result = np.empty(shape, dtype=object)
        for out, i, j in itertools.product(*map(range, shape[1:])):
            first = out // (shape[1] // groups) * weight.shape[1]
            parts, count = [], 0
            for c, p, q in itertools.product(*map(range, weight.shape[1:])):
                row, column = i * steps[0] - pads[0] + p * gaps[0], j * steps[1] - pads[1] + q * gaps[1]
                count += row < ends[0] and column < ends[1]
                if 0 <= row < value.shape[2] and 0 <= column < value.shape[3]:
                    parts.append(weight[out, c, p, q] * value[0, first + c, row, column])
            divisor = count if attributes.get("count_include_pad") else len(parts)
            result[0, out, i, j] = max(parts) if node.op_type == "MaxPool" else sum(parts, _ZERO)
            if node.op_type == "AveragePool":
                result[0, out, i, j] /= divisor
        return result + self._get(node.input[2]).reshape(1, -1, 1, 1) if len(node.input) > 2 else result

    def _moved(self, node: onnx.NodeProto) -> list[Array]:
        """Asks onnxruntime where each of the numbered elements comes; number 0 is what a Pad fills with."""
        stored = self._writer.constants
        fill = stored[node.input[2]] if node.op_type == "Pad" and len(node.input) > 2 else np.float32(0)
        numbers, feeds = [Fraction(float(fill))], {}
        for name in dict.fromkeys(node.input if node.op_type == "Concat" else node.input[:1]):
            value = self._get(name)
            feeds[name] = np.arange(len(numbers), len(numbers) + value.size).reshape(value.shape).astype(np.float32)
            numbers += value.reshape(-1).tolist()
        others = {name: stored[name] for name in node.input if name not in feeds}
        if node.op_type == "Pad" and len(node.input) > 2:
            others[node.input[2]] = np.zeros((), np.float32)
        graph = helper.make_graph(
            [node], "one", [helper.make_tensor_value_info(k, 1, v.shape) for k, v in feeds.items()],
            [helper.make_tensor_value_info(name, 1, None) for name in node.output],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in others.items()],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        pick: Callable[[Any], Any] = np.frompyfunc(lambda number: numbers[int(number)], 1, 1)
        return [np.asarray(pick(places), dtype=object) for places in session(model).run(None, feeds)]
