from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from prunecert.verifiers.checker.files import UnreadableError
from prunecert.verifiers.checker.network import Conv, Network, read_network

Array = npt.NDArray[np.float64]
RNG = np.random.default_rng(0)


def model(nodes: list[Any], shape: list[int], opset: int = 13, **constants: npt.NDArray[Any]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(made.SerializeToString())


def values(network: Network, x: Array) -> list[Array]:
    """Evaluates all nodes, [B, size] each."""
    seen = [x]
    for node in network.nodes[1:]:
        sources = [seen[source] for source in node.sources]
        seen.append(np.maximum(sources[0], 0) if node.relu else node.forward(sources, np.asarray) + node.bias)
    return seen


def floats(*shape: int) -> npt.NDArray[np.float32]:
    return RNG.standard_normal(shape).astype(np.float32)


CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"strides": [2, 1], "pads": [1, 0, 2, 1]},
    {"dilations": [2, 1], "pads": [1, 1, 1, 1]},
    {"group": 2, "strides": [1, 2]},
]
MODELS: dict[str, bytes] = {
    "gemm": model(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], [1, 6], w=floats(3, 6), b=floats(3)
    ),
    "gemm without bias": model([helper.make_node("Gemm", ["x", "w"], ["y"])], [1, 6], w=floats(6, 3)),
    "matmul, constants on both sides of sums": model(
        [
            helper.make_node("Sub", ["c", "x"], ["a"]),
            helper.make_node("MatMul", ["a", "w"], ["m"]),
            helper.make_node("Add", ["m", "b"], ["s"]),
            helper.make_node("Sub", ["s", "b"], ["y"]),
        ],
        [1, 6],
        c=floats(6), w=floats(6, 3), b=floats(1, 3),
    ),
    "shapes": model(
        [
            helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(floats(8, 2))),
            helper.make_node("Identity", ["x"], ["i"]),
            helper.make_node("Reshape", ["i", "to"], ["r"]),
            helper.make_node("Add", ["r", "r"], ["d"]),
            helper.make_node("Relu", ["d"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["y"]),
        ],
        [1, 2, 2, 2],
        to=np.array([0, -1, 4], dtype=np.int64),
    ),
    "sums of values": model(
        [
            helper.make_node("Add", ["x", "x"], ["t"]),
            helper.make_node("Relu", ["t"], ["a"]),
            helper.make_node("Sub", ["a", "x"], ["b"]),
            helper.make_node("Add", ["b", "b"], ["y"]),
        ],
        [1, 5],
    ),
    "average": model(
        [helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 3], strides=[2, 1])], [1, 2, 4, 5]
    ),
    **{
        f"convolution {number}": model(
            [helper.make_node("Conv", ["x", "w", "b"], ["y"], **more)],
            [1, 4, 6, 5],
            w=floats(6, 4 // more.get("group", 1), 3, 2), b=floats(6),
        )
        for number, more in enumerate(CONVOLUTIONS)
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_networks_compute_what_onnxruntime_computes(name: str) -> None:
    network = read_network(MODELS[name])
    session = onnxruntime.InferenceSession(MODELS[name], providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    for _ in range(3):
        x = floats(*shape)
        (expected,) = session.run(None, {"x": x})
        found = values(network, x.reshape(1, -1).astype(np.float64))[network.output]
        np.testing.assert_allclose(found.ravel(), expected.ravel(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_backward_is_the_transpose_of_forward(name: str) -> None:
    for node in read_network(MODELS[name]).nodes[1:]:
        if node.relu:
            continue
        nodes = read_network(MODELS[name]).nodes
        sources = [RNG.standard_normal((1, nodes[source].size)) for source in node.sources]
        rows = RNG.standard_normal((1, node.size))
        left = (rows * node.forward(sources, np.asarray)).sum()
        right = sum((part * value).sum() for part, value in zip(node.backward(rows), sources, strict=True))
        assert left == pytest.approx(right, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, len(CONVOLUTIONS) - 1), st.floats(0, 1))
def test_rows_of_few_numbers_go_another_way_to_the_same_end(seed: int, number: int, share: float) -> None:
    rng, more = np.random.default_rng(seed), CONVOLUTIONS[number]
    kernel = rng.standard_normal((6, 4 // more.get("group", 1), 3, 2)) * (rng.random((6, 1, 3, 2)) < share)
    node = Conv(0, (4, 6, 5), kernel, np.zeros(6), more, 0.0)
    rows = np.zeros((300, node.size))
    rows[rng.integers(300, size=2), rng.integers(node.size, size=2)] = 1.0
    dense = np.concatenate([node.backward(rows[at : at + 1])[0] for at in range(300)])
    few = node.backward(rows)[0]
    eye = node.forward([np.eye(4 * 6 * 5)], np.asarray)
    np.testing.assert_allclose(few, rows @ eye.T, atol=1e-12)
    np.testing.assert_allclose(dense, few, atol=1e-12)


REFUSED = {
    "a ReLU on the input": [helper.make_node("Relu", ["x"], ["y"])],
    "an operator": [helper.make_node("Sigmoid", ["x"], ["y"])],
    "an attribute": [helper.make_node("Relu", ["x"], ["y"], alpha=1.0)],
    "another default": [helper.make_node("Gemm", ["x", "w"], ["y"], alpha=2.0)],
    "a product of values": [helper.make_node("MatMul", ["x", "x"], ["y"])],
    "an input that is not there": [helper.make_node("Relu", ["z"], ["y"])],
    "too many inputs": [helper.make_node("Relu", ["x", "w"], ["y"])],
    "a name twice": [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Relu", ["y"], ["y"])],
    "weights that don't fit": [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)],
    "another axis": [helper.make_node("Flatten", ["x"], ["y"], axis=0)],
    "a sum that grows": [helper.make_node("Add", ["x", "large"], ["y"])],
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_taken_is_refused(what: str) -> None:
    content = model(REFUSED[what], [1, 6], w=floats(6, 3), large=floats(4, 6))
    with pytest.raises(ValueError, match=r".") as refusal:
        read_network(content)
    assert isinstance(refusal.value, UnreadableError) or what == "a sum that grows"


def test_two_inputs_at_once_and_huge_values_are_refused() -> None:
    with pytest.raises(UnreadableError, match="takes 2 inputs at once"):
        read_network(model([helper.make_node("Relu", ["x"], ["y"])], [2, 6]))
    with pytest.raises(UnreadableError, match="isn't taken"):
        read_network(model([helper.make_node("Relu", ["x"], ["y"])], [1, 2**30]))
    with pytest.raises(UnreadableError, match="doesn't fit"):
        read_network(
            model(
                [helper.make_node("Conv", ["x", "w"], ["y"], pads=[2**40, 0, 0, 0])], [1, 1, 4, 4], w=floats(1, 1, 3, 3)
            )
        )


def test_sites_are_the_nodes_that_feed_relus() -> None:
    assert read_network(MODELS["sums of values"]).sites == [1]
    assert read_network(MODELS["gemm"]).sites == []
