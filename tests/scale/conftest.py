"""Runs of an hour's length are left out unless they are asked for by name."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips the tests marked `scale`, visibly, unless ``-m`` names the mark."""
    if "scale" in str(config.getoption("markexpr")):
        return
    skip = pytest.mark.skip(reason="takes many minutes; run it with: pytest tests/scale -m scale")
    for item in items:
        if item.get_closest_marker("scale"):
            item.add_marker(skip)
