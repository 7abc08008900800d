"""A folder of three shipped entries, for all tests of this folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

ENTRIES = Path(__file__).parents[3] / "results" / "leaderboard"


@pytest.fixture(scope="session")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a dense network and two pruned ones, of a thousand images each."""
    folder = tmp_path_factory.mktemp("entries")
    for name in ("dense_x1", "lwm_x100", "hydra_x100"):
        for path in ENTRIES.glob(f"cnn-small_ibp_eps2_{name}_s0.*.json"):
            # The methods' suite has entries of these cells, too.
            if json.loads(path.read_text())["protocol"]["suite"] == "cifar10-4nets":
                shutil.copy(path, folder)
    return folder
