"""Enclosures hold what any evaluation of a network answers, in float32 and in real arithmetic, and little more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.rounding.enclosure import Enclosure
from prunecert.verifiers.rounding.float64_network import Network
from tests.verifiers import onnxnets

SHAPE = (2, 5, 6)


def single(path: Path, operator: str, constants: dict[str, NDArray[Any]], **attributes: Any) -> Path:
    """One operator on an image, flattened."""
    nodes = [
        helper.make_node(operator, ["input", *constants], ["y"], **attributes),
        helper.make_node("Flatten", ["y"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "single",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, *SHAPE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, None])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), str(path))
    return path


def kernel(*shape: int) -> NDArray[Any]:
    return np.random.default_rng(5).normal(size=shape)


NETWORKS: dict[str, Callable[[Path], Path]] = {
    "linear": onnxnets.linear,
    "connected": lambda path: onnxnets.normal_form(onnxnets.connected(path)),
    "residual": lambda path: onnxnets.normal_form(onnxnets.residual(path)),
    "convolutional": onnxnets.convolutional,
    "conv": lambda path: single(path, "Conv", {"w": kernel(3, 2, 3, 2)}, strides=[2, 1], pads=[1, 0, 2, 1]),
    "dilated": lambda path: single(path, "Conv", {"w": kernel(3, 2, 2, 2), "b": kernel(3)}, dilations=[2, 3]),
    "groups": lambda path: single(path, "Conv", {"w": kernel(4, 1, 2, 2), "b": kernel(4)}, group=2),
    "max": lambda path: single(path, "MaxPool", {}, kernel_shape=[2, 3], strides=[1, 2]),
    "sigmoid": lambda path: single(path, "Sigmoid", {}),
    "tanh": lambda path: single(path, "Tanh", {}),
    "average": lambda path: single(path, "AveragePool", {}, kernel_shape=[3, 2], strides=[2, 2]),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return NETWORKS[request.param](tmp_path_factory.mktemp("enclosure") / "n.onnx")


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**32 - 1), eps=st.sampled_from([0.0, 1e-3, 0.1, 2.0]))
def test_every_evaluation_lies_within(network: Path, seed: int, eps: float) -> None:
    path = network
    rng = np.random.default_rng(seed)
    center = rng.normal(size=onnxnets.input_shape(path)).astype(np.float32)
    lower, upper = center - np.float32(eps), center + np.float32(eps)
    low, high = Enclosure(onnx.load(str(path)))(lower[None], upper[None])
    weights = rng.random((12, *center.shape))
    weights[::2] = np.round(weights[::2])
    points = np.clip(lower + weights * (upper - lower), lower, upper).astype(np.float32)
    outputs = counterexample.outputs(path, points)
    exact = np.stack([Network(path).run(point) for point in points]).reshape(outputs.shape)
    for values in (outputs, exact):
        assert np.all(low <= values)
        assert np.all(values <= high)
    if eps == 0:
        # A point is enclosed to a few units in the last place of what is summed.
        assert np.all(high - low < 1e-2 * max(1.0, float(np.abs(exact).max())))


def test_a_linear_layer_s_range_is_met(tmp_path: Path) -> None:
    path = onnxnets.linear(tmp_path / "n.onnx")
    constants = {item.name: numpy_helper.to_array(item) for item in onnx.load(str(path)).graph.initializer}
    center = np.random.default_rng(0).random(12)
    low, high = Enclosure(onnx.load(str(path)))(center[None] - 0.25, center[None] + 0.25)
    middle, radius = constants["w"] @ center + constants["b"], 0.25 * np.abs(constants["w"]).sum(axis=1)
    np.testing.assert_allclose(low[0], middle - radius, atol=1e-5)
    np.testing.assert_allclose(high[0], middle + radius, atol=1e-5)


def test_sums_that_cancel_are_enclosed_in_any_order(tmp_path: Path) -> None:
    path = onnxnets.linear(tmp_path / "n.onnx", shape=(40, 1, 1), outputs=1)
    model = onnx.load(str(path))
    rng = np.random.default_rng(1)
    weight = (rng.normal(size=40) * 10.0 ** rng.integers(-2, 7, 40)).astype(np.float32)
    values = {"w": weight[None], "b": np.zeros(1, np.float32)}
    for item in model.graph.initializer:
        item.CopyFrom(numpy_helper.from_array(values[item.name], item.name))
    x = rng.random(40, dtype=np.float32)
    low, high = Enclosure(model)(x[None], x[None])
    sums = set()
    for _ in range(50):
        total = np.float32(0)
        for i in rng.permutation(40):
            total += weight[i] * x[i]
        sums.add(float(total))
    assert len(sums) > 3
    assert low[0, 0] <= min(sums)
    assert max(sums) <= high[0, 0]
    coarse = Enclosure(model, unit=2.0**-11)(x[None], x[None])
    # Half precision is 2^13 times as coarse.
    assert (coarse[1] - coarse[0])[0, 0] > 1000 * (high - low)[0, 0]


def test_what_overflows_is_no_finite_bound(tmp_path: Path) -> None:
    path = onnxnets.linear(tmp_path / "n.onnx")
    model = onnx.load(str(path))
    for item in model.graph.initializer:
        item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) * np.float32(1e20), item.name))
    low, high = Enclosure(model)(np.full((1, 12), -1e300), np.full((1, 12), 1e300))
    assert not np.isfinite(low).any()
    assert not np.isfinite(high).any()


@pytest.mark.parametrize(
    ("operator", "attributes", "why"),
    [
        ("Elu", {}, "the operator Elu is none"),
        ("MaxPool", {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]}, "a padded MaxPool"),
        ("AveragePool", {"kernel_shape": [2, 2], "ceil_mode": 1}, "a padded AveragePool"),
    ],
)
def test_what_is_none_of_a_normal_form_is_refused(
    operator: str, attributes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    box = np.zeros((1, *SHAPE))
    with pytest.raises(ValueError, match=why):
        Enclosure(onnx.load(str(single(tmp_path / "n.onnx", operator, {}, **attributes))))(box, box)
