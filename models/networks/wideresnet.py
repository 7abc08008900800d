"""Wide residual networks (Zagoruyko & Komodakis 2016) with pre-activation blocks."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


class PreactivationBlock(nn.Module):
    """BN-ReLU-conv-BN-ReLU-conv plus the input, or plus a 1x1 convolution of the activated input.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        activated = self.relu1(self.bn1(x))
        residual = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        return cast(Tensor, residual + (x if self.shortcut is None else self.shortcut(activated)))


def wrn_28_4() -> nn.Module:
    """Wide ResNet 28-4: three groups of four blocks with 64, 128 and 256 channels."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
    inputs = 16
    for outputs, stride in ((64, 1), (128, 2), (256, 2)):
        for block in range(4):
            layers.append(PreactivationBlock(inputs, outputs, stride if block == 0 else 1))
            inputs = outputs
    layers += [nn.BatchNorm2d(inputs), nn.ReLU(), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(inputs, 10)]
    return nn.Sequential(*layers)
