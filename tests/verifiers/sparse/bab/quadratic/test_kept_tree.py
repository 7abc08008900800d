from __future__ import annotations

import numpy as np

from prunecert.verifiers.sparse.bab.quadratic.kept_tree import PRECISION, KeptLeaf, KeptTree, stored
from prunecert.verifiers.sparse.bab.quadratic.last_layer import FAR, LEAST, Multipliers
from prunecert.verifiers.sparse.proofs.certificate import Slopes


def leaf(size: int = 3) -> KeptLeaf:
    rng = np.random.default_rng(size)
    return KeptLeaf.of(Multipliers(rng.normal(size=2), rng.random(2), rng.random(size), rng.normal(size=size)))


def test_numbers_are_kept_as_they_are_stored() -> None:
    dual = Multipliers(np.array([1 / 3]), np.array([0.1]), np.array([0.7, 0.0]), np.array([1e9, 1 / 3]))
    kept = KeptLeaf.of(dual)
    again = KeptLeaf.of(kept.multipliers)
    for name in ("m", "p", "D", "v"):
        assert np.array_equal(getattr(kept, name), getattr(again, name))
        np.testing.assert_allclose(getattr(kept.multipliers, name)[0], np.minimum(getattr(dual, name)[0], FAR), 1e-3)
    # What nothing depends on costs next to nothing, and not less than a bound may take off for it.
    assert 0 < kept.multipliers.D[1] <= LEAST * (1 + 1e-6)


def test_slopes_survive_being_stored() -> None:
    slopes = stored(np.concatenate([[-0.1, 0.0, 1.0, 1.2], np.random.default_rng(0).random(1000)]))
    written = Slopes(slopes[None].astype(np.float32), PRECISION).encoded()
    # As the checker reads them.
    assert np.array_equal(np.frombuffer(written[1:], dtype="<u2") / 65535.0, slopes)
    assert slopes.min() == 0.0
    assert slopes.max() == 1.0


def test_parts_are_numbered_and_leaves_found_again() -> None:
    tree = KeptTree(1.0)
    active, inactive = tree.split(0, 5)
    tree.prove(active, leaf())
    below = tree.split(inactive, 2)
    assert len({0, active, inactive, *below}) == 5
    assert tree.splits == {0: (5, active, inactive), inactive: (2, *below)}
    assert set(tree.leaves) == {active}


def test_leaves_beyond_the_memory_are_forgotten_all_at_once() -> None:
    one = leaf(1000)
    tree = KeptTree(2.5 * one.megabytes)
    for part in range(4):
        assert tree.forgotten == (part > 2)
        assert len(tree.leaves) == (part if part < 3 else 0)
        tree.prove(part, one)
    assert tree.forgotten
    assert not tree.leaves
