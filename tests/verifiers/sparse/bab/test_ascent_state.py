"""The work space of the ascent."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunecert.verifiers.sparse.arrays import LANES32
from prunecert.verifiers.sparse.bab import ascent
from prunecert.verifiers.sparse.bab.ascent_state import Workspace, room


@given(neurons=st.integers(0, 9), rows=st.integers(0, 5), pixels=st.integers(0, 9), thread=st.integers(0, 3))
def test_its_parts_fill_a_thread_s_room_and_share_nothing(neurons: int, rows: int, pixels: int, thread: int) -> None:
    size = room(neurons, rows, pixels)
    assert size % LANES32 == 0
    work = np.zeros(4 * size, dtype=np.float32)
    space: Workspace = ascent._workspace.py_func(work, thread * size, neurons, rows, pixels)
    for part in space:
        part += 1
    assert np.all(work[thread * size : (thread + 1) * size] == 1)
    assert work.sum() == size
    assert len(space.lam) == len(space.best_beta) == neurons * LANES32
    assert len(space.mu) == (neurons + rows) * LANES32
    assert len(space.t) == pixels * LANES32
    assert len(space.rows) == len(space.best_weights) == rows * LANES32
    # `ascent._weigh` finds these without the slices.
    if rows:
        assert np.shares_memory(space.weights, work[thread * size + (12 * neurons + rows) * LANES32 :][:1])
        assert np.shares_memory(space.rows, work[thread * size + (12 * neurons + 3 * rows) * LANES32 :][:1])
