"""What tests of processes share."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.verifiers.process import loaded
from tests.verifiers import faulty


@pytest.fixture(name="cold")
def _cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cold verifier keeps what its first start, which takes a second, makes."""
    loaded._announce.cache_clear()
    kept = tmp_path / "kept"
    monkeypatch.setenv(faulty.KEPT, str(kept))
    return kept
