"""Constants of a graph: dense arrays, and nodes evaluated as onnxruntime evaluates them, within limits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from prunecert.errors import UserError
from prunecert.onnx.io import reason_of
from prunecert.onnx.normal import DEFAULT_DOMAINS, ELEMENTS, Array, UnsupportedNetworkError

#: Operators whose results differ from run to run.
RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
#: Operators whose number of results depends on values, and is bounded by the size of their input.
_SHRINKING = frozenset({"Compress", "NonZero", "Unique"})
#: Up to this many elements a value is told to shape inference.
_SMALL = 4096
#: Types whose values onnxruntime gives to NumPy as the bits that stand for them, or not at all; float32 holds them all.
_NARROW = frozenset(
    kind
    for name, kind in TensorProto.DataType.items()
    if name.startswith(("BFLOAT", "FLOAT4", "FLOAT8", "INT2", "INT4", "UINT2", "UINT4"))
)
#: Up to this many bytes a constant is stored in the model that onnxruntime evaluates, as it is in the given file.
_STORED = 2**26


def label(node: onnx.NodeProto) -> str:
    """Returns what a message calls a node: its name, or its operator and first result where it has none."""
    name = node.name or (node.output[0] if node.output else "")
    return repr("".join(c if c.isprintable() else "?" for c in name)[:80]) + f" ({node.op_type[:40]})"


def refuse(node: onnx.NodeProto, why: str) -> UnsupportedNetworkError:
    """Words the refusal of a node."""
    return UnsupportedNetworkError(f"The node {label(node)} isn't taken: {why}.")


def to_array(tensor: TensorProto) -> Array:
    """Returns a stored tensor's values.

    Raises:
        UserError: Its size is not that of its values, or is beyond the limit.
    """
    if any(size < 0 for size in tensor.dims) or math.prod(tensor.dims) > ELEMENTS:
        raise UserError(
            f"The tensor {tensor.name!r:.80} has {list(tensor.dims)} elements; allowed are {ELEMENTS:,} in all."
        )
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:
        # Whatever the damage is; numpy's, protobuf's and onnx's exceptions share no base class.
        raise UserError(f"The tensor {tensor.name!r:.80} is damaged ({reason_of(error)}); export it again.") from error


def to_dense(sparse: onnx.SparseTensorProto) -> Array:
    """Returns a sparse tensor's values, zeros included.

    Raises:
        UserError: See `to_array`; or an index is outside.
    """
    dims, name = tuple(sparse.dims), sparse.values.name
    if any(size < 0 for size in dims) or math.prod(dims) > ELEMENTS:
        raise UserError(f"The sparse tensor {name!r:.80} has {list(dims)} elements; allowed are {ELEMENTS:,} in all.")
    values, indices = to_array(sparse.values).reshape(-1), to_array(sparse.indices)
    try:
        flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), dims)
        if len(flat) != len(values) or (len(flat) and not 0 <= int(flat.min()) <= int(flat.max()) < math.prod(dims)):
            raise ValueError(f"{len(flat)} indices for {len(values)} values of {math.prod(dims)}")
        dense = np.zeros(math.prod(dims), dtype=values.dtype)
        dense[flat] = values
    except (ValueError, TypeError) as error:
        raise UserError(f"The sparse tensor {name!r:.80} is damaged ({reason_of(error)}); export it again.") from error
    return dense.reshape(dims)


def stored_values(graph: onnx.GraphProto) -> dict[str, Array]:
    """Returns the constants that a graph stores, by name.

    Raises:
        UserError: See `to_array` and `to_dense`.
    """
    dense = {item.name: to_array(item) for item in graph.initializer}
    return dense | {item.values.name: to_dense(item) for item in graph.sparse_initializer}


def constant_value(node: onnx.NodeProto) -> Array:
    """Returns the value of a ``Constant`` node."""
    for item in node.attribute:
        match item.name:
            case "value":
                return to_array(item.t)
            case "sparse_value":
                return to_dense(item.sparse_tensor)
            case "value_float" | "value_floats":
                value = item.f if item.name == "value_float" else list(item.floats)
                return np.array(value, dtype=np.float32)
            case "value_int" | "value_ints":
                whole = item.i if item.name == "value_int" else list(item.ints)
                return np.array(whole, dtype=np.int64)
            case _:
                pass
    raise refuse(node, "its value is no number")


def is_random(node: onnx.NodeProto) -> bool:
    """Says whether a node's result differs from run to run, whatever its inputs are."""
    return node.op_type in RANDOM and node.domain in DEFAULT_DOMAINS


