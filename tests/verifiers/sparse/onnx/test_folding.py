"""What is folded together computes the same, within the errors that are accounted for."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.network import WEIGHT_ERROR, Network, Term
from prunecert.verifiers.sparse.onnx.folding import Draft, finish, fold
from prunecert.verifiers.sparse.onnx.layers import dense, diagonal


def drafts(seed: int, relu: bool) -> list[Draft]:
    """Returns input, dense layer, scaling, and a dense layer over the ReLU or the value of it, and a dead end."""
    rng = np.random.default_rng(seed)

    def draft(name: str, size: int, *terms: Term) -> Draft:
        bias = rng.standard_normal(size) if terms else np.zeros(size)
        return Draft(name, (size,), terms, bias, np.zeros(size))

    first, last = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 4), (3, 5)))
    factors = rng.standard_normal(5).astype(np.float32)
    return [
        draft("input", 4),
        draft("first", 5, Term(0, False, dense(first))),
        draft("scaled", 5, Term(1, False, diagonal(factors))),
        draft("output", 3, Term(2, relu, dense(last))),
        draft("unused", 5, Term(0, False, dense(first))),
    ]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), relu=st.booleans())
def test_a_folded_network_is_within_its_errors(seed: int, relu: bool) -> None:
    plain = drafts(seed, relu)
    nodes = finish(fold(plain, 3))
    assert [node.name for node in nodes] == (["input", "scaled", "output"] if relu else ["input", "output"]) or not relu
    assert "unused" not in [node.name for node in nodes]
    network = Network("net", (4,), nodes)
    x = np.random.default_rng(seed).standard_normal((1, 4))
    values = x
    for draft in plain[1:4]:
        (term,) = draft.terms
        values = (np.maximum(values, 0) if term.activated else values) @ term.matrix.toarray().astype(
            float
        ).T + draft.bias
    np.testing.assert_allclose(network.evaluate(x), values, rtol=1e-4, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_products_of_weights_are_within_the_error_that_is_charged(seed: int) -> None:
    plain = drafts(seed, relu=True)
    nodes = finish(fold(plain, 3))
    scaled = nodes[1]
    (term,) = scaled.terms
    assert not term.exact
    assert nodes[2].terms[0].exact
    first, factors = plain[1].terms[0].matrix.toarray(), plain[2].terms[0].matrix.diagonal()
    for i in range(5):
        for j in range(4):
            exact = Fraction(float(factors[i])) * Fraction(float(first[i, j]))
            stored = Fraction(float(term.matrix[i, j]))
            assert abs(stored - exact) <= Fraction(WEIGHT_ERROR) * abs(exact) + Fraction(2) ** -149
        bias = Fraction(float(factors[i])) * Fraction(plain[1].bias[i]) + Fraction(plain[2].bias[i])
        assert abs(Fraction(float(scaled.bias[i])) - bias) <= Fraction(float(scaled.bias_error[i]))


def test_what_two_read_stays_a_node() -> None:
    rng = np.random.default_rng(0)
    shared = drafts(0, relu=False)[:3]
    last = dense(rng.standard_normal((3, 5)).astype(np.float32))
    both = Draft("output", (3,), (Term(2, False, last), Term(2, True, last)), np.zeros(3), np.zeros(3))
    assert [draft.name for draft in fold([*shared, both], 3)] == ["input", "scaled", "output"]
