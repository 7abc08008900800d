"""Neurons are called by their places before compaction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunecert.verifiers.sparse.onnx.neuron_names import Names, names_of
from prunecert.verifiers.sparse.onnx.reader import read_network
from tests.verifiers import onnxnets


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), max_size=20))
def test_only_nodes_that_lost_neurons_are_renumbered(neurons: list[tuple[int, int]]) -> None:
    names = Names((3, 9), (None, np.array([1, 4, 8])))
    nodes, indices = (np.array([pair[k] for pair in neurons], dtype=np.int64) for k in range(2))
    expected = [(1, 4, 8)[index] if node else index for node, index in neurons]
    assert names.places(nodes, indices).tolist() == expected


def test_a_file_without_a_record_has_its_own_places(tmp_path: Path) -> None:
    path = onnxnets.connected(tmp_path / "net.onnx")
    network = read_network(path)
    names = names_of(network, path)
    assert names.layout == tuple(node.size for node in network.nodes)
    assert names.original == (None,) * len(network.nodes)
