from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunecert.verifiers.checker.files import UnreadableError
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.checker.nodes import MOST_NODES, Network

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
    reached = [x]
    for node in network.nodes[1:]:
        sources = [reached[source] for source in node.sources]
        reached.append(np.maximum(sources[0], 0) if node.relu else node.forward(sources, np.asarray) + node.bias)
    return reached


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
    "batch normalisation": model(
        [
            helper.make_node("BatchNormalization", ["x", "g", "b", "m", "v"], ["n"], epsilon=1e-3, momentum=0.9),
            helper.make_node("Relu", ["n"], ["r"]),
            helper.make_node("Flatten", ["r"], ["f"]),
            helper.make_node("BatchNormalization", ["f", "h", "h", "h", "w"], ["y"]),
        ],
        [1, 2, 3, 2],
        g=floats(2), b=floats(2), m=floats(2), v=abs(floats(2)), h=floats(12), w=abs(floats(12)),
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
        outputs = values(network, x.reshape(1, -1).astype(np.float64))[network.output]
        np.testing.assert_allclose(outputs.ravel(), expected.ravel(), rtol=1e-4, atol=1e-5)


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
    "batch normalisation in training": [helper.make_node("BatchNormalization", [*"xnnnn"], ["y"], training_mode=1)],
    "batch normalisation of another size": [helper.make_node("BatchNormalization", [*"xmmmm"], ["y"])],
    "batch normalisation without a variance": [helper.make_node("BatchNormalization", [*"xnnn", "zero"], ["y"])],
    "batch normalisation by values": [helper.make_node("BatchNormalization", ["x", "n", "n", "n"], ["y"])],
    "a sum that grows": [helper.make_node("Add", ["x", "large"], ["y"])],
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_taken_is_refused(what: str) -> None:
    sizes = {"w": (6, 3), "large": (4, 6), "n": (6,), "m": (1,)}
    constants = {name: abs(floats(*size)) for name, size in sizes.items()}
    content = model(REFUSED[what], [1, 6], 13, **constants, zero=np.full(6, -1.0, dtype=np.float32))
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


def test_what_would_take_much_memory_or_time_is_refused_before() -> None:
    pool = helper.make_node(
        "AveragePool", ["x"], ["y"], kernel_shape=[2**20] * 2, pads=[2**20, 2**20, 0, 0], count_include_pad=1
    )
    for network in (
        model([pool], [1, 1, 1, 1]),
        model([helper.make_node("Conv", ["x", "w"], ["y"], pads=[99] * 4)], [1, 1024, 1, 1], w=floats(1, 1024, 1, 1)),
    ):
        with pytest.raises(UnreadableError, match="doesn't fit"):
            read_network(network)
    nodes = [helper.make_node("Add", [f"v{at}" if at else "x"] * 2, [f"v{at + 1}"]) for at in range(MOST_NODES)]
    with pytest.raises(UnreadableError, match="too large"):
        read_network(model([*nodes, helper.make_node("Identity", [f"v{MOST_NODES}"], ["y"])], [1, 1]))


def test_batch_normalisation_is_what_it_says_but_for_the_roundings_that_are_charged() -> None:
    """In rational arithmetic: the square of the factor that is used, against that of the one that is meant."""
    rng = np.random.default_rng(8)
    gamma, beta, mean = (rng.standard_normal(50).astype(np.float32) for _ in range(3))
    variance = (10.0 ** rng.uniform(-30, 30, 50)).astype(np.float32)
    operator = helper.make_node("BatchNormalization", [*"xgbmv"], ["y"])
    network = read_network(model([operator], [1, 50], g=gamma, b=beta, m=mean, v=variance))
    centred, scaled = network.nodes[1:]
    np.testing.assert_array_equal(centred.bias, -mean.astype(np.float64))
    np.testing.assert_array_equal(scaled.bias, beta.astype(np.float64))
    loose, epsilon = Fraction(scaled.loose), Fraction(float(np.float32(1e-5)))
    for factor, g, v in zip(scaled.weights[0].tolist(), gamma.tolist(), variance.tolist(), strict=True):
        exact = Fraction(g) ** 2 / (Fraction(v) + epsilon)
        assert factor * g > 0
        assert (1 - loose) ** 2 * exact <= Fraction(factor) ** 2 <= (1 + loose) ** 2 * exact


def test_sites_are_the_nodes_that_feed_relus() -> None:
    assert read_network(MODELS["sums of values"]).sites == [1]
    assert read_network(MODELS["gemm"]).sites == []
