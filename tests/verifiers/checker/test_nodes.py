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
        needed = [np.ones(nodes[source].size, dtype=bool) for source in node.sources]
        parts = node.backward(rows.T, np.arange(node.size), needed)
        right = sum(part[:, 0] @ value[0, live] for (part, live), value in zip(parts, sources, strict=True))
        assert left == pytest.approx(right, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, len(CONVOLUTIONS) - 1), st.floats(0, 1), st.integers(1, 30))
def test_a_rectangle_is_gone_through_as_the_whole_would_be(seed: int, number: int, share: float, count: int) -> None:
    rng, more = np.random.default_rng(seed), CONVOLUTIONS[number]
    kernel = rng.standard_normal((6, 4 // more.get("group", 1), 3, 2)) * (rng.random((6, 1, 3, 2)) < share)
    node = Conv(0, (4, 6, 5), kernel, np.zeros(6), more)
    live = np.unique(rng.integers(node.size, size=count))
    coefs = rng.standard_normal((len(live), 7))
    needed = rng.random(4 * 6 * 5) < rng.choice([0.02, 1.0])
    ((part, units),) = node.backward(coefs, live, [needed])
    assert len(np.unique(units)) == len(units)
    whole, eye = np.zeros((4 * 6 * 5, 7)), node.forward([np.eye(4 * 6 * 5)], np.asarray)
    whole[units] = part
    np.testing.assert_allclose(whole[needed], (eye[:, live] @ coefs)[needed], atol=1e-12)
