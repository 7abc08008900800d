"""What a thread walks with lies where vectors are read at once."""

from __future__ import annotations

import numpy as np
import pytest

from prunecert.verifiers.sparse.arrays import LANES32, PAIRED_LANES32
from prunecert.verifiers.sparse.crown.scratch import make_scratch


@pytest.mark.parametrize("flat", [False, True])
def test_scratch_lies_on_cache_lines(flat: bool) -> None:
    scratch = make_scratch(37, 11, flat)
    assert scratch.coefficients.shape == (37, PAIRED_LANES32)
    assert scratch.narrow.shape == (37, LANES32)
    assert scratch.coefficients.ctypes.data % 64 == 0
    assert scratch.narrow.ctypes.data % 64 == 0
    assert len(scratch.touched) == (37 + 8 if flat else 0)
    # Eight flags are read as one word.
    assert len(scratch.flags) % 8 == 0
    assert np.shares_memory(scratch.flags, scratch.words)
