"""Convolutional networks without batch norm.

The layers follow the Small and Large CNN that the certified-training literature uses since Wong et al. 2018
("Scaling provable adversarial defenses"); `cnn_small` has the layers of CNN-A of the beta-CROWN paper.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

#: CIFAR-10's images.
_SHAPE = (3, 32, 32)


def cnn_small(shape: Sequence[int] = _SHAPE, classes: int = 10) -> nn.Module:
    """Two convolutions and two linear layers; 214,760 prunable weights, 6,244 ReLUs."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )


def cnn_large(shape: Sequence[int] = _SHAPE, classes: int = 10) -> nn.Module:
    """Four convolutions and three linear layers; 2,465,632 prunable weights, 62,464 ReLUs."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, stride=1, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=1, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, classes),
    )


def cnn7(shape: Sequence[int] = _SHAPE, classes: int = 10) -> nn.Module:
    """The seven layers of the certified-training literature (Shi et al. 2021), without batch norm.

    17,189,568 prunable weights, 229,888 ReLUs.
    """
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 64, 3, stride=1, padding=1),
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
        nn.Linear(128 * -(-height // 2) * -(-width // 2), 512),
        nn.ReLU(),
        nn.Linear(512, classes),
    )
