"""Convolutional networks without batch norm.

The layers follow the Small and Large CNN that the certified-training literature uses since Wong et al. 2018
("Scaling provable adversarial defenses"); `cnn_small` has the layers of CNN-A of the beta-CROWN paper.
"""

from __future__ import annotations

from torch import nn


def cnn_small() -> nn.Module:
    """Two convolutions and two linear layers; 214,760 prunable weights, 6,244 ReLUs."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 8 * 8, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def cnn_large() -> nn.Module:
    """Four convolutions and three linear layers; 2,465,632 prunable weights, 62,464 ReLUs."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=1, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=1, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def cnn7() -> nn.Module:
    """The seven layers of the certified-training literature (Shi et al. 2021), without batch norm.

    17,189,568 prunable weights, 229,888 ReLUs.
    """
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=1, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=1, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(128, 128, 3, stride=1, padding=1),
        nn.ReLU(),
        nn.Conv2d(128, 128, 3, stride=1, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128 * 16 * 16, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )
