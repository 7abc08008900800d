from __future__ import annotations

import numpy as np

from prunecert.verifiers.sparse.bab.quadratic.kept_tree import KeptLeaf, KeptProof, KeptTree
from prunecert.verifiers.sparse.bab.quadratic.last_layer import Multipliers
from prunecert.verifiers.sparse.bab.quadratic.tree_proof import entries
from prunecert.verifiers.sparse.proofs.certificate import Parabolas, Split


def numbered(value: float) -> KeptLeaf:
    # Two inputs that vary, and two errors; one neuron of the last hidden layer.
    w = np.array([value, value + 1, value + 2, value + 3])
    return KeptLeaf.of(Multipliers(np.array([value]), np.array([0.5]), w, w / 8))


def test_parts_follow_their_splits_active_ones_first_and_numbers_are_where_a_reader_looks_for_them() -> None:
    tree = KeptTree(1.0)
    active, inactive = tree.split(0, 2)
    tree.prove(inactive, numbered(1.0))
    left, right = tree.split(active, 1)
    tree.prove(left, numbered(2.0))
    tree.prove(right, numbered(3.0))
    proof = KeptProof(
        tree=tree,
        slopes=np.array([0.2, 0.4, 1.0]),
        nodes=np.array([1, 1, 3]),
        indices=np.array([4, 6, 0]),
        weights=np.ones(1, dtype=np.float32),
        varying=np.array([1, 2]),
        inputs=4,
        improved=False,
    )
    split, below, *leaves = entries(proof, {1: 10, 3: 30})
    assert isinstance(split, Split)
    assert isinstance(below, Split)
    assert (split.node, split.neuron, below.node, below.neuron) == (30, 0, 10, 6)
    values = []
    for entry in leaves:
        assert isinstance(entry, Parabolas)
        assert entry.node == 30
        assert entry.slopes is not None
        np.testing.assert_allclose(entry.slopes.rounded(), [[0.2, 0.4, 1.0]], atol=1e-7)
        values.append(float(entry.m[0]))
        first = values[-1]
        np.testing.assert_array_equal(entry.D, np.array([0, first, first + 1, 0, first + 2, first + 3]))
        np.testing.assert_array_equal(entry.v, entry.D / 8)
    assert values == [2.0, 3.0, 1.0]
