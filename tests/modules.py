"""Small modules that several tests ask about."""

from __future__ import annotations

import torch
from torch import nn


def small() -> nn.Sequential:
    """Returns a convolution with batch norm and two linear layers, for inputs [1, 4, 4], three classes."""
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
