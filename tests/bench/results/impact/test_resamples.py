from __future__ import annotations

import numpy as np
import pytest

from prunecert.bench.results.impact import resamples
from prunecert.bench.results.impact.resamples import draws, slices


def test_each_resample_has_as_many_and_each_thing_is_as_likely() -> None:
    drawn = draws(50, 4000, 3)
    assert drawn.shape == (4000, 50)
    assert (drawn.sum(axis=1) == 50).all()
    # A thing's count has variance (1 - 1/50), so that its mean over 4,000 resamples is within 4 deviations of 1.
    assert np.abs(drawn.mean(axis=0) - 1).max() < 4 * np.sqrt(0.98 / 4000)
    assert not (draws(50, 4000, 4) == drawn).all()


def test_slices_hold_everything_once_and_nobody_writes_into_what_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resamples, "SLICE", 70)
    parts = slices(7, 25)
    assert [len(range(25)[part]) for part in parts] == [10, 10, 5]
    drawn = draws(7, 25, 99)
    assert (drawn.sum(axis=1) == 7).all()
    with pytest.raises(ValueError, match="read-only"):
        drawn[0, 0] = 1
