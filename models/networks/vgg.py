"""VGG-16 with batch normalisation (Simonyan & Zisserman 2015), with the 256-256-10 head of Sehwag et al. 2019."""

from __future__ import annotations

from torch import nn

_CHANNELS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool")


def vgg16() -> nn.Module:
    """Thirteen 3x3 convolutions with batch norm, five max-poolings, three linear layers."""
    layers: list[nn.Module] = []
    inputs = 3
    for channels in _CHANNELS:
        if isinstance(channels, str):
            layers.append(nn.MaxPool2d(2))
        else:
            # No bias: batch norm has one.
            layers += [nn.Conv2d(inputs, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            inputs = channels
    head = [nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)]
    return nn.Sequential(*layers, nn.Flatten(), *head)
