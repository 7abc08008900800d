"""What is read computes what the file does, and what isn't such a network is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from prunecert.verifiers.base import UnsupportedError
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.sparse.onnx.reader import build, read_network
from prunecert.verifiers.sparse.smooth.network import read_smooth
from tests.verifiers import onnxnets
from tests.verifiers.sparse.smooth import smoothnets


def test_outputs_are_onnxruntimes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = [smoothnets.small(tmp_path, seed) for seed in range(3)]
    for path, shape in (*((path, (2,)) for path in paths), (smoothnets.convolutional(tmp_path / "c.onnx"), (2, 4, 4))):
        network = read_smooth(path)
        assert network is not None
        points = rng.normal(size=(8, *shape)).astype(np.float32)
        np.testing.assert_allclose(network.evaluate(points), counterexample.outputs(path, points), atol=2e-5)


@pytest.mark.parametrize(
    "operators",
    [("Sigmoid",), ("Relu", "Tanh"), ("Tanh", "Relu"), ("Tanh", "Tanh"), ("Sigmoid", "Relu", "Relu", "Sigmoid")],
)
def test_activations_in_a_row(operators: tuple[str, ...]) -> None:
    """An activation of the input, of another's result, and ReLUs of what may be negative."""
    _, network = smoothnets.chain(operators)
    x = np.random.default_rng(1).normal(size=(20, 2))
    y = x
    for operator in operators:
        y = np.maximum(y, 0) if operator == "Relu" else np.tanh(y) if operator == "Tanh" else 1 / (1 + np.exp(-y))
    matrix = np.array([[1.0, -2.0], [0.5, 3.0]])
    expected = y @ matrix.T + np.array([0.1, -0.2], np.float32)
    np.testing.assert_allclose(network.evaluate(x), expected, atol=1e-9)
    exact = smoothnets.exact(network, x[0])[-1]
    np.testing.assert_allclose([float(item) for item in exact], expected[0], atol=1e-9)


def test_relu_networks_and_last_activations_are_none(tmp_path: Path) -> None:
    assert read_smooth(onnxnets.residual(tmp_path / "n.onnx")) is None
    constants = {"w": np.ones((3, 2), np.float32), "b": np.zeros(3, np.float32)}
    nodes = [
        helper.make_node("Gemm", ["input", "w", "b"], ["g"], transB=1),
        helper.make_node("Sigmoid", ["g"], ["output"]),
    ]
    assert read_smooth(onnxnets.write(tmp_path / "s.onnx", nodes, constants, (2,), 3)) is None


def test_what_takes_relus_alone_refuses_them(tmp_path: Path) -> None:
    path = smoothnets.small(tmp_path, 0)
    with pytest.raises(UnsupportedError, match="Sigmoid"):
        read_network(path)
    from prunecert.onnx.io import load_model
    from prunecert.onnx.normal import normal_nodes

    nodes = normal_nodes(load_model(path), ("Sigmoid", "Tanh"))
    assert nodes is not None
    with pytest.raises(UnsupportedError, match="takes ReLUs alone"):
        build("net", nodes)
