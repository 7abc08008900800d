"""Small networks and a small data set for the tests of training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from models.data import Dataset


@pytest.fixture
def tiny() -> nn.Module:
    """Two convolutions and two linear layers on 3x8x8 inputs."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=1, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 20),
        nn.ReLU(),
        nn.Linear(20, 10),
    )


def blobs(count: int, split: str = "train", seed: int = 0) -> Dataset:
    """Ten classes of noisy colour patterns at CIFAR-10's shape, easy to learn."""
    patterns = np.random.default_rng(1).random((10, 3, 4, 4)).astype(np.float32)
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 10
    images = np.kron(patterns[labels], np.ones((1, 1, 8, 8), dtype=np.float32))
    images = np.clip(images + 0.1 * generator.standard_normal(images.shape), 0, 1).astype(np.float32)
    return Dataset(images, labels, np.arange(count), split, "f" * 64, True, False, "blobs")  # type: ignore[arg-type]
