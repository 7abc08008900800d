"""Types are those that are written, in the tests, too."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from tests import house


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed (extra lint)")
def test_mypy_has_nothing_to_say() -> None:
    """A minute of one core, which the others' tests are run beside."""
    run = subprocess.run([sys.executable, "-m", "mypy"], cwd=house.ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
