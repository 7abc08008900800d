"""ResNet-18 for images of 32x32 (He et al. 2016; without the first pooling, and with a first kernel of 3x3)."""

from __future__ import annotations

from torch import nn

from prunecert.models.networks.normalised import ResidualBlock


def resnet_18(width: int = 64) -> nn.Sequential:
    """A convolution, eight residual blocks in four groups, the mean of each channel, a linear layer.

    11,164,352 prunable weights and 557,056 ReLUs at the usual width.

    Args:
        width: Channels of the first group; each of the others has twice as many as the one before.
    """
    blocks: list[nn.Module] = []
    inputs = width
    for group in range(4):
        outputs = width * 2**group
        blocks += [ResidualBlock(inputs, outputs, 1 if group == 0 else 2), ResidualBlock(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *blocks,
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(inputs, 10),
    )
