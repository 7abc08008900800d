from __future__ import annotations

import pytest

from prunecert.bench.site.svg import ChartAxis


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0], [0.001, 4000.0], [0.037, 0.039], [12.0, 87.0], []])
def test_axes_have_round_ticks_within_their_range(values: list[float], log: bool) -> None:
    axis = ChartAxis(values, 0.0, 100.0, log=log)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 10
    assert all(-1e-6 <= axis(tick) <= 100 + 1e-6 for tick in ticks)
    assert all(0 <= axis(value) <= 100 for value in values)
