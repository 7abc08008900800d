"""Chains of layers are found where nothing is between, and their product is the same function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from prunecert.onnx.count import count_layers
from prunecert.onnx.factors import METADATA_KEY, chains, composed_weights, fuse, is_marked

rng = np.random.default_rng(0)
Array = npt.NDArray[np.float32]


def network(layers: list[tuple[str, tuple[int, ...], dict[str, Any]]], bias: bool = False) -> onnx.ModelProto:
    """Returns a network of these operators one after the other on 3x6x6 inputs; the last layer has a bias."""
    nodes, constants, x = [], [], "x"
    for number, (kind, shape, attributes) in enumerate(layers):
        inputs = [x]
        if shape:
            constants.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), f"w{number}"))
            inputs.append(f"w{number}")
            if bias or number == len(layers) - 1:
                values = rng.normal(size=shape[0]).astype(np.float32)
                constants.append(numpy_helper.from_array(values, f"b{number}"))
                inputs.append(f"b{number}")
        x = f"t{number}"
        nodes.append(helper.make_node(kind, inputs, [x], name=f"n{number}", **attributes))
    rank = 2 if any(kind == "Flatten" for kind, _, _ in layers) else 4
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 6, 6])],
        [helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, [None] * rank)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


POINT: tuple[str, tuple[int, ...], dict[str, Any]] = ("Conv", (2, 3, 1, 1), {})
CORE: tuple[str, tuple[int, ...], dict[str, Any]] = (
    "Conv",
    (4, 2, 3, 3),
    {"pads": [1, 1, 1, 1], "strides": [2, 2], "kernel_shape": [3, 3]},
)
LAST: tuple[str, tuple[int, ...], dict[str, Any]] = ("Conv", (5, 4, 1, 1), {})
RELU: tuple[str, tuple[int, ...], dict[str, Any]] = ("Relu", (), {})
FLATTEN: tuple[str, tuple[int, ...], dict[str, Any]] = ("Flatten", (), {})
GEMMS: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("Gemm", (2, 45), {"transB": 1}),
    ("Gemm", (7, 2), {"transB": 1}),
]


def run(model: onnx.ModelProto, x: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0], dtype=np.float32)


@pytest.mark.parametrize(
    "layers",
    [
        [POINT, CORE, LAST],
        [POINT, CORE],
        [("Conv", (2, 3, 3, 3), {"pads": [1, 1, 1, 1]}), ("Conv", (5, 2, 1, 1), {})],
        [POINT, CORE, LAST, RELU, FLATTEN, *GEMMS],
    ],
)
def test_the_product_is_the_same_function_in_fewer_layers(
    layers: list[tuple[str, tuple[int, ...], dict[str, Any]]],
) -> None:
    model = network(layers)
    fused = fuse(model)
    assert fused is not None
    onnx.checker.check_model(fused, full_check=True)
    assert len(fused.graph.node) < len(model.graph.node)
    assert chains(fused) == []
    assert fused.graph.output[0].name == model.graph.output[0].name
    for _ in range(4):
        x = rng.normal(size=(1, 3, 6, 6)).astype(np.float32)
        assert np.allclose(run(fused, x), run(model, x), atol=1e-4)


@pytest.mark.parametrize(
    ("layers", "bias"),
    [
        ([POINT, RELU, CORE], False),
        # A bias before padding is no bias behind it.
        ([POINT, CORE], True),
        # Two kernels make a larger one, which is no factor's.
        ([("Conv", (2, 3, 3, 3), {}), ("Conv", (4, 2, 3, 3), {})], False),
        ([("Conv", (3, 1, 1, 1), {"group": 3}), ("Conv", (4, 3, 3, 3), {})], False),
        ([FLATTEN, ("Gemm", (2, 108), {"transB": 1, "alpha": 0.5}), ("Gemm", (7, 2), {"transB": 1})], False),
    ],
)
def test_what_is_no_chain_of_factors_stays(
    layers: list[tuple[str, tuple[int, ...], dict[str, Any]]], bias: bool
) -> None:
    assert fuse(network(layers, bias)) is None


def test_a_value_that_something_else_reads_stays() -> None:
    model = network([POINT, ("Conv", (2, 2, 1, 1), {})])
    model.graph.node.append(helper.make_node("Add", ["t0", "t1"], ["y"]))
    model.graph.output[0].name = "y"
    assert chains(model) == []
    shown = network([POINT, ("Conv", (2, 2, 1, 1), {})])
    shown.graph.output.append(helper.make_tensor_value_info("t0", onnx.TensorProto.FLOAT, None))
    assert chains(shown) == []


def test_weights_are_counted_as_stored_and_as_composed(tmp_path: Path) -> None:
    model = network([POINT, CORE, LAST, RELU, FLATTEN, *GEMMS])
    onnx.save(model, tmp_path / "net.onnx")
    stored = sum(layer.weights for layer in count_layers(tmp_path / "net.onnx"))
    assert stored == 6 + 72 + 20 + 90 + 14
    assert composed_weights(tmp_path / "net.onnx") == 5 * 3 * 9 + 7 * 45
    assert [chain.shape for chain in chains(model)] == [(5, 3, 3, 3), (7, 45)]
    assert not is_marked(model)
    helper.set_model_props(model, {METADATA_KEY: "yes"})
    assert is_marked(model)
