"""The normal network while it is built: its nodes have the values and shapes that they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from prunecert.onnx import layers as layers_module
from prunecert.onnx.evaluate import evaluate
from prunecert.onnx.layers import Layers, ReorderError
from prunecert.onnx.normal import UnsupportedNetworkError, is_normal
from tests.prunecert.onnx.graphs import Array, N, build, run, weights

IMAGE = (1, 2, 7, 7)
POINT = weights(98)
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))


def value(layers: Layers, number: int, point: Array) -> Array:
    """What a node gives at a point, flat, through the file that is written."""
    flat = layers.reshape(number, (1, int(np.prod(layers.nodes[number].shape))))
    model = layers.write(flat, [])
    return evaluate(model, point)[0]


@given(PAIRS, PAIRS, PAIRS, st.tuples(*[st.integers(0, 2)] * 4), st.sampled_from([1, 2]))
def test_uneven_pads_and_dilations_become_zeros_of_the_kernel(
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
    groups: int,
) -> None:
    layers = Layers(IMAGE)
    weight, bias = weights(2, 2 // groups, *kernel), weights(2, seed=1)
    node = N("Conv", ["x", "w", "b"], ["y"], strides=strides, dilations=dilations, pads=pads, group=groups)
    expected = run(build([node], {"w": weight, "b": bias}, IMAGE), POINT)
    number = layers.conv(0, weight, bias, strides, pads, dilations, groups)
    np.testing.assert_allclose(value(layers, number, POINT), expected, rtol=0, atol=1e-5)
    assert np.prod(layers.nodes[number].shape) == len(expected)


def test_nodes_are_written_once() -> None:
    layers = Layers((1, 4))
    one = layers.gemm(0, weights(3, 4), weights(3))
    assert layers.relu(one) == layers.relu(one)
    # A maximum of what isn't negative is itself.
    assert layers.relu(layers.relu(one)) == layers.relu(one)
    image = layers.reshape(layers.gemm(0, weights(12, 4), weights(12)), (1, 3, 2, 2))
    assert layers.reshape(layers.reshape(image, (1, 12)), (1, 3, 2, 2)) == layers.reshape(image, (1, 3, 2, 2))
    assert layers.reshape(one, (1, 3)) == one


def test_constants_are_layers_of_zeros_and_share_one() -> None:
    layers = Layers((1, 4))
    first = layers.constant(np.array([[1.5, -2.0]]))
    before = len(layers.nodes)
    second = layers.constant(np.array([[7.0]]))
    assert len(layers.nodes) == before + 1
    assert value(layers, first, weights(4)).tolist() == [1.5, -2.0]
    assert value(layers, second, weights(4)).tolist() == [7.0]


def test_a_rescaled_copy_leaves_the_layer_alone() -> None:
    layers = Layers((1, 4))
    one = layers.gemm(0, weights(3, 4), weights(3))
    two = layers.rescaled(one, np.array([2.0, 0.0, -1.0]), np.array([1.0, 2.0, 3.0]))
    expected = value(layers, one, weights(4)) * [2, 0, -1] + [1, 2, 3]
    np.testing.assert_allclose(value(layers, two, weights(4)), expected, rtol=0, atol=1e-6)


def test_sums_and_pools() -> None:
    layers = Layers(IMAGE)
    pooled = layers.pool("AveragePool", 0, (2, 3), (2, 1))
    assert layers.nodes[pooled].shape == (1, 2, 3, 5)
    twice = layers.add(pooled, pooled)
    node = N("AveragePool", ["x"], ["y"], kernel_shape=[2, 3], strides=[2, 1])
    expected = 2 * run(build([node], {}, IMAGE), POINT)
    np.testing.assert_allclose(value(layers, twice, POINT), expected, rtol=0, atol=1e-6)
    assert layers.nodes[layers.add(layers.relu(pooled), layers.relu(pooled))].positive
    assert not layers.nodes[twice].positive


def test_what_leads_nowhere_is_neither_written_nor_counted() -> None:
    layers = Layers((1, 4))
    one = layers.gemm(0, weights(3, 4), weights(3))
    used = layers.relu(one)
    layers.relu(layers.gemm(0, weights(50, 4), weights(50)))
    assert layers.relus(used) == 3
    model = layers.write(used, ["a note"])
    assert is_normal(model)
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Relu"]
    assert model.doc_string == "a note"


def test_another_shape_of_the_input_is_asked_for_where_it_may_be() -> None:
    with pytest.raises(ReorderError) as caught:
        Layers((1, 12)).reshape(0, (1, 3, 2, 2))
    assert caught.value.shape == (1, 3, 2, 2)
    layers = Layers((1, 12), reorder=False)
    assert layers.nodes[layers.reshape(0, (1, 3, 2, 2))].operator == "Reshape"


def test_what_is_too_large_or_not_finite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = Layers((1, 1))
    huge = layers.gemm(0, np.full((1, 1), 1e39), np.zeros(1))
    with pytest.raises(UnsupportedNetworkError, match="1 weights of the network, folded, are infinite"):
        layers.write(huge, [])
    with pytest.raises(UnsupportedNetworkError, match="larger than its padded input"):
        Layers(IMAGE).conv(0, weights(1, 2, 8, 1), weights(1))
    monkeypatch.setattr(layers_module, "DENSE", 40)
    with pytest.raises(UnsupportedNetworkError, match=r"grows to \[1, 2, 7, 3\] weights"):
        Layers(IMAGE).conv(0, weights(1, 2, 3, 3), weights(1), dilations=(3, 1))


def test_what_underflows_stays_as_the_smallest_number() -> None:
    """Who charges rounding sees a weight there; 0 would say that nothing is."""
    layers = Layers((1, 3))
    number = layers.gemm(0, np.array([[1e-50, -1e-60, 0.0]]), np.array([-1e-46]))
    model = layers.write(number, [])
    stored = [numpy_helper.to_array(item).reshape(-1) for item in model.graph.initializer]
    least = np.finfo(np.float32).smallest_subnormal
    assert [array.tolist() for array in stored] == [[least, -least, 0.0], [-least]]
    assert is_normal(model)
