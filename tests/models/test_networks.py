"""The networks have the sizes that they are described with."""

from __future__ import annotations

import pytest
import torch

from prunecert.models import NETWORKS
from prunecert.models.bounds import propagate
from prunecert.models.masks import prunable


@pytest.mark.parametrize(
    ("name", "weights", "relus", "products"),
    [
        ("cnn-small", 214_760, 6_244, None),
        ("cnn-large", 2_465_632, 62_464, None),
        ("cnn5", 4_397_760, 90_624, 31_134_720),
        ("cnn7", 17_189_568, 229_888, 150_672_384),
        ("resnet-2b", 1_183_072, 24_832, 9_660_928),
        ("vgg-8", 813_408, 71_936, 17_926_656),
    ],
)
def test_sizes(name: str, weights: int, relus: int, products: int | None) -> None:
    model = NETWORKS.get(name)().eval()
    assert sum(weight.numel() for weight in prunable(model).values()) == weights
    with torch.no_grad():
        bounds = propagate(model, torch.rand(1, 3, 32, 32), 0.01)
    assert sum(center[0].numel() for center, _ in bounds.boxes) == relus
    if products is None:
        return
    multiplied = bounds.last.weight.numel()
    for index, (weight, _) in bounds.weights.items():
        multiplied += weight[0].numel() * bounds.shapes[index].numel()
    assert multiplied == products
