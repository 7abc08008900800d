"""Small modules, and verifier processes that end with the tests that started them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

import prunecert


@pytest.fixture(name="small")
def _small() -> nn.Module:
    """A convolution with batch norm and two linear layers, for inputs [1, 4, 4], three classes."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )
    net(torch.rand(32, 1, 4, 4))
    return net.eval()


@pytest.fixture(scope="session", autouse=True)
def _closed() -> Iterator[None]:
    yield
    prunecert.close()
