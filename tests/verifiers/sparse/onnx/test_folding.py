"""What is folded together computes the same, within the errors that are accounted for."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

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


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    exact=st.tuples(st.booleans(), st.booleans()),
    unit=st.tuples(st.booleans(), st.booleans()),
    apart=st.booleans(),
)
def test_what_was_rounded_before_is_not_rounded_again(
    seed: int, exact: tuple[bool, bool], unit: tuple[bool, bool], apart: bool
) -> None:
    """A float32 number that stands for one up to half a unit away, and a product of it, are within the error."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int, ones: bool) -> NDArray[np.float32]:
        # Just above a power of 2, where rounding moves a number most for its size.
        values = 1 + rng.integers(0 if ones else 1, 1 if ones else 40, shape) * 2.0**-23
        signed: NDArray[np.float32] = (values * rng.choice([-1, 1], shape)).astype(np.float32)
        return signed

    inner = np.diag(weights(3, ones=unit[0])) if apart else weights(3, 2, ones=unit[0])
    outer = np.diag(weights(3, ones=unit[1]))
    inputs = inner.shape[1]
    biases = rng.standard_normal((2, 3)) * (rng.random() < 0.7)
    plain = [
        Draft("input", (inputs,), (), np.zeros(inputs), np.zeros(inputs)),
        Draft("inner", (3,), (Term(0, False, dense(inner), exact[0]),), biases[0], np.zeros(3)),
        Draft("outer", (3,), (Term(1, False, dense(outer), exact[1]),), biases[1], np.zeros(3)),
    ]
    nodes = finish(fold(plain, 2))
    if all(exact):
        assert len(nodes) == 2
    if len(nodes) > 2:
        return
    ((term,), stored) = nodes[1].terms, nodes[1]
    slack = Fraction(2) ** -24
    for i in range(3):
        for j in range(inputs):
            moves = [[Fraction(0)] if each else [-slack, slack] for each in exact]
            for one, other in itertools.product(*moves):
                real = Fraction(float(inner[i, j])) * (1 + one) * Fraction(float(outer[i, i])) * (1 + other)
                assert abs(Fraction(float(term.matrix[i, j])) - real) <= Fraction(WEIGHT_ERROR) * abs(real)
                bias = Fraction(float(outer[i, i])) * (1 + other) * Fraction(biases[0, i]) + Fraction(biases[1, i])
                assert abs(Fraction(float(stored.bias[i])) - bias) <= Fraction(float(stored.bias_error[i]))
                assert term.exact <= all(exact)


def test_branches_that_were_rounded_before_are_not_summed() -> None:
    """Two linear branches of one value are one matrix where their weights are the file's."""
    rng = np.random.default_rng(0)
    first, second = (dense(rng.standard_normal((3, 3)).astype(np.float32)) for _ in range(2))
    one = dense(np.eye(3, dtype=np.float32))
    zeros = np.zeros(3)
    for exact in (True, False):
        plain = [
            Draft("input", (3,), (), zeros, zeros),
            Draft("first", (3,), (Term(0, False, first, exact),), zeros, zeros),
            Draft("second", (3,), (Term(0, False, second, exact),), zeros, zeros),
            Draft("sum", (3,), (Term(1, False, one), Term(2, False, one)), zeros, zeros),
        ]
        assert len(fold(plain, 3)) == (2 if exact else 4)


def test_choices_of_choices_are_one() -> None:
    """Repeating places along one axis and then along the other takes one node."""
    zeros = [np.zeros(size) for size in (2, 4, 8)]
    plain = [
        Draft("input", (2,), (), zeros[0], zeros[0]),
        Draft(
            "across",
            (4,),
            (Term(0, False, dense(np.repeat(np.eye(2, dtype=np.float32), 2, axis=0))),),
            zeros[1],
            zeros[1],
        ),
        Draft("down", (8,), (Term(1, False, dense(np.tile(np.eye(4, dtype=np.float32), (2, 1)))),), zeros[2], zeros[2]),
    ]
    _, node = finish(fold(plain, 2))
    (term,) = node.terms
    assert term.exact
    assert term.matrix.nnz == 8
    np.testing.assert_array_equal(term.matrix.toarray() @ [1, 2], [1, 1, 2, 2, 1, 1, 2, 2])
