"""Networks with batch norm that training can bound: convolutions of stride 2 stand in place of pooling.

Batch norm follows every hidden layer, which therefore has no bias of its own; export folds it into the layer's weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

#: Mean and standard deviation of the channels of CIFAR-10, as CTRAIN standardises its images.
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class Standardise(nn.BatchNorm2d):
    """Subtracts a mean and divides by a standard deviation, of each channel; never trained, in no mode.

    Folded into the convolution behind it the mean would be wrong in its padding, which stands for the mean colour.

    Args:
        mean: Of the channels.
        std: Likewise.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(len(mean), eps=0.0)
        assert self.running_mean is not None
        assert self.running_var is not None
        self.running_mean.copy_(torch.tensor(mean))
        self.running_var.copy_(torch.tensor(std) ** 2)
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Standardise:
        """Stays in evaluation mode."""
        super().train(False)
        return self

    def reset_running_stats(self) -> None:
        """Keeps the statistics that were given."""


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def _dense(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]


def cnn_small_bn() -> nn.Sequential:
    """`cnn_small` with batch norm after every hidden layer; 214,760 prunable weights, 6,244 ReLUs."""
    return nn.Sequential(
        *_conv(3, 16, 4, stride=2),
        *_conv(16, 32, 4, stride=2),
        nn.Flatten(),
        *_dense(32 * 8 * 8, 100),
        nn.Linear(100, 10),
    )


def cnn5(width: int = 64, hidden: int = 512) -> nn.Sequential:
    """CNN5 of Mao et al. 2024: three convolutions, two linear layers; 4,397,760 prunable weights, 90,624 ReLUs.

    Args:
        width: Channels of the first two convolutions; the third has twice as many.
        hidden: Neurons of the hidden linear layer.
    """
    return nn.Sequential(
        *_conv(3, width, 3),
        *_conv(width, width, 4, stride=2),
        *_conv(width, 2 * width, 4, stride=2),
        nn.Flatten(),
        *_dense(2 * width * 8 * 8, hidden),
        nn.Linear(hidden, 10),
    )


def cnn5_standardised(width: int = 64, hidden: int = 512) -> nn.Module:
    """CNN5 behind a standardisation of the images, as CTRAIN has it; see `cnn5`."""
    return nn.Sequential(Standardise(CIFAR_MEAN, CIFAR_STD), *cnn5(width, hidden))


def cnn7_standardised(width: int = 64, hidden: int = 512) -> nn.Module:
    """CNN7 of Shi et al. 2021 with batch norm, behind a standardisation of the images, as CTRAIN has it.

    Args:
        width: Channels of the first two convolutions; the other three have twice as many.
        hidden: Neurons of the hidden linear layer.
    """
    return nn.Sequential(
        Standardise(CIFAR_MEAN, CIFAR_STD),
        *_conv(3, width, 3),
        *_conv(width, width, 3),
        *_conv(width, 2 * width, 3, stride=2),
        *_conv(2 * width, 2 * width, 3),
        *_conv(2 * width, 2 * width, 3),
        nn.Flatten(),
        *_dense(2 * width * 16 * 16, hidden),
        nn.Linear(hidden, 10),
    )


def vgg_8() -> nn.Module:
    """Six 3x3 convolutions in pairs, as in VGG, the second of each with stride 2.

    813,408 prunable weights, 71,936 ReLUs.
    """
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (32, 64, 128):
        layers += _conv(inputs, outputs, 3) + _conv(outputs, outputs, 3, stride=2)
        inputs = outputs
    return nn.Sequential(*layers, nn.Flatten(), *_dense(128 * 4 * 4, 256), nn.Linear(256, 10))


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN plus the input, or plus a 1x1 convolution with BN of it; then ReLU (He et al. 2016).

    Args:
        inputs: Input channels.
        outputs: Output channels.
        stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        residual = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return cast(Tensor, self.relu2(residual + self.shortcut(x)))


def resnet_2b() -> nn.Module:
    """Two residual blocks, the shape of VNN-COMP's resnet_2b, wider; 1,183,072 prunable weights, 24,832 ReLUs."""
    return nn.Sequential(
        *_conv(3, 32, 3, stride=2),
        ResidualBlock(32, 64, 2),
        ResidualBlock(64, 64, 1),
        nn.Flatten(),
        *_dense(64 * 8 * 8, 256),
        nn.Linear(256, 10),
    )
