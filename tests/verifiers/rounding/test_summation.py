from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.checker.nodes import Conv
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.rounding.summation import output_error
from tests.soundness.networks import Add, Affine, Network, Relu
from tests.verifiers import onnxnets
from tests.verifiers.checker import kit

FAMILIES = ("fc-deep", "conv-skip", "conv-pruned-70", "skip")
Single = np.ndarray


def shuffled(net: Network, x: Single, rng: np.random.Generator) -> Single:
    """Evaluates a network in float32, each sum in an order that is drawn."""
    values = [x.astype(np.float32)]
    for node in net.nodes:
        if isinstance(node, Affine):
            matrix, shift = node.matrix.astype(np.float32), node.shift.astype(np.float32)
            rows = []
            for row, bias in zip(matrix, shift, strict=True):
                terms = np.append(row * values[node.source], bias).astype(np.float32)
                total = np.float32(0)
                for term in terms[rng.permutation(len(terms))]:
                    total += term
                rows.append(total)
            values.append(np.array(rows, dtype=np.float32))
        elif isinstance(node, Relu):
            values.append(np.maximum(values[node.source], np.float32(0)))
        else:
            assert isinstance(node, Add)
            values.append(values[node.left] + values[node.right])
    return values[-1]


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_in_any_order_are_within_the_bound(family: str) -> None:
    files = kit.questions(family)[3]
    net, question = files.question.net, files.question
    bound = output_error(read_network(files.onnx.read_bytes()), question.lower, question.upper)
    # It is no empty promise: float32 has about seven digits.
    assert 0 < bound < 1e-3
    rng = np.random.default_rng(5)
    corners = question.lower.astype(np.float64), question.upper.astype(np.float64)
    points = kit.points(rng, *corners, 12).astype(np.float32)
    points = np.clip(points, question.lower, question.upper)
    exact = net.evaluate(points)
    assert np.abs(outputs(files.onnx, points.reshape(-1, *net.shape)) - exact).max() < bound
    largest = max(float(np.abs(shuffled(net, x, rng) - y).max()) for x, y in zip(points, exact, strict=True))
    assert largest < bound
    # Nor is it a thousand times too large.
    assert bound < 1000 * max(largest, 1e-9)


def test_wider_boxes_have_larger_bounds_and_endless_sums_none() -> None:
    files = kit.questions("conv-skip")
    network = read_network(files[0].onnx.read_bytes())
    errors = [output_error(network, one.question.lower, one.question.upper) for one in files]
    assert errors == sorted(errors)
    question = files[0].question
    assert output_error(network, question.lower * 1e30, question.upper * 1e30 + 1e30) > 1e20
    next(node for node in network.nodes if isinstance(node, Conv)).terms = 2**24, 1
    assert output_error(network, question.lower, question.upper) == np.inf


def test_nothing_is_said_of_sums_that_overflow(tmp_path: Path) -> None:
    """1e20 * 1e20 is beyond float32, though what follows makes 1 of it."""
    small, large = Network("small", (1,)), Network("large", (1,))
    for net, factor in ((small, 1e18), (large, 1e20)):
        value = 0
        for number in (factor, factor, 1 / factor, 1 / factor):
            value = net.gemm(value, np.array([[number]]), np.zeros(1))
            value = net.relu(value) if number == factor else value
    ends = np.ones(1, dtype=np.float32), np.full(1, 2, dtype=np.float32)
    errors = [output_error(read_network(net.save(tmp_path / f"{net.name}.onnx").read_bytes()), *ends)
              for net in (small, large)]  # fmt: skip
    assert errors[0] < 1e-5
    assert errors[1] == np.inf
    assert outputs(tmp_path / "large.onnx", ends[0][None])[0, 0] == np.inf
    pooled = read_network(onnxnets.write(
        tmp_path / "pool.onnx",
        [
            helper.make_node("AveragePool", ["input"], ["p"], kernel_shape=[2, 2]),
            helper.make_node("Flatten", ["p"], ["output"]),
        ],
        {}, (1, 2, 2), 1,
    ).read_bytes())  # fmt: skip
    most = np.full(4, 2e38, dtype=np.float32)
    assert output_error(pooled, 0 * most, most) == np.inf
    assert output_error(pooled, 0 * most, most / 8) < 1e33
