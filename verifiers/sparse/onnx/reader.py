"""ONNX graphs into sparse affine nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from prunecert.errors import UserError
from prunecert.onnx.normal import EXACT
from prunecert.verifiers.base import UnsupportedError
from prunecert.verifiers.formats import support
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array
from prunecert.verifiers.sparse.network import WEIGHT_ERROR, Network, Term
from prunecert.verifiers.sparse.onnx import layers
from prunecert.verifiers.sparse.onnx.folding import Draft, finish, fold, wide

#: What is taken: the normal form, and what can be folded into it with exact account of all rounding; Cast, Concat,
#: Gather, Shape and Slice only where the inputs are constants or shapes.
OPERATORS = support.NORMAL_OPERATORS | {
    *("BatchNormalization", "Cast", "Concat", "Constant", "Div", "Dropout", "Gather", "GlobalAveragePool", "Identity"),
    *("MatMul", "Mul", "Shape", "Slice", "Squeeze", "Sub", "Unsqueeze"),
}
#: ``onnx.TensorProto.FLOAT``.
_FLOAT = 1


@dataclass(frozen=True, eq=False)
class _Value:
    """A computed tensor: a node's value or its ReLU, in some shape."""

    node: int
    activated: bool
    shape: tuple[int, ...]


class GraphReader:
    """Walks through a graph, one method an operator.

    Args:
        model: An ``onnx.ModelProto`` that `onnx.checker` accepts, with one input and one output.
        file: What to call it in messages.
    """

    def __init__(self, model: Any, file: str) -> None:
        import onnx

        self._to_array = onnx.numpy_helper.to_array
        self._attribute = onnx.helper.get_attribute_value
        self._file = file
        self._graph = model.graph
        #: Whether the file's numbers stand for those of another file, each rounded once.
        self._rewritten = support.is_rewritten(model)
        self._constants: dict[str, npt.NDArray[Any]] = {
            item.name: self._to_array(item) for item in self._graph.initializer
        }
        #: Of those of a rewritten file, the ones that are known not to be rounded.
        self._exact = {item.name for item in self._graph.initializer if item.doc_string == EXACT}
        self._values: dict[str, _Value] = {}
        self._drafts: list[Draft] = []

    def read(self) -> Network:
        """Converts the graph.

        Raises:
            UserError: A weight is not finite.
            UnsupportedError: A node isn't taken.
        """
        self._check_all()
        entries = [item for item in self._graph.input if item.name not in self._constants]
        if len(entries) != 1 or len(self._graph.output) != 1:
            raise UnsupportedError(f"{self._file} has {len(entries)} inputs; one input and one output are taken.")
        shape = tuple(dim.dim_value for dim in entries[0].type.tensor_type.shape.dim)
        if len(shape) < 2 or shape[0] > 1 or 0 in shape[1:]:
            raise UnsupportedError(
                f"{self._file}: the input shape {shape} isn't taken: it must be a batch of 1 or free and fixed others."
            )
        if entries[0].type.tensor_type.elem_type != _FLOAT:
            raise UnsupportedError(f"{self._file}: the input must be float32; networks of other types aren't taken.")
        zeros = np.zeros(math.prod(shape[1:]))
        self._drafts.append(Draft(entries[0].name, shape[1:], (), zeros, zeros))
        self._values[entries[0].name] = _Value(0, False, shape[1:])
        for index, node in enumerate(self._graph.node):
            self._node(node, _label(node, index))
        output = self._values.get(self._graph.output[0].name)
        if output is None:
            raise UnsupportedError(f"{self._file}: the output isn't computed from the input.")
        if output.activated or output.node == 0:
            self._append("output", output.shape, [(output, layers.diagonal(_ones(output)), True)])
            output = _Value(len(self._drafts) - 1, False, output.shape)
        return Network(self._file, shape[1:], finish(fold(self._drafts, output.node)))

    def _check_all(self) -> None:
        """Refuses operators before any work, and weights that are not finite."""
        for index, node in enumerate(self._graph.node):
            if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
                raise UnsupportedError(
                    f"{self._file}: the operator {node.op_type} (node {_label(node, index)!r}) isn't taken; taken are "
                    f"{', '.join(sorted(OPERATORS))}."
                )
            for name in node.input:
                self._check_finite(name, _label(node, index))

    def _check_finite(self, name: str, label: str) -> None:
        value = self._constants.get(name)
        if value is not None and value.dtype.kind == "f" and not np.isfinite(value).all():
            raise UserError(
                f"{self._file} is refused because the tensor {name!r} of node {label!r} holds "
                f"{int((~np.isfinite(value)).sum())} values that are infinite or not a number; allowed are finite ones."
            )

    def _refuse(self, node: Any, label: str, why: str) -> UnsupportedError:
        return UnsupportedError(f"{self._file}: the node {label!r} ({node.op_type}) isn't taken: {why}.")

    def _node(self, node: Any, label: str) -> None:
        attributes = {item.name: self._attribute(item) for item in node.attribute}
        names = [name for name in node.input if name]
        if node.op_type == "Constant":
            if "value" not in attributes:
                raise self._refuse(node, label, "only a tensor value is")
            self._constants[node.output[0]] = self._to_array(attributes["value"])
            self._check_finite(node.output[0], label)
        elif node.op_type == "Shape" and names[0] in self._values:
            whole = np.array([1, *self._values[names[0]].shape], dtype=np.int64)
            self._constants[node.output[0]] = whole[attributes.get("start", 0) : attributes.get("end")]
        elif all(name in self._constants for name in names):
            self._evaluate(node, names, label)
        elif unknown := [name for name in names if name not in self._constants and name not in self._values]:
            raise self._refuse(node, label, f"its input {unknown[0]!r} isn't computed from the network's input")
        else:
            converters: dict[str, Callable[[Any, str, list[str], dict[str, Any]], _Value]] = {
                "Add": self._arithmetic,
                "AveragePool": self._average,
                "BatchNormalization": self._batch_norm,
                "Conv": self._conv,
                "Div": self._arithmetic,
                "Dropout": lambda *_: self._values[names[0]],
                "Flatten": self._reshape,
                "Gemm": self._linear,
                "GlobalAveragePool": self._average,
                "Identity": lambda *_: self._values[names[0]],
                "MatMul": self._linear,
                "Mul": self._arithmetic,
                "Relu": lambda *_: replace(self._values[names[0]], activated=True),
                "Reshape": self._reshape,
                "Squeeze": self._reshape,
                "Sub": self._arithmetic,
                "Unsqueeze": self._reshape,
            }
            if node.op_type not in converters:
                raise self._refuse(node, label, "its inputs aren't constants")
            self._values[node.output[0]] = converters[node.op_type](node, label, names, attributes)

    def _evaluate(self, node: Any, names: list[str], label: str) -> None:
        from onnx.reference import ReferenceEvaluator

        results: Any = ReferenceEvaluator(node).run(None, {name: self._constants[name] for name in names})
        self._constants.update(zip(node.output, results, strict=False))
        self._check_finite(node.output[0], label)

    def _append(
        self,
        name: str,
        shape: tuple[int, ...],
        terms: Sequence[tuple[_Value, scipy.sparse.csr_array, bool]],
        bias: Float64Array | None = None,
        error: Float64Array | None = None,
    ) -> _Value:
        zeros = np.zeros(math.prod(shape))
        summands = tuple(Term(value.node, value.activated, matrix, exact) for value, matrix, exact in terms)
        self._drafts.append(
            Draft(name, shape, summands, zeros if bias is None else bias, zeros if error is None else error)
        )
        return _Value(len(self._drafts) - 1, False, shape)

    def _constant(self, name: str, node: Any, label: str, what: str) -> Float32Array:
        if name not in self._constants:
            raise self._refuse(node, label, f"its {what} must be a constant")
        return np.asarray(self._constants[name], dtype=np.float32)

    def _image(self, name: str, node: Any, label: str) -> tuple[_Value, tuple[int, int, int]]:
        value = self._values[name]
        if len(value.shape) != 3:
            raise self._refuse(node, label, f"its input has the shape {value.shape} a sample, not (C, H, W)")
        return value, (value.shape[0], value.shape[1], value.shape[2])

    def _arithmetic(self, node: Any, label: str, names: list[str], attributes: dict[str, Any]) -> _Value:
        computed = [name for name in names if name in self._values]
        value = self._values[computed[0]]
        ones = _ones(value)
        if len(computed) == 2:
            if node.op_type in ("Mul", "Div"):
                raise self._refuse(node, label, "both its operands depend on the input")
            other = self._values[computed[1]]
            if value.shape != other.shape:
                raise self._refuse(node, label, f"its operands have different shapes, {value.shape} and {other.shape}")
            second = layers.diagonal(ones if node.op_type == "Add" else -ones)
            return self._append(label, value.shape, [(value, layers.diagonal(ones), True), (other, second, True)])
        first = names[0] not in self._values
        raw = np.asarray(self._constants[names[0] if first else names[1]], dtype=np.float64)
        try:
            constant = np.broadcast_to(raw, (1, *value.shape)).reshape(-1)
        except ValueError as error:
            raise self._refuse(
                node, label, f"its constant of shape {raw.shape} doesn't fit the value of shape {value.shape}"
            ) from error
        if node.op_type in ("Add", "Sub"):
            sign = -1.0 if node.op_type == "Sub" and first else 1.0
            shift = constant if node.op_type == "Add" or first else -constant
            return self._append(label, value.shape, [(value, layers.diagonal(ones * np.float32(sign)), True)], shift)
        if node.op_type == "Div":
            if first:
                raise self._refuse(node, label, "the divisor depends on the input")
            if (constant == 0).any():
                raise self._refuse(node, label, "its divisor holds a zero")
            constant = 1.0 / constant
        return self._append(label, value.shape, [(value, _scaling(constant), node.op_type == "Mul")])

    def _linear(self, node: Any, label: str, names: list[str], attributes: dict[str, Any]) -> _Value:
        if names[0] not in self._values or attributes.get("transA", 0):
            raise self._refuse(node, label, "the weights must be a constant on the right")
        value = self._values[names[0]]
        weight = self._constant(names[1], node, label, "weight")
        if weight.ndim != 2 or len(value.shape) != 1:
            raise self._refuse(node, label, "only a flat vector times a matrix is")
        weight = weight if attributes.get("transB", 0) else weight.T
        if weight.shape[1] != value.shape[0]:
            raise self._refuse(node, label, f"{weight.shape[1]} weights a neuron don't fit {value.shape[0]} inputs")
        matrix, exact = layers.dense(np.ascontiguousarray(weight)), not self._rewritten
        if float(attributes.get("alpha", 1.0)) != 1.0:
            matrix, exact = _scaling(np.full(weight.shape[0], float(attributes["alpha"]))) @ wide(matrix), False
        bias = np.zeros(weight.shape[0])
        if len(names) > 2:
            shift = self._constant(names[2], node, label, "bias").astype(np.float64)
            try:
                bias = bias + np.broadcast_to(shift, (1, len(bias))).reshape(-1) * float(attributes.get("beta", 1.0))
            except ValueError as error:
                raise self._refuse(
                    node, label, f"its bias of shape {shift.shape} doesn't fit {len(bias)} outputs"
                ) from error
        # beta is a float32, so that its product with a bias is exact in float64.
        return self._append(label, (weight.shape[0],), [(value, matrix, exact)], bias, self._rounding(bias))

    def _conv(self, node: Any, label: str, names: list[str], attributes: dict[str, Any]) -> _Value:
        value, shape = self._image(names[0], node, label)
        weight = self._constant(names[1], node, label, "weight")
        groups = int(attributes.get("group", 1))
        if weight.ndim != 4:
            raise self._refuse(node, label, "only two-dimensional convolutions are")
        if weight.shape[1] * groups != shape[0] or weight.shape[0] % groups:
            raise self._refuse(node, label, f"weights {weight.shape} in {groups} groups don't fit {shape[0]} channels")
        matrix, new = layers.convolution(
            weight,
            shape,
            attributes.get("strides", (1, 1)),
            self._pads(node, label, attributes),
            attributes.get("dilations", (1, 1)),
            groups,
        )
        if 0 in new:
            raise self._refuse(node, label, f"its kernel {weight.shape[2:]} is larger than the padded input {shape}")
        bias = np.zeros(matrix.shape[0])
        if len(names) > 2:
            bias = np.repeat(self._constant(names[2], node, label, "bias").astype(np.float64), new[1] * new[2])
            if len(bias) != matrix.shape[0]:
                raise self._refuse(node, label, f"its bias doesn't fit {new[0]} channels")
        exact = not self._rewritten or names[1] in self._exact
        return self._append(label, new, [(value, matrix, exact)], bias, self._rounding(bias))

    def _rounding(self, bias: Float64Array) -> Float64Array | None:
        """Returns how far a layer's stored bias may be from the number that it stands for."""
        return np.abs(bias) * WEIGHT_ERROR if self._rewritten else None

    def _pads(self, node: Any, label: str, attributes: dict[str, Any]) -> list[int]:
        pads = [int(pad) for pad in attributes.get("pads", (0, 0, 0, 0))]
        if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or len(pads) != 4 or min(pads) < 0:
            raise self._refuse(node, label, "only explicit two-dimensional padding is")
        return pads

    def _average(self, node: Any, label: str, names: list[str], attributes: dict[str, Any]) -> _Value:
        value, shape = self._image(names[0], node, label)
        whole = node.op_type == "GlobalAveragePool"
        kernel = shape[1:] if whole else tuple(int(size) for size in attributes["kernel_shape"])
        if len(kernel) != 2 or attributes.get("ceil_mode", 0) or set(attributes.get("dilations", (1,))) != {1}:
            raise self._refuse(node, label, "only plain two-dimensional averages are")
        pads = self._pads(node, label, attributes)
        if any(pad >= kernel[i % 2] for i, pad in enumerate(pads)):
            raise self._refuse(node, label, f"the padding {pads} is as wide as the window {kernel}")
        count_pads = bool(attributes.get("count_include_pad", 0))
        matrix, new = layers.average(shape, kernel, attributes.get("strides", (1, 1)), pads, count_pads)
        if 0 in new:
            raise self._refuse(node, label, f"its window {kernel} is larger than the input {shape}")
        # 1 / n is a float32 only for powers of two.
        exact = bool(np.all(np.frexp(matrix.data)[0] == 0.5))
        return self._append(label, new, [(value, matrix, exact)])

    def _batch_norm(self, node: Any, label: str, names: list[str], attributes: dict[str, Any]) -> _Value:
        if attributes.get("training_mode", 0):
            raise self._refuse(node, label, "only the form for inference is")
        value = self._values[names[0]]
        parts = [self._constant(name, node, label, "statistics").astype(np.float64) for name in names[1:5]]
        if any(part.shape != value.shape[:1] for part in parts):
            raise self._refuse(node, label, f"its statistics don't fit {value.shape[0]} channels")
        scale, shift, mean, variance = parts
        variance = variance + float(attributes.get("epsilon", 1e-5))
        if not (variance > 0).all():
            raise self._refuse(node, label, "a variance is negative")
        factor = scale / np.sqrt(variance)
        offset = shift - mean * factor
        error = 2.0**-50 * (np.abs(shift) + np.abs(mean * factor))
        area = math.prod(value.shape[1:])
        term = (value, _scaling(np.repeat(factor, area)), False)
        return self._append(label, value.shape, [term], np.repeat(offset, area), np.repeat(error, area))

    def _reshape(self, node: Any, label: str, names: list[str], attributes: dict[str, Any]) -> _Value:
        if any(name not in self._constants for name in names[1:]):
            raise self._refuse(node, label, "the new shape must be a constant")
        value = self._values[names[0]]
        old = (1, *value.shape)
        sizes = [int(item) for item in self._constants[names[1]].reshape(-1)] if len(names) > 1 else None
        empty = np.broadcast_to(np.zeros(()), old)
        try:
            if node.op_type == "Reshape":
                assert sizes is not None
                new = np.reshape(empty, [old[i] if item == 0 else item for i, item in enumerate(sizes)]).shape
            elif node.op_type == "Flatten":
                axis = int(attributes.get("axis", 1)) % (len(old) + 1)
                new = (math.prod(old[:axis]), math.prod(old[axis:]))
            else:
                axes = tuple(sizes if sizes is not None else (int(axis) for axis in attributes.get("axes", ())))
                new = (
                    np.squeeze(empty, axes or None).shape
                    if node.op_type == "Squeeze"
                    else np.expand_dims(empty, axes).shape
                )
        except (ValueError, IndexError) as error:
            raise self._refuse(node, label, f"the shape {old} can't become what it asks for ({error})") from error
        if len(new) < 2 or new[0] != 1:
            raise self._refuse(node, label, f"the new shape {new} mixes samples of a batch")
        return replace(value, shape=tuple(new[1:]))


def _label(node: Any, index: int) -> str:
    return node.name or f"number {index}"


def _ones(value: _Value) -> Float32Array:
    return np.ones(math.prod(value.shape), dtype=np.float32)


def _scaling(factors: Float64Array) -> scipy.sparse.csr_array:
    """Returns a float64 diagonal matrix; zeros are left out."""
    return wide(layers.diagonal(np.ones(len(factors), dtype=np.float32))) @ scipy.sparse.diags_array(factors).tocsr()


def read_network(path: Path) -> Network:
    """Reads an ONNX file.

    Raises:
        UserError: It is no ONNX network, or a weight is not finite.
        UnsupportedError: A node's operator, or the way it is used, isn't taken; the node is named.
    """
    from prunecert.onnx.io import load_model

    return GraphReader(load_model(path), path.name).read()
