"""A site of made-up entries, some of them nasty."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.publish import main
from tests.bench import boards
from tests.bench.boards import nasty_board


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a site of all of them."""
    folder = tmp_path_factory.mktemp("publish")
    assert main([str(boards.write(folder / "results", *nasty_board())), "--out", str(folder / "site")]) == 0
    return folder / "site"
