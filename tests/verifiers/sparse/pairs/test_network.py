"""Pairs are two networks of one architecture; merged ones are taken apart, and what isn't a pair is refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
import scipy.sparse

from prunecert.errors import UserError
from prunecert.onnx.merge import merge
from prunecert.verifiers.base import UnsupportedError
from prunecert.verifiers.sparse.crown.engine import Engine
from prunecert.verifiers.sparse.network import Network, Node, Term
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.pairs.bounds import Bounder
from prunecert.verifiers.sparse.pairs.network import Pair, joined, split_merged
from prunecert.verifiers.sparse.pairs.ranges import FIRST, SECOND
from tests.prunecert.onnx.graphs import N, build
from tests.verifiers.sparse.pairs.pairkit import FAMILY_NAMES, case


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_merged_file_is_taken_apart(family: str, tmp_path: Path) -> None:
    one = case(tmp_path, family)
    onnx.save(merge(tmp_path / "a.onnx", tmp_path / "b.onnx"), tmp_path / "both.onnx")
    merged = read_network(tmp_path / "both.onnx")
    pair, points = split_merged(merged), one.points(20)
    np.testing.assert_array_equal(pair.first.evaluate(points), one.first.evaluate(points))
    np.testing.assert_array_equal(pair.second.evaluate(points), one.second.evaluate(points))
    assert len(pair.first.nodes) == len(one.first.nodes)
    again = joined(pair.first, pair.second)
    np.testing.assert_allclose(again.evaluate(points), merged.evaluate(points))
    assert len(split_merged(again).first.nodes) == len(one.first.nodes)


def test_a_layer_of_zeros_and_ones_is_no_copy(tmp_path: Path) -> None:
    """Only the identity is left out: here the first output is the sum of two, and the second nothing."""
    one = case(tmp_path, "fc")
    sizes = one.pair.outputs
    matrix = np.zeros((sizes, sizes), dtype=np.float32)
    matrix[0, :2], matrix[2, 2] = 1.0, 1.0
    last = len(one.first.nodes) - 1
    terms = (Term(last, False, scipy.sparse.csr_array(matrix)),)
    zeros = np.zeros(sizes, dtype=np.float32)
    longer = Network(
        "longer", one.first.input_shape, (*one.first.nodes, Node("sum", sizes, (sizes,), terms, zeros, zeros))
    )
    pair, points = split_merged(joined(longer, longer)), one.points(10)
    np.testing.assert_allclose(pair.first.evaluate(points), longer.evaluate(points))


def test_factors_that_round_to_one_are_charged(tmp_path: Path) -> None:
    """(1 + 2^-12) (1 - 2^-12 + 2^-24) x is (1 + 2^-36) x, and the file's last layer is no copy of what is before it."""
    nodes = [N("MatMul", ["x", "w"], ["h"]), N("Relu", ["h"], ["r"]), N("MatMul", ["r", "w"], ["o"])]
    nodes += [N("Mul", ["o", "a"], ["p"]), N("Mul", ["p", "b"], ["y"])]
    factors = {"a": 1 + 2.0**-12, "b": 1 - 2.0**-12 + 2.0**-24}
    constants = {"w": np.full((1, 1), 3, np.float32)} | {key: np.array(f, np.float32) for key, f in factors.items()}
    model = build(nodes, constants, (1, 1))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 1]))
    onnx.save(model, tmp_path / "a.onnx")
    onnx.save(merge(tmp_path / "a.onnx", tmp_path / "a.onnx"), tmp_path / "both.onnx")
    pair, one = split_merged(read_network(tmp_path / "both.onnx")), np.ones(1)
    ranges = Bounder(pair, (Engine(pair.first, 1), Engine(pair.second, 1))).bound(one, one).ranges[-1]
    exact = 9 * Fraction(1 + 2.0**-12) * Fraction(1 - 2.0**-12 + 2.0**-24)
    for network in (FIRST, SECOND):
        assert Fraction(ranges.lower[network, 0, 0]) <= exact <= Fraction(ranges.upper[network, 0, 0])


def test_changes_are_differences_of_weights(tmp_path: Path) -> None:
    one = case(tmp_path, "skip")
    pair = one.pair
    for terms in pair.terms:
        for term in terms:
            assert abs(term.second.matrix - term.first.matrix - term.change.matrix).max() == 0
    assert pair.entries == one.first.nonzeros + one.second.nonzeros
    bias = one.second.nodes[1].bias.astype(float) - one.first.nodes[1].bias
    np.testing.assert_array_equal(pair.shifts[1].value[2], bias)


def test_other_architectures_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    small, deep = case(tmp_path, "fc").first, case(tmp_path / "x", "fc-deep").first
    with pytest.raises(UserError, match=r"they have 3 and 4 layers; allowed are two networks of one architecture"):
        Pair(small, deep)
    with pytest.raises(UserError, match=r"inputs of the shapes \(3,\) and \(1, 4, 4\)"):
        Pair(small, case(tmp_path / "x", "conv").first)
    wider = replace(small.nodes[-1], shape=(1, 3))
    with pytest.raises(UserError, match="has another shape or other inputs in the second"):
        Pair(small, Network("other", small.input_shape, (*small.nodes[:-1], wider)))


def test_a_joined_file_of_two_architectures_is_unsupported_and_says_which_is_which(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    small, deep = case(tmp_path, "fc").first, case(tmp_path / "x", "fc-deep").first
    with pytest.raises(UnsupportedError, match=r"the first of .* and the second of .* they have 3 and 4 layers"):
        split_merged(joined(small, deep))


def test_what_is_no_pair_is_unsupported(tmp_path: Path) -> None:
    network = case(tmp_path, "conv").first
    with pytest.raises(UnsupportedError, match=r"both halves of its outputs depend on .*bench\.verify --with"):
        split_merged(network)
    odd = case(tmp_path, "fc").first
    with pytest.raises(UnsupportedError, match=r"has 3 outputs; a pair of .* number: .*bench\.verify --with"):
        split_merged(odd)


def test_a_value_that_is_taken_twice_is_unsupported(tmp_path: Path) -> None:
    network = case(tmp_path, "fc").first
    last = network.nodes[-1]
    twice = replace(last, terms=(*last.terms, last.terms[0]))
    doubled = Network("twice", network.input_shape, (*network.nodes[:-1], twice))
    with pytest.raises(UnsupportedError, match="takes one value twice"):
        Pair(doubled, doubled)
    first = replace(network.nodes[1], terms=(Term(0, True, network.nodes[1].terms[0].matrix),))
    on_input = Network("relu of the input", network.input_shape, (network.nodes[0], first, *network.nodes[2:]))
    with pytest.raises(UnsupportedError, match="a ReLU on the input itself isn't taken"):
        Pair(on_input, on_input)
