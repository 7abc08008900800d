from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.vnnlib import fuzz


@pytest.mark.slow
def test_three_hundred_files(tmp_path: Path) -> None:
    outcomes, faults = fuzz(300, 0, tmp_path)
    assert not faults, faults[0]
    assert outcomes["read and compared"] > 30
    assert outcomes["refused"] > 30
