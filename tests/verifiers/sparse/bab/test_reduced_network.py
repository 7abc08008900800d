"""What is left of a network over a box."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.bab.reduced_network import reduce
from prunecert.verifiers.sparse.quantised.question import quantised
from tests.verifiers.sparse.bab.test_dual import KINDS, prepared
from tests.verifiers.sparse.quantised.networks import KINDS as QUANTISED
from tests.verifiers.sparse.quantised.networks import Kind
from tests.verifiers.sparse.quantised.networks import network as quantised_network
from tests.verifiers.sparse.searching import Prepared


@pytest.mark.parametrize("kind", KINDS)
def test_the_reduced_network_is_the_network(kind: str, tmp_path: Path) -> None:
    question = prepared(kind, 1, tmp_path)
    net, width = question.net, question.net.unstable
    assert width > 3
    t = np.random.default_rng(0).uniform(-1, 1, (50, len(net.pixels)))
    values = question.checker.network.forward(net.point(t))
    z = t @ net.M.T.astype(float) + net.c
    for start, stop in (*net.levels, (width, len(net.c))):
        z[:, start:stop] += np.maximum(z[:, :start], 0) @ net.N[start:stop, :start].T
    for number, (node, index) in enumerate(zip(net.nodes, net.indices, strict=True)):
        np.testing.assert_allclose(z[:, number], values[node][:, index], atol=1e-5)
    np.testing.assert_allclose(z[:, width:], values[-1] @ question.rows.T - question.offsets, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_its_neurons_are_the_unstable_ones_and_read_only_earlier_nodes(kind: str, tmp_path: Path) -> None:
    question = prepared(kind, 1, tmp_path)
    net = question.net
    assert np.all(net.lower < 0)
    assert np.all(net.upper > 0)
    assert [net.nodes[start] for start, _ in net.levels] == sorted(set(net.nodes.tolist()))
    for start, stop in net.levels:
        assert len(set(net.nodes[start:stop].tolist())) == 1
        assert not net.N[start:stop, start:].any()


def test_inputs_that_cannot_vary_are_part_of_the_constants(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    bounds, checker = question.bounds, question.checker
    bounds.upper[0][1] = bounds.lower[0][1]
    net = reduce(checker, bounds, question.rows, question.offsets)
    assert 1 not in net.pixels
    assert net.M.shape[1] == len(bounds.lower[0]) - 1
    assert np.all(net.point(np.zeros((2, len(net.pixels))))[:, 1] == bounds.lower[0][1])


def test_after_the_deadline_it_gives_up(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    with pytest.raises(TimeoutError):
        reduce(question.checker, question.bounds, question.rows, question.offsets, time.monotonic() - 1)


@pytest.mark.parametrize("kind", QUANTISED)
def test_what_rounding_adds_to_a_neuron_is_a_pixel_that_no_input_moves(kind: Kind) -> None:
    network = quantised(quantised_network(kind, 1), "net").network
    rng = np.random.default_rng(0)
    center = rng.random(network.nodes[0].size)
    question = Prepared(network, center - 0.1, center + 0.1, OutputSpec.robustness(0, 3))
    net, bounds, inputs = question.net, question.bounds, network.nodes[0].size
    live = [np.flatnonzero(bounds.upper[node] > 0) for node in network.roundings]
    assert np.array_equal(net.pixels[inputs:], inputs + np.arange(sum(len(places) for places in live)))
    t = rng.uniform(-1, 1, (20, len(net.pixels)))
    columns = np.split(t[:, inputs:], np.cumsum([len(places) for places in live])[:-1], axis=1)
    values = [net.point(t)]
    for number, node in enumerate(network.nodes[1:], 1):
        total = np.tile(node.bias.astype(np.float64), (len(t), 1))
        for term in node.terms:
            value = values[term.source]
            total += (term.matrix.astype(np.float64) @ (np.maximum(value, 0) if term.activated else value).T).T
        if number in network.roundings:
            place = network.roundings.index(number)
            total[:, live[place]] += columns[place] * node.bias_error[live[place]]
        values.append(total)
    z = t @ net.M.T.astype(float) + net.c
    for start, stop in (*net.levels, (net.unstable, len(net.c))):
        z[:, start:stop] += np.maximum(z[:, :start], 0) @ net.N[start:stop, :start].T
    for number, (at, index) in enumerate(zip(net.nodes, net.indices, strict=True)):
        np.testing.assert_allclose(z[:, number], values[at][:, index], atol=2e-5)
    np.testing.assert_allclose(z[:, net.unstable :], values[-1] @ question.rows.T - question.offsets, atol=2e-5)
