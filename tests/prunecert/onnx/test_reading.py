"""What handlers share: ReLUs of values, maxima, and inputs that must be there, or constant."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.onnx.constants import Evaluator
from prunecert.onnx.emit import Emitter
from prunecert.onnx.evaluate import evaluate
from prunecert.onnx.layers import Layers
from prunecert.onnx.normal import UnsupportedNetworkError
from prunecert.onnx.reading import Input, Reading, attributes_of, computed, optional, stored
from prunecert.onnx.values import Term, Value, constant, moved, places, scaled, shifted
from tests.prunecert.onnx.graphs import Array, N, evaluated, weights

POINT = weights(24)


def started() -> Reading:
    layers = Layers((1, 24), reorder=False)
    return Reading(13, layers, Emitter(layers), Evaluator(13), ())


def array_of(reading: Reading, value: Value) -> Array:
    """A value at the point, through the nodes that it names."""
    layers = copy.deepcopy(reading.layers)
    nodes: list[Array] = [POINT]
    for number, node in enumerate(reading.layers.nodes[1:], 1):
        flat = layers.reshape(number, (1, int(np.prod(node.shape))))
        nodes.append(evaluate(layers.write(flat, []), POINT)[0])
    return evaluated(value, nodes)


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_relus_and_maxima_are_numpys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reading = started()
    values = []
    for _ in range(2):
        value = Value((2, 12), (Term(0, rng.permutation(24) if rng.random() < 0.5 else rng.integers(-1, 24, 24)),))
        value = scaled(value, -2.0) if rng.random() < 0.4 else value
        values.append(shifted(value, 0.5) if rng.random() < 0.4 else value)
    one, two = (array_of(reading, value) for value in values)
    for result, expected in (
        (reading.relu(values[0]), np.maximum(one, 0)),
        (reading.maximum(*values), np.maximum(one, two)),
        (reading.minimum(*values), np.minimum(one, two)),
        (reading.settle(values[0]), one),
    ):
        np.testing.assert_allclose(array_of(reading, result), expected, rtol=0, atol=1e-5)


def test_a_relu_of_what_is_rearranged_needs_no_layer() -> None:
    reading = started()
    value = Value((24,), (Term(0, np.arange(24)[::-1].copy()),))
    (term,) = reading.relu(value).terms
    # That on the input itself gets one that hands it on.
    assert [node.operator for node in reading.layers.nodes] == ["Input", "Gemm", "Relu"]
    assert term.index is not None
    # A part of a node would be more neurons there than here.
    part = moved(value, places(value)[:3])
    assert reading.layers.nodes[reading.relu(part).terms[0].source].shape == (1, 3)


def test_a_relu_of_constants_is_one() -> None:
    reading = started()
    np.testing.assert_array_equal(array_of(reading, reading.relu(constant(np.array([-1.0, 2.0])))), [0, 2])
    assert len(reading.layers.nodes) == 1


def test_notes_are_made_once() -> None:
    reading = started()
    for _ in range(2):
        reading.note("A rewrite.")
    assert list(reading.notes) == ["A rewrite."]


def test_inputs_are_there_or_refused() -> None:
    node, value = N("Gemm", ["a", "b", ""], ["y"], name="g", alpha=2.0), Value((24,), (Term(0),))
    assert attributes_of(node) == {"alpha": 2.0}
    assert computed(node, value) is value
    assert computed(node, np.ones(3)).shift is not None
    np.testing.assert_array_equal(stored(node, [value, np.ones(3)], 1, "weight"), np.ones(3))
    assert optional(node, [value, None], 1, "bias") is None
    assert optional(node, [value], 1, "bias") is None
    refusals: list[tuple[list[Input], str]] = [
        ([value, None], "its weight is missing"),
        ([value], "its weight is missing"),
        ([value, value], "its weight must be a constant, but depends on the network's input"),
        ([value, np.array(["a"])], "its weight is of type <U1"),
        ([value, np.array([1.0, np.nan, np.inf])], "its weight holds 2 values that are infinite or not a number"),
    ]
    for inputs, words in refusals:
        with pytest.raises(UnsupportedNetworkError, match=words):
            stored(node, inputs, 1, "weight")
    with pytest.raises(UnsupportedNetworkError, match=r"The node 'g' \(Gemm\) isn't taken: an input is missing"):
        computed(node, None)
