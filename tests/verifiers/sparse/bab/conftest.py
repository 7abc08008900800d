from __future__ import annotations

import pytest

from prunecert.verifiers.sparse.warmup import warm_up


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    """Compiling is no part of a question's time."""
    warm_up()
