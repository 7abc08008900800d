"""Layers with absolute weights, and how many products their sums have: what rounding is bounded by."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional


@dataclass
class AbsoluteLayer:
    """Absolute weights of a layer, and the products in its sums.

    Args:
        layer: Conv2d, Linear or AvgPool2d.
        weight: |W|, float64; None for an average.
        bias: |b|, shaped for broadcasting.
        forwards: Most products of a sum in a pass forwards.
        backwards: Most products of a sum in a pass backwards.
        rounded: Relative error of the weights themselves.
    """

    layer: nn.Module
    weight: torch.Tensor | None = None
    bias: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    forwards: int = 0
    backwards: int = 0
    rounded: float = 0.0

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Multiplies with |W|."""
        layer = self.layer
        if isinstance(layer, nn.Linear):
            assert self.weight is not None
            return functional.linear(values, self.weight)
        if isinstance(layer, nn.Conv2d):
            assert self.weight is not None
            return functional.conv2d(
                values, self.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups
            )
        result: torch.Tensor = layer(values)
        return result


def absolute(layer: nn.Module) -> AbsoluteLayer:
    """Makes a layer's absolute weights.

    Args:
        layer: Conv2d, Linear or AvgPool2d; its weights are taken as exact unless it has the attribute `rounded`.
    """
    if isinstance(layer, nn.AvgPool2d):
        window = layer.kernel_size if isinstance(layer.kernel_size, tuple) else (layer.kernel_size,) * 2
        area = int(np.prod(window))
        return AbsoluteLayer(layer, forwards=area, backwards=area)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    weight = layer.weight.detach().double().abs()
    used = weight != 0
    # Of groups, this counts the products of all; that is more than there are.
    meeting = used.sum(dim=(0, *range(2, used.dim())))
    shape = (1, -1, 1, 1) if isinstance(layer, nn.Conv2d) else (1, -1)
    bias = torch.zeros(1) if layer.bias is None else layer.bias.detach()
    return AbsoluteLayer(
        layer,
        weight=weight,
        bias=bias.double().abs().reshape(shape),
        forwards=int(used.flatten(1).sum(1).max()),
        backwards=int(meeting.max()),
        rounded=2.0**-23 if getattr(layer, "rounded", False) else 0.0,
    )