def is_coarse(array: Array) -> bool:
    """Whether an array holds floating-point numbers of 16 bits."""
    return array.dtype.itemsize == 2 and array.dtype.kind not in "iu"


class Evaluator:
    """Evaluates single nodes in onnxruntime, by the file's own opset.

    Args:
        opset: Opset of the default domain.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset

    def run(self, node: onnx.NodeProto, arrays: Mapping[str, Array]) -> list[Array]:
        """Evaluates a node.

        Args:
            node: The node; it has no subgraph.
            arrays: Its inputs by name.

        Raises:
            UserError: It can't be evaluated, its inputs don't fit.
            UnsupportedNetworkError: Its result is too large, or differs from run to run.
        """
        return self.session(node, arrays, ())({})

    def fold(self, node: onnx.NodeProto, arrays: Mapping[str, Array]) -> list[Array]:
        """Evaluates a node of constants, if it has one value wherever it is computed.

        Args:
            node: The node; it has no subgraph.
            arrays: Its inputs by name.

        Raises:
            UserError: See `run`.
            UnsupportedNetworkError: Likewise; or it computes in 16 bits what 32 would make otherwise.
        """
        results = self.run(node, arrays)
        if _is_ambiguous(self, node, arrays, results):
            raise refuse(
                node,
                "it computes constants in 16 bits, for which onnxruntime takes 32 where it has no kernel; store in the "
                "file what it computes, or compute it in float32",
            )
        return results

    def session(
        self,
        node: onnx.NodeProto,
        arrays: Mapping[str, Array],
        free: Sequence[str],
        limit: int = ELEMENTS,
        reference: bool = True,
    ) -> Callable[[Mapping[str, Array]], list[Array]]:
        """Prepares a node for many runs.

        Args:
            node: The node.
            arrays: All its inputs by name; of the free ones only type and shape count.
            free: Names of the inputs that change from run to run.
            limit: Most elements of a result.
            reference: Whether ONNX's own evaluator will do where onnxruntime has no kernel for a type.

        Returns:
            A function from the free inputs, by name, to the results.
        """
        types = self._check(node, arrays, free, limit)
        outputs = [name for name in node.output if name]
        inputs = {name: arrays[name] for name in node.input if name}
        stored = {
            name: value for name, value in inputs.items() if name not in free and value.nbytes <= _STORED and value.size
        }
        fed = {name: value for name, value in inputs.items() if name not in stored}
        model = self._model(node, fed, stored, outputs)
        narrow = {name: kind for name in outputs if (kind := types[name]) in _NARROW}
        wide, names = _read_wide(model, narrow) if narrow else (model, outputs)
        try:
            session = _session(wide)
        except Exception as error:
            # onnxruntime's exceptions share no base class; some kernels are missing there, float16's above all.
            if not reference:
                raise UserError(f"The node {label(node)} can't be evaluated: {reason_of(error)}.") from error
            return self._reference(model, node, fed, free, error)

        def run(values: Mapping[str, Array]) -> list[Array]:
            try:
                results = session.run(names, {**fed, **values})
            except Exception as error:
                raise UserError(f"The node {label(node)} can't be evaluated: {reason_of(error)}.") from error
            return [
                result.astype(helper.tensor_dtype_to_np_dtype(narrow[name])) if name in narrow else result
                for name, result in zip(outputs, results, strict=True)
            ]

        return run

    def _reference(
        self,
        model: onnx.ModelProto,
        node: onnx.NodeProto,
        fed: Mapping[str, Array],
        free: Sequence[str],
        why: Exception,
    ) -> Callable[[Mapping[str, Array]], list[Array]]:
        """Falls back to ONNX's own evaluator where onnxruntime has no kernel for a type."""
        from onnx.reference import ReferenceEvaluator

        if "NOT_IMPLEMENTED" not in str(why) and "Could not find an implementation" not in str(why):
            raise UserError(f"The node {label(node)} can't be evaluated: {reason_of(why)}.") from why
        evaluator = ReferenceEvaluator(model)

        def run(values: Mapping[str, Array]) -> list[Array]:
            try:
                with np.errstate(all="ignore"):
                    return [np.asarray(item) for item in evaluator.run(None, {**fed, **values})]
            except Exception as error:
                raise UserError(f"The node {label(node)} can't be evaluated: {reason_of(error)}.") from error

        return run

    def _model(
        self,
        node: onnx.NodeProto,
        fed: Mapping[str, Array],
        stored: Mapping[str, Array],
        outputs: Sequence[str],
        shapes: bool = True,
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            [node],
            "one node",
            [
                helper.make_tensor_value_info(k, _type(node, v), list(v.shape) if shapes else None)
                for k, v in fed.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [numpy_helper.from_array(np.asarray(value, order="C"), name) for name, value in stored.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)

    def _check(
        self, node: onnx.NodeProto, arrays: Mapping[str, Array], free: Sequence[str], limit: int
    ) -> dict[str, int]:
        """Refuses results that are random or too large before anything is computed; returns their types by name."""
        if is_random(node):
            raise refuse(node, "it gives other numbers in each run, so that the file is no function; export without it")
        inputs = {name: arrays[name] for name in node.input if name}
        small = {name: v for name, v in inputs.items() if v.size <= _SMALL and name not in free}
        large = {name: value for name, value in inputs.items() if name not in small}
        outputs = [name for name in node.output if name]
        model = self._model(node, large, small, outputs)
        try:
            model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        except Exception as error:
            # InferenceError is a RuntimeError in some versions, and ValueErrors come through, too.
            raise UserError(f"The node {label(node)} doesn't fit its inputs: {reason_of(error)}.") from error
        for value in model.graph.output:
            shape = value.type.tensor_type.shape
            known = value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in shape.dim)
            if not known and node.op_type not in _SHRINKING:
                raise refuse(node, "the size of its result can't be told beforehand")
            if known and math.prod(dim.dim_value for dim in shape.dim) > limit:
                sizes = [dim.dim_value for dim in shape.dim]
                raise refuse(node, f"its result has {sizes} elements; allowed are {limit:,} in all")
        return {value.name: value.type.tensor_type.elem_type for value in model.graph.output}


def _read_wide(model: onnx.ModelProto, narrow: Mapping[str, int]) -> tuple[onnx.ModelProto, list[str]]:
    """Returns a model that gives results of the types in `_NARROW` as float32, and the names of all its results.

    Args:
        model: The model of one node; it isn't changed.
        narrow: The types of such results, by name.
    """
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    for value in wide.graph.output:
        if value.name in narrow:
            name = next(name for count in itertools.count() if (name := f"wide {count}") not in names)
            names.add(name)
            wide.graph.node.append(helper.make_node("Cast", [value.name], [name], to=TensorProto.FLOAT))
            value.name = name
    return wide, [value.name for value in wide.graph.output]


def _type(node: onnx.NodeProto, value: Array) -> int:
    try:
        return int(helper.np_dtype_to_tensor_dtype(value.dtype))
    except Exception as error:
        raise refuse(node, f"an input is of type {value.dtype}") from error


def _session(model: onnx.ModelProto) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # A node as it is written, as in the replay of witnesses.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _is_ambiguous(
    evaluator: Evaluator, node: onnx.NodeProto, arrays: Mapping[str, Array], results: Sequence[Array]
) -> bool:
    """Whether constants that a node computes in 16 bits would be others in 32, in which runtimes may compute them.

    Args:
        evaluator: Of the file's opset.
        node: The node.
        arrays: Its inputs by name.
        results: What it gives as it stands.
    """
    if node.op_type == "DequantizeLinear" or not any(map(is_coarse, results)):
        # Of quantised weights runtimes have kernels.
        return False
    if node.op_type == "Cast":
        # What is rounded here may not be: runtimes drop casts to a type and back around what they compute in 32 bits.
        (source,) = arrays.values()
        return not np.array_equal(results[0].astype(np.float64), source.astype(np.float64), equal_nan=True)
    wide = {name: array.astype(np.float32) if is_coarse(array) else array for name, array in arrays.items()}
    try:
        exact = evaluator.run(node, wide)
    except UserError:
        return True
    return any(
        is_coarse(result) and not np.array_equal(result.astype(np.float32), other, equal_nan=True)
        for result, other in zip(results, exact, strict=True)
    )
