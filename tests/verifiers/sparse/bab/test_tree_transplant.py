"""A stored tree in the terms of the neurons that are unstable now."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunecert.verifiers.sparse.bab.tree_transplant import Planted, plant
from tests.verifiers.sparse.forging import Entry, tree

#: The box, split by neuron 0, and its active half by neuron 2: parent, neuron, sign, disjunct.
SPLITS: list[Entry] = [(-1, -1, 0, 1), (0, 0, 1, 1), (0, 0, -1, 1), (1, 2, 1, 1), (1, 2, -1, 1)]
SAME = np.arange(4)


def planted(place: list[int], phase: list[int] | None = None, width: int = 4) -> Planted:
    result = plant(
        tree(SPLITS),
        {1: 0},
        np.array(place),
        np.array(phase or [1] * 4, dtype=np.int8),
        np.full(width, 0.25, dtype=np.float32),
    )
    assert result is not None
    return result


def leaves(tree_: Planted) -> set[tuple[int, ...]]:
    return {tuple(signs) for signs in tree_.signs[~tree_.inner].tolist()}


def test_on_the_same_neurons_it_is_the_same_tree() -> None:
    result = planted(SAME.tolist())
    assert len(result.parent) == 5
    assert leaves(result) == {(1, 0, 1, 0), (1, 0, -1, 0), (-1, 0, 0, 0)}
    assert np.all(result.disjunct == 0)


def test_neurons_go_by_their_new_numbers() -> None:
    assert leaves(planted([2, 3, 0, 1])) == {(1, 0, 1, 0), (-1, 0, 1, 0), (0, 0, -1, 0)}


def test_a_split_of_a_stable_neuron_goes_down_its_phase() -> None:
    """Whatever the other half was: it is empty now."""
    active, inactive = planted([-1, 1, 2, 3]), planted([-1, 1, 2, 3], [-1, 1, 1, 1])
    assert leaves(active) == {(0, 0, 1, 0), (0, 0, -1, 0)}
    assert leaves(inactive) == {(0, 0, 0, 0)}


def test_without_the_open_disjunct_there_is_no_tree() -> None:
    default = np.zeros(4, dtype=np.float32)
    assert plant(tree(SPLITS), {0: 0}, SAME, np.ones(4, dtype=np.int8), default) is None


@given(
    numbers=st.permutations([0, 1, 2, 3, 4]),
    stable=st.sets(st.integers(0, 3)),
    phases=st.lists(st.sampled_from([-1, 1]), min_size=4, max_size=4),
)
def test_leaves_cover_every_point_whatever_has_become_stable(
    numbers: list[int], stable: set[int], phases: list[int]
) -> None:
    place = [-1 if old in stable else numbers[old] for old in range(4)]
    result = planted(place, phases, width=5)
    for entry in range(len(result.parent)):
        parent = int(result.parent[entry])
        assert parent < entry
        if parent >= 0:
            expected = result.signs[parent].copy()
            expected[result.neuron[entry]] = result.sign[entry]
            np.testing.assert_array_equal(result.signs[entry], expected)
    table = result.signs[~result.inner]
    # Each pattern of phases is that of one leaf.
    for bits in range(2**5):
        pattern = np.array([1 if bits >> k & 1 else -1 for k in range(5)])
        assert ((table * pattern >= 0).all(axis=1)).sum() == 1
    assert np.all((result.alpha >= 0) & (result.alpha <= 1))
    assert np.all(result.alpha[:, numbers[4]] == np.float32(0.25))
    assert not result.beta.any()
