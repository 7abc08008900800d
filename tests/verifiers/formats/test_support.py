"""What a file holds is said without running it, and what a verifier doesn't take is said before the long work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from prunecert.compaction import METADATA_KEY, Compaction
from prunecert.errors import UserError
from prunecert.onnx.io import identity
from prunecert.verifiers.base import Capabilities, Kind, OutputSpec, Verifier
from prunecert.verifiers.formats.support import (
    NORMAL_OPERATORS,
    OPERATORS,
    check_instance,
    check_question,
    is_rewritten,
    mark_rewritten,
    network_info,
    spec_kind,
    takes_native,
    unknown_operator,
)
from tests.verifiers import onnxnets


class Narrow(Verifier):
    """Takes boxes, and robustness alone."""

    name = "narrow"
    kind = Kind.INCOMPLETE

    @classmethod
    def capabilities(cls) -> Capabilities:
        return Capabilities(operators=frozenset({"Gemm", "Relu"}))


class Wide(Narrow):
    """Takes balls and any property."""

    name = "wide"

    @classmethod
    def capabilities(cls) -> Capabilities:
        return Capabilities(operators=OPERATORS, norms=("linf", "l2"), specs="dnf", native=frozenset({"Relu", "Sin"}))


def network(path: Path, operators: list[str], shape: list[int | str], kind: int = TensorProto.FLOAT) -> Path:
    """A chain of operators without constants, on one input of a shape."""
    names = ["x", *(f"v{i}" for i in range(len(operators)))]
    nodes = [helper.make_node(op, [names[i]], [names[i + 1]], name=f"n{i}") for i, op in enumerate(operators)]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(names[-1], kind, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), str(path))
    return path


def test_a_file_says_what_it_holds(tmp_path: Path) -> None:
    path = onnxnets.residual(tmp_path / "n.onnx")
    info = network_info(path)
    assert info.sha256 == identity(path)
    assert (info.opset, info.ir_version, info.input_name, info.input_type) == (13, 7, "input", "float32")
    assert [operator for operator, _ in info.operators] == [
        *("Sub", "Div", "Conv", "Relu", "BatchNormalization", "Add", "AveragePool", "Flatten", "Gemm")
    ]
    assert info.sample_shape == (3, 6, 6)
    assert info.run_shape == (1, 3, 6, 6)
    assert info.sizes() == (10,)
    assert not info.normal
    assert info.domain is None
    assert network_info(onnxnets.convolutional(tmp_path / "c.onnx")).normal


def test_the_first_node_of_an_operator_is_named(tmp_path: Path) -> None:
    info = network_info(network(tmp_path / "n.onnx", ["Sin", "Relu", "Sin", "Relu"], [1, 4]))
    assert info.operators == (("Sin", "n0"), ("Relu", "n1"))


def test_operators_of_other_domains_are_called_by_them(tmp_path: Path) -> None:
    path = network(tmp_path / "n.onnx", ["Relu"], [1, 4])
    model = onnx.load(str(path))
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, str(path))
    assert network_info(path).operators == (("com.example::Relu", "n0"),)


@pytest.mark.parametrize(
    ("shape", "sample", "run", "size"),
    [
        ([1, 3, 4], (3, 4), (1, 3, 4), 12),
        (["batch", 3, 4], (3, 4), (1, 3, 4), 12),
        ([5, 3], (5, 3), (5, 3), 15),
        ([7], (7,), (7,), 7),
        ([1, "height", 4], (0, 4), (1, 0, 4), None),
    ],
)
def test_the_batch_is_a_first_axis_of_one_or_free(
    shape: list[int | str], sample: tuple[int, ...], run: tuple[int, ...], size: int | None, tmp_path: Path
) -> None:
    info = network_info(network(tmp_path / "n.onnx", ["Relu"], shape))
    assert (info.sample_shape, info.run_shape, info.sizes()) == (sample, run, (size,))


def test_another_network_under_the_same_name_is_read_again(tmp_path: Path) -> None:
    first = network_info(network(tmp_path / "n.onnx", ["Relu"], [1, 4]))
    assert network_info(tmp_path / "n.onnx") is first
    second = network_info(network(tmp_path / "n.onnx", ["Sin"], [1, 4]))
    assert second.operators == (("Sin", "n0"),)
    assert second.sha256 != first.sha256


def test_there_is_one_input(tmp_path: Path) -> None:
    path = network(tmp_path / "n.onnx", ["Relu"], [1, 4])
    model = onnx.load(str(path))
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))
    onnx.save(model, str(path))
    with pytest.raises(UserError, match="has 2 inputs and 1 outputs; allowed is one input"):
        network_info(path)


def test_a_normal_form_that_was_rounded_is_marked() -> None:
    model = onnx.ModelProto()
    assert not is_rewritten(model)
    mark_rewritten(model)
    assert is_rewritten(onnx.ModelProto.FromString(model.SerializeToString()))


def test_kinds_of_properties() -> None:
    robust = OutputSpec.robustness(2, 4)
    assert spec_kind(robust, 4) == "robustness"
    assert spec_kind(robust, 5) == "dnf"
    assert spec_kind(OutputSpec(robust.disjuncts[:2]), 4) == "dnf"
    assert check_question(Narrow, "linf", "robustness") is None
    assert "narrow takes only robustness properties" in str(check_question(Narrow, "linf", "dnf"))
    assert "narrow doesn't take the norm l2; it takes linf" in str(check_question(Narrow, "l2", "robustness"))
    assert check_question(Wide, "l2", "dnf") is None


def test_an_operator_that_is_not_taken_is_named_with_its_node() -> None:
    operators = (("Gemm", "first"), ("Conv", "second"), ("Add", "third"))
    assert unknown_operator(Wide, operators, "n.onnx") is None
    assert unknown_operator(Narrow, operators, "n.onnx") == (
        "narrow doesn't take the operator Conv (node 'second' of n.onnx); it takes Gemm, Relu."
    )
    assert {"MaxPool"} == OPERATORS - NORMAL_OPERATORS


def test_what_has_no_normal_form_is_handed_on_only_whole_and_in_float32(tmp_path: Path) -> None:
    allowed = Wide.capabilities()
    info = network_info(network(tmp_path / "n.onnx", ["Sin", "Relu"], [1, 4]))
    assert takes_native(info, allowed)
    assert not takes_native(info, Narrow.capabilities())
    assert not takes_native(network_info(network(tmp_path / "c.onnx", ["Sin", "Cos"], [1, 4])), allowed)
    double = network(tmp_path / "d.onnx", ["Sin"], [1, 4], TensorProto.DOUBLE)
    assert not takes_native(network_info(double), allowed)


def test_an_instance_belongs_to_its_network(tmp_path: Path) -> None:
    path = onnxnets.linear(tmp_path / "n.onnx")
    question = onnxnets.instance(path, 0.1)
    assert check_instance(Narrow, question) is None
    onnxnets.linear(path, seed=1)
    with pytest.raises(UserError, match="was planned; put the planned file back"):
        check_instance(Narrow, question)
    box = np.zeros(11, np.float32)
    small = replace(question, onnx_sha256=identity(path), lower=box, upper=box)
    with pytest.raises(UserError, match=r"its box has the shape \(11,\), but n.onnx takes \(3, 2, 2\)"):
        check_instance(Narrow, small)


@pytest.mark.parametrize(
    ("low", "high", "fits"), [(0.0, 1.0, True), (0.2, 0.3, True), (-0.01, 0.5, False), (0.5, 1.01, False)]
)
def test_a_compacted_network_stands_for_the_masked_one_only_where_it_was_compacted(
    low: float, high: float, fits: bool, tmp_path: Path
) -> None:
    path = onnxnets.linear(tmp_path / "n.onnx")
    model = onnx.load(str(path))
    model.metadata_props.add(key=METADATA_KEY, value=Compaction("ab" * 32, (0.0, 1.0), False, ()).dump())
    onnx.save(model, str(path))
    shape = (3, 2, 2)
    lower, upper = np.full(shape, 0.4, np.float32), np.full(shape, 0.4, np.float32)
    lower[0, 0, 0], upper[2, 1, 1] = min(low, 0.4), max(high, 0.4)
    question = replace(onnxnets.instance(path, 0.0), lower=lower, upper=upper)
    reason = check_instance(Wide, question)
    assert (reason is None) == fits
    assert fits or "is compacted for inputs from 0 to 1" in str(reason)


def test_a_network_that_rounds_goes_to_who_takes_some_whatever_else_it_holds(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y)
    <float s = {0.5}, uint8 z = {0}> { q = QuantizeLinear (x, s, z) r = DequantizeLinear (q, s, z) y = Sin (r) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "q.onnx")
    info = network_info(tmp_path / "q.onnx")
    assert takes_native(info, Capabilities(frozenset(), native=frozenset({"QuantizeLinear"})))
    assert not takes_native(info, Capabilities(frozenset(), native=frozenset({"DequantizeLinear", "Sin"})))
