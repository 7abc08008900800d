"""Values into nodes: whatever a value is, the nodes that are written for it have its numbers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.onnx import layers as layers_module
from prunecert.onnx.emit import Emitter
from prunecert.onnx.evaluate import evaluate
from prunecert.onnx.layers import Layers, ReorderError
from prunecert.onnx.normal import UnsupportedNetworkError
from prunecert.onnx.values import Term, Value, moved, places, scaled, shifted, total
from tests.prunecert.onnx.graphs import Array, N, build, evaluated, run, weights

Rng = np.random.Generator
IMAGE = (1, 2, 4, 3)
POINT = weights(24)


def written(layers: Layers, number: int) -> Array:
    """What a node gives at the point, flat; the layers stay what they are."""
    if number == 0:
        return POINT
    layers = copy.deepcopy(layers)
    model = layers.write(layers.reshape(number, (1, int(np.prod(layers.nodes[number].shape)))), [])
    return evaluate(model, POINT)[0]


def started() -> tuple[Emitter, list[Array]]:
    """A network of an image, a convolution and its ReLU, and their values at the point."""
    layers = Layers(IMAGE, reorder=False)
    layers.relu(layers.conv(0, weights(2, 2, 3, 3), weights(2), pads=(1, 1, 1, 1)))
    return Emitter(layers), [written(layers, number) for number in range(3)]


def image_value(rng: Rng) -> Value:
    """A value that is an image: of windows, channels and factors, in part what one convolution does."""
    value = Value(IMAGE, (Term(int(rng.integers(3)), exclusive=bool(rng.integers(2))),))
    for _ in range(int(rng.integers(5))):
        where = places(value)
        match int(rng.integers(7)):
            case 0:
                value = moved(value, where[:, rng.integers(0, value.shape[1], int(rng.integers(1, 4)))])
            case 1:
                value = moved(value, np.pad(where, ((0, 0), (0, 0), (1, 0), (0, 1)), constant_values=-1))
            case 2:
                value = moved(value, where[:, :, :: int(rng.integers(1, 3)), 1:] if value.shape[3] > 1 else where)
            case 3:
                value = scaled(value, rng.standard_normal((value.shape[1], 1, 1)))
            case 4:
                value = shifted(value, rng.standard_normal((value.shape[1], 1, 1)))
            case 5:
                value = total([value, scaled(moved(value, places(value)), -0.5)])
            case _:
                value = moved(value, rng.permutation(value.size).reshape(value.shape))
    return value


@given(st.integers(0, 2**32))
def test_any_value_is_written_as_what_it_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    emitter, nodes = started()
    value = image_value(rng)
    expected = evaluated(value, nodes).reshape(-1)
    number = emitter.node(value)
    np.testing.assert_allclose(written(emitter.layers, number), expected, rtol=0, atol=1e-5)


@given(st.integers(0, 2**32))
def test_linear_layers_take_what_is_before_them_into_their_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    emitter, nodes = started()
    value = image_value(rng)
    weight, bias = rng.standard_normal((3, value.size)), rng.standard_normal(3)
    result = emitter.linear(value, weight, bias)
    expected = weight @ evaluated(value, nodes).reshape(-1) + bias
    number = emitter.node(result)
    np.testing.assert_allclose(written(emitter.layers, number), expected, rtol=0, atol=_rounding(expected))


@given(st.integers(0, 2**32))
def test_convolutions_take_what_is_before_them_into_their_kernels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    emitter, nodes = started()
    value = image_value(rng)
    groups = value.shape[1] if rng.random() < 0.3 else 1
    kernel, bias = rng.standard_normal((2 * groups, value.shape[1] // groups, 2, 1)), rng.standard_normal(2 * groups)
    pads = (1, 1, 0, 1) if rng.random() < 0.5 or value.shape[2] < 2 else (0, 0, 0, 0)
    result = emitter.convolution(value, kernel, bias, (1, 1), pads, (1, 1), groups)
    node = N("Conv", ["x", "w", "b"], ["y"], pads=pads, group=groups)
    model = build([node], {"w": kernel.astype(np.float32), "b": bias.astype(np.float32)}, value.shape)
    expected = run(model, evaluated(value, nodes))
    number = emitter.node(result)
    np.testing.assert_allclose(written(emitter.layers, number), expected, rtol=0, atol=_rounding(expected))


def _rounding(expected: Array) -> float:
    return 2e-5 * (1 + float(np.abs(expected).max()))


def operators(emitter: Emitter) -> list[str]:
    return [node.operator for node in emitter.layers.nodes[3:]]


def test_padding_selection_and_factors_are_no_layers_before_a_convolution() -> None:
    emitter, _ = started()
    value = Value(IMAGE, (Term(2),))
    value = scaled(value, np.array([2.0, 3.0])[:, None, None])
    value = moved(value, np.pad(places(value), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-1)[:, ::-1])
    emitter.convolution(value, weights(1, 2, 2, 2), np.zeros(1), (1, 1), (0, 0, 0, 0), (1, 1), 1)
    assert operators(emitter) == ["Conv"]


def test_a_factor_goes_into_the_layer_that_nothing_else_reads() -> None:
    emitter, _ = started()
    emitter.node(scaled(Value(IMAGE, (Term(1, exclusive=True),)), 2.0))
    assert [node.weight is emitter.layers.nodes[1].weight for node in emitter.layers.nodes[3:]] == [False]
    assert emitter.layers.nodes[3].inputs == emitter.layers.nodes[1].inputs
    emitter, _ = started()
    emitter.node(scaled(Value(IMAGE, (Term(1),)), 2.0))
    assert emitter.layers.nodes[3].inputs == (1,)


def test_the_inputs_own_order_is_asked_for_once() -> None:
    layers = Layers((1, 24))
    order = np.arange(24).reshape(4, 3, 2).transpose(2, 0, 1).reshape(-1)
    with pytest.raises(ReorderError) as caught:
        Emitter(layers).node(Value(IMAGE, (Term(0, order),)))
    np.testing.assert_array_equal(caught.value.order, order)
    assert caught.value.shape == IMAGE


def test_matrices_are_limited_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers_module, "DENSE", 24 * 30)
    emitter, _ = started()
    emitter.node(Value((1, 20), (Term(2, np.arange(20)[::-1].copy()),)))
    with pytest.raises(UnsupportedNetworkError, match="11 elements would need a matrix of 264 weights"):
        emitter.node(Value((1, 11), (Term(2, np.arange(11)[::-1].copy()),)))
