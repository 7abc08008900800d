"""The examples in the docstrings of the public entrances run, and say what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module",
    ["prunecert.models", "prunecert.models.checkpoint", "prunecert.models.export", "prunecert.models.pruners.lwm"],
)
def test_examples_hold(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted > 0
    assert results.failed == 0
