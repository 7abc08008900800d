"""A network of terms is evaluated as it is written."""

from __future__ import annotations

import numpy as np
import pytest

from prunecert.verifiers.sparse import network as module
from prunecert.verifiers.sparse.network import Network, Node, Term
from prunecert.verifiers.sparse.onnx.layers import dense


def residual(seed: int, density: float = 0.5) -> Network:
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return np.where(rng.random((rows, columns)) < density, rng.standard_normal((rows, columns)), 0).astype(
            np.float32
        )

    def node(name: str, *terms: Term) -> Node:
        size = terms[0].matrix.shape[0] if terms else 5
        bias = rng.standard_normal(size).astype(np.float32)
        return Node(name, size, (size,), terms, bias, np.zeros(size, dtype=np.float32))

    nodes = (
        node("input"),
        node("first", Term(0, False, dense(matrix(7, 5)))),
        node("second", Term(1, True, dense(matrix(6, 7)))),
        node("sum", Term(2, True, dense(matrix(4, 6))), Term(1, False, dense(matrix(4, 7)))),
    )
    return Network("net", (5,), nodes)


@pytest.mark.parametrize("threads", [1, 3])
def test_values_are_the_terms_sums(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARED", 0)
    net = residual(0)
    x = np.random.default_rng(1).standard_normal((9, 5))
    values = net.forward(x, threads)
    dense_of = [[term.matrix.toarray().astype(np.float64) for term in node.terms] for node in net.nodes]
    first = x @ dense_of[1][0].T + net.nodes[1].bias
    second = np.maximum(first, 0) @ dense_of[2][0].T + net.nodes[2].bias
    total = np.maximum(second, 0) @ dense_of[3][0].T + first @ dense_of[3][1].T + net.nodes[3].bias
    for value, expected in zip(values, (x, first, second, total), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(net.evaluate(x, threads), values[-1])


def test_what_is_read_with_and_without_relu() -> None:
    net = residual(0)
    assert net.activated() == (1, 2)
    assert net.raw() == (0, 1)
    assert net.nonzeros == sum(int((term.matrix.toarray() != 0).sum()) for node in net.nodes for term in node.terms)


def test_a_network_without_weights_is_its_biases() -> None:
    net = residual(0, density=0)
    assert net.nonzeros == 0
    np.testing.assert_array_equal(net.evaluate(np.ones((2, 5))), np.tile(net.nodes[-1].bias, (2, 1)))
