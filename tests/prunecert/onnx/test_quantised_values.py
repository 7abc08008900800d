"""Constants keep their scales, and grids are what scales and zero points say; what has no bound is named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from prunecert.errors import UserError
from prunecert.onnx.graph import Graph
from prunecert.onnx.quantised import Grid
from prunecert.onnx.quantised_reading import read_steps
from prunecert.onnx.quantised_values import TYPES, Activation, QuantisedValues
from tests.prunecert.onnx.test_quantised_reading import LAYER, N, model, pair


def test_scales_go_where_their_numbers_go() -> None:
    transpose, reader = N("Transpose", ["wf"], ["wt"]), N("MatMul", ["x", "wt"], ["y"])
    values = QuantisedValues(Graph(model([LAYER[0], transpose, reader])))
    for node in (LAYER[0], transpose):
        values.fold(node)
    constant = values.constant(reader, 1)
    assert constant.values.tolist() == [[0.5, 0.0], [-1.0, 15.875]]
    assert constant.scales is not None
    assert constant.scales.tolist() == [[0.5, 0.125]] * 2
    assert constant.turned
    with pytest.raises(UserError, match="computes with quantised constants"):
        values.fold(N("Neg", ["wt"], ["minus"]))
    with pytest.raises(UserError, match="depends on the network's input"):
        values.constant(reader, 0)


@settings(deadline=None, max_examples=40)
@given(kind=st.sampled_from(TYPES), exponent=st.integers(-40, 40), data=st.data())
def test_a_grid_is_what_its_scale_and_zero_point_say(kind: str, exponent: int, data: st.DataObject) -> None:
    ends = np.iinfo(kind)
    zero = data.draw(st.integers(int(ends.min), int(ends.max)))
    first, second = nodes = pair("x", "y")
    values = QuantisedValues(Graph(model(nodes, s=np.float32(2.0**exponent), z=np.array(zero, kind))))
    activation = values.quantize(first)
    assert activation == Activation(1, Grid(2.0**exponent, zero, int(ends.min), int(ends.max)))
    assert (values.steps[1].operator, values.steps[1].grid) == ("Round", activation.integers)
    values.activations["yq"] = activation
    assert values.dequantize(second) == Activation(1, read=True)
    with pytest.raises(UserError, match="whole numbers that stand for others"):
        values.activation(second)


@pytest.mark.parametrize("scale", [0.0, -0.5, np.nan, np.inf, 1e-30])
def test_a_scale_whose_rounding_has_no_bound_is_named(scale: float) -> None:
    net = model([*pair("x", "a"), *LAYER, *pair("h", "y", "t")], t=np.float32(scale))
    with pytest.raises(
        UserError, match=r"net is refused\. The node 'round h' \(QuantizeLinear\) isn't taken: its scale"
    ):
        read_steps(net, "net")


def test_a_scale_that_the_input_computes_is_named() -> None:
    nodes = [*pair("x", "a"), *LAYER, N("Relu", ["a"], ["t"]), *pair("h", "y", "t")]
    with pytest.raises(UserError, match="computed from the input, so that it has no bound"):
        read_steps(model(nodes), "net")


def test_rounding_in_another_type_than_float32_is_refused() -> None:
    nodes = pair("x", "y")
    nodes[0].attribute.append(helper.make_attribute("precision", TensorProto.FLOAT))
    assert len(read_steps(model(nodes), "net")) == 2
    nodes[0].attribute[0].i = TensorProto.FLOAT16
    with pytest.raises(UserError, match=r"'round x' .* its precision says that it computes in another type"):
        read_steps(model(nodes), "net")
    nodes = [*pair("x", "a"), *LAYER[:2], N("Gemm", ["a", "wf", "bf"], ["y"], transB=1)]
    for place, name in ((1, "real a"), (3, "")):
        narrow = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        narrow[place].attribute.append(helper.make_attribute("output_dtype", TensorProto.FLOAT16))
        with pytest.raises(UserError, match=rf"{name}.* its output_dtype says"):
            read_steps(model(narrow), "net")
