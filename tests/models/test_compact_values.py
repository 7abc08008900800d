"""Constants are constant and bounds hold for every tensor as it runs in float32, whatever the network."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper

from prunecert.models.compact_graph import CompactGraph, Role
from prunecert.models.compact_values import Values, apply_dense, evaluate
from tests.models.compact_networks import FAMILIES, Builder, points, run
from tests.models.test_compact import PIXELS, exposed, noisy

SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=40)
@given(family=st.sampled_from(sorted(FAMILIES)), seed=SEEDS, everywhere=st.booleans())
def test_bounds_hold_for_every_tensor_as_it_runs(family: str, seed: int, everywhere: bool) -> None:
    rng = np.random.default_rng(seed)
    model = FAMILIES[family](rng)
    noisy(model, rng)
    values = evaluate(CompactGraph(model), None if everywhere else PIXELS)
    inputs = points(model, 4, rng, -16, 16) if everywhere else points(model, 4, rng)
    for node in model.graph.node:
        bounds = values[node.output[0]]
        outputs = run(exposed(model, node.output[0]), inputs).astype(np.float64)
        outputs = outputs.reshape(len(inputs), *bounds.low.shape)
        assert np.all(bounds.low <= outputs)
        assert np.all(outputs <= bounds.high)
        constant = bounds.constant
        assert np.allclose(outputs[:, constant], bounds.value[constant], rtol=1e-5, atol=1e-5)
        assert not bounds.value[~constant].any()


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, stride=st.integers(1, 2), pad=st.integers(0, 2), size=st.integers(1, 3))
def test_a_layer_is_applied_as_the_runtime_does(seed: int, stride: int, pad: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    builder = Builder(rng, zeros=0.2, rows=0, columns=0)
    model = builder.model(builder.conv(builder.start(2, 5, 6), 3, size, stride, pad))
    graph = CompactGraph(model)
    (node,) = graph.dense
    (x,) = points(model, 1, rng)
    out = apply_dense(graph, node, node.weight.astype(np.float64), x.reshape(2, -1).astype(np.float64))
    # The arithmetic is exact in both.
    np.testing.assert_array_equal((out + node.bias[:, None]).reshape(-1), run(model, x[None]).reshape(-1))


def silenced(model: ModelProto, unit: int, bias: float) -> None:
    """Takes a unit of the first layer all its inputs, and gives it a bias."""
    weight, shift = model.graph.initializer[:2]
    values, biases = numpy_helper.to_array(weight).copy(), numpy_helper.to_array(shift).copy()
    values[unit], biases[unit] = 0, bias
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    shift.CopyFrom(numpy_helper.from_array(biases, shift.name))


@pytest.mark.parametrize(("bias", "value"), [(0.75, 0.75), (-0.5, 0.0)])
def test_a_unit_without_inputs_has_its_bias_everywhere(bias: float, value: float) -> None:
    builder = Builder(np.random.default_rng(0), zeros=0, rows=0, columns=0)
    model = builder.model(builder.relu(builder.conv(builder.start(2, 4, 4), 3, 3)))
    silenced(model, 1, bias)
    values = evaluate(CompactGraph(model), None)["v1"]
    assert values.constant.tolist() == [False, True, False]
    assert values.value[1].tolist() == [value] * 4
    # Nothing is known of the others over all inputs, but that they are rectified.
    assert values.low.min() >= 0 or not np.isfinite(values.low).all()


@pytest.mark.parametrize(
    ("kind", "counted", "constant"), [("AveragePool", 1, False), ("AveragePool", 0, True), ("MaxPool", 0, True)]
)
def test_a_constant_ends_where_an_average_counts_the_padding(kind: str, counted: int, constant: bool) -> None:
    builder = Builder(np.random.default_rng(0), zeros=0, rows=0, columns=0)
    x = builder.relu(builder.conv(builder.start(2, 4, 4), 3, 1))
    more = {"count_include_pad": counted} if kind == "AveragePool" else {}
    model = builder.model(builder.pool(x, kind, 1, **more))
    silenced(model, 0, 0.5)
    values = evaluate(CompactGraph(model), PIXELS)["v2"]
    assert bool(values.constant[0]) is constant
    outputs = run(model, points(model, 4, np.random.default_rng(1))).reshape(4, *values.low.shape)
    assert (len(np.unique(outputs[:, 0])) == 1) == constant


def test_a_rectifier_is_dead_only_where_its_bound_says_so_in_float32() -> None:
    builder = Builder(np.random.default_rng(0))
    x = builder.start(2)
    names = [x, builder.constant([[1, 1, 1], [1, 1, 1]]), builder.constant([-2, -1.75, -2.25])]
    model = builder.model(builder.relu(builder.node("Gemm", names, (3,))))
    values = evaluate(CompactGraph(model), PIXELS)["v1"]
    # Up to 1 + 1: exactly 0 at a corner is within what rounding may move, well below it is not.
    assert values.constant.tolist() == [False, False, True]
    assert values.high[2, 0] == 0.0
    assert not evaluate(CompactGraph(model), None)["v1"].constant.any()
    assert evaluate(CompactGraph(model), (0.0, 0.5))["v1"].constant.all()


def test_what_a_barrier_makes_is_not_known() -> None:
    builder = Builder(np.random.default_rng(0))
    x = builder.start(4)
    model = builder.model(builder.relu(builder.node("Sigmoid", [x], (4,))))
    graph = CompactGraph(model)
    assert graph.nodes[0].role is Role.BARRIER
    values = evaluate(graph, PIXELS)
    assert np.all(values["v0"].high == np.inf)
    assert not values["v1"].constant.any()


def test_uniform_channels_have_one_value() -> None:
    value = np.array([[1.0, 1.0], [1.0, 2.0]])
    values = Values(np.ones(2, bool), value, value, value)
    assert values.uniform().tolist() == [True, False]
