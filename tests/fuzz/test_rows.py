"""A few changed files in every run of the tests; ``python -m tests.fuzz.rows`` tries thousands."""

from __future__ import annotations

import pytest

from tests.fuzz.rows import fuzz


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1, 2])
def test_changed_files_are_answered_or_refused(seed: int) -> None:
    assert fuzz(40, seed) == []
