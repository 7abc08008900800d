"""VGG-16 with batch normalisation (Simonyan & Zisserman 2015), with 256-256-10 heads (Sehwag et al. 2019, 2020)."""

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


def vgg16_ap(width: int = 64) -> nn.Sequential:
    """The same without the last pooling, so that the head sees 2x2 places, as the Adversarial Pruning benchmark has it.

    15,302,848 prunable weights and 276,992 ReLUs at the usual width.

    Args:
        width: Channels of the first convolutions; the others and the head are in proportion.
    """
    layers: list[nn.Module] = []
    inputs = 3
    for channels in _CHANNELS[:-1]:
        if isinstance(channels, str):
            layers.append(nn.MaxPool2d(2))
        else:
            outputs = channels * width // 64
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
    hidden = 4 * width
    head = [nn.Linear(4 * inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 10)]
    return nn.Sequential(*layers, nn.Flatten(), *head)
