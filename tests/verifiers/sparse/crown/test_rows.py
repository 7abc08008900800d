"""The engine that walks through the rows as the file has them: intervals by stripes, and walks, against exact ones."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.crown.engine import Engine, Question
from prunecert.verifiers.sparse.network import Network, Node, Term
from prunecert.verifiers.sparse.onnx.layers import convolution, dense
from tests.verifiers.sparse.ways import BY_ROWS, WAYS, Way


def affine(seed: int, stripes: bool) -> Network:
    """Returns two layers, of taps or of rows, that keep the sign of all hidden values positive."""
    rng = np.random.default_rng(seed)
    shape: tuple[int, ...]
    if stripes:
        weight = rng.standard_normal((2, 2, 3, 3)).astype(np.float32)
        matrix, shape = convolution(weight, (2, 6, 6), (1, 1), (1, 1, 1, 1), (1, 1), 1)
    else:
        matrix, shape = dense(rng.standard_normal((9, 72)).astype(np.float32)), (9,)
    size, zeros = matrix.shape[0], np.zeros
    first = Node(
        "first", size, shape, (Term(0, False, matrix),), np.full(size, 50, np.float32), zeros(size, np.float32)
    )
    last = dense(rng.standard_normal((3, size)).astype(np.float32))
    output = Node("output", 3, (3,), (Term(1, True, last),), zeros(3, np.float32), zeros(3, np.float32))
    none = zeros(72, np.float32)
    return Network("net", (2, 6, 6), (Node("input", 72, (2, 6, 6), (), none, none), first, output))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), stripes=st.booleans(), way=st.sampled_from(WAYS))
def test_where_no_relu_bends_the_walk_is_the_exact_minimum_but_for_rounding(seed: int, stripes: bool, way: Way) -> None:
    network = affine(seed, stripes)
    rng = np.random.default_rng(seed)
    low = rng.random(72).astype(np.float32)
    high = low + np.float32(0.1)
    rows = Engine(network, 1, **way._asdict()).bound(Question(low, high, np.eye(3), np.zeros(3))).rows
    first, last = (node.terms[0].matrix.toarray().astype(np.float64) for node in network.nodes[1:])
    line = last @ first
    least = np.where(line > 0, low, high).astype(np.float64)
    exact = (line * least).sum(axis=1) + last @ network.nodes[1].bias
    assert np.all(rows <= exact + 1e-9)
    np.testing.assert_allclose(rows, exact, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("stripes", [False, True])
def test_intervals_of_the_first_layer_are_rigorous_in_exact_arithmetic(stripes: bool) -> None:
    network = affine(3, stripes)
    low = np.random.default_rng(3).random(72).astype(np.float32)
    high = low + np.float32(0.1)
    engine = Engine(network, 1, few_entries=BY_ROWS.few_entries)
    bounds = engine.bound(Question(low, high, np.eye(3), np.zeros(3)), "ibp")
    matrix = network.nodes[1].terms[0].matrix.tocsr()
    for row in range(matrix.shape[0]):
        span = slice(matrix.indptr[row], matrix.indptr[row + 1])
        least = most = Fraction(float(network.nodes[1].bias[row]))
        for column, weight in zip(matrix.indices[span], matrix.data[span], strict=True):
            ends = [Fraction(float(weight)) * Fraction(float(side[column])) for side in (low, high)]
            least, most = least + min(ends), most + max(ends)
        assert Fraction(float(bounds.lower[1][row])) <= least
        assert Fraction(float(bounds.upper[1][row])) >= most
        assert float(most - least) * (1 + 1e-9) + 1e-9 > bounds.upper[1][row] - bounds.lower[1][row]
