"""Small graphs written node by node, and the comparison of a network with its normal form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from prunecert.onnx.evaluate import evaluate
from prunecert.onnx.normalise import Normalised, is_normal, normalise
from prunecert.onnx.values import Value

Array = NDArray[Any]
Nodes = list[onnx.NodeProto]
N = helper.make_node
_KINDS: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.DOUBLE: np.float64,
    TensorProto.UINT8: np.uint8,
}


def weights(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Random numbers of about unit size."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


#: Weights of a convolution of two channels into three, 3 by 3.
CONV = {"w": weights(3, 2, 3, 3), "b": weights(3)}


def conv(**attributes: Any) -> Nodes:
    """A network of one convolution with the weights `CONV`."""
    return [N("Conv", ["x", "w", "b"], ["y"], name="c", **attributes)]


def reduction(operator: str, axes: list[int] | None, keepdims: int, opset: int) -> onnx.ModelProto:
    """A network of one reduction, whose axes are an attribute or an input, as the opset has them; None: left out."""
    as_input = opset >= 18 or (operator == "ReduceSum" and opset >= 13)
    inputs = ["x", "a"] if as_input and axes is not None else ["x"]
    more: dict[str, Any] = {} if as_input or axes is None else {"axes": axes}
    constants = {"a": np.array(axes, np.int64)} if as_input and axes is not None else {}
    return build([N(operator, inputs, ["y"], keepdims=keepdims, **more)], constants, (1, 3, 4, 2), opset=opset)


def build(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Any] | None = None,
    shape: Sequence[int | str] = (1, 2, 6, 6),
    *,
    opset: int = 13,
    kind: int = TensorProto.FLOAT,
    outputs: Sequence[str] = ("y",),
    sparse: Sequence[onnx.SparseTensorProto] = (),
) -> onnx.ModelProto:
    """Returns a model from ``x`` to the outputs, whose shapes it leaves open."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info(name, kind if kind != TensorProto.UINT8 else 1, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
        sparse_initializer=list(sparse),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 19 else 10)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """onnxruntime on the model as it is written."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, flat: Array, output: str | None = None) -> NDArray[np.float64]:
    """Returns a model's flat outputs at a flat input."""
    entry = model.graph.input[0]
    kind = _KINDS[entry.type.tensor_type.elem_type]
    shape = [dim.dim_value or 1 for dim in entry.type.tensor_type.shape.dim]
    names = [output] if output else None
    outputs = session(model).run(names, {entry.name: flat.astype(kind).reshape(shape)})[0]
    return np.asarray(outputs, dtype=np.float64).reshape(-1)


def size(model: onnx.ModelProto) -> int:
    """Number of inputs."""
    return int(np.prod([dim.dim_value or 1 for dim in model.graph.input[0].type.tensor_type.shape.dim]))


def assert_same(
    model: onnx.ModelProto, *, tolerance: float = 1e-5, points: int = 4, seed: int = 0, **how: Any
) -> Normalised:
    """Asserts that a network and its normal form are one function to rounding, and returns the form."""
    normal = normalise(model, **how)
    assert is_normal(normal.model, how.get("keep", ()))
    onnx.checker.check_model(normal.model, full_check=True)
    again = normalise(normal.model, keep=how.get("keep", ()))
    assert not again.changed
    rng = np.random.default_rng(seed)
    for scale in np.linspace(0.5, 2.0, points):
        flat = (scale * rng.standard_normal(size(model))).astype(np.float32)
        if model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8:
            flat = rng.integers(0, 256, size(model)).astype(np.float32)
        expected = run(model, flat, normal.output)
        turned = flat if normal.input_order is None else flat[normal.input_order]
        outputs = run(normal.model, turned)
        assert normal.outputs == outputs.size == expected.size
        if normal.removed == "Softmax":
            outputs = np.exp(outputs - outputs.max()) / np.exp(outputs - outputs.max()).sum()
        elif normal.removed == "LogSoftmax":
            outputs, expected = outputs - outputs[0], expected - expected[0]
        elif normal.removed in ("Sigmoid", "Tanh"):
            outputs = 1 / (1 + np.exp(-outputs)) if normal.removed == "Sigmoid" else np.tanh(outputs)
        else:
            np.testing.assert_allclose(
                evaluate(normal.model, turned)[0], outputs, rtol=0, atol=tolerance * _largest(outputs)
            )
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=tolerance * _largest(expected))
    return normal


def _largest(values: Array) -> float:
    return max(1.0, float(np.abs(values).max()))


def evaluated(value: Value, nodes: Sequence[Array]) -> NDArray[np.float64]:
    """What a value is, given its nodes' values, element by element."""
    result = np.zeros(value.size) if value.shift is None else value.shift.copy()
    for term in value.terms:
        flat = nodes[term.source].reshape(-1).astype(np.float64)
        for place in range(value.size):
            index = place if term.index is None else int(term.index[place])
            if index >= 0:
                result[place] += flat[index] * (1.0 if term.scale is None else term.scale[place])
    return result.reshape(value.shape)


def operators(normal: Normalised) -> list[str]:
    """The normal form's operators, in order."""
    return [node.op_type for node in normal.model.graph.node]
