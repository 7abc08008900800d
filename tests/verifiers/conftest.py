"""What tests of auto_LiRPA's bounds have in common; they ask for it by ``pytest.mark.usefixtures``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from prunecert.verifiers.adapters import autolirpa


@pytest.fixture(scope="module")
def auto_lirpa() -> None:
    """Imports it before a test: it sets Python's recursion limit, which Hypothesis doesn't want to see changed."""
    autolirpa.library()


@pytest.fixture
def default_type() -> Iterator[None]:
    """Puts torch's default type back, which auto_LiRPA's float64 bounds change."""
    yield
    torch.set_default_dtype(torch.float32)
