"""Small modules, and verifier processes that end with the tests that started them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch import nn

import prunecert
from tests import modules


@pytest.fixture(name="small")
def _small() -> nn.Module:
    return modules.small()


@pytest.fixture(scope="session", autouse=True)
def _closed() -> Iterator[None]:
    yield
    prunecert.close()
