from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.checker.nodes import Conv
from tests.verifiers.checker.test_network import CONVOLUTIONS, MODELS, RNG


@pytest.mark.parametrize("name", MODELS)
def test_backward_is_the_transpose_of_forward(name: str) -> None:
    for node in read_network(MODELS[name]).nodes[1:]:
        if node.relu:
            continue
        nodes = read_network(MODELS[name]).nodes
        sources = [RNG.standard_normal((1, nodes[source].size)) for source in node.sources]
        rows = RNG.standard_normal((1, node.size))
        left = (rows * node.forward(sources, np.asarray)).sum()
        right = sum((part * value).sum() for part, value in zip(node.backward(rows), sources, strict=True))
        assert left == pytest.approx(right, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, len(CONVOLUTIONS) - 1), st.floats(0, 1))
def test_rows_of_few_numbers_go_another_way_to_the_same_end(seed: int, number: int, share: float) -> None:
    rng, more = np.random.default_rng(seed), CONVOLUTIONS[number]
    kernel = rng.standard_normal((6, 4 // more.get("group", 1), 3, 2)) * (rng.random((6, 1, 3, 2)) < share)
    node = Conv(0, (4, 6, 5), kernel, np.zeros(6), more, 0.0)
    rows = np.zeros((300, node.size))
    rows[rng.integers(300, size=2), rng.integers(node.size, size=2)] = 1.0
    dense = np.concatenate([node.backward(rows[at : at + 1])[0] for at in range(300)])
    few = node.backward(rows)[0]
    eye = node.forward([np.eye(4 * 6 * 5)], np.asarray)
    np.testing.assert_allclose(few, rows @ eye.T, atol=1e-12)
    np.testing.assert_allclose(dense, few, atol=1e-12)
