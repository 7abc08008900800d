from __future__ import annotations

import numpy as np
import pytest

from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.checker.nodes import Dense
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.rounding.summation import output_error
from tests.soundness.networks import Add, Affine, Network, Relu
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
    next(node for node in network.nodes if isinstance(node, Dense)).terms = 2**24, 1
    assert output_error(network, question.lower, question.upper) == np.inf
