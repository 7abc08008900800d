from __future__ import annotations

from pathlib import Path

from tests.fuzz.instances import fuzz


def test_three_hundred_lists(tmp_path: Path) -> None:
    outcomes, faults = fuzz(300, 0, tmp_path)
    assert not faults, faults[0]
    assert outcomes["read, some rows refused"] > 30
    assert outcomes["refused"] > 10
